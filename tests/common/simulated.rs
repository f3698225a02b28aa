//! The simulated GPU for a test of this process: built, chosen, and with memory for one call.

// The types are at the places that the functions go to.
#![allow(clippy::missing_transmute_annotations)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use xqkv::library::{Library, Names};

/// Where the library finds it.
pub const NAMES: Names =
    Names { title: "the CUDA driver", variable: "XQKV_CUDA_LIBRARY", sonames: &[c"libcuda.so.1"] };

/// The first device, its primary context current on this thread.
pub struct Device {
    /// Addresses of the device's memory, each of as many bytes as were asked for.
    pub rows: usize,
    pub weights: usize,
    pub views: usize,
    pub workspace: usize,
    /// The 64-bit integers from 0 on.
    pub indices: usize,
    /// The simulated GPU itself.
    pub library: Library,
    synchronize: unsafe extern "C" fn() -> c_int,
    matmuls: unsafe extern "C" fn() -> u64,
    multiply_adds: unsafe extern "C" fn() -> u64,
    calls: unsafe extern "C" fn(*const c_char) -> u64,
    violation: unsafe extern "C" fn(u64) -> *const c_char,
}

/// A function of the simulated GPU.
macro_rules! function {
    ($library:expr, $name:literal) => {
        // SAFETY: the header has the function under this name with the arguments of its use.
        unsafe {
            std::mem::transmute::<*mut std::ffi::c_void, _>(
                $library.symbol($name).map_err(|error| error.message).unwrap(),
            )
        }
    };
}

impl Device {
    /// Builds the simulated GPU and has the library take it; before the first context is made.
    pub fn open(bytes: usize) -> Device {
        choose();
        let library = Library::open(&NAMES).map_err(|error| error.message).unwrap();
        make_current(&library);
        let allocate: unsafe extern "C" fn(*mut u64, usize) -> c_int =
            function!(library, c"cuMemAlloc_v2");
        let clear: unsafe extern "C" fn(u64, u8, usize) -> c_int =
            function!(library, c"cuMemsetD8_v2");
        let memory = || {
            let mut address = 0;
            // SAFETY: a place for the address, and as many bytes as were allocated.
            unsafe {
                assert_eq!(allocate(&mut address, bytes), 0);
                assert_eq!(clear(address, 0, bytes), 0);
            }
            address as usize
        };
        Device {
            rows: memory(),
            weights: memory(),
            views: memory(),
            workspace: memory(),
            indices: counting(&library, memory()),
            synchronize: function!(library, c"cuCtxSynchronize"),
            matmuls: function!(library, c"gpusim_matmuls"),
            multiply_adds: function!(library, c"gpusim_multiply_adds"),
            calls: function!(library, c"gpusim_calls"),
            violation: function!(library, c"gpusim_violation"),
            library,
        }
    }

    /// Matrix products, multiply-adds and kernels that were launched so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let launch = c"cuLaunchKernel".as_ptr();
        // SAFETY: functions without arguments, and one that takes a name.
        unsafe { ((self.matmuls)(), (self.multiply_adds)(), (self.calls)(launch)) }
    }

    /// Waits for all work, which must have been in order and within bounds.
    pub fn finish(&self) {
        // SAFETY: a text of the simulated GPU's, or NULL.
        unsafe {
            assert_eq!((self.synchronize)(), 0);
            let violation = (self.violation)(0);
            assert!(violation.is_null(), "{:?}", CStr::from_ptr(violation));
        }
    }
}

/// Fills the device's memory with the first integers.
fn counting(library: &Library, address: usize) -> usize {
    let copy: unsafe extern "C" fn(u64, *const c_void, usize) -> c_int =
        function!(library, c"cuMemcpyHtoD_v2");
    let integers: Vec<i64> = (0..64).collect();
    // SAFETY: as many bytes as both have.
    let status = unsafe { copy(address as u64, integers.as_ptr().cast(), 64 * 8) };
    assert_eq!(status, 0);
    address
}

/// Builds it and has the library take it for all that it takes from NVIDIA.
pub fn choose() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let build = ["build", "--quiet", "--package", "gpusim", "--target-dir"];
    let built = Command::new(env!("CARGO")).args(build).arg(target).status().unwrap();
    assert!(built.success(), "the simulated GPU cannot be built");
    let path = target.join("debug/libgpusim.so");
    for variable in ["XQKV_CUDA_LIBRARY", "XQKV_CUBLASLT_LIBRARY", "XQKV_NCCL_LIBRARY"] {
        // SAFETY: the file's only test, and nothing else of the process reads its environment yet.
        unsafe { std::env::set_var(variable, &path) };
    }
}

fn make_current(library: &Library) {
    let init: unsafe extern "C" fn(u32) -> c_int = function!(library, c"cuInit");
    let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
        function!(library, c"cuDevicePrimaryCtxRetain");
    let set: unsafe extern "C" fn(*mut c_void) -> c_int = function!(library, c"cuCtxSetCurrent");
    let mut context = null_mut();
    // SAFETY: a place for the context.
    unsafe {
        assert_eq!(init(0), 0);
        assert_eq!(retain(&mut context, 0), 0);
        assert_eq!(set(context), 0);
    }
}
