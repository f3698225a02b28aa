//! `xqkv_error`: the caller's own place for a status and its message.

use crate::error::{Error, Status};
use std::ffi::c_char;

/// Where a call writes what went wrong. The caller owns it, usually on the stack; it needs no
/// initialisation, and its layout is frozen. There is no thread-local and no global last error:
/// a goroutine may change its thread between two calls.
///
/// Every function that takes one takes it last, and accepts NULL. After a successful call `status`
/// is XQKV_STATUS_OK and `message` is empty.
#[repr(C)]
pub struct xqkv_error {
    /// The status that the call returned.
    pub status: i32,
    /// What was given, what is needed and what to do: UTF-8, NUL-terminated, cut to fit.
    pub message: [c_char; 508],
}

impl xqkv_error {
    /// Writes the outcome of a call, if the caller asked for it.
    ///
    /// # Safety
    /// `error` is NULL or points to a writable `xqkv_error`.
    pub(super) unsafe fn write(error: *mut xqkv_error, outcome: &Result<(), Error>) {
        if error.is_null() || !error.is_aligned() {
            return;
        }
        let (status, message) = match outcome {
            Ok(()) => (Status::Ok, ""),
            Err(error) => (error.status, error.message.as_str()),
        };
        // SAFETY: not NULL, aligned, and the caller's to write.
        let error = unsafe { &mut *error };
        error.status = status as i32;
        let message = fitting(message, error.message.len() - 1);
        for (target, byte) in error.message.iter_mut().zip(message.bytes().chain([0])) {
            *target = byte as c_char;
        }
    }
}

/// As much of the text as fits, ending at a character's end.
fn fitting(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn written(outcome: Result<(), Error>) -> (i32, String) {
        let mut error = xqkv_error { status: -1, message: [b'x' as c_char; 508] };
        // SAFETY: a local struct.
        unsafe { xqkv_error::write(&mut error, &outcome) };
        // SAFETY: write has just terminated it.
        let message = unsafe { CStr::from_ptr(error.message.as_ptr()) };
        (error.status, message.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "é".repeat(400);
        let (status, message) = written(Err(Error::new(Status::NotReady, long)));
        assert_eq!((status, message.len()), (201, 506));
    }

    #[test]
    fn success_clears_what_was_there() {
        assert_eq!(written(Ok(())), (0, String::new()));
    }
}
