//! Bytes at a cache line's beginning.

use crate::error::{Error, Status};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Owns its bytes, as a Vec does.
pub(super) struct AlignedBytes {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    pub(super) fn zeroed(bytes: usize) -> Result<Self, Error> {
        let out_of_memory =
            || Error::new(Status::OutOfMemory, format!("no memory for {bytes} bytes of scratch"));
        let layout = Layout::from_size_align(bytes.max(64), 64).map_err(|_| out_of_memory())?;
        // SAFETY: the layout has a size.
        let first = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self { first: first.ok_or_else(out_of_memory)?, layout })
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.first.as_ptr()
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.first.as_ptr(), self.layout) }
    }
}
