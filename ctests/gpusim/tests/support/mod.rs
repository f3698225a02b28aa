//! A device for one test at a time, and short forms of the calls that most tests make.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]
#![allow(dead_code, reason = "no test file uses all of it")]

use gpusim::control::*;
use gpusim::driver::{context::*, copy::*, device::*, event::*, memory::*, stream::*};
use gpusim::machine::{self, Access, Memory, Op};
use gpusim::violation;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard};

/// The machine is one for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Device 0 with its primary context current to the thread.
pub struct Sim {
    _turn: MutexGuard<'static, ()>,
    pub context: u64,
}

/// Begins a test: nothing is counted, noted or arranged yet.
pub fn sim() -> Sim {
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut context = 0;
    unsafe {
        ok(cuInit(0));
        ok(cuDevicePrimaryCtxRetain(&mut context, 0));
        ok(cuCtxSetCurrent(context));
        gpusim_fail(std::ptr::null(), 0, 0);
    }
    gpusim_break_op(0, 0);
    gpusim_drop_event_waits(0);
    gpusim_clear_violations();
    gpusim_clear_hangs();
    gpusim_trace(0);
    gpusim_reset_calls();
    Sim { _turn: turn, context }
}

impl Drop for Sim {
    fn drop(&mut self) {
        gpusim_break_op(0, 0);
        unsafe {
            gpusim_fail(std::ptr::null(), 0, 0);
            cuCtxSetCurrent(0);
            cuDevicePrimaryCtxRelease_v2(0);
        }
    }
}

#[track_caller]
pub fn ok(status: c_int) {
    assert_eq!(status, 0);
}

pub fn alloc(bytes: usize) -> u64 {
    let mut address = 0;
    ok(unsafe { cuMemAlloc_v2(&mut address, bytes) });
    address
}

pub fn stream(flags: u32) -> u64 {
    let mut stream = 0;
    ok(unsafe { cuStreamCreate(&mut stream, flags) });
    stream
}

pub fn event(flags: u32) -> u64 {
    let mut event = 0;
    ok(unsafe { cuEventCreate(&mut event, flags) });
    event
}

pub fn sync(stream: u64) {
    ok(unsafe { cuStreamSynchronize(stream) });
}

/// An event on one stream that the other waits for.
pub fn order(first: u64, second: u64) {
    let between = event(2);
    unsafe {
        ok(cuEventRecord(between, first));
        ok(cuStreamWaitEvent(second, between, 0));
        ok(cuEventDestroy_v2(between));
    }
}

pub fn fill(stream: u64, address: u64, value: u8, bytes: usize) {
    ok(unsafe { cuMemsetD8Async(address, value, bytes, stream) });
}

/// The device's bytes once all of the context's work is over.
pub fn read(address: u64, bytes: usize) -> Vec<u8> {
    let mut values = vec![0; bytes];
    unsafe {
        ok(cuCtxSynchronize());
        ok(cuMemcpyDtoH_v2(values.as_mut_ptr(), address, bytes));
    }
    values
}

/// A kernel that does nothing to these accesses.
pub fn touch(stream: u64, name: &str, accesses: Vec<Access>) -> c_int {
    let run = Arc::new(|_: &Memory| {});
    machine::enqueue("touch", stream as *mut c_void, Op::kernel(name, accesses, run))
}

#[track_caller]
pub fn clean() {
    assert_eq!(violation::all(), Vec::<String>::new());
}

/// There is one violation, with the text in it.
#[track_caller]
pub fn violated(text: &str) {
    let all = violation::all();
    assert!(all.len() == 1 && all[0].contains(text), "{all:?}");
    violation::clear();
}
