//! Allocation and its opposite.

use super::device::memory_bytes;
use super::{output, put};
use crate::machine::{Machine, call, enter, lock};
use crate::memory::Place;
use crate::schedule::finish;
use crate::status::*;
use crate::violation::violate;
use std::ffi::{c_int, c_uint};

/// All flags of cuMemHostAlloc.
const HOST_FLAGS: c_uint = 7;
/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH_FLAGS: [c_uint; 2] = [1, 2];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    // SAFETY: the caller's output, as cuda.h asks.
    call("cuMemAlloc_v2", |machine| unsafe { allocate(machine, Place::Device, address, bytes) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocManaged(
    address: *mut u64,
    bytes: usize,
    flags: c_uint,
) -> c_int {
    call("cuMemAllocManaged", |machine| {
        if !ATTACH_FLAGS.contains(&flags) {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { allocate(machine, Place::Managed, address, bytes) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(address: *mut u64, bytes: usize, flags: c_uint) -> c_int {
    call("cuMemHostAlloc", |machine| {
        if flags > HOST_FLAGS {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { allocate(machine, Place::Host, address, bytes) }
    })
}

/// # Safety
/// `address` is NULL or can be written.
unsafe fn allocate(machine: &mut Machine, place: Place, address: *mut u64, bytes: usize) -> Status {
    output(address)?;
    machine.forbid_in_capture()?;
    let context = machine.current()?;
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let base = machine.allocate(place, bytes as u64, context)?;
    // SAFETY: the caller's promise.
    unsafe { put(address, base) }
}

impl Machine {
    fn allocate(&mut self, place: Place, bytes: u64, context: u64) -> Status<u64> {
        let device = self.device_of(context)?;
        let used = self.devices[device].bytes.checked_add(bytes).ok_or(OUT_OF_MEMORY)?;
        if place != Place::Host && used > memory_bytes() {
            return Err(OUT_OF_MEMORY);
        }
        let base = self.memory.allocate(place, bytes, context, device).ok_or(OUT_OF_MEMORY)?;
        if place != Place::Host {
            let device = &mut self.devices[device];
            device.bytes = used;
            device.peak_bytes = device.peak_bytes.max(used);
        }
        Ok(base)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    free("cuMemFree_v2", address, |place| place != Place::Host)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: u64) -> c_int {
    free("cuMemFreeHost", address, |place| place == Place::Host)
}

fn free(function: &'static str, address: u64, fits: fn(Place) -> bool) -> c_int {
    if let Err(status) = enter(function) {
        return status;
    }
    let mut machine = lock();
    let status = machine.free_status(function, address, fits);
    // The real call may wait, and ours does once the mistake has been noted.
    let points = machine.memory.find(address).map(|m| m.context);
    let points = points.map_or(Vec::new(), |context| machine.context_points(context));
    drop(machine);
    if let Ok(true) = status {
        finish(&points);
        let mut machine = lock();
        machine.release(address);
        // In a context that has failed the memory goes as well, though the call says that.
        return number(machine.current().map(|_| ()));
    }
    number(status.map(|_| ()))
}

impl Machine {
    /// Whether there is something to free.
    fn free_status(
        &mut self,
        function: &str,
        address: u64,
        fits: fn(Place) -> bool,
    ) -> Status<bool> {
        if !self.initialised {
            return Err(NOT_INITIALIZED);
        }
        self.forbid_in_capture()?;
        if address == 0 {
            return self.current().map(|_| false);
        }
        let found = self.memory.find(address);
        match found.filter(|memory| memory.base == address && fits(memory.place)) {
            Some(memory) if memory.live => {}
            Some(_) => {
                violate(format!("{function}: {address:#x} was freed before"));
                return Err(INVALID_VALUE);
            }
            None => return Err(INVALID_VALUE),
        }
        if let Some(op) = self.races.unfinished(address, &self.host_clock) {
            violate(format!("{function}: {address:#x} is freed while {op} may still use it"));
        }
        Ok(true)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    base: *mut u64,
    bytes: *mut usize,
    address: u64,
) -> c_int {
    call("cuMemGetAddressRange_v2", |machine| {
        machine.current()?;
        let found = machine.memory.check(address, 1).map_err(|_| NOT_FOUND)?;
        // SAFETY: the caller's outputs, each of which may be NULL.
        unsafe {
            base.as_mut().into_iter().for_each(|base| *base = found.base);
            bytes.as_mut().into_iter().for_each(|bytes| *bytes = found.bytes as usize);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    call("cuMemGetInfo_v2", |machine| {
        let device = machine.device_of(machine.current()?)?;
        let total_bytes = memory_bytes();
        // SAFETY: the caller's outputs, as cuda.h asks.
        unsafe {
            put(free, (total_bytes - machine.devices[device].bytes) as usize)?;
            put(total, total_bytes as usize)
        }
    })
}
