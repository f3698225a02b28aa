//! What NCCL's simulated half refuses, and what it notes because a real one would hang or corrupt.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod ranks;
mod support;

use gpusim::control::*;
use gpusim::driver::stream::*;
use gpusim::nccl::{collective::*, end::*, group::*, init::*, query::*};
use gpusim::violation;
use ranks::*;
use std::sync::Barrier;
use std::time::Duration;
use support::*;

const SHORT: Duration = Duration::from_millis(30);

/// All violations are of this kind, and there is one at least.
#[track_caller]
fn only_violated(text: &str) {
    let all = violation::all();
    assert!(!all.is_empty() && all.iter().all(|one| one.contains(text)), "{all:?}");
    violation::clear();
}

/// A communicator of one rank on the thread's device.
fn alone() -> Rank {
    let (result, comm) = init(unique_id(), 1, 0, &config(1));
    ok(result);
    Rank { comm, rank: 0, ranks: 1, stream: stream(1) }
}

#[test]
fn a_config_that_the_initializer_did_not_make_is_refused() {
    let _sim = machine();
    let mut cases = [(); 4].map(|()| config(1));
    (cases[0].magic, cases[1].size, cases[2].version, cases[3].blocking) = (1, 16, 21300, 2);
    for case in &cases {
        assert_eq!(init(unique_id(), 1, 0, case), (4, 0));
        violated("config");
    }
    let rank = alone();
    rank.destroy();
    clean();
}

#[test]
fn bad_arguments_leave_the_communicator_usable() {
    let _sim = machine();
    let rank = alone();
    let (memory, comm, stream) = (upload(&[3]), rank.comm, rank.stream);
    let mut other = 0;
    unsafe {
        assert_eq!(ncclCommInitRank(&mut other, 1, unique_id(), 1), 4);
        assert_eq!(ncclCommInitRank(&mut other, 0, unique_id(), 0), 4);
        assert_eq!(ncclBroadcast(memory, memory, 1, INT32, 1, comm, stream), 4);
        assert_eq!(ncclBroadcast(memory, memory, 1, INT32, -1, comm, stream), 4);
        assert_eq!(ncclAllGather(memory, memory, 1, 12, comm, stream), 4);
        assert_eq!(ncclAllGather(memory, memory, usize::MAX, INT32, comm, stream), 4);
        assert_eq!(ncclAllGather(memory, memory, 1, INT32, 0, stream), 4);
        assert_eq!(ncclCommGetAsyncError(comm, std::ptr::null_mut()), 4);
    }
    ok(rank.all_gather(memory, memory, 1));
    sync(stream);
    assert_eq!(download(memory, 1), [3]);
    rank.destroy();
    clean();
}

#[test]
fn two_ranks_of_one_gpu_are_refused_unless_a_new_version_is_told_to_have_them() {
    let _sim = machine();
    let id = unique_id();
    let join = |rank| {
        enter_device(0);
        let (_, comm) = init(id, 2, rank, &config(0));
        let state = poll(comm);
        assert_eq!(unsafe { ncclCommGetAsyncError(comm, &mut 0) }, 0);
        ok(ncclCommAbort(comm));
        state
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| join(1));
        assert_eq!(join(0), 5);
        assert_eq!(other.join().ok(), Some(5));
    });
    clean();
}

#[test]
fn all_ranks_are_told_that_two_of_them_share_a_gpu() {
    let _sim = machine();
    let id = unique_id();
    std::thread::scope(|scope| {
        for (rank, device) in [0, 0, 1].into_iter().enumerate() {
            scope.spawn(move || {
                enter_device(device);
                let (_, comm) = init(id, 3, rank, &config(0));
                assert_eq!(poll(comm), 5);
                ok(ncclCommAbort(comm));
            });
        }
    });
    clean();
}

#[test]
fn a_communicator_says_who_it_is_once_it_is_there() {
    let _sim = machine();
    let (mut count, mut device, mut rank) = (0, -1, -1);
    let (_, comm) = init(unique_id(), 2, 1, &config(0));
    assert_eq!(unsafe { ncclCommCount(comm, &mut count) }, 4);
    violated("ncclCommCount: the communicator is in progress");
    ok(ncclCommAbort(comm));
    each_rank(3, |seat| {
        if seat.rank == 2 {
            let (mut count, mut device, mut rank) = (0, 0, 0);
            unsafe {
                ok(ncclCommCount(seat.comm, &mut count));
                ok(ncclCommCuDevice(seat.comm, &mut device));
                ok(ncclCommUserRank(seat.comm, &mut rank));
            }
            assert_eq!((count, device, rank), (3, 2, 2));
        }
        seat.destroy();
    });
    ok(unsafe { ncclGetVersion(&mut count) });
    assert_eq!(count, 23003);
    assert_eq!(unsafe { ncclCommCuDevice(0, &mut device) }, 4);
    assert_eq!(unsafe { ncclCommUserRank(0, &mut rank) }, 4);
    assert_eq!((device, rank), (-1, -1));
    clean();
}

#[test]
fn a_rank_joins_once() {
    let _sim = machine();
    let id = unique_id();
    let (result, comm) = init(id, 2, 1, &config(0));
    assert_eq!(result, IN_PROGRESS);
    assert_eq!(init(id, 2, 1, &config(0)), (5, 0));
    violated("joins one id twice");
    assert_eq!(init(id, 3, 0, &config(0)).0, 5);
    violated("one id with 2 ranks and with 3");
    ok(ncclCommAbort(comm));
}

#[test]
fn mismatched_collectives_hang_and_are_noted() {
    let _sim = machine();
    type Case = (&'static str, fn(&Rank, u64) -> i32);
    let cases: [Case; 3] = [
        ("count", |rank, memory| rank.all_gather(memory, memory + 64, 1 + rank.rank)),
        ("root", |rank, memory| rank.broadcast(memory, memory, 1, rank.rank)),
        ("kind", |rank, memory| match rank.rank {
            0 => rank.broadcast(memory, memory, 1, 0),
            _ => rank.all_gather(memory, memory + 64, 1),
        }),
    ];
    for (name, call) in cases {
        each_rank(2, |rank| {
            ok(call(rank, alloc(256)));
            assert!(!is_over_within(rank.stream, SHORT), "{name}");
            ok(ncclCommAbort(rank.comm));
        });
        only_violated("mismatched");
    }
}

#[test]
fn a_gather_and_a_kernel_that_reads_its_rows_race_without_an_event() {
    let _sim = machine();
    for ordered in [true, false] {
        each_rank(2, |rank| {
            let (send, receive, reader) = (upload(&[1]), alloc(8), stream(1));
            ok(rank.all_gather(send, receive, 1));
            if ordered {
                order(rank.stream, reader);
            }
            let read = gpusim::machine::Access::read(receive, 8);
            ok(touch(reader, "matmul", vec![read]));
            sync(reader);
            sync(rank.stream);
            rank.destroy();
        });
        match ordered {
            true => clean(),
            false => only_violated("race: matmul"),
        }
    }
}

#[test]
fn a_buffer_that_is_too_small_is_found() {
    let _sim = machine();
    each_rank(2, |rank| {
        let send = alloc(64);
        // A launch answers 0; the kernel fails, and with it the context.
        ok(rank.all_gather(send, send, 16));
        assert_eq!(unsafe { cuStreamSynchronize(rank.stream) }, 700);
        ok(ncclCommAbort(rank.comm));
    });
    let all = violation::all();
    assert!(all.iter().any(|text| text.contains("out of bounds")), "{all:?}");
    violation::clear();
}

#[test]
fn results_may_not_lie_over_what_is_read_save_in_place() {
    let _sim = machine();
    each_rank(2, |rank| {
        let memory = alloc(64);
        ok(rank.all_gather(memory + 4, memory, 4));
        sync(rank.stream);
        rank.destroy();
    });
    only_violated("memory of one launch overlaps");
}

#[test]
fn another_devices_stream_is_refused_and_ends_the_communicator() {
    let _sim = machine();
    let rank = alone();
    let memory = alloc(4);
    enter_device(1);
    let foreign = stream(1);
    let gather = |stream| unsafe { ncclAllGather(memory, memory, 1, INT32, rank.comm, stream) };
    assert_eq!(gather(foreign), 1);
    violated("is not of the communicator's device");
    assert_eq!(gather(rank.stream), 1);
    violated("the communicator failed with 1 before");
    ok(ncclCommAbort(rank.comm));
    unsafe { gpusim::driver::context::cuDevicePrimaryCtxRelease_v2(1) };
}

#[test]
fn a_stream_that_nccl_is_still_to_enqueue_on_is_not_used() {
    let _sim = machine();
    each_rank(1, |rank| {
        let (send, receive) = (upload(&[1]), alloc(8));
        unsafe { gpusim_fail(c"ncclAllGather".as_ptr(), 1, IN_PROGRESS) };
        let (comm, stream) = (rank.comm, rank.stream);
        let result = unsafe { ncclAllGather(send, receive, 1, INT32, comm, stream) };
        assert_eq!(result, IN_PROGRESS);
        unsafe { cuStreamQuery(stream) };
        violated("communicator is in progress on it");
        fill(stream, receive, 0, 8);
        violated("communicator is in progress on it");
        ok(rank.settle(result));
        sync(stream);
        rank.destroy();
    });
    clean();
}

#[test]
fn a_call_while_the_last_one_is_in_progress_is_refused() {
    let _sim = machine();
    each_rank(1, |rank| {
        let memory = upload(&[1]);
        let gather = || unsafe { ncclAllGather(memory, memory, 1, INT32, rank.comm, rank.stream) };
        unsafe { gpusim_fail(c"ncclAllGather".as_ptr(), 1, IN_PROGRESS) };
        assert_eq!(gather(), IN_PROGRESS);
        assert_eq!(gather(), 4);
        violated("is in progress with the last call");
        ok(poll(rank.comm));
        ok(rank.settle(gather()));
        sync(rank.stream);
        rank.destroy();
    });
    clean();
}

#[test]
fn two_threads_at_once_are_found() {
    let _sim = machine();
    let rank = alone();
    let memory = upload(&[1]);
    let gather = || {
        for _ in 0..200 {
            let (comm, stream) = (rank.comm, rank.stream);
            ok(unsafe { ncclAllGather(memory, memory, 1, INT32, comm, stream) });
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(gather);
        scope.spawn(gather);
    });
    only_violated("two threads are in NCCL at once");
    sync(rank.stream);
    rank.destroy();
}

#[test]
fn one_thread_with_two_ranks_needs_a_group() {
    let _sim = machine();
    let mut comms = [0; 2];
    ok(unsafe { ncclCommInitAll(comms.as_mut_ptr(), 2, std::ptr::null()) });
    let mut places = Vec::new();
    for (device, comm) in comms.into_iter().enumerate() {
        enter_device(device);
        places.push((comm, upload(&[device as i32]), alloc(8), stream(1)));
    }
    for grouped in [true, false] {
        if grouped {
            ok(ncclGroupStart());
        }
        for (comm, send, receive, stream) in &places {
            ok(unsafe { ncclAllGather(*send, *receive, 1, INT32, *comm, *stream) });
        }
        if grouped {
            ok(ncclGroupEnd());
            clean();
        }
        for (device, (_, _, receive, stream)) in places.iter().enumerate() {
            enter_device(device);
            sync(*stream);
            assert_eq!(download(*receive, 2), [0, 1]);
        }
    }
    only_violated("one thread drives ranks");
    for (comm, ..) in places {
        ok(ncclCommDestroy(comm));
    }
    for device in [0, 1, 0, 1, 0] {
        unsafe { gpusim::driver::context::cuDevicePrimaryCtxRelease_v2(device) };
    }
    enter_device(0);
}

#[test]
fn an_arranged_failure_ends_the_communicator_and_a_bad_argument_does_not() {
    let _sim = machine();
    for (result, ends) in [(1, true), (2, true), (3, true), (4, false), (5, true), (77, true)] {
        let rank = alone();
        let memory = upload(&[1]);
        unsafe { gpusim_fail(c"ncclAllGather".as_ptr(), 1, result) };
        assert_eq!(rank.all_gather(memory, memory, 1), result);
        assert_eq!(poll(rank.comm), if ends { result } else { 0 });
        assert_eq!(rank.all_gather(memory, memory, 1), if ends { result } else { 0 });
        assert_eq!(violation::count(), usize::from(ends));
        violation::clear();
        ok(ncclCommAbort(rank.comm));
    }
}

#[test]
fn a_rank_that_fails_by_itself_stands_still() {
    let _sim = machine();
    let failed = Barrier::new(2);
    each_rank(2, |rank| {
        rank.connect();
        ok(rank.all_gather(upload(&[1]), alloc(8), 1));
        failed.wait();
        if rank.rank == 0 {
            gpusim_async_error(1, 6);
        }
        failed.wait();
        assert!(!is_over_within(rank.stream, SHORT));
        assert_eq!(poll(rank.comm), if rank.rank == 1 { 6 } else { 0 });
        failed.wait();
        ok(ncclCommAbort(rank.comm));
    });
    clean();
}

#[test]
fn finalizing_waits_for_all_ranks() {
    let _sim = machine();
    let turn = Barrier::new(2);
    each_rank(2, |rank| {
        let memory = upload(&[1]);
        ok(rank.broadcast(memory, memory, 1, 0));
        if rank.rank == 0 {
            assert_eq!(ncclCommFinalize(rank.comm), IN_PROGRESS);
            std::thread::sleep(SHORT);
            let mut state = 0;
            ok(unsafe { ncclCommGetAsyncError(rank.comm, &mut state) });
            assert_eq!(state, IN_PROGRESS);
        }
        turn.wait();
        if rank.rank == 1 {
            let result = ncclCommFinalize(rank.comm);
            assert!(result == 0 || result == IN_PROGRESS);
        }
        ok(poll(rank.comm));
        assert_eq!(unsafe { cuStreamQuery(rank.stream) }, 0, "its work is over");
        rank.destroy();
    });
    clean();
}

#[test]
fn a_group_end_without_a_group_is_refused() {
    let _sim = machine();
    assert_eq!(ncclGroupEnd(), 5);
    violated("no group is open");
}

#[test]
fn a_group_either_joins_or_communicates() {
    let _sim = machine();
    let rank = alone();
    let memory = upload(&[1]);
    ok(ncclGroupStart());
    ok(rank.all_gather(memory, memory, 1));
    assert_eq!(init(unique_id(), 1, 0, &config(1)).0, 5);
    violated("one group makes communicators and communicates");
    assert_eq!(ncclGroupEnd(), 5);
    ok(ncclCommAbort(rank.comm));
    let (rank, mut other) = (alone(), 0);
    ok(ncclGroupStart());
    ok(unsafe { ncclCommInitRank(&mut other, 1, unique_id(), 0) });
    assert_eq!(rank.all_gather(memory, memory, 1), 5);
    violated("one group makes communicators and communicates");
    assert_eq!(ncclGroupEnd(), 5);
    ok(ncclCommAbort(other));
    ok(ncclCommAbort(rank.comm));
}

#[test]
fn a_bad_argument_in_a_group_is_that_calls_alone() {
    let _sim = machine();
    let rank = alone();
    let memory = upload(&[1]);
    ok(ncclGroupStart());
    assert_eq!(rank.broadcast(memory, memory, 1, 7), 4);
    ok(rank.broadcast(memory, memory, 1, 0));
    ok(ncclGroupEnd());
    sync(rank.stream);
    rank.destroy();
    clean();
}

#[test]
fn a_context_does_not_end_before_its_communicators() {
    let sim = machine();
    let rank = alone();
    drop(sim);
    violated("rank 0's communicator lives, and device 0's context ends");
    ok(ncclCommAbort(rank.comm));
}

#[test]
fn an_end_that_is_arranged_to_take_longer_and_one_that_is_arranged_to_fail() {
    let _sim = machine();
    // Often enough that the seed alone would not have all of them in progress.
    for result in [[IN_PROGRESS; 20].as_slice(), &[3]].concat() {
        each_rank(1, |rank| {
            let memory = upload(&[1]);
            unsafe { gpusim_fail(c"ncclGroupEnd".as_ptr(), 1, result) };
            ok(ncclGroupStart());
            ok(unsafe { ncclAllGather(memory, memory, 1, INT32, rank.comm, rank.stream) });
            assert_eq!(ncclGroupEnd(), result);
            assert_eq!(poll(rank.comm), if result == IN_PROGRESS { 0 } else { result });
            ok(unsafe { cuStreamSynchronize(rank.stream) });
            ok(ncclCommAbort(rank.comm));
        });
    }
    clean();
}
