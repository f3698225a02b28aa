//! The functions for tests, declared and described in gpusim.h, and the settings of the
//! environment.

use crate::machine::{Machine, lock};
use crate::timeline::Wire;
use crate::{context, fault, violation};
use std::ffi::{CStr, c_char, c_int};
use std::ptr;

/// The number in an environment variable.
pub fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// # Safety
/// `text` is NULL or ends with a NUL.
unsafe fn name<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusim_calls(function: *const c_char) -> u64 {
    // SAFETY: the caller's string, as the header asks.
    fault::calls(unsafe { name(function) })
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_reset_calls() {
    fault::reset();
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_call_log(index: u64) -> *const c_char {
    fault::logged(index as usize).unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusim_fail(function: *const c_char, nth: i64, status: c_int) {
    // SAFETY: the caller's string, as the header asks.
    let function = unsafe { name(function) };
    match nth {
        ..=0 => fault::clear(),
        _ => fault::fail(function, nth as u64, status),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_break_op(nth: i64, status: c_int) {
    lock().break_op = (nth > 0).then_some((nth as u64, status));
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_matmuls() -> u64 {
    lock().matmuls
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_multiply_adds() -> u64 {
    lock().multiply_adds
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_violations() -> u64 {
    violation::count() as u64
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_violation(index: u64) -> *const c_char {
    violation::text(index as usize).unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_clear_violations() {
    violation::clear();
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusim_live(kind: *const c_char) -> i64 {
    // SAFETY: the caller's string, as the header asks.
    let Some(kind) = (unsafe { name(kind) }) else { return -1 };
    crate::report::live(&lock(), kind).unwrap_or(-1)
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_peak_bytes(device: c_int) -> u64 {
    let machine = lock();
    machine.device(device).map_or(0, |device| machine.devices[device].peak_bytes)
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_context_depth() -> c_int {
    context::depth() as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_seed(seed: u64) {
    lock().seed(seed);
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_drop_event_waits(on: c_int) {
    lock().drop_event_waits = on != 0;
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_collectives(rank: c_int) -> u64 {
    count_collectives(&lock(), rank).0
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_collective_bytes(rank: c_int) -> u64 {
    count_collectives(&lock(), rank).1
}

/// The calls and the bytes of the rank, or of all for a negative one.
fn count_collectives(machine: &Machine, rank: c_int) -> (u64, u64) {
    let of = |(one, _): &(&usize, &(u64, u64))| usize::try_from(rank).is_ok_and(|r| r != **one);
    let counts = machine.collectives.iter().filter(|one| !of(one)).map(|(_, counts)| *counts);
    counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_hangs() -> u64 {
    lock().hangs.len() as u64
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_hang(index: u64) -> *const c_char {
    lock().hangs.get(index as usize).map_or(ptr::null(), |text| text.as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_clear_hangs() {
    lock().hangs.clear();
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_async_error(rank: c_int, result: c_int) {
    for comm in lock().comms.values_mut() {
        if rank < 0 || comm.rank == rank as usize {
            comm.fail(result, "arranged to fail by itself".to_owned());
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_wire(latency_ns: u64, bytes_per_us: u64) {
    lock().wire = Wire { latency_ns, bytes_per_us };
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_trace(on: c_int) {
    lock().trace(on != 0);
}

/// `gpusim_traced` of gpusim.h.
#[repr(C)]
pub struct TracedEntry {
    pub name: *const c_char,
    pub stream: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub matmuls: u64,
    pub bytes: u64,
    pub device: c_int,
    pub collective: c_int,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpusim_traced(index: u64, entry: *mut TracedEntry) -> c_int {
    let machine = lock();
    let Some(found) = machine.timeline.entries.get(index as usize) else { return 0 };
    let filled = TracedEntry {
        name: found.name.as_ptr(),
        stream: found.stream,
        start_ns: found.start_ns,
        end_ns: found.end_ns,
        matmuls: found.matmuls,
        bytes: found.bytes.unwrap_or(0),
        device: found.device as c_int,
        collective: c_int::from(found.bytes.is_some()),
    };
    // SAFETY: the caller's output, as the header asks.
    unsafe { entry.write(filled) };
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn gpusim_exposed_ns(device: c_int) -> u64 {
    usize::try_from(device).map_or(0, |device| lock().exposed_ns(device))
}
