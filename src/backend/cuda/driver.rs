//! The CUDA driver: the functions we call, found at run time, and its statuses as errors.

use crate::error::{Error, Status, ensure};
use crate::library::{Library, Names, function_table};
use cudarc::driver::sys;
use once_cell::sync::OnceCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

const NAMES: Names =
    Names { title: "the CUDA driver", variable: "XQKV_CUDA_LIBRARY", sonames: &[c"libcuda.so.1"] };

/// Before 12.0 streams cannot be told apart in the ways that a plan relies on, and cuBLASLt 12 does
/// not run.
const OLDEST: c_int = 12000;

pub(super) type Handle = *mut c_void;

function_table! {
    /// Functions of libcuda, by the names they have in cuda.h.
    Functions {
        init = c"cuInit" (c_uint);
        driver_get_version = c"cuDriverGetVersion" (*mut c_int);
        device_get_count = c"cuDeviceGetCount" (*mut c_int);
        device_get_attribute = c"cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
        primary_retain = c"cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
        primary_release = c"cuDevicePrimaryCtxRelease_v2" (c_int);
        push_current = c"cuCtxPushCurrent_v2" (Handle);
        pop_current = c"cuCtxPopCurrent_v2" (*mut Handle);
        context_get_device = c"cuCtxGetDevice" (*mut c_int);
        allocate = c"cuMemAlloc_v2" (*mut u64, usize);
        free = c"cuMemFree_v2" (u64);
        copy_to_device = c"cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Handle);
        copy_to_host = c"cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, Handle);
        copy_on_device = c"cuMemcpyDtoDAsync_v2" (u64, u64, usize, Handle);
        stream_create = c"cuStreamCreate" (*mut Handle, c_uint);
        stream_destroy = c"cuStreamDestroy_v2" (Handle);
        stream_query = c"cuStreamQuery" (Handle);
        stream_synchronize = c"cuStreamSynchronize" (Handle);
        stream_wait_event = c"cuStreamWaitEvent" (Handle, Handle, c_uint);
        stream_is_capturing = c"cuStreamIsCapturing" (Handle, *mut c_int);
        stream_get_context = c"cuStreamGetCtx" (Handle, *mut Handle);
        exchange_capture_mode = c"cuThreadExchangeStreamCaptureMode" (*mut c_int);
        event_create = c"cuEventCreate" (*mut Handle, c_uint);
        event_destroy = c"cuEventDestroy_v2" (Handle);
        event_record = c"cuEventRecord" (Handle, Handle);
        event_query = c"cuEventQuery" (Handle);
        event_elapsed = c"cuEventElapsedTime" (*mut f32, Handle, Handle);
        pointer_get_attribute = c"cuPointerGetAttribute" (*mut c_void, c_int, u64);
        module_load = c"cuModuleLoadData" (*mut Handle, *const c_void);
        module_unload = c"cuModuleUnload" (Handle);
        module_get_function = c"cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        launch_kernel = c"cuLaunchKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle,
            *const *const c_void, *const *const c_void,
        );
        get_error_name = c"cuGetErrorName" (c_int, *mut *const c_char);
        get_error_string = c"cuGetErrorString" (c_int, *mut *const c_char);
    }
}

/// The loaded driver.
pub(super) struct Driver {
    pub(super) functions: Functions,
    pub(super) version: i32,
}

/// The driver, loaded at its first use and initialised.
pub(super) fn driver() -> Result<&'static Driver, Error> {
    static DRIVER: OnceCell<Driver> = OnceCell::new();
    DRIVER.get_or_try_init(|| {
        let library = Library::open(&NAMES)?;
        let functions = Functions::load(&library)?;
        let mut version = 0;
        // SAFETY: a place for the answer.
        let status = unsafe { (functions.driver_get_version)(&mut version) };
        ensure!(
            status == 0 && version >= OLDEST,
            LibraryUnsuitable,
            "{} is of version {version} (status {status}), and {OLDEST} is needed; update the \
             driver",
            library.name()
        );
        Ok(Driver { functions, version })
    })
}

/// The driver, ready for calls; fails where there is no device, and may be asked again.
pub(super) fn ready() -> Result<&'static Driver, Error> {
    let driver = driver()?;
    // SAFETY: takes a number that must be 0.
    driver.check("cuInit", unsafe { (driver.functions.init)(0) }).map_err(no_device)?;
    Ok(driver)
}

fn no_device(error: Error) -> Error {
    Error::new(Status::NoDevice, error.message)
}

impl Driver {
    /// How many devices answer.
    pub(super) fn device_count(&self) -> Result<c_int, Error> {
        let mut count = 0;
        // SAFETY: a place for the answer.
        let status = unsafe { (self.functions.device_get_count)(&mut count) };
        self.check("cuDeviceGetCount", status).map_err(no_device).map(|()| count)
    }

    /// One number that describes a device.
    pub(super) fn attribute(
        &self,
        attribute: sys::CUdevice_attribute,
        device: c_int,
    ) -> Result<c_int, Error> {
        let mut value = 0;
        let number = attribute as c_int;
        // SAFETY: a place for the answer.
        let status = unsafe { (self.functions.device_get_attribute)(&mut value, number, device) };
        self.check("cuDeviceGetAttribute", status).map(|()| value)
    }

    /// An error for any status but success, in the driver's words.
    #[inline]
    pub(super) fn check(&self, function: &str, status: c_int) -> Result<(), Error> {
        match status == sys::CUresult::CUDA_SUCCESS as c_int {
            true => Ok(()),
            false => Err(self.failure(function, status)),
        }
    }

    #[cold]
    fn failure(&self, function: &str, status: c_int) -> Error {
        let kind = match status == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY as c_int {
            true => Status::OutOfMemory,
            false => Status::DeviceRefused,
        };
        Error::new(kind, format!("{function} answered {}", self.describe(status)))
    }

    fn describe(&self, status: c_int) -> String {
        let name = text(status, self.functions.get_error_name);
        let meaning = text(status, self.functions.get_error_string);
        match (name, meaning) {
            (Some(name), Some(meaning)) => format!("{name} ({status}: {meaning})"),
            _ => format!("{status}, which this driver has no name for"),
        }
    }
}

fn text(
    status: c_int,
    function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
) -> Option<String> {
    let mut text = std::ptr::null();
    // SAFETY: a place for the answer, which is a static text or NULL.
    let answer = unsafe { function(status, &mut text) };
    // SAFETY: not NULL, so a terminated text.
    (answer == 0 && !text.is_null())
        .then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
