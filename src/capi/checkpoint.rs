//! `xqkv_checkpoint`: a Hugging Face folder on disk.

use super::boundary;
use super::plain::{self, Plain, ensure_pointer, flag};
use crate::error::{Error, Status};
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A checkpoint on disk: a Hugging Face folder with config.json, and model.safetensors or
/// model.safetensors.index.json. This version knows the Whisper family. Its files are untrusted:
/// whatever they hold, a call that reads them answers a status.
///
/// Files are read with pread, not mapped, so that one that shrinks under the reader is an error
/// and not a SIGBUS.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_checkpoint {
    /// Set by xqkv_checkpoint_init.
    pub struct_size: u32,
    /// 1 converts weights of another dtype than the spec's, with one rounding to nearest even; 0
    /// refuses them. Biases are kept in f32 and always converted, which is exact.
    pub convert: i32,
    /// The folder's path, NUL-terminated, in the system's encoding. Read only during the call.
    pub directory: *const c_char,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_checkpoint {
    const NAME: &'static str = "xqkv_checkpoint";
}

/// Fills the struct with zeros. `size` is sizeof(xqkv_checkpoint).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_checkpoint_init(
    checkpoint: *mut xqkv_checkpoint,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(checkpoint, size) })
}

/// The caller's checkpoint in our own memory.
pub(super) struct Source {
    pub(super) directory: PathBuf,
    pub(super) convert: bool,
}

impl xqkv_checkpoint {
    /// Copies the caller's struct and its path.
    ///
    /// # Safety
    /// `checkpoint` is NULL or begins with its size, and its path is terminated.
    pub(super) unsafe fn read(checkpoint: *const xqkv_checkpoint) -> Result<Source, Error> {
        // SAFETY: passed on.
        let checkpoint = unsafe { plain::read(checkpoint, "checkpoint") }?;
        ensure_pointer(checkpoint.directory, "checkpoint.directory")?;
        // SAFETY: not NULL, and terminated.
        let directory = unsafe { CStr::from_ptr(checkpoint.directory) };
        Ok(Source {
            directory: PathBuf::from(OsStr::from_bytes(directory.to_bytes())),
            convert: flag(checkpoint.convert, "checkpoint.convert")?,
        })
    }
}
