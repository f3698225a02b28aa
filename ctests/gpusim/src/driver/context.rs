//! Contexts: the devices' primary ones, created ones, and the thread's stack.

use super::{output, put};
use crate::clock::Point;
use crate::context::{pop, push, top};
use crate::handle::Noun;
use crate::machine::{Machine, call, enter, lock};
use crate::schedule::finish;
use crate::status::*;
use crate::violation::violate;
use std::ffi::{c_int, c_uint};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRetain", |machine| {
        let device = machine.device(device)?;
        output(context)?;
        let primary = machine.devices[device].primary;
        if !machine.contexts.contains_key(&primary) {
            machine.create_context(primary, device, 0);
        }
        machine.devices[device].retains += 1;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(context, primary) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    let mut last = None;
    let status = call("cuDevicePrimaryCtxRelease_v2", |machine| {
        let device = machine.device(device)?;
        let found = &mut machine.devices[device];
        found.retains = found.retains.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        last = (found.retains == 0).then_some(found.primary);
        Ok(())
    });
    last.into_iter().for_each(end);
    status
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> c_int {
    call("cuDevicePrimaryCtxGetState", |machine| {
        let primary = machine.devices[machine.device(device)?].primary;
        let found = machine.contexts.get(&primary);
        // SAFETY: the caller's outputs, as cuda.h asks.
        unsafe {
            put(flags, found.map_or(0, |context| context.flags))?;
            put(active, found.is_some() as c_int)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut u64, flags: c_uint, device: c_int) -> c_int {
    call("cuCtxCreate_v2", |machine| {
        let device = machine.device(device)?;
        output(context)?;
        let handle = machine.new_handle(Noun::Context);
        machine.create_context(handle, device, flags);
        push(handle);
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(context, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxDestroy_v2(context: u64) -> c_int {
    let status = call("cuCtxDestroy_v2", |machine| {
        known(machine, context)?;
        match machine.devices.iter().any(|device| device.primary == context) {
            true => Err(INVALID_CONTEXT),
            false => Ok(()),
        }
    });
    if status == SUCCESS {
        end(context);
        if top() == Some(context) {
            pop();
        }
    }
    status
}

/// Runs the context's work, and ends it. The machine must not be locked.
fn end(context: u64) {
    let points = lock().context_points(context);
    finish(&points);
    lock().destroy_context(context);
}

impl Machine {
    /// The ends of all streams of the context.
    pub fn context_points(&self, context: u64) -> Vec<Point> {
        let streams = self.streams.iter().filter(|(_, stream)| stream.context == context);
        streams.filter_map(|(handle, _)| self.tail(*handle)).collect()
    }
}

/// Refuses a handle that is not that of a living context.
fn known(machine: &Machine, context: u64) -> Status {
    if machine.contexts.contains_key(&context) {
        return Ok(());
    }
    if Noun::Context.names(context) {
        violate(format!("context {context:#x} is used after its destruction"));
        return Err(CONTEXT_IS_DESTROYED);
    }
    Err(INVALID_CONTEXT)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut u64) -> c_int {
    // SAFETY: the caller's output, as cuda.h asks.
    call("cuCtxGetCurrent", |_| unsafe { put(context, top().unwrap_or(0)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: u64) -> c_int {
    call("cuCtxSetCurrent", |machine| {
        if context != 0 {
            known(machine, context)?;
        }
        pop();
        if context != 0 {
            push(context);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: u64) -> c_int {
    call("cuCtxPushCurrent_v2", |machine| {
        known(machine, context)?;
        push(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut u64) -> c_int {
    call("cuCtxPopCurrent_v2", |_| {
        let popped = pop().ok_or(INVALID_CONTEXT)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(context, popped) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> c_int {
    call("cuCtxGetDevice", |machine| {
        let found = machine.device_of(top().ok_or(INVALID_CONTEXT)?)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(device, found as c_int) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetApiVersion(context: u64, version: *mut c_uint) -> c_int {
    call("cuCtxGetApiVersion", |machine| {
        let context = if context == 0 { top().ok_or(INVALID_CONTEXT)? } else { context };
        known(machine, context)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(version, 3020) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> c_int {
    synchronize("cuCtxSynchronize", |machine| {
        let context = machine.current()?;
        let captures = machine.streams.values().filter(|stream| stream.context == context);
        if let Some(capture) = captures.filter_map(|stream| stream.capture).next() {
            return Err(machine.invalidate(capture, CAPTURE_UNSUPPORTED));
        }
        machine.forbid_in_capture()?;
        Ok((context, machine.context_points(context)))
    })
}

/// The body of a function that waits: for the points, in the context whose failure it reports.
pub fn synchronize(
    function: &'static str,
    points: impl FnOnce(&mut Machine) -> Status<(u64, Vec<Point>)>,
) -> c_int {
    if let Err(status) = enter(function) {
        return status;
    }
    let mut machine = lock();
    if !machine.initialised {
        return NOT_INITIALIZED;
    }
    let found = points(&mut machine);
    drop(machine);
    number(found.and_then(|(context, points)| observe(context, &points)))
}

/// Runs until the points are reached; the host knows of their work from then on.
pub fn observe(context: u64, points: &[Point]) -> Status {
    finish(points);
    let mut machine = lock();
    points.iter().for_each(|point| machine.host_clock.join(&point.clock));
    machine.usable(context)
}
