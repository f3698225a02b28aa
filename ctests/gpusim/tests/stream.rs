//! Streams and events: order, races, and what hosts may know.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::control::*;
use gpusim::driver::{context::*, event::*, stream::*};
use gpusim::machine::Access;
use gpusim::status::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use support::*;

#[test]
fn a_missing_event_is_a_race_and_an_event_is_none() {
    let _sim = sim();
    let (address, first, second) = (alloc(64), stream(1), stream(1));
    fill(first, address, 1, 64);
    order(first, second);
    fill(second, address, 2, 64);
    assert_eq!(read(address, 64), [2; 64]);
    clean();
    fill(first, address, 1, 64);
    fill(second, address + 63, 2, 1);
    violated("nothing orders them");
}

#[test]
fn two_reads_do_not_race() {
    let _sim = sim();
    let (address, first, second) = (alloc(64), stream(1), stream(1));
    ok(touch(first, "first", vec![Access::read(address, 64)]));
    ok(touch(second, "second", vec![Access::read(address, 64)]));
    clean();
}

#[test]
fn interleaved_rows_do_not_race_and_rows_that_touch_do() {
    let _sim = sim();
    let (address, first, second) = (alloc(1024), stream(1), stream(1));
    let rows = |offset, bytes| {
        let dims = [(1, 0), (16, 64), (1, 0)];
        vec![Access { address: address + offset, bytes, dims, write: true }]
    };
    ok(touch(first, "keys", rows(0, 32)));
    ok(touch(second, "values", rows(32, 32)));
    clean();
    ok(unsafe { cuCtxSynchronize() });
    ok(touch(first, "keys", rows(0, 33)));
    ok(touch(second, "values", rows(32, 32)));
    violated("keys");
}

#[test]
fn a_dropped_wait_is_found() {
    let _sim = sim();
    let (address, first, second) = (alloc(64), stream(1), stream(1));
    gpusim_drop_event_waits(1);
    fill(first, address, 1, 64);
    order(first, second);
    fill(second, address, 2, 64);
    violated("race");
}

#[test]
fn the_legacy_stream_keeps_order_with_blocking_streams_only() {
    let _sim = sim();
    let (address, blocking, free) = (alloc(64), stream(0), stream(1));
    fill(blocking, address, 1, 64);
    fill(0, address, 2, 64);
    fill(blocking, address, 3, 64);
    fill(2, address + 1, 4, 1);
    violated("race");
    fill(0, address, 5, 64);
    clean();
    fill(free, address, 6, 64);
    assert_eq!(gpusim_violations(), 1);
}

#[test]
fn what_the_host_has_waited_for_is_ordered() {
    let _sim = sim();
    let (address, first, second, done) = (alloc(64), stream(1), stream(1), event(2));
    fill(first, address, 1, 64);
    ok(unsafe { cuEventRecord(done, first) });
    ok(unsafe { cuEventSynchronize(done) });
    fill(second, address, 2, 64);
    let mut polls = 0;
    while unsafe { cuStreamQuery(second) } == NOT_READY {
        polls += 1;
    }
    assert!(polls > 0);
    fill(first, address, 3, 64);
    clean();
}

#[test]
fn an_event_means_its_last_record_at_the_time_of_the_wait() {
    let _sim = sim();
    let (address, first, second, mark) = (alloc(64), stream(1), stream(1), event(2));
    unsafe {
        ok(cuEventRecord(mark, first));
        ok(cuStreamWaitEvent(second, mark, 0));
        fill(first, address, 1, 64);
        ok(cuEventRecord(mark, first));
    }
    fill(second, address, 2, 64);
    violated("race");
}

#[test]
fn streams_run_late_and_whatever_the_seed_in_their_order() {
    for seed in 0..20 {
        let _sim = sim();
        gpusim_seed(seed);
        let (address, target, first, second) = (alloc(1), alloc(1), stream(1), stream(1));
        fill(first, address, 1, 1);
        order(first, second);
        ok(unsafe { gpusim::driver::copy::cuMemcpyDtoDAsync_v2(target, address, 1, second) });
        order(second, first);
        fill(first, address, 3, 1);
        assert_eq!((read(target, 1), read(address, 1)), (vec![1], vec![3]));
        clean();
    }
}

#[test]
fn a_destroyed_stream_finishes_its_work_and_is_refused() {
    let _sim = sim();
    let (address, side) = (alloc(1), stream(1));
    fill(side, address, 5, 1);
    ok(unsafe { cuStreamDestroy_v2(side) });
    assert_eq!(unsafe { cuStreamSynchronize(side) }, INVALID_HANDLE);
    violated("after its destruction");
    assert_eq!(read(address, 1), [5]);
    assert_eq!(unsafe { gpusim_live(c"streams".as_ptr()) }, 0);
}

#[test]
fn events_measure_the_made_up_time_of_ops() {
    let _sim = sim();
    let (side, start, end, untimed) = (stream(1), event(0), event(0), event(2));
    let mut elapsed = 0.0;
    unsafe {
        assert_eq!(cuEventElapsedTime(&mut elapsed, start, end), INVALID_HANDLE);
        ok(cuEventRecord(start, side));
        ok(touch(side, "op", vec![]));
        ok(cuEventRecord(end, side));
        assert_eq!(cuEventElapsedTime(&mut elapsed, start, end), NOT_READY);
        assert_eq!(cuEventQuery(end), NOT_READY);
        ok(cuEventSynchronize(end));
        ok(cuEventElapsedTime(&mut elapsed, start, end));
        assert_eq!(elapsed, 0.001);
        assert_eq!(cuEventElapsedTime(&mut elapsed, start, untimed), INVALID_HANDLE);
        ok(cuEventQuery(untimed));
    }
}

static CALLED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn count(data: *mut c_void) {
    CALLED.fetch_add(data as u32, Ordering::SeqCst);
}

#[test]
fn a_host_function_is_called_in_the_streams_order() {
    let _sim = sim();
    let side = stream(1);
    ok(unsafe { cuLaunchHostFunc(side, Some(count), 3 as *mut c_void) });
    assert_eq!(CALLED.load(Ordering::SeqCst), 0);
    sync(side);
    assert_eq!(CALLED.load(Ordering::SeqCst), 3);
}

#[test]
fn threads_work_on_streams_of_their_own() {
    let sim = sim();
    let work = |value| {
        ok(unsafe { cuCtxSetCurrent(sim.context) });
        let (address, side) = (alloc(64), stream(1));
        for _ in 0..100 {
            fill(side, address, value, 64);
            sync(side);
        }
        assert_eq!(read(address, 64), [value; 64]);
    };
    std::thread::scope(|scope| (0..4).for_each(|value| drop(scope.spawn(move || work(value)))));
    clean();
}

/// Returns once the number that `data` points to is not 0.
unsafe extern "C" fn wait(data: *mut c_void) {
    let number = unsafe { &*data.cast::<AtomicU32>() };
    while number.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_host_function_holds_up_its_own_stream_only() {
    let sim = sim();
    let (held, free, go) = (stream(1), stream(1), AtomicU32::new(0));
    ok(unsafe { cuLaunchHostFunc(held, Some(wait), (&raw const go).cast_mut().cast()) });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            ok(unsafe { cuCtxSetCurrent(sim.context) });
            sync(held);
        });
        let address = alloc(1);
        for _ in 0..100 {
            fill(free, address, 1, 1);
            sync(free);
            assert_eq!(unsafe { cuStreamQuery(held) }, NOT_READY);
        }
        go.store(1, Ordering::SeqCst);
        waiting.join().unwrap();
    });
    ok(unsafe { cuStreamQuery(held) });
    clean();
}

/// Calls the driver, which is forbidden, and leaves what it said.
unsafe extern "C" fn disobey(data: *mut c_void) {
    let status = unsafe { cuStreamQuery(0) };
    unsafe { &*data.cast::<AtomicU32>() }.store(status as u32, Ordering::SeqCst);
}

#[test]
fn a_host_function_may_not_call_the_driver() {
    let _sim = sim();
    let (side, answer) = (stream(1), AtomicU32::new(0));
    ok(unsafe { cuLaunchHostFunc(side, Some(disobey), (&raw const answer).cast_mut().cast()) });
    sync(side);
    assert_eq!(answer.load(Ordering::SeqCst), NOT_PERMITTED as u32);
    violated("cuStreamQuery is called in a host function");
}
