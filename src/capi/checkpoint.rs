//! `xqkv_checkpoint`: a Hugging Face folder on disk.

use super::boundary;
use super::error::xqkv_error;
use super::plain::{self, Plain, ensure_pointer, flag};
use super::spec::{read_spec, xqkv_spec};
use crate::error::{Error, Status, ensure};
use crate::spec::Parts;
use crate::weights::checkpoint::{Checkpoint, Location, Pattern};
use crate::weights::report::Report;
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A checkpoint on disk: a Hugging Face folder with config.json, and model.safetensors or
/// model.safetensors.index.json. This version knows the families of Whisper, BART (also mBART,
/// M2M100, NLLB and Marian), T5 and mllama (Llama 3.2 Vision). Its files are untrusted: whatever
/// they hold, a call that reads them answers a status.
///
/// Files are read with pread, not mapped, so that one that shrinks under the reader is an error
/// and not a SIGBUS. Strings are NUL-terminated, and read only during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_checkpoint {
    /// Set by xqkv_checkpoint_init.
    pub struct_size: u32,
    /// 1 converts weights of another dtype than the spec's, with one rounding to nearest even; 0
    /// refuses them. Biases and norms are kept in f32 and always converted, which is exact.
    pub convert: i32,
    /// The folder's path, in the system's encoding.
    pub directory: *const c_char,
    /// For a model of another family, its tensors' names, with places for {layer} (numbered from 0
    /// as in xqkv_spec), {part} and {kind} ("weight" or "bias"), such as
    /// "decoder.{layer}.xattn.{part}.{kind}". config.json is not read then, and the spec is the
    /// caller's; a norm's weights have no names, and are put by xqkv_update_put. NULL goes by the
    /// family.
    pub tensor_pattern: *const c_char,
    /// What stands for {part} in the names of Wq and bq; NULL is "query". Only with a pattern.
    pub query_name: *const c_char,
    /// The same for Wk and bk; NULL is "key".
    pub key_name: *const c_char,
    /// The same for Wv and bv; NULL is "value".
    pub value_name: *const c_char,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_checkpoint {
    const NAME: &'static str = "xqkv_checkpoint";
}

/// Fills the struct with zeros. `size` is sizeof(xqkv_checkpoint).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_checkpoint_init(
    checkpoint: *mut xqkv_checkpoint,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(checkpoint, size) })
}

/// Holds a checkpoint against a spec, tensor by tensor, and writes what was found as one JSON
/// object: "family", and lists. "used", "missing" and "misshaped" have an object for each tensor
/// that the spec needs: "name", "layer" (numbered as in xqkv_spec), "checkpoint_layer" (the
/// checkpoint's own number), "part", "kind", "shape" (null if missing) and "needed_shape".
/// "unused" has the names of the other tensors of the same attention modules, such as the output
/// projection's. Reads the headers of the checkpoint's files, no weights.
///
/// The text goes to `text`, NUL-terminated, if its `text_bytes` suffice; `*needed_bytes` is what
/// it takes. With `text` NULL and `text_bytes` 0 only the latter is written. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
/// MISALIGNED, BUFFER_TOO_SMALL (`*needed_bytes` is written), NOT_SUPPORTED, OUT_OF_MEMORY,
/// CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT, CHECKPOINT_UNKNOWN_FAMILY,
/// CHECKPOINT_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_checkpoint_report(
    checkpoint: *const xqkv_checkpoint,
    spec: *const xqkv_spec,
    text: *mut c_char,
    text_bytes: i64,
    needed_bytes: *mut i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or structs that begin with their size; strings are terminated.
        let (source, spec) = unsafe { (xqkv_checkpoint::read(checkpoint)?, read_spec(spec)?) };
        ensure_pointer(needed_bytes, "needed_bytes")?;
        if text_bytes != 0 {
            ensure_pointer(text, "text")?;
        }
        let opened = Checkpoint::open(source.location)?;
        let report = Report::new(&opened, &spec)?.to_json();
        let needed = report.len() as i64 + 1;
        // SAFETY: not NULL and aligned.
        unsafe { *needed_bytes = needed };
        if text.is_null() {
            return Ok(());
        }
        ensure!(
            text_bytes >= needed,
            BufferTooSmall,
            "text_bytes is {text_bytes}, the report needs {needed}"
        );
        // SAFETY: not NULL, and the caller gives that many writable bytes.
        unsafe {
            text.copy_from_nonoverlapping(report.as_ptr().cast(), report.len());
            text.add(report.len()).write(0);
        }
        Ok(())
    })
}

/// The caller's checkpoint in our own memory.
pub(super) struct Source {
    pub(super) location: Location,
    pub(super) convert: bool,
}

impl xqkv_checkpoint {
    /// Copies the caller's struct and its strings.
    ///
    /// # Safety
    /// `checkpoint` is NULL or begins with its size, and its strings are terminated.
    pub(super) unsafe fn read(checkpoint: *const xqkv_checkpoint) -> Result<Source, Error> {
        // SAFETY: passed on.
        let checkpoint = unsafe { plain::read(checkpoint, "checkpoint") }?;
        ensure_pointer(checkpoint.directory, "checkpoint.directory")?;
        // SAFETY: not NULL, and terminated.
        let directory = unsafe { CStr::from_ptr(checkpoint.directory) };
        let location = Location {
            directory: PathBuf::from(OsStr::from_bytes(directory.to_bytes())),
            // SAFETY: as above.
            pattern: unsafe { checkpoint.pattern() }?,
        };
        Ok(Source { location, convert: flag(checkpoint.convert, "checkpoint.convert")? })
    }

    unsafe fn pattern(&self) -> Result<Option<Pattern>, Error> {
        // SAFETY: the caller's strings are NULL or terminated.
        let [tensor, query, key, value] = unsafe {
            [
                text(self.tensor_pattern, "tensor_pattern")?,
                text(self.query_name, "query_name")?,
                text(self.key_name, "key_name")?,
                text(self.value_name, "value_name")?,
            ]
        };
        let Some(tensor) = tensor else {
            ensure!(
                query.is_none() && key.is_none() && value.is_none(),
                InvalidArgument,
                "query_name, key_name or value_name is given without a tensor_pattern; give one"
            );
            return Ok(None);
        };
        let or = |name: Option<String>, default: &str| name.unwrap_or_else(|| default.to_owned());
        let parts =
            Parts { query: or(query, "query"), key: or(key, "key"), value: or(value, "value") };
        Ok(Some(Pattern { tensor, parts }))
    }
}

/// A copy of a string that may be NULL.
///
/// # Safety
/// It is NULL or terminated.
unsafe fn text(string: *const c_char, name: &str) -> Result<Option<String>, Error> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and terminated.
    let text = unsafe { CStr::from_ptr(string) }.to_str();
    ensure!(text.is_ok(), InvalidArgument, "checkpoint.{name} is not UTF-8; tensor names are");
    Ok(text.ok().map(str::to_owned))
}
