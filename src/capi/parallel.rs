//! The callback that brings an engine's own threads to the host backend's work.

use crate::backend;
use std::ffi::c_void;

/// One piece of a job that xqkv_parallel_for_callback runs. Never unwinds, takes no lock and waits
/// for nothing; less than 32 KiB of stack are enough.
pub type xqkv_task = Option<unsafe extern "C" fn(index: i64, task_user: *mut c_void)>;

/// Runs `task(index, task_user)` exactly once for each index from 0 to count - 1, on any threads in
/// any order, and returns when all have returned. `user` is the pointer given beside the callback.
///
/// `count` is at least 2 and at most the context's thread_count. The tasks share the work out among
/// themselves: one that comes late finds less to do or nothing, so they may be run by fewer
/// threads, or one after the other. Results do not depend on it, bit for bit.
///
/// The thread that calls a forward calls it, so several may at the same time. They may be threads
/// of the pool itself if it can run a job from inside a task. A forward with little work runs on
/// its caller's thread without it. It must not unwind, and must not wait for another forward.
///
/// A task that is skipped, repeated, given another index or still running when this returns makes
/// the forward answer XQKV_STATUS_CALLBACK_FAILED. A task may never be called after its forward
/// returned; one that is finds nothing to do and touches neither the outputs nor the projection.
pub type xqkv_parallel_for_callback = Option<
    unsafe extern "C" fn(count: i64, task: xqkv_task, task_user: *mut c_void, user: *mut c_void),
>;

/// The engine's callback as the backend calls it, if there is one.
pub(super) fn to_backend(
    callback: xqkv_parallel_for_callback,
    user: *mut c_void,
) -> Option<backend::ParallelFor> {
    let (callback, user) = (callback?, user as usize);
    Some(Box::new(move |count, ticket| {
        let (ticket, user) = (ticket as *mut c_void, user as *mut c_void);
        // SAFETY: the engine's own function, called as it is documented.
        unsafe { callback(count as i64, Some(run_task), ticket, user) }
    }))
}

/// `task_user` is a number, so that a task that is called at a wrong time can do no harm.
unsafe extern "C" fn run_task(index: i64, task_user: *mut c_void) {
    backend::run_part(task_user as usize, index);
}
