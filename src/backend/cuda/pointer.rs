//! Whose memory an address is in, as the driver knows it.

use super::context::Context;
use crate::backend::Memory;
use crate::error::{Error, ensure};
use cudarc::driver::sys::{self, CUpointer_attribute_enum as attribute};
use std::ffi::c_int;

/// What the driver knows of an address.
struct Pointer {
    /// It has a meaning for devices: device memory, managed memory, or pinned host memory.
    is_known: bool,
    is_host: bool,
    device: c_int,
}

/// Refuses an address whose memory is not of this kind, or not of this device.
pub(super) fn ensure_memory(
    context: &Context,
    memory: Memory,
    address: usize,
    name: &str,
) -> Result<(), Error> {
    let pointer = look_up(context, address);
    match memory {
        Memory::Device => ensure_usable(context, &pointer, address, name),
        Memory::Host => {
            ensure!(
                !pointer.is_known || pointer.is_host,
                WrongMemory,
                "{name} is {address:#x}, which is memory of device {}; give host memory, or say \
                 XQKV_MEMORY_DEVICE",
                pointer.device
            );
            Ok(())
        }
    }
}

fn ensure_usable(
    context: &Context,
    pointer: &Pointer,
    address: usize,
    name: &str,
) -> Result<(), Error> {
    ensure!(
        pointer.is_known,
        WrongMemory,
        "{name} is {address:#x}, which is no memory that CUDA device {} knows; give memory that \
         was allocated by CUDA and is not freed",
        context.device
    );
    ensure!(
        pointer.is_host || pointer.device == context.device,
        WrongMemory,
        "{name} is {address:#x}, which is memory of device {}, but the context is of device {}",
        pointer.device,
        context.device
    );
    Ok(())
}

fn look_up(context: &Context, address: usize) -> Pointer {
    let mut kind: c_int = 0;
    let mut device: c_int = -1;
    // SAFETY: both attributes are of the type of their place.
    let (known, _) = unsafe {
        let ask = context.driver.functions.pointer_get_attribute;
        let known = ask(
            (&raw mut kind).cast(),
            attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE as c_int,
            address as u64,
        );
        let ordinal = attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as c_int;
        (known, ask((&raw mut device).cast(), ordinal, address as u64))
    };
    let host = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST as c_int;
    Pointer { is_known: known == 0 && kind != 0, is_host: kind == host, device }
}
