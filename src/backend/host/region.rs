//! The memory of one commit's packed weights: whole huge pages where the system has them, since a
//! decode step is bound by reading them, and reads a third faster through 2 MB pages.

use super::tasks::Tasks;
use super::threads::Threads;
use crate::error::{Error, Status};
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Bytes of a huge page on x86-64, and on 64-bit ARM with pages of 4 KB.
const HUGE_PAGE: usize = 2 << 20;

/// Pages of this process alone, all 0 at first.
pub(super) struct Region {
    mapping: NonNull<u8>,
    mapped: usize,
    bytes: usize,
    /// Where the first huge page begins.
    first: NonNull<u8>,
}

// SAFETY: it owns its pages; who writes to which is up to the parts.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// A stretch of a region. Its whole pages go back to the system when it is dropped, even if other
/// parts of the region live on.
pub(super) struct Part {
    region: Arc<Region>,
    range: Range<usize>,
}

impl Region {
    /// Maps so many bytes.
    pub(super) fn new(bytes: usize) -> Result<Arc<Self>, Error> {
        let out_of_memory = || {
            let message = format!("no memory for {bytes} bytes of packed weights");
            Error::new(Status::OutOfMemory, message)
        };
        let aligned = if bytes < HUGE_PAGE { 0 } else { HUGE_PAGE };
        let mapped = bytes.max(1).checked_add(aligned).ok_or_else(out_of_memory)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let mapping = unsafe { libc::mmap(null_mut(), mapped, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(out_of_memory());
        }
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or_else(out_of_memory)?;
        let first = mapping.as_ptr().map_addr(|at| at.next_multiple_of(aligned.max(1)));
        // SAFETY: within the mapping. Where the advice is not known, pages stay small.
        unsafe { libc::madvise(first.cast(), bytes, libc::MADV_HUGEPAGE) };
        let first = NonNull::new(first).ok_or_else(out_of_memory)?;
        Ok(Arc::new(Self { mapping, mapped, bytes, first }))
    }

    /// Lets the threads have the system clear the pages, a huge one each at a time. Left to who
    /// packs, threads would wait for each other at the same page.
    pub(super) fn touch(&self, threads: &Threads) {
        threads.run_apart(self.bytes / HUGE_PAGE, &|tasks: &mut Tasks<'_>| {
            // SAFETY: within the region, of which no part is written yet.
            tasks.for_each(|page| unsafe { *self.first.as_ptr().add(page * HUGE_PAGE) = 0 });
        });
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped so, and no part is left.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

impl Part {
    /// Bytes of a region that no other part has.
    pub(super) fn new(region: &Arc<Region>, range: Range<usize>) -> Self {
        Self { region: region.clone(), range }
    }

    pub(super) fn first(&self) -> *mut u8 {
        // SAFETY: within the region.
        unsafe { self.region.first.as_ptr().add(self.range.start) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let (begin, end) = (self.first().addr(), self.first().addr() + self.range.len());
        let (begin, end) = (begin.next_multiple_of(page), end / page * page);
        if begin < end {
            let pages = self.first().with_addr(begin).cast();
            // SAFETY: pages that only this part has anything in.
            unsafe { libc::madvise(pages, end - begin, libc::MADV_DONTNEED) };
        }
    }
}
