//! Device memory and copies.

use crate::machine::{enter, lock};
use crate::memory::Place;
use std::ffi::c_int;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    let _guard = match enter("cuMemAlloc_v2") {
        Ok(guard) => guard,
        Err(status) => return status,
    };
    match lock().memory.allocate(Place::Device, bytes as u64, 1, 0) {
        // SAFETY: the caller's pointer, as the header asks.
        Some(base) => unsafe { *address = base },
        None => return 2,
    }
    0
}
