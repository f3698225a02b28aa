//! Faults on demand, counts, and contexts that have failed.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::control::*;
use gpusim::driver::{context::*, copy::*, error::*, event::*, memory::*, module::*, stream::*};
use gpusim::machine::{self, Access, Memory, Op};
use gpusim::status::*;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use support::*;

fn log(index: u64) -> Option<&'static str> {
    let name = gpusim_call_log(index);
    if name.is_null() {
        return None;
    }
    Some(unsafe { CStr::from_ptr(name) }.to_str().unwrap())
}

#[test]
fn calls_are_counted_and_logged_by_name() {
    let _sim = sim();
    let side = stream(1);
    sync(side);
    sync(side);
    unsafe {
        assert_eq!(gpusim_calls(c"cuStreamSynchronize".as_ptr()), 2);
        assert_eq!(gpusim_calls(ptr::null()), 3);
    }
    assert_eq!(log(0), Some("cuStreamCreate"));
    assert_eq!((log(2), log(3)), (Some("cuStreamSynchronize"), None));
}

#[test]
fn the_nth_call_answers_the_status_and_does_nothing() {
    let _sim = sim();
    unsafe { gpusim_fail(c"cuMemAlloc_v2".as_ptr(), 2, 12345) };
    let first = alloc(8);
    let mut address = 7;
    assert_eq!(unsafe { cuMemAlloc_v2(&mut address, 8) }, 12345);
    assert_eq!(address, 7);
    ok(unsafe { cuMemFree_v2(first) });
    unsafe { gpusim_fail(ptr::null(), 1, 3) };
    assert_eq!(unsafe { cuCtxSynchronize() }, 3);
    ok(unsafe { cuCtxSynchronize() });
}

#[test]
fn an_op_that_fails_ends_its_context() {
    let _sim = sim();
    let (address, side, mark) = (alloc(8), stream(1), event(2));
    gpusim_break_op(2, LAUNCH_FAILED);
    fill(side, address, 1, 8);
    fill(side, address, 2, 8);
    let run = Arc::new(|_: &Memory| panic!("this runs in a failed context"));
    ok(machine::enqueue("later", side as *mut c_void, Op::kernel("later", vec![], run)));
    ok(unsafe { cuEventRecord(mark, side) });
    assert_eq!(unsafe { cuStreamSynchronize(side) }, LAUNCH_FAILED);
    assert_eq!(unsafe { cuMemsetD8Async(address, 0, 1, side) }, LAUNCH_FAILED);
    assert_eq!(unsafe { cuMemFree_v2(address) }, LAUNCH_FAILED);
    assert_eq!(unsafe { cuStreamDestroy_v2(side) }, LAUNCH_FAILED);
    assert_eq!(unsafe { cuEventDestroy_v2(mark) }, LAUNCH_FAILED);
    for kind in [c"allocations", c"streams", c"events"] {
        assert_eq!(unsafe { gpusim_live(kind.as_ptr()) }, 0);
    }
    clean();
}

#[test]
fn a_kernel_with_a_bad_address_fails_when_it_runs() {
    let _sim = sim();
    let (address, side) = (alloc(8), stream(1));
    ok(touch(side, "kernel", vec![Access::write(address + 1, 8)]));
    violated("kernel: writes");
    assert_eq!(unsafe { cuStreamSynchronize(side) }, ILLEGAL_ADDRESS);
    assert_eq!(unsafe { cuCtxSynchronize() }, ILLEGAL_ADDRESS);
}

#[test]
fn contexts_are_a_stack_of_the_thread_and_die_with_their_things() {
    let sim = sim();
    let (mut created, mut current, mut device) = (0, 0, 0);
    unsafe {
        ok(cuCtxCreate_v2(&mut created, 0, 1));
        assert_eq!(gpusim_context_depth(), 2);
        ok(cuCtxGetDevice(&mut device));
        assert_eq!(device, 1);
        let (address, side) = (alloc(8), stream(1));
        fill(side, address, 1, 8);
        ok(cuEventRecord(event(2), side));
        ok(cuCtxPopCurrent_v2(&mut current));
        assert_eq!(current, created);
        // The other context's kernels may not touch the memory, nor run on the stream.
        assert_eq!(touch(side, "kernel", vec![]), INVALID_HANDLE);
        assert_eq!(cuMemsetD8_v2(address, 0, 1), INVALID_VALUE);
        violated("of another context");
        assert_eq!(cuEventRecord(event(2), side), INVALID_HANDLE);
        ok(cuStreamGetCtx(side, &mut current));
        assert_eq!(current, created);
        assert_eq!(gpusim_live(c"contexts".as_ptr()), 2);
        ok(cuCtxDestroy_v2(created));
        assert_eq!(gpusim_live(c"allocations".as_ptr()), 0);
        assert_eq!(gpusim_live(c"events".as_ptr()), 1);
        assert_eq!(cuCtxPushCurrent_v2(created), CONTEXT_IS_DESTROYED);
        violated("context");
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, sim.context);
    }
}

#[test]
fn without_a_context_little_can_be_done() {
    let sim = sim();
    let (mut address, side) = (0, stream(1));
    unsafe {
        ok(cuCtxSetCurrent(0));
        ok(cuStreamGetCtx(side, &mut address));
        assert_eq!(address, sim.context);
        assert_eq!(cuStreamSynchronize(side), INVALID_CONTEXT);
        assert_eq!(cuStreamGetCtx(0, &mut address), INVALID_CONTEXT);
        assert_eq!(cuMemAlloc_v2(&mut address, 8), INVALID_CONTEXT);
        assert_eq!(cuStreamCreate(&mut address, 0), INVALID_CONTEXT);
        assert_eq!(cuCtxPopCurrent_v2(&mut address), INVALID_CONTEXT);
    }
    assert_eq!(touch(0, "kernel", vec![]), INVALID_CONTEXT);
}

#[test]
fn every_status_has_a_name() {
    let mut text = ptr::null();
    unsafe {
        ok(cuGetErrorName(904, &mut text));
        assert_eq!(CStr::from_ptr(text), c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED");
        assert_eq!(cuGetErrorString(12345, &mut text), INVALID_VALUE);
        assert!(text.is_null());
    }
}

const PTX: &CStr = c".version 7.0\n.target sm_80\n.visible .entry gpusim_fill_u32(
    .param .u64 address, .param .align 4 .b8 value[4], .param .u32 count)";

#[test]
fn a_kernel_is_launched_by_its_name() {
    let _sim = sim();
    let (address, side) = (alloc(32), stream(1));
    let (mut module, mut function, value, count) = (0, 0, 0x0101_0101u32, 6u32);
    let parameters: [*const c_void; 3] =
        [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast()];
    unsafe {
        ok(cuModuleLoadData(&mut module, PTX.as_ptr()));
        assert_eq!(cuModuleGetFunction(&mut function, module, c"absent".as_ptr()), NOT_FOUND);
        ok(cuModuleGetFunction(&mut function, module, c"gpusim_fill_u32".as_ptr()));
        let at = parameters.as_ptr();
        ok(cuLaunchKernel(function, 2, 1, 1, 4, 1, 1, 0, side, at, ptr::null()));
        let status = cuLaunchKernel(function, 0, 1, 1, 4, 1, 1, 0, side, at, ptr::null());
        assert_eq!(status, INVALID_VALUE);
        assert_eq!(read(address, 25)[23..], [1, 0xFF]);
        ok(cuModuleUnload(module));
        assert_eq!(gpusim_live(c"modules".as_ptr()), 0);
    }
}

#[test]
fn a_module_that_the_driver_cannot_load_is_refused() {
    let _sim = sim();
    let mut module = 0;
    let load = |module, text: &CStr| unsafe { cuModuleLoadData(module, text.as_ptr()) };
    assert_eq!(load(&mut module, c".version 9.2\n"), UNSUPPORTED_PTX);
    assert_eq!(load(&mut module, c"\x7fELF"), INVALID_IMAGE);
    assert_eq!(load(&mut module, c".version 7.0\n.entry unknown()"), INVALID_PTX);
}
