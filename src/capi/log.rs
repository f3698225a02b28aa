//! The log callback of a context.

use crate::log::{Level, Log};
use std::ffi::{CString, c_char, c_void};

/// Receives a line of the log. `level` is an xqkv_log_level, `message` UTF-8 text that is valid
/// only during the call, and `user` the pointer given beside the callback. It may be called from
/// any thread that calls the library, also from two at once, and must not call the library itself.
/// Projections and updates keep their context's callback: it may be called until the context and
/// the last projection and update made from it are gone, and no call runs on any of them.
pub type xqkv_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user: *mut c_void)>;

/// The user pointer of a callback, which the engine promised is good on any thread.
struct User(*mut c_void);

// SAFETY: the documentation of xqkv_log_callback says that any thread may call it.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    fn pointer(&self) -> *mut c_void {
        self.0
    }
}

/// A log that ends in the engine's callback, or a silent one.
pub(super) fn to_callback(callback: xqkv_log_callback, level: Level, user: *mut c_void) -> Log {
    let Some(callback) = callback else {
        return Log::default();
    };
    let user = User(user);
    Log::new(level, move |level, line| {
        let line = CString::new(line.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the engine's own function, called as it is documented.
        unsafe { callback(level as i32, line.as_ptr(), user.pointer()) }
    })
}
