//! Events.

use super::context::{observe, synchronize};
use super::{output, put};
use crate::clock::Point;
use crate::event::{DISABLE_TIMING, Event, Recorded};
use crate::handle::Noun;
use crate::machine::{Machine, call, lock};
use crate::status::*;
use std::ffi::{c_int, c_uint};
use std::slice::from_ref;

/// All flags of cuEventCreate.
const FLAGS: c_uint = 7;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut u64, flags: c_uint) -> c_int {
    call("cuEventCreate", |machine| {
        output(event)?;
        if flags > FLAGS {
            return Err(INVALID_VALUE);
        }
        let context = machine.current()?;
        let handle = machine.new_handle(Noun::Event);
        machine.events.insert(handle, Event { context, flags, recorded: Recorded::Never });
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(event, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: u64) -> c_int {
    call("cuEventDestroy_v2", |machine| {
        let found = machine.event(event).map(|_| ());
        // In a context that has failed the event goes as well, though the call says that.
        machine.events.remove(&event);
        found
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: u64, stream: u64) -> c_int {
    call("cuEventRecord", |machine| machine.record_event(event, stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: u64) -> c_int {
    synchronize("cuEventSynchronize", |machine| {
        let (context, point) = waited(machine, event)?;
        Ok((context, point.into_iter().collect()))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: u64) -> c_int {
    let mut found = None;
    let status = call("cuEventQuery", |machine| {
        found = Some(waited(machine, event)?);
        Ok(())
    });
    match found {
        Some((context, Some(point))) => poll(context, from_ref(&point)),
        _ => status,
    }
}

/// The context and the point of an event that the host asks about.
fn waited(machine: &mut Machine, event: u64) -> Status<(u64, Option<Point>)> {
    let point = machine.event_point(event)?;
    machine.forbid_in_capture()?;
    Ok((machine.event(event)?.context, point))
}

/// Lets the work go on a little, and tells whether it is over.
pub fn poll(context: u64, points: &[Point]) -> c_int {
    let mut machine = lock();
    if !machine.reached(points) {
        machine.step(points);
        return NOT_READY;
    }
    drop(machine);
    number(observe(context, points))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) -> c_int {
    call("cuEventElapsedTime", |machine| {
        output(milliseconds)?;
        let (start, end) = (timed(machine, start)?, timed(machine, end)?);
        if !machine.reached(&[start.clone(), end.clone()]) {
            return Err(NOT_READY);
        }
        let elapsed_ns = end.finish_ns as f64 - start.finish_ns as f64;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(milliseconds, (elapsed_ns / 1e6) as f32) }
    })
}

/// The point of an event that measures time.
fn timed(machine: &mut Machine, event: u64) -> Status<Point> {
    if machine.event(event)?.flags & DISABLE_TIMING != 0 {
        return Err(INVALID_HANDLE);
    }
    machine.event_point(event)?.ok_or(INVALID_HANDLE)
}
