//! Names and texts of statuses.

use super::put;
use crate::machine::early;
use crate::status::{INVALID_VALUE, describe};
use std::ffi::{c_char, c_int};
use std::ptr;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(status: c_int, text: *mut *const c_char) -> c_int {
    early("cuGetErrorName", |_| {
        let found = describe(status);
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(text, found.map_or(ptr::null(), |(name, _)| name.as_ptr())) }?;
        found.map(|_| ()).ok_or(INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(status: c_int, text: *mut *const c_char) -> c_int {
    early("cuGetErrorString", |_| {
        let found = describe(status);
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(text, found.map_or(ptr::null(), |(_, text)| text.as_ptr())) }?;
        found.map(|_| ()).ok_or(INVALID_VALUE)
    })
}
