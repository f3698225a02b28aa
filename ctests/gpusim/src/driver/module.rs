//! Modules, functions and launches.

use super::{output, put};
use crate::handle::Noun;
use crate::kernels::{self, Kernel, Launch};
use crate::launch::stale;
use crate::machine::call;
use crate::module::Entry;
use crate::status::*;
use crate::violation::violate;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut u64, image: *const c_char) -> c_int {
    call("cuModuleLoadData", |machine| {
        output(module)?;
        machine.forbid_in_capture()?;
        // SAFETY: the caller's image; a PTX text ends with a NUL.
        let text = unsafe { text(image) }.map_err(|_| INVALID_IMAGE)?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(module, machine.load_module(text)?) }
    })
}

/// # Safety
/// `text` is NULL or ends with a NUL.
unsafe fn text<'a>(text: *const c_char) -> Status<&'a str> {
    if text.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: u64) -> c_int {
    call("cuModuleUnload", |machine| {
        machine.forbid_in_capture()?;
        machine.functions.retain(|_, (of, _)| *of != module);
        let found = machine.modules.remove(&module);
        found.map(|_| ()).ok_or_else(|| stale(Noun::Module, "module", module))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut u64,
    module: u64,
    name: *const c_char,
) -> c_int {
    call("cuModuleGetFunction", |machine| {
        output(function)?;
        // SAFETY: the caller's string, as cuda.h asks.
        let name = unsafe { text(name) }?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(function, machine.function(module, name)?) }
    })
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: u64,
    blocks_x: c_uint,
    blocks_y: c_uint,
    blocks_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    _shared_bytes: c_uint,
    stream: u64,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> c_int {
    call("cuLaunchKernel", |machine| {
        let found = machine.functions.get(&function);
        let (_, entry) = found.ok_or_else(|| stale(Noun::Function, "function", function))?;
        let kernel = kernels::find(&entry.name).ok_or(NOT_FOUND)?;
        check_parameters(entry, kernel)?;
        let blocks = [blocks_x, blocks_y, blocks_z];
        let threads = [threads_x, threads_y, threads_z];
        let product: u64 = threads.iter().map(|n| *n as u64).product();
        if blocks.contains(&0) || product == 0 || product > 1024 || parameters.is_null() {
            return Err(INVALID_VALUE);
        }
        if !extra.is_null() {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: the caller's pointers to parameters of the kernel's signature.
        let parameters = unsafe { read(parameters, kernel.parameter_bytes) };
        let op = (kernel.launch)(&Launch { blocks, threads, parameters: &parameters });
        machine.launch(stream, op.map_err(|reason| misused(kernel.name, &reason))?)
    })
}

/// The driver copies as many bytes as the text says, whatever the kernel was written for.
fn check_parameters(entry: &Entry, kernel: &Kernel) -> Status {
    let (found, needed) = (&entry.parameter_bytes[..], kernel.parameter_bytes);
    match found == needed {
        true => Ok(()),
        false => Err(misused(
            kernel.name,
            &format!("the module's takes parameters of {found:?} bytes, not of {needed:?}"),
        )),
    }
}

/// A device would run such a launch, and corrupt memory or fail later.
fn misused(kernel: &str, reason: &str) -> c_int {
    violate(format!("{kernel}: {reason}"));
    INVALID_VALUE
}

/// # Safety
/// `parameters` points to as many pointers to values of these sizes.
unsafe fn read(parameters: *const *const c_void, bytes: &[usize]) -> Vec<Vec<u8>> {
    let value = |(index, bytes): (usize, &usize)| {
        let mut value = vec![0u8; *bytes];
        // SAFETY: as above.
        unsafe {
            let source = parameters.add(index).read().cast::<u8>();
            source.copy_to_nonoverlapping(value.as_mut_ptr(), *bytes);
        }
        value
    };
    bytes.iter().enumerate().map(value).collect()
}
