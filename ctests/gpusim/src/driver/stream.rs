//! Streams.

use super::context::synchronize;
use super::{output, put};
use crate::capture::{Mode, exchange_mode};
use crate::machine::{Machine, call};
use crate::status::*;
use crate::stream::{HostCall, Role, Work};
use std::ffi::{c_int, c_uint, c_void};

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut u64, flags: c_uint) -> c_int {
    // SAFETY: the caller's output, as cuda.h asks.
    call("cuStreamCreate", |machine| unsafe { create(machine, stream, flags) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut u64,
    flags: c_uint,
    _priority: c_int,
) -> c_int {
    // SAFETY: the caller's output, as cuda.h asks.
    call("cuStreamCreateWithPriority", |machine| unsafe { create(machine, stream, flags) })
}

/// # Safety
/// `stream` is NULL or can be written.
unsafe fn create(machine: &mut Machine, stream: *mut u64, flags: c_uint) -> Status {
    output(stream)?;
    if flags > NON_BLOCKING {
        return Err(INVALID_VALUE);
    }
    let context = machine.current()?;
    let handle = machine.add_stream(context, Role::Created { blocking: flags != NON_BLOCKING });
    // SAFETY: the caller's promise.
    unsafe { put(stream, handle) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: u64) -> c_int {
    call("cuStreamDestroy_v2", |machine| {
        if stream <= 2 {
            return Err(INVALID_HANDLE);
        }
        let found = machine.stream(stream);
        machine.abandon_capture(stream);
        // In a context that has failed the stream goes as well, though the call says that.
        machine.retire_stream(stream);
        found.map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: u64) -> c_int {
    synchronize("cuStreamSynchronize", |machine| {
        let stream = machine.stream(stream)?;
        machine.forbid_captured(stream)?;
        machine.forbid_in_capture()?;
        let context = machine.streams[&stream].context;
        Ok((context, machine.host_points(stream)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: u64) -> c_int {
    let mut found = None;
    let status = call("cuStreamQuery", |machine| {
        let stream = machine.stream(stream)?;
        machine.forbid_captured(stream)?;
        machine.forbid_in_capture()?;
        found = Some((machine.streams[&stream].context, machine.host_points(stream)));
        Ok(())
    });
    found.map_or(status, |(context, points)| super::event::poll(context, &points))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, flags: c_uint) -> c_int {
    call("cuStreamWaitEvent", |machine| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        machine.wait_event(stream, event)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetCtx(stream: u64, context: *mut u64) -> c_int {
    call("cuStreamGetCtx", |machine| {
        let found = machine.context_of(stream)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(context, found) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: u64,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> c_int {
    call("cuLaunchHostFunc", |machine| {
        let function = function.ok_or(INVALID_VALUE)?;
        let stream = machine.stream(stream)?;
        let work = Work::Host(HostCall { function, data: data as usize });
        match machine.capturing(stream)? {
            Some(capture) => machine.record(capture, stream, work),
            None => drop(machine.start(stream, &[], work)?),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: u64, mode: c_int) -> c_int {
    call("cuStreamBeginCapture_v2", |machine| machine.begin_capture(stream, Mode::from(mode)?))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: u64, graph: *mut u64) -> c_int {
    call("cuStreamEndCapture", |machine| {
        output(graph)?;
        let captured = machine.end_capture(stream);
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(graph, captured.unwrap_or(0)) }?;
        captured.map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: u64, status: *mut c_int) -> c_int {
    call("cuStreamIsCapturing", |machine| {
        let stream = machine.stream(stream)?;
        if machine.implicit_capture(stream).is_some() {
            return Err(CAPTURE_IMPLICIT);
        }
        let capturing = match (machine.streams[&stream].capture, machine.capturing(stream)) {
            (None, _) => 0,
            (Some(_), Ok(_)) => 1,
            (Some(_), Err(_)) => 2,
        };
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(status, capturing) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) -> c_int {
    call("cuThreadExchangeStreamCaptureMode", |_| {
        output(mode)?;
        // SAFETY: the caller's input and output, as cuda.h asks.
        let wanted = Mode::from(unsafe { mode.read() })?;
        // SAFETY: as above.
        unsafe { put(mode, exchange_mode(wanted) as c_int) }
    })
}
