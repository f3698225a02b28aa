//! All-gather, broadcast, send, receive.

use super::call::{Call, Kind};
use super::config::element_bytes;
use super::group;
use super::launch::Request;
use super::status::{INVALID_ARGUMENT, Outcome, fatal};
use super::{admit, outcome};
use crate::machine::{Machine, lock};
use std::ffi::c_int;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllGather(
    send: u64,
    receive: u64,
    count: usize,
    dtype: c_int,
    comm: u64,
    stream: u64,
) -> c_int {
    let arguments = Arguments { kind: Kind::AllGather, send, receive, count, dtype, peer: 0 };
    post("ncclAllGather", arguments, comm, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclBroadcast(
    send: u64,
    receive: u64,
    count: usize,
    dtype: c_int,
    root: c_int,
    comm: u64,
    stream: u64,
) -> c_int {
    let arguments = Arguments { kind: Kind::Broadcast, send, receive, count, dtype, peer: root };
    post("ncclBroadcast", arguments, comm, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclSend(
    send: u64,
    count: usize,
    dtype: c_int,
    peer: c_int,
    comm: u64,
    stream: u64,
) -> c_int {
    let arguments = Arguments { kind: Kind::Send, send, receive: 0, count, dtype, peer };
    post("ncclSend", arguments, comm, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclRecv(
    receive: u64,
    count: usize,
    dtype: c_int,
    peer: c_int,
    comm: u64,
    stream: u64,
) -> c_int {
    let arguments = Arguments { kind: Kind::Receive, send: 0, receive, count, dtype, peer };
    post("ncclRecv", arguments, comm, stream)
}

/// What the caller gave, not looked at yet.
struct Arguments {
    kind: Kind,
    send: u64,
    receive: u64,
    count: usize,
    dtype: c_int,
    peer: c_int,
}

impl Arguments {
    fn check(&self, ranks: usize) -> Outcome<Call> {
        let &Arguments { kind, send, receive, dtype, .. } = self;
        let peer = usize::try_from(self.peer).map_err(|_| INVALID_ARGUMENT)?;
        if peer >= ranks {
            return Err(INVALID_ARGUMENT);
        }
        let (count, element_bytes) = (self.count as u64, element_bytes(dtype)?);
        let call = Call { kind, send, receive, count, dtype, element_bytes, peer };
        call.check_size(ranks).map(|()| call)
    }
}

/// In a group the call is only noted; otherwise it is a group of its own.
fn post(function: &'static str, arguments: Arguments, comm: u64, stream: u64) -> c_int {
    let admitted = admit(function, comm);
    let held = admitted.and_then(|()| group::hold(comm, function, true));
    let result = held.and_then(|_hold| {
        let noted = note(&mut lock(), function, arguments, comm, stream);
        group::wait_if_blocking(comm, noted)
    });
    outcome(result.inspect_err(|result| group::remember(*result)))
}

fn note(
    machine: &mut Machine,
    function: &'static str,
    arguments: Arguments,
    comm: u64,
    stream: u64,
) -> Outcome {
    let ranks = machine.ready_comm(comm, function)?.ranks();
    let call = arguments.check(ranks)?;
    // NCCL drops a collective of nothing; a send of nothing still meets its receive.
    if call.count == 0 && matches!(call.kind, Kind::AllGather | Kind::Broadcast) {
        return Ok(());
    }
    let found = machine.comm_stream(comm, stream);
    let stream = found.inspect_err(|result| {
        if let Some(comm) = machine.comms.get_mut(&comm).filter(|_| fatal(*result)) {
            comm.fail(*result, format!("{function}: a stream that cannot be used"));
        }
    })?;
    let request = Request { stream, call };
    match group::is_open() {
        true => group::add(machine, comm, request),
        false => machine.submit_calls(comm, vec![request], false),
    }
}
