//! One device and the context that our work runs in. A thread of the engine's has our context
//! current only inside a call, and its own before and after.

use super::cublaslt::{CublasLt, cublaslt};
use super::driver::{Driver, Handle, ready};
use super::kernels::Kernels;
use crate::backend::Info;
use crate::error::{Error, ensure};
use cudarc::driver::sys;
use once_cell::sync::OnceCell;
use std::ffi::c_int;
use std::ptr::null_mut;

/// A device, its context, a cuBLASLt handle, and a stream for copies of weights.
pub(super) struct Context {
    pub(super) driver: &'static Driver,
    pub(super) cublaslt: &'static CublasLt,
    pub(super) info: Info,
    pub(super) device: c_int,
    pub(super) cublaslt_handle: Handle,
    /// Waits for nobody's default stream, so that loading weights does not stop the engine's work.
    pub(super) stream: Handle,
    kernels: OnceCell<Kernels>,
    context: Handle,
    owns_primary: bool,
    owns_cublaslt: bool,
}

// SAFETY: contexts, streams and cuBLASLt handles of CUDA may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Our context being current on this thread; the one before comes back when it is dropped.
pub(super) struct Entered<'a>(&'a Driver);

/// How many devices answer; an error says why none does.
pub(super) fn device_count() -> Result<c_int, Error> {
    let driver = ready()?;
    cublaslt()?;
    driver.device_count()
}

impl Context {
    /// Opens a device: in the engine's context, or in the device's primary one for 0. A cuBLASLt
    /// handle of 0 makes one.
    pub(super) fn open(device: c_int, given: usize, cublaslt_given: usize) -> Result<Self, Error> {
        let (driver, cublaslt) = (ready()?, cublaslt()?);
        ensure_device(driver, device)?;
        let info = describe(driver, cublaslt, device)?;
        let context = match given {
            0 => retain_primary(driver, device)?,
            given => given as Handle,
        };
        // From here on dropping undoes what was done.
        let mut opened = Self {
            driver,
            cublaslt,
            info,
            device,
            cublaslt_handle: cublaslt_given as Handle,
            stream: null_mut(),
            kernels: OnceCell::new(),
            context,
            owns_primary: given == 0,
            owns_cublaslt: cublaslt_given == 0,
        };
        opened.finish()?;
        Ok(opened)
    }

    fn finish(&mut self) -> Result<(), Error> {
        let (driver, cublaslt) = (self.driver, self.cublaslt);
        let entered = self.enter()?;
        let mut found = 0;
        // SAFETY: a place for the answer.
        let status = unsafe { (driver.functions.context_get_device)(&mut found) };
        driver.check("cuCtxGetDevice", status)?;
        ensure!(
            found == self.device,
            InvalidArgument,
            "cuda_context is of device {found}, but device is {}; set device to {found}",
            self.device
        );
        let (mut stream, mut handle) = (null_mut(), self.cublaslt_handle);
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place for the stream; our context is current.
        let status = unsafe { (driver.functions.stream_create)(&mut stream, flags) };
        driver.check("cuStreamCreate", status)?;
        drop(entered);
        self.stream = stream;
        if self.owns_cublaslt {
            let _entered = self.enter()?;
            // SAFETY: a place for the handle; our context is current.
            let status = unsafe { (cublaslt.functions.create)(&mut handle) };
            cublaslt.check("cublasLtCreate", status)?;
        }
        self.cublaslt_handle = handle;
        Ok(())
    }

    /// Makes our context current.
    pub(super) fn enter(&self) -> Result<Entered<'static>, Error> {
        // SAFETY: a context that is alive: retained, or the engine's promise.
        let status = unsafe { (self.driver.functions.push_current)(self.context) };
        self.driver.check("cuCtxPushCurrent", status).map(|()| Entered(self.driver))
    }

    /// As `enter`, for giving back what would otherwise be lost: tried twice. The calls that give
    /// back are not: what answers an error may have been done, and CUDA also answers errors of
    /// earlier work.
    pub(super) fn enter_to_give_back(&self) -> Result<Entered<'static>, Error> {
        self.enter().or_else(|_| self.enter())
    }

    /// Our kernels, loaded when they are first asked for, which may wait and allocate: a plan asks,
    /// and keeps them. Our context is current, beside captures; they go with it.
    pub(super) fn kernels(&self) -> Result<Kernels, Error> {
        self.kernels.get_or_try_init(|| Kernels::load(self.driver)).copied()
    }

    /// The context for messages and comparisons.
    pub(super) fn address(&self) -> usize {
        self.context as usize
    }

    /// Waits for the stream that copies weights.
    pub(super) fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: our own stream.
        let status = unsafe { (self.driver.functions.stream_synchronize)(self.stream) };
        self.driver.check("cuStreamSynchronize", status)
    }

    /// Runs a body in which this thread may allocate and wait although another thread captures:
    /// a capture in global mode forbids that to all threads, and ours have no part in it.
    pub(super) fn beside_captures<T>(
        &self,
        body: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as c_int;
        // SAFETY: a mode that is exchanged for the thread's own.
        let exchange = |mode| unsafe { (self.driver.functions.exchange_capture_mode)(mode) };
        let name = "cuThreadExchangeStreamCaptureMode";
        self.driver.check(name, exchange(&mut mode))?;
        let outcome = body();
        let restored = self.driver.check(name, exchange(&mut mode));
        outcome.and_then(|value| restored.map(|()| value))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut ours = null_mut();
        // SAFETY: a place for the context that is taken off, which enter put there.
        unsafe { (self.0.functions.pop_current)(&mut ours) };
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Ok(_entered) = self.enter_to_give_back() {
            // SAFETY: our own objects, which nobody uses any more.
            unsafe {
                if let Some(kernels) = self.kernels.get() {
                    kernels.unload();
                }
                if self.owns_cublaslt && !self.cublaslt_handle.is_null() {
                    (self.cublaslt.functions.destroy)(self.cublaslt_handle);
                }
                if !self.stream.is_null() {
                    (self.driver.functions.stream_destroy)(self.stream);
                }
            }
        }
        if self.owns_primary {
            // SAFETY: retained once by open.
            unsafe { (self.driver.functions.primary_release)(self.device) };
        }
    }
}

fn ensure_device(driver: &Driver, device: c_int) -> Result<(), Error> {
    let count = driver.device_count()?;
    ensure!(
        (0..count).contains(&device),
        NoDevice,
        "device is {device}, and {count} CUDA devices answer; use 0 to {}",
        count - 1
    );
    Ok(())
}

fn retain_primary(driver: &Driver, device: c_int) -> Result<Handle, Error> {
    let mut context = null_mut();
    // SAFETY: a place for the context.
    let status = unsafe { (driver.functions.primary_retain)(&mut context, device) };
    driver.check("cuDevicePrimaryCtxRetain", status).map(|()| context)
}

fn describe(driver: &Driver, cublaslt: &CublasLt, device: c_int) -> Result<Info, Error> {
    use sys::CUdevice_attribute_enum as attribute;
    let number = |attribute| driver.attribute(attribute, device);
    let major = number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Info::Cuda {
        device,
        compute_capability: major * 10 + minor,
        multiprocessor_count: number(attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        driver_version: driver.version,
        cublaslt_version: cublaslt.version as i64,
    })
}
