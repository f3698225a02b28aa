//! Stream capture and graphs: what is recorded, what is refused, and what a launch replays.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::control::*;
use gpusim::driver::{context::*, copy::*, event::*, graph::*, memory::*, stream::*};
use gpusim::machine::{self, Access, Memory, Op};
use gpusim::status::*;
use std::ffi::c_int;
use std::sync::Arc;
use support::*;

const GLOBAL: c_int = 0;
const THREAD_LOCAL: c_int = 1;
const RELAXED: c_int = 2;

fn begin(stream: u64, mode: c_int) {
    ok(unsafe { cuStreamBeginCapture_v2(stream, mode) });
}

/// Destroyed when dropped, so that none is left for another test to count.
#[derive(Debug, PartialEq)]
struct Graph(u64);

/// The same.
struct Exec(u64);

impl Drop for Graph {
    fn drop(&mut self) {
        unsafe { cuGraphDestroy(self.0) };
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        unsafe { cuGraphExecDestroy(self.0) };
    }
}

fn end(stream: u64) -> Result<Graph, c_int> {
    let mut graph = 1;
    match unsafe { cuStreamEndCapture(stream, &mut graph) } {
        SUCCESS => Ok(Graph(graph)),
        status => {
            assert_eq!(graph, 0);
            Err(status)
        }
    }
}

fn instantiate(graph: Graph) -> Exec {
    let mut exec = 0;
    ok(unsafe { cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) });
    Exec(exec)
}

fn status_of(stream: u64) -> c_int {
    let mut status = -1;
    ok(unsafe { cuStreamIsCapturing(stream, &mut status) });
    status
}

/// A fork to the second stream and back, with a fill on each.
fn fork_and_join(first: u64, second: u64, address: u64) {
    order(first, second);
    fill(first, address, 1, 4);
    fill(second, address + 4, 2, 4);
    order(second, first);
}

#[test]
fn a_graph_runs_what_was_captured_at_every_launch() {
    let _sim = sim();
    let (address, first, second) = (alloc(8), stream(1), stream(1));
    begin(first, GLOBAL);
    assert_eq!(status_of(first), 1);
    fork_and_join(first, second, address);
    assert_eq!(status_of(second), 1);
    let exec = instantiate(end(first).unwrap());
    assert_eq!((status_of(first), status_of(second)), (0, 0));
    assert_eq!(read(address, 8), [0xFF; 8]);
    for _ in 0..2 {
        fill(first, address, 0, 8);
        ok(unsafe { cuGraphLaunch(exec.0, first) });
        assert_eq!(read(address, 8), [1, 1, 1, 1, 2, 2, 2, 2]);
    }
    drop(exec);
    assert_eq!(unsafe { gpusim_live(c"graphs".as_ptr()) }, 0);
    clean();
}

#[test]
fn a_launch_keeps_the_order_of_its_branches_and_of_earlier_launches() {
    let _sim = sim();
    let (address, first, second) = (alloc(8), stream(1), stream(1));
    begin(first, GLOBAL);
    fill(first, address, 1, 8);
    order(first, second);
    ok(touch(second, "one", vec![Access::read(address, 8)]));
    ok(touch(first, "other", vec![Access::read(address, 8)]));
    order(second, first);
    let exec = instantiate(end(first).unwrap());
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    ok(unsafe { cuGraphLaunch(exec.0, second) });
    clean();
}

#[test]
fn branches_of_a_graph_that_nothing_orders_race() {
    let _sim = sim();
    let (address, first, second) = (alloc(8), stream(1), stream(1));
    begin(first, GLOBAL);
    order(first, second);
    fill(first, address, 1, 5);
    fill(second, address + 4, 2, 4);
    order(second, first);
    let exec = instantiate(end(first).unwrap());
    clean();
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    violated("race");
}

#[test]
fn a_launch_comes_after_the_stream_and_after_the_last_launch() {
    let _sim = sim();
    let (address, first, second) = (alloc(8), stream(1), stream(1));
    begin(first, GLOBAL);
    fill(first, address, 1, 8);
    let exec = instantiate(end(first).unwrap());
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    ok(unsafe { cuGraphLaunch(exec.0, second) });
    fill(second, address, 3, 8);
    clean();
    fill(first, address, 4, 8);
    violated("race");
}

#[test]
fn products_are_counted_at_every_launch() {
    let _sim = sim();
    let first = stream(1);
    let before = (gpusim_matmuls(), gpusim_multiply_adds());
    begin(first, GLOBAL);
    let mut op = Op::kernel("product", vec![], Arc::new(|_: &Memory| {}));
    (op.matmuls, op.multiply_adds) = (1, 10);
    ok(machine::enqueue("cublasLtMatmul", first as *mut _, op));
    let exec = instantiate(end(first).unwrap());
    assert_eq!(gpusim_matmuls(), before.0);
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    assert_eq!((gpusim_matmuls(), gpusim_multiply_adds()), (before.0 + 2, before.1 + 20));
}

#[test]
fn memory_freed_after_the_capture_is_found_at_the_launch() {
    let _sim = sim();
    let (address, first) = (alloc(8), stream(1));
    begin(first, GLOBAL);
    ok(touch(first, "kernel", vec![Access::read(address, 8)]));
    let exec = instantiate(end(first).unwrap());
    ok(unsafe { cuMemFree_v2(address) });
    ok(unsafe { cuGraphLaunch(exec.0, first) });
    violated("which was freed");
    assert_eq!(unsafe { cuStreamSynchronize(first) }, ILLEGAL_ADDRESS);
}

#[test]
fn unsafe_calls_end_a_capture_that_forbids_them() {
    for (mode, answer) in
        [(GLOBAL, CAPTURE_UNSUPPORTED), (THREAD_LOCAL, CAPTURE_UNSUPPORTED), (RELAXED, SUCCESS)]
    {
        let _sim = sim();
        let (first, mut address) = (stream(1), 0);
        begin(first, mode);
        assert_eq!(unsafe { cuMemAlloc_v2(&mut address, 8) }, answer);
        assert_eq!(status_of(first), if answer == SUCCESS { 1 } else { 2 });
        assert_eq!(end(first).err().unwrap_or(0), if answer == 0 { 0 } else { 901 });
    }
}

#[test]
fn another_threads_capture_forbids_by_both_modes() {
    let rows = [
        (GLOBAL, GLOBAL, CAPTURE_UNSUPPORTED),
        (GLOBAL, THREAD_LOCAL, SUCCESS),
        (GLOBAL, RELAXED, SUCCESS),
        (THREAD_LOCAL, GLOBAL, SUCCESS),
        (RELAXED, GLOBAL, SUCCESS),
    ];
    for (capture, own, answer) in rows {
        let sim = sim();
        let first = stream(1);
        begin(first, capture);
        let status = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let (mut mode, mut address) = (own, 0);
                unsafe {
                    ok(cuCtxSetCurrent(sim.context));
                    ok(cuThreadExchangeStreamCaptureMode(&mut mode));
                    assert_eq!(mode, GLOBAL);
                    cuMemAlloc_v2(&mut address, 8)
                }
            });
            other.join().unwrap()
        });
        assert_eq!(status, answer, "capture {capture}, thread {own}");
        assert_eq!(end(first).err().unwrap_or(0), if answer == 0 { 0 } else { 901 });
    }
}

#[test]
fn a_capturing_stream_cannot_be_waited_for() {
    type Call = unsafe extern "C" fn(u64) -> c_int;
    let calls: [Call; 2] = [cuStreamSynchronize, cuStreamQuery];
    for call in calls {
        let _sim = sim();
        let first = stream(1);
        begin(first, RELAXED);
        assert_eq!(unsafe { call(first) }, CAPTURE_UNSUPPORTED);
        assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
    }
    let _sim = sim();
    let first = stream(1);
    begin(first, RELAXED);
    assert_eq!(unsafe { cuCtxSynchronize() }, CAPTURE_UNSUPPORTED);
    assert_eq!(unsafe { cuMemsetD8Async(alloc(1), 0, 1, first) }, CAPTURE_INVALIDATED);
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
}

#[test]
fn a_captured_event_cannot_be_asked() {
    let _sim = sim();
    let (first, mark) = (stream(1), event(2));
    begin(first, RELAXED);
    ok(unsafe { cuEventRecord(mark, first) });
    assert_eq!(unsafe { cuEventQuery(mark) }, CAPTURED_EVENT);
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
    assert_eq!(unsafe { cuEventSynchronize(mark) }, CAPTURED_EVENT);
}

#[test]
fn an_unjoined_fork_is_refused() {
    let _sim = sim();
    let (address, first, second) = (alloc(8), stream(1), stream(1));
    begin(first, GLOBAL);
    order(first, second);
    fill(second, address, 1, 8);
    assert_eq!(end(first), Err(CAPTURE_UNJOINED));
    begin(first, GLOBAL);
    order(first, second);
    assert!(end(first).is_ok());
}

#[test]
fn a_capture_ends_where_and_by_whom_it_was_begun() {
    let sim = sim();
    let (first, second) = (stream(1), stream(1));
    assert_eq!(end(first), Err(INVALID_VALUE));
    begin(first, GLOBAL);
    order(first, second);
    assert_eq!(end(second), Err(CAPTURE_UNMATCHED));
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
    begin(first, GLOBAL);
    let other = std::thread::scope(|scope| {
        let end = || {
            ok(unsafe { cuCtxSetCurrent(sim.context) });
            end(first)
        };
        scope.spawn(end).join().unwrap()
    });
    assert_eq!(other, Err(CAPTURE_WRONG_THREAD));
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
}

#[test]
fn a_capture_depends_on_nothing_outside() {
    let _sim = sim();
    let (first, second, third) = (stream(1), stream(1), stream(1));
    begin(first, GLOBAL);
    let mark = event(2);
    ok(unsafe { cuEventRecord(mark, third) });
    assert_eq!(unsafe { cuStreamWaitEvent(first, mark, 0) }, CAPTURE_ISOLATION);
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
    begin(first, GLOBAL);
    begin(second, GLOBAL);
    ok(unsafe { cuEventRecord(mark, first) });
    assert_eq!(unsafe { cuStreamWaitEvent(second, mark, 0) }, CAPTURE_MERGE);
    assert_eq!((end(first), end(second)), (Err(901), Err(901)));
}

#[test]
fn the_legacy_stream_cannot_be_used_beside_a_blocking_capture() {
    let _sim = sim();
    let (address, blocking, free) = (alloc(8), stream(0), stream(1));
    assert_eq!(unsafe { cuStreamBeginCapture_v2(0, GLOBAL) }, CAPTURE_UNSUPPORTED);
    begin(free, RELAXED);
    fill(0, address, 1, 8);
    assert!(end(free).is_ok());
    begin(blocking, RELAXED);
    let mut status = 0;
    assert_eq!(unsafe { cuStreamIsCapturing(0, &mut status) }, CAPTURE_IMPLICIT);
    assert_eq!(status_of(blocking), 1);
    assert_eq!(unsafe { cuMemsetD8Async(address, 0, 1, 0) }, CAPTURE_IMPLICIT);
    assert_eq!(end(blocking), Err(CAPTURE_INVALIDATED));
}

#[test]
fn copies_of_pageable_memory_cannot_be_captured() {
    let _sim = sim();
    let (address, first) = (alloc(8), stream(1));
    begin(first, RELAXED);
    let source = [0u8; 8];
    let status = unsafe { cuMemcpyHtoDAsync_v2(address, source.as_ptr(), 8, first) };
    assert_eq!(status, CAPTURE_UNSUPPORTED);
    assert_eq!(end(first), Err(CAPTURE_INVALIDATED));
}
