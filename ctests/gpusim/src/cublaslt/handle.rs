//! Handles, `cublasLtCreate` and `cublasLtDestroy`. A handle belongs to the device that was
//! current when it was made.

use super::status::{INVALID_VALUE, NOT_INITIALIZED, answer};
use crate::machine::{lock, violate};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard};

/// Handles by address, and the device of each. Addresses are never given twice.
struct Handles {
    devices: BTreeMap<usize, usize>,
    next: usize,
}

static HANDLES: Mutex<Handles> = Mutex::new(Handles { devices: BTreeMap::new(), next: 0x1000 });

fn handles() -> MutexGuard<'static, Handles> {
    HANDLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The device of a handle, if it is one.
pub fn device(handle: *const c_void) -> Result<usize, c_int> {
    if handle.is_null() {
        return Err(NOT_INITIALIZED);
    }
    let device = handles().devices.get(&(handle as usize)).copied();
    device.ok_or_else(|| {
        violate("cublasLtHandle: used one that is destroyed or never was".to_owned());
        NOT_INITIALIZED
    })
}

/// The device of the calling thread's context.
pub fn current_device() -> Option<usize> {
    let machine = lock();
    machine.current().and_then(|context| machine.device_of(context)).ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut *mut c_void) -> c_int {
    answer("cublasLtCreate", || {
        if handle.is_null() {
            return Err(INVALID_VALUE);
        }
        let device = current_device().ok_or(NOT_INITIALIZED)?;
        let mut handles = handles();
        handles.next += 0x100;
        let address = handles.next;
        handles.devices.insert(address, device);
        lock().cublaslt_handles += 1;
        // SAFETY: not NULL, so writable, as the header asks.
        unsafe { *handle = address as *mut c_void };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtDestroy(handle: *mut c_void) -> c_int {
    answer("cublasLtDestroy", || {
        if handle.is_null() {
            return Err(INVALID_VALUE);
        }
        device(handle)?;
        handles().devices.remove(&(handle as usize));
        lock().cublaslt_handles -= 1;
        Ok(())
    })
}
