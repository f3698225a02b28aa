//! Collectives in graphs, and the timeline of what would run when.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod ranks;
mod support;

use gpusim::control::*;
use gpusim::driver::{event::*, graph::*, stream::*};
use gpusim::machine::{self, Memory, Op};
use gpusim::nccl::{collective::*, end::*, group::*};
use ranks::*;
use std::ffi::c_void;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use support::*;

const SHORT: Duration = Duration::from_millis(30);
/// Ranks capture at once, and each may still do what it likes outside of its own capture.
const THREAD_LOCAL: i32 = 1;

/// What the body launches on the rank's stream, as an executable graph.
fn capture(rank: &Rank, body: impl FnOnce()) -> u64 {
    let (mut graph, mut exec) = (0, 0);
    unsafe {
        ok(cuStreamBeginCapture_v2(rank.stream, THREAD_LOCAL));
        body();
        ok(cuStreamEndCapture(rank.stream, &mut graph));
        ok(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        ok(cuGraphDestroy(graph));
    }
    exec
}

#[test]
fn a_captured_gather_runs_at_each_launch_and_not_before() {
    let _sim = machine();
    let before = [gpusim_collectives(-1), gpusim_collective_bytes(1)];
    each_rank(2, |rank| {
        let (send, receive) = (upload(&[0]), alloc(8));
        let exec = capture(rank, || ok(rank.all_gather(send, receive, 1)));
        for turn in 1..4 {
            fill(rank.stream, send, turn + rank.rank as u8 * 16, 4);
            ok(unsafe { cuGraphLaunch(exec, rank.stream) });
            sync(rank.stream);
            let both = [turn, turn + 16].map(|byte| i32::from_ne_bytes([byte; 4]));
            assert_eq!(download(receive, 2), both);
        }
        ok(unsafe { cuGraphExecDestroy(exec) });
        rank.destroy();
    });
    assert_eq!(gpusim_collectives(-1) - before[0], 6);
    assert_eq!(gpusim_collective_bytes(1) - before[1], 12);
    clean();
}

/// The launch waits for both streams, and both go on from it; a capture has one node for it.
#[test]
fn a_group_on_two_streams_is_one_launch_captured_or_not() {
    let _sim = machine();
    each_rank(2, |rank| {
        let (send, receive, side) = (upload(&[5, 6]), alloc(8), stream(1));
        let broadcast = |from: u64, to: u64, stream: u64| {
            ok(unsafe { ncclBroadcast(from, to, 1, INT32, 0, rank.comm, stream) });
        };
        let launch = || {
            order(rank.stream, side);
            fill(side, send + 4, 1, 4);
            ok(ncclGroupStart());
            broadcast(send, receive, rank.stream);
            broadcast(send + 4, receive + 4, side);
            ok(rank.settle(ncclGroupEnd()));
            fill(side, receive, 2, 4);
            order(side, rank.stream);
        };
        let exec = capture(rank, launch);
        ok(unsafe { cuGraphLaunch(exec, rank.stream) });
        sync(rank.stream);
        assert_eq!(download(receive, 2), [0x0202_0202, 0x0101_0101]);
        ok(unsafe { cuGraphExecDestroy(exec) });
        fill(rank.stream, receive, 0, 8);
        launch();
        sync(rank.stream);
        assert_eq!(download(receive, 2), [0x0202_0202, 0x0101_0101]);
        rank.destroy();
    });
    clean();
}

#[test]
fn a_captured_stream_is_not_used_either_while_nccl_is_still_to_enqueue_on_it() {
    let _sim = machine();
    each_rank(1, |rank| {
        let memory = upload(&[1]);
        let exec = capture(rank, || {
            unsafe { gpusim_fail(c"ncclAllGather".as_ptr(), 1, IN_PROGRESS) };
            let (comm, stream) = (rank.comm, rank.stream);
            let result = unsafe { ncclAllGather(memory, memory, 1, INT32, comm, stream) };
            fill(stream, memory, 0, 4);
            violated("communicator is in progress on it");
            ok(rank.settle(result));
        });
        ok(unsafe { cuGraphExecDestroy(exec) });
        rank.destroy();
    });
    clean();
}

#[test]
fn a_gather_that_only_one_rank_captured_is_a_mismatch() {
    let _sim = machine();
    each_rank(2, |rank| {
        let (send, receive) = (upload(&[1]), alloc(8));
        match rank.rank {
            0 => ok(rank.all_gather(send, receive, 1)),
            _ => {
                let exec = capture(rank, || ok(rank.all_gather(send, receive, 1)));
                ok(unsafe { cuGraphLaunch(exec, rank.stream) });
            }
        }
        assert!(!is_over_within(rank.stream, SHORT));
        ok(ncclCommAbort(rank.comm));
    });
    let all = gpusim::violation::all();
    assert!(!all.is_empty() && all.iter().all(|text| text.contains("captured: 1")), "{all:?}");
    gpusim::violation::clear();
}

#[test]
fn a_graph_of_an_aborted_communicator_is_found() {
    let _sim = machine();
    each_rank(1, |rank| {
        let memory = upload(&[1]);
        let exec = capture(rank, || ok(rank.all_gather(memory, memory, 1)));
        ok(ncclCommAbort(rank.comm));
        ok(unsafe { cuGraphLaunch(exec, rank.stream) });
        violated("a graph has a launch of a communicator that is gone");
        sync(rank.stream);
        ok(unsafe { cuGraphExecDestroy(exec) });
    });
    clean();
}

/// A kernel that takes this long on the made-up clock.
fn work(stream: u64, name: &str, cost_ns: u64) {
    let op = Op { cost_ns, ..Op::kernel(name, Vec::new(), Arc::new(|_: &Memory| {})) };
    ok(machine::enqueue("work", stream as *mut c_void, op));
}

/// The timeline's piece of this name on the device.
fn traced(device: i32, name: &str) -> Option<(u64, u64)> {
    let mut entry = std::mem::MaybeUninit::uninit();
    for index in 0.. {
        if unsafe { gpusim_traced(index, entry.as_mut_ptr()) } == 0 {
            break;
        }
        let found = unsafe { entry.assume_init_ref() };
        let text = unsafe { std::ffi::CStr::from_ptr(found.name) };
        if found.device == device && text.to_bytes() == name.as_bytes() {
            return Some((found.start_ns, found.end_ns));
        }
    }
    None
}

#[test]
fn a_collective_begins_when_its_last_rank_comes_and_takes_the_wires_time() {
    let _sim = machine();
    gpusim_wire(1000, 4);
    gpusim_trace(1);
    each_rank(2, |rank| {
        work(rank.stream, "before", 500 + 7000 * rank.rank as u64);
        ok(rank.all_gather(alloc(8), alloc(16), 2));
        work(rank.stream, "after", 10);
        sync(rank.stream);
        rank.destroy();
    });
    for device in 0..2 {
        // 8 bytes at 4 bytes in a microsecond, and 1 microsecond of latency.
        assert_eq!(traced(device, "ncclAllGather"), Some((7500, 10_500)));
        assert_eq!(traced(device, "after"), Some((10_500, 10_510)));
        assert_eq!(gpusim_exposed_ns(device), 3000);
    }
    gpusim_wire(5000, 100_000);
    clean();
}

#[test]
fn work_on_another_stream_hides_a_collective() {
    let _sim = machine();
    gpusim_wire(1000, 4);
    gpusim_trace(1);
    each_rank(2, |rank| {
        let side = stream(1);
        ok(rank.all_gather(alloc(8), alloc(16), 2));
        work(side, "beside", 2400);
        sync(side);
        sync(rank.stream);
        rank.destroy();
    });
    assert_eq!([0, 1].map(|device| gpusim_exposed_ns(device)), [600, 600]);
    gpusim_wire(5000, 100_000);
    clean();
}

#[test]
fn events_do_not_answer_while_a_collective_hangs_and_do_once_it_is_aborted() {
    let _sim = machine();
    let over = Barrier::new(2);
    each_rank(2, |rank| {
        rank.connect();
        if rank.rank == 1 {
            over.wait();
            return ok(ncclCommAbort(rank.comm));
        }
        let (send, receive) = (alloc(4), alloc(8));
        let exec = capture(rank, || ok(rank.all_gather(send, receive, 1)));
        ok(unsafe { cuGraphLaunch(exec, rank.stream) });
        let event = recorded(rank.stream);
        std::thread::sleep(SHORT);
        assert_eq!(unsafe { cuEventQuery(event) }, 600);
        // A thread that waits without a deadline is let go by the abort of another.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| unsafe { cuEventSynchronize(event) });
            std::thread::sleep(SHORT);
            assert!(!waiting.is_finished());
            ok(ncclCommAbort(rank.comm));
            assert_eq!(waiting.join().ok(), Some(0));
        });
        ok(unsafe { cuGraphExecDestroy(exec) });
        over.wait();
    });
    clean();
}
