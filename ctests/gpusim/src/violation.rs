//! Violations: what real hardware would corrupt silently or crash on. They have a lock of their
//! own, so that they can be noted from anywhere, also while the machine is locked.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard};

static VIOLATIONS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<CString>> {
    VIOLATIONS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Notes a violation: a race, an access out of bounds or to freed memory, a host pointer.
pub fn violate(text: String) {
    if std::env::var_os("GPUSIM_ABORT_ON_VIOLATION").is_some_and(|value| value == "1") {
        eprintln!("gpusim: {text}");
        std::process::abort();
    }
    lock().push(CString::new(text).unwrap_or_default());
}

pub fn count() -> usize {
    lock().len()
}

/// The text for C, which lives until the violations are cleared.
pub fn text(index: usize) -> Option<*const c_char> {
    lock().get(index).map(|text| text.as_ptr())
}

pub fn all() -> Vec<String> {
    lock().iter().map(|text| text.to_string_lossy().into_owned()).collect()
}

pub fn clear() {
    lock().clear();
}
