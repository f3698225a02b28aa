//! The functions for tests, declared and described in gpusim.h, and the settings of the
//! environment.

use crate::machine::lock;
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
