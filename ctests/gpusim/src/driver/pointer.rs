//! What a pointer is.

use super::output;
use crate::machine::{Machine, call};
use crate::memory::{Allocation, Place};
use crate::status::*;
use std::ffi::{c_int, c_uint, c_void};

/// `CU_MEMORYTYPE_HOST` and `CU_MEMORYTYPE_DEVICE`.
const HOST: u64 = 1;
const DEVICE: u64 = 2;

/// The attribute's value and its bytes; nothing for attributes that we do not know.
fn attribute(id: c_int, address: u64, found: Option<&Allocation>) -> Option<(Option<u64>, usize)> {
    let host = |memory: &Allocation| memory.place == Place::Host;
    let value = |value: fn(&Allocation) -> u64| found.map(value);
    Some(match id {
        1 => (value(|memory| memory.context), 8),
        2 => (found.map(|memory| if host(memory) { HOST } else { DEVICE }), 4),
        3 => (found.map(|_| address), 8),
        4 => (found.filter(|memory| memory.place != Place::Device).map(|_| address), 8),
        7 => (value(|memory| memory.base), 8),
        8 => (value(|memory| (memory.place == Place::Managed) as u64), 4),
        9 => (value(|memory| memory.device as u64), 4),
        11 => (value(|memory| memory.base), 8),
        12 => (value(|memory| memory.bytes), 8),
        13 => (value(|_| 1), 4),
        _ => return None,
    })
}

/// # Safety
/// `target` can take the attribute's bytes.
unsafe fn store(target: *mut c_void, value: u64, bytes: usize) {
    // SAFETY: as above; the low bytes come first.
    unsafe { target.cast::<u8>().copy_from_nonoverlapping(value.to_le_bytes().as_ptr(), bytes) };
}

fn find(machine: &Machine, address: u64) -> Option<&Allocation> {
    machine.memory.check(address, 1).ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(
    data: *mut c_void,
    id: c_int,
    address: u64,
) -> c_int {
    call("cuPointerGetAttribute", |machine| {
        output(data)?;
        let found = find(machine, address);
        let (value, bytes) = attribute(id, address, found).ok_or(INVALID_VALUE)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { store(data, value.ok_or(INVALID_VALUE)?, bytes) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttributes(
    count: c_uint,
    ids: *const c_int,
    data: *const *mut c_void,
    address: u64,
) -> c_int {
    call("cuPointerGetAttributes", |machine| {
        if count == 0 || ids.is_null() || data.is_null() {
            return Err(INVALID_VALUE);
        }
        let found = find(machine, address);
        for index in 0..count as usize {
            // SAFETY: the caller's arrays have `count` entries.
            let (id, target) = unsafe { (ids.add(index).read(), data.add(index).read()) };
            let (value, bytes) = attribute(id, address, found).ok_or(INVALID_VALUE)?;
            output(target)?;
            let absent = if id == 9 { u64::MAX - 1 } else { 0 };
            // SAFETY: the caller's output, as cuda.h asks.
            unsafe { store(target, value.unwrap_or(absent), bytes) };
        }
        Ok(())
    })
}
