//! What a communicator says of itself.

use super::comm::Comm;
use super::status::INVALID_ARGUMENT;
use super::{call, put, version};
use crate::fault::enter;
use crate::machine::lock;
use std::ffi::{c_char, c_int};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(number: *mut c_int) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    call("ncclGetVersion", 0, |_| unsafe { put(number, version()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommCount(comm: u64, count: *mut c_int) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    unsafe { ask("ncclCommCount", comm, count, |comm| comm.ranks() as c_int) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommCuDevice(comm: u64, device: *mut c_int) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    unsafe { ask("ncclCommCuDevice", comm, device, |comm| comm.device as c_int) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommUserRank(comm: u64, rank: *mut c_int) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    unsafe { ask("ncclCommUserRank", comm, rank, |comm| comm.rank as c_int) }
}

/// # Safety
/// `target` is NULL or can be written.
unsafe fn ask(
    function: &'static str,
    comm: u64,
    target: *mut c_int,
    answer: impl FnOnce(&Comm) -> c_int,
) -> c_int {
    call(function, comm, |machine| {
        let found = answer(machine.settled_comm(comm, function)?);
        // SAFETY: the caller's promise.
        unsafe { put(target, found) }
    })
}

/// Each query lets what is in progress go on a little.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(comm: u64, result: *mut c_int) -> c_int {
    call("ncclCommGetAsyncError", comm, |machine| {
        if result.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        machine.comm(comm)?;
        machine.nudge(comm);
        machine.settle(comm);
        let state = machine.comm(comm)?.state();
        // SAFETY: the caller's output, as nccl.h asks.
        unsafe { put(result, state) }
    })
}

/// The text is that of the communicator, and lives as long as it, or until its next error.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetLastError(comm: u64) -> *const c_char {
    if enter("ncclGetLastError").is_err() {
        return c"".as_ptr();
    }
    let machine = lock();
    machine.comms.get(&comm).map_or(c"".as_ptr(), |comm| comm.last_error.as_ptr())
}
