//! Allocations. A device address lies in a range that the host cannot read; its contents are in
//! ordinary memory that only the simulator knows. Addresses are never given twice, so that a use
//! after free is found by name.

use std::collections::BTreeMap;
use std::ptr;

/// The driver's alignment of device allocations.
const ALIGNMENT: u64 = 512;
/// Unused addresses behind each allocation, so that running past its end hits nothing.
const GUARD_BYTES: u64 = 4096;
/// Addresses reserved at once; a larger allocation reserves its own.
const RESERVATION_BYTES: u64 = 16 << 30;
/// What fresh memory holds: a NaN in every format.
const FRESH: u8 = 0xFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Device,
    Host,
    Managed,
}

#[derive(Debug)]
pub struct Allocation {
    pub base: u64,
    pub bytes: u64,
    pub place: Place,
    pub context: u64,
    pub device: usize,
    pub live: bool,
    contents: *mut u8,
}

/// Why an access cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Unknown,
    Freed,
    OutOfBounds,
}

/// All memory that was ever allocated.
#[derive(Default)]
pub struct Memory {
    allocations: BTreeMap<u64, Allocation>,
    next: u64,
    end: u64,
}

// SAFETY: the pointers are to mappings of this process that any thread may use; who uses them
// when is ordered by the machine's lock.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory of `bytes` bytes, or nothing if the process has no room.
    pub fn allocate(
        &mut self,
        place: Place,
        bytes: u64,
        context: u64,
        device: usize,
    ) -> Option<u64> {
        let contents = map(bytes + GUARD_BYTES, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the mapping was just made and is that long.
        unsafe { ptr::write_bytes(contents, FRESH, bytes as usize) };
        let base = match place {
            Place::Device => self.reserve(bytes)?,
            Place::Host | Place::Managed => contents as u64,
        };
        let allocation = Allocation { base, bytes, place, context, device, live: true, contents };
        self.allocations.insert(base, allocation);
        Some(base)
    }

    fn reserve(&mut self, bytes: u64) -> Option<u64> {
        let needed = (bytes + GUARD_BYTES).next_multiple_of(ALIGNMENT);
        if self.end - self.next < needed {
            let length = needed.max(RESERVATION_BYTES);
            self.next = map(length, libc::PROT_NONE)? as u64;
            self.end = self.next + length;
        }
        let base = self.next;
        self.next += needed;
        Some(base)
    }

    /// Ends the allocation's life; its addresses stay taken.
    pub fn free(&mut self, base: u64) {
        let Some(allocation) = self.allocations.get_mut(&base) else { return };
        allocation.live = false;
        let length = (allocation.bytes + GUARD_BYTES) as usize;
        // SAFETY: the mapping is ours, and nothing looks at a dead allocation's contents.
        unsafe {
            match allocation.place {
                Place::Device => drop(libc::munmap(allocation.contents.cast(), length)),
                Place::Host | Place::Managed => {
                    libc::madvise(allocation.contents.cast(), length, libc::MADV_DONTNEED);
                    libc::mprotect(allocation.contents.cast(), length, libc::PROT_NONE);
                }
            }
        }
    }

    /// The allocation, live or not, in which the address lies or lay.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let (_, allocation) = self.allocations.range(..=address).next_back()?;
        // Addresses in the guard behind an allocation are named after it.
        let end = allocation.base + (allocation.bytes + GUARD_BYTES).next_multiple_of(ALIGNMENT);
        (address < end).then_some(allocation)
    }

    /// The live allocation that has all the bytes, or why there is none.
    pub fn check(&self, address: u64, bytes: u64) -> Result<&Allocation, Fault> {
        let allocation = self.find(address).ok_or(Fault::Unknown)?;
        if !allocation.live {
            return Err(Fault::Freed);
        }
        let end = address.checked_add(bytes).ok_or(Fault::OutOfBounds)?;
        let inside = address < allocation.base + allocation.bytes || bytes == 0;
        match inside && end <= allocation.base + allocation.bytes {
            true => Ok(allocation),
            false => Err(Fault::OutOfBounds),
        }
    }

    /// Where the contents of these bytes are, if all of them lie in one live allocation. Reads
    /// and writes through the pointer are right while an op runs, and only then.
    pub fn bytes(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        let allocation = self.check(address, bytes).ok()?;
        // SAFETY: the address lies in the allocation, so the sum lies in its contents.
        Some(unsafe { allocation.contents.add((address - allocation.base) as usize) })
    }

    pub fn live(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations.values().filter(|allocation| allocation.live)
    }
}

fn map(bytes: u64, protection: libc::c_int) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let address = unsafe { libc::mmap(ptr::null_mut(), bytes as usize, protection, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address.cast())
}
