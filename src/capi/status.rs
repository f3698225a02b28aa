//! `xqkv_status`: names and effects of statuses.

use super::boundary;
use crate::error::Status;
use std::ffi::c_char;

/// The name of a status as it stands in this header, such as "XQKV_STATUS_NOT_READY"; never NULL,
/// and "XQKV_STATUS_UNKNOWN" for a number this version does not have. The text lives as long as
/// the library. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_status_name(status: i32) -> *const c_char {
    boundary::value(UNKNOWN.as_ptr(), || {
        Status::from_integer(status, "status").map_or(UNKNOWN, Status::c_name).as_ptr()
    })
}

/// What a failed call with this status left behind: an xqkv_effect, or 0 for a number this version
/// does not have. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_status_effect(status: i32) -> i32 {
    boundary::value(0, || {
        Status::from_integer(status, "status").map_or(0, |status| status.effect() as i32)
    })
}

const UNKNOWN: &std::ffi::CStr = c"XQKV_STATUS_UNKNOWN";
