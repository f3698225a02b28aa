//! Descriptors are plain bytes in the caller's memory or ours, so that they can be copied: a head
//! that says what they are and how much room they have, then the attributes one behind another.
//! Here are the rules that all kinds share; the kinds are tables of attributes.

use super::status::{ALLOC_FAILED, INVALID_VALUE, version};
use crate::machine::violate;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard};

/// The largest descriptor in words: the operation's.
const WORDS: usize = 32;
/// Kind and room, 4 bytes each.
const HEAD_BYTES: usize = 8;
/// The kind of a destroyed descriptor.
const DESTROYED: u32 = 0xDEAD_DE5C;

/// One attribute: its number and size in the header, and what it is at first. Later ones also say
/// the first version that has them, and are only in descriptors of the largest size.
#[derive(Clone, Copy)]
pub struct Attribute {
    pub id: c_int,
    pub bytes: usize,
    pub initial: u64,
    pub since: usize,
    pub wide: bool,
}

impl Attribute {
    pub const fn new(id: c_int, bytes: usize, initial: u64) -> Attribute {
        Attribute { id, bytes, initial, since: 0, wide: false }
    }

    pub const fn since(since: usize, id: c_int, bytes: usize, initial: u64) -> Attribute {
        Attribute { id, bytes, initial, since, wide: true }
    }
}

/// A kind of descriptor. `sizes` are those that its headers had, the smallest first.
pub struct Kind {
    pub name: &'static str,
    pub magic: u32,
    pub sizes: &'static [usize],
    pub attributes: &'static [Attribute],
}

/// A descriptor's contents, copied out of whoever's memory they are in.
#[derive(Clone, Copy)]
pub struct Descriptor {
    bytes: [u8; WORDS * 8],
}

impl Descriptor {
    fn room(&self) -> usize {
        u32::from_ne_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]]) as usize
    }

    fn magic(&self) -> u32 {
        u32::from_ne_bytes([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]])
    }

    /// The attribute's value, zero-extended. An attribute that it has no room for is initial.
    pub fn get(&self, kind: &Kind, id: c_int) -> u64 {
        let Some((attribute, offset)) = kind.find(id) else { return 0 };
        if attribute.wide && self.room() < kind.largest() {
            return attribute.initial;
        }
        let mut value = [0; 8];
        value[..attribute.bytes].copy_from_slice(&self.bytes[offset..offset + attribute.bytes]);
        u64::from_ne_bytes(value)
    }

    fn set(&mut self, kind: &Kind, id: c_int, value: u64) {
        if let Some((attribute, offset)) = kind.find(id) {
            let value = &value.to_ne_bytes()[..attribute.bytes];
            self.bytes[offset..offset + attribute.bytes].copy_from_slice(value);
        }
    }
}

impl Kind {
    fn find(&self, id: c_int) -> Option<(&Attribute, usize)> {
        let mut offset = HEAD_BYTES;
        for attribute in self.attributes {
            if attribute.id == id {
                return Some((attribute, offset));
            }
            offset += attribute.bytes;
        }
        None
    }

    fn largest(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    fn initial(&self, room: usize, values: &[(c_int, u64)]) -> Descriptor {
        let mut made = Descriptor { bytes: [0; WORDS * 8] };
        made.bytes[..4].copy_from_slice(&self.magic.to_ne_bytes());
        made.bytes[4..8].copy_from_slice(&(room as u32).to_ne_bytes());
        for attribute in self.attributes {
            made.set(self, attribute.id, attribute.initial);
        }
        for (id, value) in values {
            made.set(self, *id, *value);
        }
        made
    }

    /// Writes an initial descriptor into `bytes` bytes of the caller's.
    ///
    /// # Safety
    /// `target` must be NULL or have that many writable bytes.
    pub unsafe fn init(
        &self,
        target: *mut c_void,
        bytes: usize,
        values: &[(c_int, u64)],
    ) -> Result<(), c_int> {
        let room = self.sizes.iter().rev().find(|size| **size <= bytes).ok_or(ALLOC_FAILED)?;
        if target.is_null() {
            violate(format!("{}: initialised at NULL, where cuBLASLt crashes", self.name));
            return Err(INVALID_VALUE);
        }
        let made = self.initial(*room, values);
        // SAFETY: room is at most the caller's bytes.
        unsafe { ptr::copy_nonoverlapping(made.bytes.as_ptr(), target.cast(), *room) };
        Ok(())
    }

    /// Makes a descriptor in memory of ours.
    ///
    /// # Safety
    /// `target` must be NULL or writable.
    pub unsafe fn create(
        &self,
        target: *mut *mut c_void,
        values: &[(c_int, u64)],
    ) -> Result<(), c_int> {
        if target.is_null() {
            return Err(INVALID_VALUE);
        }
        let address = Box::into_raw(Box::new([0u64; WORDS])).cast::<c_void>();
        // SAFETY: the memory was just made with the most words that any kind has.
        unsafe { self.init(address, self.largest(), values)? };
        // SAFETY: not NULL, so writable by the caller's promise.
        unsafe { *target = address };
        lock().live.insert(address as usize);
        Ok(())
    }

    /// Ends a descriptor that `create` made. Its memory stays, so that a later use is found.
    pub fn destroy(&self, target: *mut c_void) -> Result<(), c_int> {
        if target.is_null() {
            return Ok(());
        }
        let mut made = lock();
        if !made.live.remove(&(target as usize)) {
            violate(format!("{}: destroyed one that was not created or twice", self.name));
            return Err(INVALID_VALUE);
        }
        made.destroyed.push(target as usize);
        // SAFETY: it was made by `create`, and that memory stays.
        unsafe { target.cast::<u32>().write(DESTROYED) };
        Ok(())
    }

    /// The contents of a descriptor of this kind.
    ///
    /// # Safety
    /// `source` must be NULL or a descriptor.
    pub unsafe fn read(&self, source: *const c_void) -> Result<Descriptor, c_int> {
        if source.is_null() {
            return Err(INVALID_VALUE);
        }
        let mut read = Descriptor { bytes: [0; WORDS * 8] };
        // SAFETY: every descriptor has a head.
        unsafe { ptr::copy_nonoverlapping(source.cast(), read.bytes.as_mut_ptr(), HEAD_BYTES) };
        if read.magic() != self.magic || !self.sizes.contains(&read.room()) {
            violate(format!("{}: used one that is destroyed or of another kind", self.name));
            return Err(INVALID_VALUE);
        }
        let room = read.room();
        // SAFETY: the head says how many bytes it has.
        unsafe { ptr::copy_nonoverlapping(source.cast(), read.bytes.as_mut_ptr(), room) };
        Ok(read)
    }

    /// Where the attribute is, if this descriptor and this version have it.
    fn locate(&self, descriptor: &Descriptor, id: c_int) -> Result<(usize, usize), c_int> {
        let (attribute, offset) = self.find(id).ok_or(INVALID_VALUE)?;
        let fits = !attribute.wide || descriptor.room() == self.largest();
        match fits && attribute.since <= version() {
            true => Ok((offset, attribute.bytes)),
            false => Err(INVALID_VALUE),
        }
    }

    /// Sets an attribute. Values are not looked at, sizes are.
    ///
    /// # Safety
    /// `target` as for `read`, and `buffer` NULL or of `bytes` readable bytes.
    pub unsafe fn set(
        &self,
        target: *mut c_void,
        id: c_int,
        buffer: *const c_void,
        bytes: usize,
    ) -> Result<(), c_int> {
        // SAFETY: as promised.
        let descriptor = unsafe { self.read(target)? };
        let (offset, size) = self.locate(&descriptor, id)?;
        if buffer.is_null() || bytes != size {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the attribute lies in the descriptor's room and the buffer has its size.
        unsafe {
            ptr::copy_nonoverlapping(buffer.cast::<u8>(), target.cast::<u8>().add(offset), size)
        };
        Ok(())
    }

    /// Reads an attribute, or with `bytes` 0 only its size.
    ///
    /// # Safety
    /// `source` as for `read`, `buffer` NULL or of `bytes` bytes, `written` NULL or writable.
    pub unsafe fn get(
        &self,
        source: *const c_void,
        id: c_int,
        buffer: *mut c_void,
        bytes: usize,
        written: *mut usize,
    ) -> Result<(), c_int> {
        // SAFETY: as promised.
        let descriptor = unsafe { self.read(source)? };
        let (offset, size) = self.locate(&descriptor, id)?;
        // SAFETY: as promised.
        unsafe { give(&descriptor.bytes[offset..offset + size], buffer, bytes, written) }
    }
}

/// The header's rule for every getter: `bytes` 0 asks for the size, else it must be the size.
///
/// # Safety
/// `buffer` must be NULL or of `bytes` bytes, `written` NULL or writable.
pub unsafe fn give(
    value: &[u8],
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> Result<(), c_int> {
    let asks = bytes == 0 && !written.is_null();
    if !asks && (buffer.is_null() || bytes != value.len()) {
        return Err(INVALID_VALUE);
    }
    if !asks {
        // SAFETY: the buffer has as many bytes as the value.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), buffer.cast(), value.len()) };
    }
    if !written.is_null() {
        // SAFETY: not NULL, so writable.
        unsafe { *written = value.len() };
    }
    Ok(())
}

/// Descriptors made by `create` that live, for tests that look for leaks.
pub fn live() -> usize {
    lock().live.len()
}

/// Addresses of what `create` made, and of what was destroyed.
struct Made {
    live: BTreeSet<usize>,
    destroyed: Vec<usize>,
}

static MADE: Mutex<Made> = Mutex::new(Made { live: BTreeSet::new(), destroyed: Vec::new() });

fn lock() -> MutexGuard<'static, Made> {
    MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
