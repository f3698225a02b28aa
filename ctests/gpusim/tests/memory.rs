//! Allocations and copies: what is refused, what the host can see, and when.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::control::*;
use gpusim::driver::{context::*, copy::*, memory::*, pointer::*};
use gpusim::status::*;
use std::ffi::c_void;
use support::*;

#[test]
fn fresh_memory_is_aligned_and_not_a_number() {
    let _sim = sim();
    let address = alloc(100);
    assert_eq!(address % 512, 0);
    assert_eq!(read(address, 100), [0xFF; 100]);
    ok(unsafe { cuMemFree_v2(address) });
}

#[test]
fn the_host_cannot_read_a_device_address() {
    let _sim = sim();
    let address = alloc(4096);
    // The kernel says EFAULT where the process would get a signal.
    let mut pipe = [0; 2];
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        assert_eq!(libc::write(pipe[1], address as *const c_void, 1), -1);
        pipe.into_iter().for_each(|end| assert_eq!(libc::close(end), 0));
        ok(cuMemFree_v2(address));
    }
}

#[test]
fn a_use_after_free_is_found_and_addresses_are_never_given_again() {
    let _sim = sim();
    let address = alloc(512);
    ok(unsafe { cuMemFree_v2(address) });
    assert_ne!(alloc(512), address);
    assert_eq!(unsafe { cuMemsetD8_v2(address, 0, 1) }, INVALID_VALUE);
    violated("which was freed");
    assert_eq!(unsafe { cuMemFree_v2(address) }, INVALID_VALUE);
    violated("was freed before");
}

#[test]
fn a_copy_out_of_bounds_is_refused() {
    let _sim = sim();
    let address = alloc(16);
    let source = [0u8; 32];
    assert_eq!(unsafe { cuMemcpyHtoD_v2(address, source.as_ptr(), 17) }, INVALID_VALUE);
    violated("out of bounds");
    assert_eq!(unsafe { cuMemcpyHtoD_v2(source.as_ptr() as u64, source.as_ptr(), 1) }, 1);
    violated("no device memory");
}

#[test]
fn memory_runs_out_and_the_peak_is_known() {
    let _sim = sim();
    let mut address = 0;
    assert_eq!(unsafe { cuMemAlloc_v2(&mut address, 3 << 30) }, OUT_OF_MEMORY);
    let address = alloc(10 << 20);
    assert!(gpusim_peak_bytes(0) >= 10 << 20);
    ok(unsafe { cuMemFree_v2(address) });
    assert_eq!(unsafe { gpusim_live(c"bytes".as_ptr()) }, 0);
}

#[test]
fn a_copy_from_pageable_memory_may_outlast_its_call() {
    let _sim = sim();
    let (address, side) = (alloc(4), stream(1));
    ok(unsafe { cuMemcpyHtoD_v2(address, [1u8, 2, 3, 4].as_ptr(), 4) });
    fill(side, address, 0, 4);
    violated("may outlast its call");
    ok(unsafe { cuCtxSynchronize() });
    ok(unsafe { cuMemcpyHtoD_v2(address, [1u8, 2, 3, 4].as_ptr(), 4) });
    sync(0);
    fill(side, address, 7, 4);
    assert_eq!(read(address, 4), [7; 4]);
    clean();
}

#[test]
fn a_copy_to_pinned_memory_comes_when_it_is_waited_for() {
    let _sim = sim();
    let (address, side) = (alloc(4), stream(1));
    let mut pinned = 0;
    unsafe {
        ok(cuMemHostAlloc(&mut pinned, 4, 0));
        fill(side, address, 9, 4);
        ok(cuMemcpyDtoHAsync_v2(pinned as *mut u8, address, 4, side));
        assert_eq!(*(pinned as *const [u8; 4]), [0xFF; 4]);
        sync(side);
        assert_eq!(*(pinned as *const [u8; 4]), [9; 4]);
        ok(cuMemFreeHost(pinned));
    }
    clean();
}

#[test]
fn memory_freed_under_a_running_op_is_a_violation() {
    let _sim = sim();
    let (address, side) = (alloc(4), stream(1));
    fill(side, address, 9, 4);
    ok(unsafe { cuMemFree_v2(address) });
    violated("may still use it");
}

#[test]
fn rows_of_a_pitched_copy_land_where_they_should() {
    let _sim = sim();
    let (source, target) = (alloc(64), alloc(64));
    let bytes: Vec<u8> = (0..64).collect();
    ok(unsafe { cuMemcpyHtoD_v2(source, bytes.as_ptr(), 64) });
    let side = |device, pitch, x_bytes, y| {
        let (host, array) = (0, 0);
        Memcpy2DSide { x_bytes, y, memory_type: 2, host, device, array, pitch }
    };
    let (source, target_side) = (side(source, 16, 4, 1), side(target, 8, 0, 0));
    let copy = Memcpy2D { source, target: target_side, width: 3, height: 2 };
    ok(unsafe { cuMemcpy2DAsync_v2(&copy, 0) });
    assert_eq!(read(target, 12), [20, 21, 22, 255, 255, 255, 255, 255, 36, 37, 38, 255]);
    let narrow = Memcpy2D { target: side(target, 2, 0, 0), ..copy };
    assert_eq!(unsafe { cuMemcpy2DAsync_v2(&narrow, 0) }, INVALID_VALUE);
    clean();
}

#[test]
fn a_pointer_tells_what_it_is() {
    let sim = sim();
    let (address, local) = (alloc(100), 0u8);
    let (mut context, mut kind, mut start, mut length) = (0u64, 0u32, 0u64, 0u64);
    let outputs: [*mut c_void; 4] = [
        (&raw mut context).cast(),
        (&raw mut kind).cast(),
        (&raw mut start).cast(),
        (&raw mut length).cast(),
    ];
    unsafe {
        ok(cuPointerGetAttributes(4, [1, 2, 11, 12].as_ptr(), outputs.as_ptr(), address + 50));
        assert_eq!((context, kind, start, length), (sim.context, 2, address, 100));
        ok(cuPointerGetAttributes(
            4,
            [1, 2, 11, 12].as_ptr(),
            outputs.as_ptr(),
            &raw const local as u64,
        ));
        assert_eq!((context, kind, start, length), (0, 0, 0, 0));
        assert_eq!(cuPointerGetAttribute(outputs[1], 2, &raw const local as u64), INVALID_VALUE);
        let (mut base, mut bytes) = (0, 0);
        ok(cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 99));
        assert_eq!((base, bytes), (address, 100));
        assert_eq!(cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 100), NOT_FOUND);
    }
}
