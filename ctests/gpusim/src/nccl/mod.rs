//! NCCL's functions, with the names and the numbers of nccl.h. Ranks are threads of a process or
//! processes of one machine; they meet in shared memory, and only there.

/// One call: its kinds, what it touches.
pub mod call;
/// All-gather, broadcast, send, receive.
pub mod collective;
/// A rank's communicator, and which calls it stands.
pub mod comm;
/// The struct that configures a communicator.
pub mod config;
/// Finalising, destroying, aborting.
pub mod end;
/// A launched group at the head of its stream: posting it, and finishing it once all have.
pub mod flight;
/// Groups of calls.
pub mod group;
/// Making communicators.
pub mod init;
/// From calls to work on streams.
pub mod launch;
/// Work that another process waits for.
pub mod proxy;
/// What a communicator says of itself.
pub mod query;
/// Where the ranks meet.
pub mod room;
/// The results.
pub mod status;

use crate::control::environment;
use crate::fault::enter;
use crate::machine::{Machine, lock};
use status::{IN_PROGRESS, INVALID_ARGUMENT, Outcome, SUCCESS, fatal};
use std::ffi::c_int;

/// What ncclGetVersion says, which also decides what is allowed.
pub fn version() -> c_int {
    environment("GPUSIM_NCCL_VERSION", 23003) as c_int
}

/// The body of an exported function: counted, and with the machine locked. An arranged failure
/// ends the communicator as the real one would.
fn call(function: &'static str, comm: u64, body: impl FnOnce(&mut Machine) -> Outcome) -> c_int {
    match admit(function, comm) {
        Ok(()) => outcome(body(&mut lock())),
        Err(result) => result,
    }
}

/// Counts the call. An arranged "in progress" is no failure: the call is made, but takes longer.
fn admit(function: &'static str, comm: u64) -> Outcome {
    let Err(result) = enter(function) else { return Ok(()) };
    let mut machine = lock();
    let Some(found) = machine.comms.get_mut(&comm) else { return Err(result) };
    if result == IN_PROGRESS && !found.blocking {
        found.slow = true;
        return Ok(());
    }
    if fatal(result) {
        found.fail(result, format!("{function}: arranged to fail"));
    }
    Err(result)
}

fn outcome(outcome: Outcome) -> c_int {
    outcome.err().unwrap_or(SUCCESS)
}

/// Writes an output, or refuses a NULL for it.
///
/// # Safety
/// `target` is NULL or can be written.
unsafe fn put<T>(target: *mut T, value: T) -> Outcome {
    if target.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: as above.
    unsafe { target.write(value) };
    Ok(())
}
