//! Initialisation and devices.

use super::{output, put};
use crate::context::Device;
use crate::control::environment;
use crate::handle::Noun;
use crate::machine::{Machine, call, early};
use crate::status::{INVALID_VALUE, NO_DEVICE, Status};
use std::ffi::{c_char, c_int, c_uint};

/// Device memory unless `GPUSIM_MEMORY_BYTES` says otherwise.
const MEMORY_BYTES: u64 = 2 << 30;

/// Each device's memory.
pub fn memory_bytes() -> u64 {
    environment("GPUSIM_MEMORY_BYTES", MEMORY_BYTES)
}

/// Which GPU of the machine the device is; processes may see different ones as their device 0.
pub fn gpu_of(device: usize) -> u64 {
    environment("GPUSIM_FIRST_DEVICE", 0) + device as u64
}

/// `CU_DEVICE_ATTRIBUTE_*` and the answers.
const ATTRIBUTES: &[(c_int, c_int)] = &[
    (1, 1024),            // MAX_THREADS_PER_BLOCK
    (10, 32),             // WARP_SIZE
    (14, 512),            // TEXTURE_ALIGNMENT
    (16, 132),            // MULTIPROCESSOR_COUNT
    (18, 0),              // INTEGRATED
    (31, 1),              // CONCURRENT_KERNELS
    (38, 50 * (1 << 20)), // L2_CACHE_SIZE
    (41, 1),              // UNIFIED_ADDRESSING
    (75, 9),              // COMPUTE_CAPABILITY_MAJOR
    (76, 0),              // COMPUTE_CAPABILITY_MINOR
    (83, 1),              // MANAGED_MEMORY
    (88, 0),              // PAGEABLE_MEMORY_ACCESS
    (89, 1),              // CONCURRENT_MANAGED_ACCESS
    (100, 0),             // PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES
    (115, 0),             // MEMORY_POOLS_SUPPORTED
];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    early("cuInit", |machine| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        crate::report::arrange();
        if !machine.initialised {
            initialise(machine)?;
        }
        Ok(())
    })
}

fn initialise(machine: &mut Machine) -> Status {
    let devices = environment("GPUSIM_DEVICES", 2);
    if devices == 0 {
        return Err(NO_DEVICE);
    }
    for _ in 0..devices {
        let primary = machine.new_handle(Noun::Context);
        machine.devices.push(Device { primary, retains: 0, bytes: 0, peak_bytes: 0 });
    }
    machine.initialised = true;
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    early("cuDriverGetVersion", |_| {
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(version, environment("GPUSIM_DRIVER_VERSION", 13000) as c_int) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    call("cuDeviceGetCount", |machine| {
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(count, machine.devices.len() as c_int) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    call("cuDeviceGet", |machine| {
        machine.device(ordinal)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(device, ordinal) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int) -> c_int {
    call("cuDeviceGetName", |machine| {
        let device = machine.device(device)?;
        output(name)?;
        let room = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_sub(1));
        let mut text = format!("gpusim {device}").into_bytes();
        text.truncate(room.ok_or(INVALID_VALUE)?);
        text.push(0);
        // SAFETY: the caller's output has `bytes` bytes, and the text was cut to that.
        unsafe { name.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    device: c_int,
) -> c_int {
    call("cuDeviceGetAttribute", |machine| {
        machine.device(device)?;
        let found = ATTRIBUTES.iter().find(|(id, _)| *id == attribute).ok_or(INVALID_VALUE)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(value, found.1) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    call("cuDeviceTotalMem_v2", |machine| {
        machine.device(device)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(bytes, memory_bytes() as usize) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> c_int {
    call("cuDeviceGetUuid_v2", |machine| {
        let mut bytes = *b"gpusim device  \0";
        bytes[15] = gpu_of(machine.device(device)?) as u8;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(uuid, bytes) }
    })
}
