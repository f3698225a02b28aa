//! `ncclConfig_t`: a struct that grows from version to version and says its own size.

use super::status::{INVALID_ARGUMENT, Outcome};
use std::ffi::{c_int, c_uint};

const MAGIC: c_uint = 0xcafe_beef;
/// `NCCL_CONFIG_UNDEF_INT`.
const UNDEFINED: c_int = c_int::MIN;
/// The first version that has the struct.
const OLDEST: c_uint = 21400;

/// The fields that all versions have. Whatever follows is for speed, and is not simulated.
#[repr(C)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

/// The end of the last field that we read, without the padding behind it.
const LEAST_BYTES: usize = std::mem::offset_of!(Config, blocking) + size_of::<c_int>();

/// Whether calls on the communicator may block, or what is wrong with its configuration.
///
/// # Safety
/// `config` is NULL or points to the fields above.
pub unsafe fn blocking(config: *const Config) -> Result<bool, String> {
    if config.is_null() {
        return Ok(true);
    }
    // SAFETY: the caller's promise.
    let config = unsafe { &*config };
    if config.magic != MAGIC || config.size < LEAST_BYTES || config.version < OLDEST {
        let Config { size, magic, version, .. } = config;
        return Err(format!(
            "config of {size} bytes with magic {magic:#x} and version {version}, which \
             NCCL_CONFIG_INITIALIZER did not make"
        ));
    }
    match config.blocking {
        1 | UNDEFINED => Ok(true),
        0 => Ok(false),
        other => Err(format!("config.blocking is {other}, and may be 0 or 1")),
    }
}

/// The numbers of `ncclDataType_t` and the bytes of each.
pub fn element_bytes(dtype: c_int) -> Outcome<u64> {
    match dtype {
        0 | 1 | 10 | 11 => Ok(1),
        6 | 9 => Ok(2),
        2 | 3 | 7 => Ok(4),
        4 | 5 | 8 => Ok(8),
        _ => Err(INVALID_ARGUMENT),
    }
}
