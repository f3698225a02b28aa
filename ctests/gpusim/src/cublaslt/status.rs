//! cuBLAS statuses as plain integers, their names and texts, and the library's version.

use crate::machine::enter;
use std::ffi::{CStr, c_char, c_int};

pub const SUCCESS: c_int = 0;
pub const NOT_INITIALIZED: c_int = 1;
pub const ALLOC_FAILED: c_int = 3;
pub const INVALID_VALUE: c_int = 7;
pub const EXECUTION_FAILED: c_int = 13;
pub const INTERNAL_ERROR: c_int = 14;
pub const NOT_SUPPORTED: c_int = 15;

/// The version whose descriptors are simulated unless the environment says another.
const VERSION: usize = 130_401;
const UNRECOGNIZED: &CStr = c"unrecognized status";

const STATUSES: [(c_int, &CStr, &CStr); 10] = [
    (SUCCESS, c"CUBLAS_STATUS_SUCCESS", c"success"),
    (NOT_INITIALIZED, c"CUBLAS_STATUS_NOT_INITIALIZED", c"the library was not initialized"),
    (ALLOC_FAILED, c"CUBLAS_STATUS_ALLOC_FAILED", c"the resource allocation failed"),
    (
        INVALID_VALUE,
        c"CUBLAS_STATUS_INVALID_VALUE",
        c"an unsupported value or parameter was passed to the function",
    ),
    (
        8,
        c"CUBLAS_STATUS_ARCH_MISMATCH",
        c"the function requires an architectural feature absent from the device",
    ),
    (11, c"CUBLAS_STATUS_MAPPING_ERROR", c"an access to GPU memory space failed"),
    (
        EXECUTION_FAILED,
        c"CUBLAS_STATUS_EXECUTION_FAILED",
        c"the function failed to launch on the GPU",
    ),
    (INTERNAL_ERROR, c"CUBLAS_STATUS_INTERNAL_ERROR", c"an internal operation failed"),
    (
        NOT_SUPPORTED,
        c"CUBLAS_STATUS_NOT_SUPPORTED",
        c"the requested functionality is not supported",
    ),
    (16, c"CUBLAS_STATUS_LICENSE_ERROR", c"the license check failed"),
];

/// The body of an exported function: counted, and answered by an injected fault if it is its turn.
pub fn answer(function: &'static str, body: impl FnOnce() -> Result<(), c_int>) -> c_int {
    match enter(function).and_then(|_guard| body()) {
        Ok(()) => SUCCESS,
        Err(status) => status,
    }
}

/// The version that descriptors and algorithms are made by.
pub fn version() -> usize {
    let text = std::env::var("GPUSIM_CUBLASLT_VERSION").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(VERSION)
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    // A count without statuses: an injected fault answers version 0.
    enter("cublasLtGetVersion").map_or(0, |_guard| version())
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetStatusName(status: c_int) -> *const c_char {
    let _counted = enter("cublasLtGetStatusName");
    find(status).map_or(UNRECOGNIZED, |(_, name, _)| name).as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetStatusString(status: c_int) -> *const c_char {
    let _counted = enter("cublasLtGetStatusString");
    find(status).map_or(UNRECOGNIZED, |(_, _, text)| text).as_ptr()
}

fn find(status: c_int) -> Option<&'static (c_int, &'static CStr, &'static CStr)> {
    STATUSES.iter().find(|(number, _, _)| *number == status)
}
