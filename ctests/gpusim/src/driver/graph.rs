//! Graphs.

use super::{output, put};
use crate::machine::call;
use crate::status::INVALID_VALUE;
use std::ffi::c_int;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    exec: *mut u64,
    graph: u64,
    flags: u64,
) -> c_int {
    call("cuGraphInstantiateWithFlags", |machine| {
        output(exec)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        machine.forbid_in_capture()?;
        // SAFETY: the caller's output, as cuda.h asks.
        unsafe { put(exec, machine.instantiate(graph)?) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(exec: u64, stream: u64) -> c_int {
    call("cuGraphLaunch", |machine| machine.launch_graph(exec, stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(exec: u64) -> c_int {
    call("cuGraphExecDestroy", |machine| machine.destroy_exec(exec))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: u64) -> c_int {
    call("cuGraphDestroy", |machine| machine.destroy_graph(graph))
}
