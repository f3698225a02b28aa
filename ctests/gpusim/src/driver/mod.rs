//! The driver's functions, one noun per file, with the names and the numbers of cuda.h. Handles
//! and device addresses are integers here, which C passes as it passes pointers.

pub mod context;
pub mod copy;
pub mod device;
pub mod error;
pub mod event;
pub mod graph;
pub mod memory;
pub mod module;
pub mod pointer;
pub mod stream;

use crate::status::{INVALID_VALUE, Status};

/// Writes an output, or refuses a NULL for it.
///
/// # Safety
/// `target` is NULL or can be written.
unsafe fn put<T>(target: *mut T, value: T) -> Status {
    if target.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: as above.
    unsafe { target.write(value) };
    Ok(())
}

/// Refuses a NULL output before anything is made for it.
fn output<T>(target: *mut T) -> Status {
    if target.is_null() { Err(INVALID_VALUE) } else { Ok(()) }
}
