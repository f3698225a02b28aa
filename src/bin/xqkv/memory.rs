//! Memory that a backend's calls can use: the process's own, or a CUDA device's, into which inputs
//! are copied before calls and from which results are copied back.

use crate::tensors::Outcome;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use xqkv::library::{Library, Names};

const DRIVER: Names =
    Names { title: "the CUDA driver", variable: "XQKV_CUDA_LIBRARY", sonames: &[c"libcuda.so.1"] };

/// Where buffers lie.
pub enum Memory {
    Host,
    Cuda(Device),
}

/// A CUDA device, its primary context current on this thread.
pub struct Device {
    allocate: unsafe extern "C" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "C" fn(u64) -> c_int,
    upload: unsafe extern "C" fn(u64, *const c_void, usize) -> c_int,
    download: unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int,
    synchronize: unsafe extern "C" fn() -> c_int,
    release: unsafe extern "C" fn(c_int) -> c_int,
    ordinal: c_int,
}

/// A buffer's place for calls.
pub struct Held<'a> {
    address: usize,
    device: Option<&'a Device>,
}

/// A buffer's place for calls, and its bytes on this side.
pub struct Kept<'a> {
    pub bytes: Vec<u8>,
    held: Held<'a>,
}

impl Memory {
    /// A place with these bytes in it, for as long as the result lives.
    pub fn keep(&self, mut bytes: Vec<u8>) -> Outcome<Kept<'_>> {
        let held = self.hold(&mut bytes)?;
        Ok(Kept { bytes, held })
    }

    /// A place with these bytes in it; on the host the bytes' own.
    pub fn hold(&self, bytes: &mut [u8]) -> Outcome<Held<'_>> {
        let Memory::Cuda(device) = self else {
            return Ok(Held { address: bytes.as_mut_ptr() as usize, device: None });
        };
        let mut address = 0;
        // SAFETY: a place for the address, and as many bytes as are copied.
        unsafe {
            succeed("cuMemAlloc", (device.allocate)(&mut address, bytes.len().max(1)))?;
            let source = bytes.as_ptr().cast();
            succeed("cuMemcpyHtoD", (device.upload)(address, source, bytes.len()))?;
        }
        Ok(Held { address: address as usize, device: Some(device) })
    }
}

impl Held<'_> {
    pub fn address(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Waits for the calls and copies what they wrote.
    pub fn fetch(&self, bytes: &mut [u8]) -> Outcome<()> {
        let Some(device) = self.device else {
            return Ok(());
        };
        // SAFETY: as many bytes as were held.
        unsafe {
            succeed("cuCtxSynchronize", (device.synchronize)())?;
            let target = bytes.as_mut_ptr().cast();
            succeed("cuMemcpyDtoH", (device.download)(target, self.address as u64, bytes.len()))
        }
    }
}

impl Kept<'_> {
    pub fn address(&self) -> *mut u8 {
        self.held.address()
    }

    /// Waits for the calls and copies what they wrote.
    pub fn fetch(&mut self) -> Outcome<()> {
        self.held.fetch(&mut self.bytes)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            // SAFETY: this object's own memory, which nothing uses any more: uploads may outlast
            // their calls, and a failure may come before anybody waited.
            unsafe {
                (device.synchronize)();
                (device.free)(self.address as u64);
            }
        }
    }
}

impl Device {
    pub fn open(ordinal: c_int) -> Outcome<Self> {
        let library = Library::open(&DRIVER).map_err(|error| error.message)?;
        /// A function of the driver with these arguments.
        macro_rules! function {
            ($name:literal ($($argument:ty),*)) => {{
                let address = library.symbol($name).map_err(|error| error.message)?;
                type Function = unsafe extern "C" fn($($argument),*) -> c_int;
                // SAFETY: the driver documents the function under this name with these arguments.
                unsafe { std::mem::transmute::<*mut c_void, Function>(address) }
            }};
        }
        let init = function!(c"cuInit"(u32));
        let retain = function!(c"cuDevicePrimaryCtxRetain" (*mut *mut c_void, c_int));
        let set_current = function!(c"cuCtxSetCurrent" (*mut c_void));
        let mut context = null_mut();
        // SAFETY: a place for the context.
        unsafe {
            succeed("cuInit", init(0))?;
            succeed("cuDevicePrimaryCtxRetain", retain(&mut context, ordinal))?;
            succeed("cuCtxSetCurrent", set_current(context))?;
        }
        Ok(Self {
            allocate: function!(c"cuMemAlloc_v2" (*mut u64, usize)),
            free: function!(c"cuMemFree_v2"(u64)),
            upload: function!(c"cuMemcpyHtoD_v2" (u64, *const c_void, usize)),
            download: function!(c"cuMemcpyDtoH_v2" (*mut c_void, u64, usize)),
            synchronize: function!(c"cuCtxSynchronize"()),
            release: function!(c"cuDevicePrimaryCtxRelease_v2"(c_int)),
            ordinal,
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once by open.
        unsafe { (self.release)(self.ordinal) };
    }
}

fn succeed(function: &str, status: c_int) -> Outcome<()> {
    if status == 0 { Ok(()) } else { Err(format!("{function} answered {status}")) }
}
