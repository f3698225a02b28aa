//! Communicators and their operations among ranks that are threads of one process.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod ranks;
mod support;

use gpusim::driver::stream::*;
use gpusim::nccl::{collective::*, end::*, group::*, query::*};
use ranks::*;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;
use support::*;

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn an_all_gather_has_each_ranks_rows_in_the_order_of_ranks() {
    let _sim = machine();
    each_rank(3, |rank| {
        let own = rank.rank as i32 * 10;
        let (send, receive) = (upload(&[own, own + 1]), alloc(6 * 4));
        ok(rank.all_gather(send, receive, 2));
        sync(rank.stream);
        assert_eq!(download(receive, 6), [0, 1, 10, 11, 20, 21]);
        rank.destroy();
    });
    clean();
}

#[test]
fn an_all_gather_in_place_and_a_broadcast_in_place() {
    let _sim = machine();
    each_rank(2, |rank| {
        let mut values = [-1; 4];
        values[rank.rank * 2..][..2].fill(rank.rank as i32);
        let all = upload(&values);
        ok(rank.all_gather(all + rank.rank as u64 * 8, all, 2));
        sync(rank.stream);
        assert_eq!(download(all, 4), [0, 0, 1, 1]);
        let one = upload(&[rank.rank as i32 + 7]);
        ok(rank.broadcast(one, one, 1, 1));
        sync(rank.stream);
        assert_eq!(download(one, 1), [8]);
        rank.destroy();
    });
    clean();
}

/// Broadcasts in one group, one for each rank, as gathers of uneven parts are made.
#[test]
fn a_group_of_broadcasts_gathers_uneven_parts() {
    let _sim = machine();
    each_rank(3, |rank| {
        let own = vec![rank.rank as i32; rank.rank + 1];
        let (send, receive) = (upload(&own), alloc(6 * 4));
        ok(ncclGroupStart());
        for (root, first) in [0, 1, 3].into_iter().enumerate() {
            let target = receive + first * 4;
            let (comm, stream) = (rank.comm, rank.stream);
            let result =
                unsafe { ncclBroadcast(send, target, root + 1, INT32, root as i32, comm, stream) };
            ok(result);
        }
        ok(rank.settle(ncclGroupEnd()));
        sync(rank.stream);
        assert_eq!(download(receive, 6), [0, 1, 1, 2, 2, 2]);
        rank.destroy();
    });
    clean();
}

#[test]
fn sends_and_receives_in_a_group_cross() {
    let _sim = machine();
    each_rank(2, |rank| {
        let (send, receive) = (upload(&[rank.rank as i32 + 5]), alloc(4));
        let (peer, comm, stream) = (1 - rank.rank as i32, rank.comm, rank.stream);
        ok(ncclGroupStart());
        ok(unsafe { ncclSend(send, 1, INT32, peer, comm, stream) });
        ok(unsafe { ncclRecv(receive, 1, INT32, peer, comm, stream) });
        ok(rank.settle(ncclGroupEnd()));
        sync(rank.stream);
        assert_eq!(download(receive, 1), [6 - rank.rank as i32]);
        rank.destroy();
    });
    clean();
}

#[test]
fn a_rank_that_does_not_come_leaves_the_others_hanging_until_they_abort() {
    let _sim = machine();
    let over = Barrier::new(2);
    each_rank(2, |rank| {
        rank.connect();
        if rank.rank == 1 {
            over.wait();
            return ok(ncclCommAbort(rank.comm));
        }
        let (send, receive) = (upload(&[1]), upload(&[0, 0]));
        ok(rank.all_gather(send, receive, 1));
        let event = recorded(rank.stream);
        assert!(!is_over_within(rank.stream, SHORT));
        assert_eq!(unsafe { gpusim::driver::event::cuEventQuery(event) }, 600);
        ok(ncclCommAbort(rank.comm));
        assert!(is_over_within(rank.stream, LONG));
        assert_eq!(download(receive, 2), [-1, -1]);
        assert_eq!(unsafe { cuStreamQuery(rank.stream) }, 0);
        over.wait();
    });
    let hangs = gpusim::machine::lock().hangs.clone();
    assert!(
        hangs.iter().any(|text| text.to_string_lossy().contains("rank 1 has not come")),
        "{hangs:?}"
    );
    clean();
}

#[test]
fn launches_of_one_communicator_keep_their_order_on_whatever_streams() {
    let _sim = machine();
    each_rank(2, |rank| {
        let (memory, side) = (upload(&[rank.rank as i32; 4]), stream(1));
        for _ in 0..20 {
            ok(rank.broadcast(memory, memory, 1, 0));
            let gathered =
                unsafe { ncclBroadcast(memory + 4, memory + 4, 2, INT32, 0, rank.comm, side) };
            ok(rank.settle(gathered));
            let streams = if rank.rank == 0 { [side, rank.stream] } else { [rank.stream, side] };
            streams.into_iter().for_each(sync);
        }
        assert_eq!(download(memory, 4), [0, 0, 0, rank.rank as i32]);
        rank.destroy();
    });
    clean();
}

/// NCCL connects ranks when they first have to do with one another, and a call waits for that.
#[test]
fn the_first_call_is_in_progress_until_those_whom_it_concerns_have_called() {
    let _sim = machine();
    let turn = Barrier::new(3);
    each_rank(3, |rank| {
        let memory = upload(&[rank.rank as i32]);
        if rank.rank == 0 {
            let (comm, stream) = (rank.comm, rank.stream);
            let result = unsafe { ncclBroadcast(memory, memory, 1, INT32, 0, comm, stream) };
            assert_eq!((result, poll_for(comm, SHORT)), (IN_PROGRESS, IN_PROGRESS));
        }
        turn.wait();
        if rank.rank > 0 {
            let peer = 3 - rank.rank as i32;
            let call = if rank.rank == 1 { ncclSend } else { ncclRecv };
            ok(rank.settle(unsafe { call(memory, 1, INT32, peer, rank.comm, rank.stream) }));
            ok(rank.broadcast(memory, memory, 1, 0));
        }
        ok(poll(rank.comm));
        sync(rank.stream);
        assert_eq!(download(memory, 1), [0]);
        rank.destroy();
    });
    clean();
}

/// Where the system shows the shared memory in which the communicator's ranks meet.
fn shared_memory(comm: u64) -> PathBuf {
    let machine = gpusim::machine::lock();
    let name = machine.comms[&comm].room.name().to_string_lossy().into_owned();
    PathBuf::from(format!("/dev/shm{name}"))
}

#[test]
fn shared_memory_has_no_name_once_all_ranks_are_there() {
    let _sim = machine();
    each_rank(2, |rank| {
        rank.connect();
        assert!(!shared_memory(rank.comm).exists());
        rank.destroy();
    });
    clean();
}

#[test]
fn a_missing_rank_leaves_the_others_joining() {
    let _sim = machine();
    let (result, comm) = init(unique_id(), 2, 0, &config(0));
    assert_eq!(result, IN_PROGRESS);
    let mut state = 0;
    ok(unsafe { ncclCommGetAsyncError(comm, &mut state) });
    assert_eq!(state, IN_PROGRESS);
    let shared = shared_memory(comm);
    assert!(shared.exists());
    ok(ncclCommAbort(comm));
    assert!(!shared.exists());
    clean();
    assert_eq!(ncclCommAbort(comm), 4);
    violated("is used after its end");
}
