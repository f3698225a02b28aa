//! The library's kernels: what they touch, what a list decides, and what they are not given. What
//! they compute is tested from the library's side.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::driver::{context::*, copy::*, graph::*, module::*, stream::*};
use gpusim::status::*;
use std::ffi::{CStr, CString, c_int, c_void};
use support::*;

const PTX: &str = include_str!("../../../src/backend/cuda/kernels/xqkv.ptx");

/// The parameter of xqkv_store, as its source has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Store {
    addresses: [u64; 4],
    /// rows, first_row, slot_count, heads, width
    shape: [i64; 5],
    /// staged row, row, head, width
    strides: [i64; 4],
    group: [i64; 2],
    factors: [f32; 2],
    /// staged_dtype, dtype, round_dtype, accumulate
    modes: [i32; 4],
}

/// The parameter of xqkv_gather_rows.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gather {
    addresses: [u64; 3],
    /// rows, buffer_rows, width, row_stride, element_bytes
    numbers: [i64; 5],
}

fn function(text: &str, name: &CStr) -> u64 {
    let (mut module, mut function, text) = (0, 0, CString::new(text).unwrap());
    unsafe {
        ok(cuModuleLoadData(&mut module, text.as_ptr()));
        ok(cuModuleGetFunction(&mut function, module, name.as_ptr()));
    }
    function
}

fn launch<T>(function: u64, threads: [u32; 2], stream: u64, call: &T) -> c_int {
    let (at, [x, y]) = ((&raw const *call).cast::<c_void>(), threads);
    unsafe { cuLaunchKernel(function, 1, 1, 1, x, y, 1, 0, stream, &at, std::ptr::null()) }
}

fn store(stream: u64, call: &Store) -> c_int {
    launch(function(PTX, c"xqkv_store"), [32, 8], stream, call)
}

fn gather(stream: u64, call: &Gather) -> c_int {
    launch(function(PTX, c"xqkv_gather_rows"), [256, 1], stream, call)
}

/// Numbers in new memory.
fn list(values: &[i64]) -> u64 {
    let address = alloc(values.len() * 8);
    put(address, values);
    address
}

/// Numbers that are on the device when this returns.
fn put(address: u64, values: &[i64]) {
    unsafe {
        ok(cuMemcpyHtoD_v2(address, values.as_ptr().cast(), values.len() * 8));
        ok(cuCtxSynchronize());
    }
}

/// Two rows of one head of four lanes of f32, into a view of eight rows.
fn small(slots: u64) -> Store {
    Store {
        addresses: [alloc(32), alloc(128), slots, 0],
        shape: [2, 0, 8, 1, 4],
        strides: [4, 4, 4, 1],
        group: [0, 0],
        factors: [1.0, 0.0],
        modes: [1, 1, 0, 0],
    }
}

/// Two rows of four f32 out of eight.
fn picked(list: u64) -> Gather {
    Gather { addresses: [alloc(128), list, alloc(32)], numbers: [2, 8, 4, 4, 4] }
}

#[test]
fn a_store_touches_the_rows_of_its_slots_and_no_others() {
    let _sim = sim();
    let (first, second) = (stream(1), stream(1));
    let call = small(list(&[5, 2]));
    let row = |row: u64| call.addresses[1] + row * 16;
    ok(store(first, &call));
    for untouched in [0, 1, 3, 4, 6, 7] {
        fill(second, row(untouched), 0, 16);
    }
    clean();
    fill(second, row(2) + 15, 0, 1);
    violated("race");
    fill(second, row(5), 0, 1);
    violated("race");
    // It reads its rows and slots.
    fill(second, call.addresses[0] + 31, 0, 1);
    violated("race");
    fill(second, call.addresses[2] + 15, 0, 1);
    violated("race");
}

#[test]
fn a_store_leaves_what_lies_between_its_lanes_to_others() {
    let _sim = sim();
    let (first, second) = (stream(1), stream(1));
    // Lanes two elements apart, in groups of one row ten apart.
    let call = Store { strides: [4, 9, 9, 2], group: [1, 10], ..small(0) };
    ok(store(first, &call));
    for between in [1, 3, 5, 7, 8, 9, 11, 17] {
        fill(second, call.addresses[1] + between * 4, 0, 4);
    }
    clean();
    fill(second, call.addresses[1] + 16 * 4, 0, 1);
    violated("race");
}

#[test]
fn a_gathering_touches_the_rows_that_it_copies() {
    let _sim = sim();
    let (first, second) = (stream(1), stream(1));
    let call = picked(list(&[6, 99]));
    ok(gather(first, &call));
    fill(second, call.addresses[0], 0, 6 * 16);
    fill(second, call.addresses[0] + 7 * 16, 0, 16);
    clean();
    fill(second, call.addresses[0] + 6 * 16, 0, 1);
    violated("race");
    fill(second, call.addresses[2] + 31, 0, 1);
    violated("race");
}

#[test]
fn a_list_that_is_still_to_be_written_counts_as_it_will_be() {
    let _sim = sim();
    let (first, second) = (stream(1), stream(1));
    let (slots, later) = (list(&[0, 1]), list(&[3, 4]));
    let call = small(slots);
    ok(unsafe { cuMemcpyDtoDAsync_v2(slots, later, 16, first) });
    ok(store(first, &call));
    fill(second, call.addresses[1], 0, 32);
    clean();
    fill(second, call.addresses[1] + 64, 0, 1);
    violated("race");
}

#[test]
fn a_place_outside_of_the_memory_is_found() {
    let _sim = sim();
    let side = stream(1);
    let mut call = small(list(&[-1, 8]));
    ok(store(side, &call));
    sync(side);
    clean();
    call.shape[2] = 9;
    ok(store(side, &call));
    violated("out of bounds");
    assert_eq!(unsafe { cuStreamSynchronize(side) }, ILLEGAL_ADDRESS);
}

#[test]
fn two_rows_of_one_place_and_rows_over_their_own_source_are_violations() {
    let _sim = sim();
    let side = stream(1);
    ok(store(side, &small(list(&[3, 3]))));
    violated("writes twice");
    let mut call = small(0);
    call.addresses[1] = call.addresses[0];
    ok(store(side, &call));
    violated("what it reads itself");
    let mut call = picked(list(&[0, 1]));
    call.addresses[2] = call.addresses[0] + 16;
    ok(gather(side, &call));
    violated("overlaps the rows");
}

#[test]
fn a_launch_that_a_device_would_run_to_somebodys_harm_is_refused() {
    let _sim = sim();
    let side = stream(1);
    let refused = |change: &dyn Fn(&mut Store), text: &str| {
        let mut call = small(list(&[0, 1]));
        change(&mut call);
        assert_eq!(store(side, &call), INVALID_VALUE, "{text}");
        violated(text);
    };
    refused(&|call| call.addresses[0] += 2, "staged is");
    refused(&|call| call.addresses[1] += 2, "destination is");
    refused(&|call| call.addresses[2] += 4, "slots is");
    refused(&|call| call.addresses[3] += 2, "norm_weight is");
    refused(&|call| call.shape[0] = -1, "rows is -1");
    refused(&|call| call.shape[4] = 0, "width is 0");
    refused(&|call| call.shape[1] = -1, "first_row is -1");
    refused(&|call| call.strides[0] = -4, "staged_row_stride is -4");
    refused(&|call| call.strides[1] = -4, "row_stride is -4");
    refused(&|call| call.modes[0] = 0, "staged_dtype is 0");
    refused(&|call| call.modes[1] = 4, "dtype is 4");
    refused(&|call| call.modes[2] = -1, "round_dtype is -1");
    refused(&|call| call.modes[3] = 2, "accumulate is 2");
    let mut call = picked(list(&[0, 1]));
    call.numbers[4] = 3;
    assert_eq!(gather(side, &call), INVALID_VALUE);
    violated("element_bytes is 3");
    call.numbers[4] = 4;
    call.addresses[1] += 1;
    assert_eq!(gather(side, &call), INVALID_VALUE);
    violated("list is");
}

#[test]
fn a_block_of_another_shape_is_refused() {
    let _sim = sim();
    let side = stream(1);
    let shaped = |name: &CStr, threads| launch(function(PTX, name), threads, side, &small(0));
    assert_eq!(shaped(c"xqkv_store", [256, 1]), INVALID_VALUE);
    violated("a block is [32, 8, 1] threads");
    assert_eq!(shaped(c"xqkv_gather_rows", [32, 8]), INVALID_VALUE);
    violated("a block is a row of threads");
}

#[test]
fn a_parameter_of_another_size_is_refused() {
    let _sim = sim();
    let short = PTX.replace("xqkv_store_param_0[144]", "xqkv_store_param_0[136]");
    let store = function(&short, c"xqkv_store");
    assert_eq!(launch(store, [32, 8], stream(1), &small(0)), INVALID_VALUE);
    violated("parameters of [136] bytes, not of [144]");
}

#[test]
fn a_captured_store_takes_its_slots_as_they_are_at_each_launch() {
    let _sim = sim();
    let side = stream(1);
    let (slots, call) = (list(&[0, 1]), small(0));
    let call = Store { addresses: [call.addresses[0], call.addresses[1], slots, 0], ..call };
    let function = function(PTX, c"xqkv_store");
    fill(side, call.addresses[0], 0, 32);
    let (mut graph, mut exec) = (0, 0);
    unsafe {
        ok(cuStreamBeginCapture_v2(side, 1));
        ok(launch(function, [32, 8], side, &call));
        ok(cuStreamEndCapture(side, &mut graph));
        ok(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        for place in [4i64, 6] {
            put(slots, &[place, -1]);
            ok(cuGraphLaunch(exec, side));
            sync(side);
        }
    }
    let rows: Vec<u8> = read(call.addresses[1], 128).chunks(16).map(|row| row[0]).collect();
    assert_eq!(rows, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0, 0xFF]);
    clean();
}
