//! NCCL's results: the numbers of `ncclResult_t` in nccl.h, plain integers.

use std::ffi::{CStr, c_char, c_int};

/// What functions inside return; the exported ones turn it into a number.
pub type Outcome<T = ()> = Result<T, c_int>;

pub const SUCCESS: c_int = 0;
pub const UNHANDLED_CUDA_ERROR: c_int = 1;
pub const SYSTEM_ERROR: c_int = 2;
pub const INVALID_ARGUMENT: c_int = 4;
pub const INVALID_USAGE: c_int = 5;
pub const IN_PROGRESS: c_int = 7;

/// Whether the communicator is of no more use after a call that answered this.
pub fn fatal(result: c_int) -> bool {
    !matches!(result, SUCCESS | INVALID_ARGUMENT | IN_PROGRESS)
}

fn describe(result: c_int) -> &'static CStr {
    match result {
        SUCCESS => c"no error",
        UNHANDLED_CUDA_ERROR => c"unhandled cuda error (gpusim)",
        SYSTEM_ERROR => c"unhandled system error (gpusim)",
        3 => c"internal error (gpusim)",
        INVALID_ARGUMENT => c"invalid argument (gpusim)",
        INVALID_USAGE => c"invalid usage (gpusim)",
        6 => c"remote process exited or there was a network error",
        IN_PROGRESS => c"NCCL operation in progress",
        8 if super::version() >= 23000 => c"operation timed out",
        _ => c"unknown result code",
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(result: c_int) -> *const c_char {
    describe(result).as_ptr()
}
