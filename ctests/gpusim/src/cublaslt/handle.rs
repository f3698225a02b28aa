//! Handles, `cublasLtCreate` and `cublasLtDestroy`. A handle belongs to the context that was
//! current when it was made.

use super::status::{INVALID_VALUE, NOT_INITIALIZED, answer};
use crate::machine::{current_context, lock, violate};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard};

/// Handles by address, and the context of each. Addresses are never given twice.
struct Handles {
    contexts: BTreeMap<usize, u64>,
    next: usize,
}

static HANDLES: Mutex<Handles> = Mutex::new(Handles { contexts: BTreeMap::new(), next: 0x1000 });

fn handles() -> MutexGuard<'static, Handles> {
    HANDLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The context of a handle, if it is one.
pub fn context(handle: *const c_void) -> Result<u64, c_int> {
    if handle.is_null() {
        return Err(NOT_INITIALIZED);
    }
    let context = handles().contexts.get(&(handle as usize)).copied();
    context.ok_or_else(|| {
        violate("cublasLtHandle: used one that is destroyed or never was".to_owned());
        NOT_INITIALIZED
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut *mut c_void) -> c_int {
    answer("cublasLtCreate", || {
        if handle.is_null() {
            return Err(INVALID_VALUE);
        }
        let context = current_context().ok_or(NOT_INITIALIZED)?;
        let mut handles = handles();
        handles.next += 0x100;
        let address = handles.next;
        handles.contexts.insert(address, context);
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
        context(handle)?;
        handles().contexts.remove(&(handle as usize));
        lock().cublaslt_handles -= 1;
        Ok(())
    })
}
