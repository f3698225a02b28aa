//! What a launch of a product refuses, notes, counts and orders.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod cublaslt;

use cublaslt::support::{alloc, clean, event, ok, order, stream, violated};
use cublaslt::*;
use gpusim::control::*;
use gpusim::cublaslt::handle::*;
use gpusim::cublaslt::status::*;
use gpusim::driver::{context::*, event::*, graph::*, memory::*, stream::*};
use std::ptr::null_mut;

/// A name, and what makes the arguments wrong.
type Change = (&'static str, fn(&mut Arguments));

/// A small product ready to be launched, and what may be changed about it.
fn ready() -> (Descriptors, Arguments) {
    let descriptors = Descriptors::projection(BF16, 16, 8, 256);
    let (_, found) = descriptors.search(&preference(), 32);
    let split = found.iter().find(|result| result.workspace_bytes > 0).expect("a split");
    let d = upload(format(BF16), &[0.0; 128]);
    let arguments = Arguments {
        alpha: 1.0,
        beta: 0.0,
        a: upload(format(BF16), &[1.0; 4096]),
        b: upload(format(BF16), &[1.0; 2048]),
        c: d,
        d,
        algorithm: Some(split.algorithm),
        workspace: alloc(split.workspace_bytes),
        workspace_bytes: split.workspace_bytes,
        stream: 0,
    };
    (descriptors, arguments)
}

#[test]
fn a_launch_refuses_what_the_algorithm_cannot_take() {
    let _sim = sim();
    let changes: [Change; 9] = [
        ("no A", |all| all.a = 0),
        ("no B", |all| all.b = 0),
        ("no C", |all| all.c = 0),
        ("no D", |all| all.d = 0),
        ("an A off by one element", |all| all.a += 2),
        ("no workspace", |all| all.workspace = 0),
        ("too little workspace", |all| all.workspace_bytes -= 1),
        ("an unaligned workspace", |all| all.workspace += 128),
        ("bytes that are no algorithm", |all| all.algorithm = Some([7; 8])),
    ];
    let (handle, (descriptors, good)) = (handle(), ready());
    for (what, change) in changes {
        let mut arguments = good;
        change(&mut arguments);
        assert_eq!(arguments.launch(handle, &descriptors), INVALID_VALUE, "{what}");
    }
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
    assert_eq!(download(format(BF16), good.d, 128), [256.0; 128]);
}

#[test]
fn a_launch_without_an_algorithm_takes_one_that_the_pointers_allow() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let shifted = upload(format(BF16), &[1.0; 4097]) + 2;
    let arguments = Arguments { algorithm: None, a: shifted, workspace_bytes: 0, ..good };
    assert_eq!(arguments.launch(handle, &descriptors), SUCCESS);
    assert_eq!(download(format(BF16), good.d, 128), [256.0; 128]);
}

#[test]
fn a_bias_epilogue_without_a_bias_is_invalid() {
    let _sim = sim();
    let (handle, (mut descriptors, good)) = (handle(), ready());
    set_operation(&mut descriptors.operation, 7, &EPILOGUE_BIAS);
    let arguments = Arguments { algorithm: None, ..good };
    assert_eq!(arguments.launch(handle, &descriptors), INVALID_VALUE);
}

#[test]
fn beta_zero_does_not_read_c() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    // Fresh memory is NaN.
    let arguments = Arguments { c: alloc(256), ..good };
    assert_eq!(arguments.launch(handle, &descriptors), SUCCESS);
    assert_eq!(download(format(BF16), good.d, 128), [256.0; 128]);
    let arguments = Arguments { beta: 1.0, ..arguments };
    assert_eq!(arguments.launch(handle, &descriptors), SUCCESS);
    assert!(download(format(BF16), good.d, 128).iter().all(|value| value.is_nan()));
}

#[test]
fn one_column_of_c_may_serve_all() {
    let _sim = sim();
    let (handle, (mut descriptors, good)) = (handle(), ready());
    set_layout(&mut descriptors.c, 4, &0i64);
    let c = upload(format(BF16), &[2.0; 16]);
    let arguments = Arguments { algorithm: None, beta: 4.0, c, ..good };
    assert_eq!(arguments.launch(handle, &descriptors), SUCCESS);
    assert_eq!(download(format(BF16), good.d, 128), [264.0; 128]);
    // In place, C and D are one layout.
    let arguments = Arguments { c: good.d, ..arguments };
    assert_eq!(arguments.launch(handle, &descriptors), INVALID_VALUE);
}

#[test]
fn scalars_on_the_device_are_read_there() {
    let _sim = sim();
    let (handle, (mut descriptors, good)) = (handle(), ready());
    set_operation(&mut descriptors.operation, 2, &1i32);
    let [operation, a, b, c, d] = descriptors.pointers();
    let scalar = |value| upload(format(F32), &[value]) as *const std::ffi::c_void;
    let at = |address: u64| address as *mut std::ffi::c_void;
    let (alpha, beta) = (scalar(0.5), scalar(0.0));
    let status = unsafe {
        gpusim::cublaslt::launch::cublasLtMatmul(
            handle,
            operation,
            alpha,
            at(good.a),
            a,
            at(good.b),
            b,
            beta,
            at(good.c),
            c,
            at(good.d),
            d,
            std::ptr::null(),
            at(0),
            0,
            at(0),
        )
    };
    assert_eq!(status, SUCCESS);
    assert_eq!(download(format(BF16), good.d, 128), [128.0; 128]);
}

#[test]
fn parts_of_k_go_through_the_workspace() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let before = download(format(F32), good.workspace, 1);
    assert!(before[0].is_nan());
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
    let parts = download(format(F32), good.workspace, good.workspace_bytes / 4);
    assert!(parts.iter().all(|sum| *sum > 0.0 && *sum < 256.0), "{parts:?}");
}

#[test]
fn outputs_that_overlap_are_noted() {
    let _sim = sim();
    let (handle, (mut descriptors, good)) = (handle(), ready());
    let onto_an_input = Arguments { d: good.b, c: good.b, ..good };
    assert_eq!(onto_an_input.launch(handle, &descriptors), SUCCESS);
    violated("overlaps its own operand");
    for layout in [&mut descriptors.a, &mut descriptors.b, &mut descriptors.c, &mut descriptors.d] {
        set_layout(layout, 5, &2i32);
        set_layout(layout, 6, &0i64);
    }
    let onto_itself = Arguments { algorithm: None, workspace_bytes: 0, ..good };
    assert_eq!(onto_itself.launch(handle, &descriptors), SUCCESS);
    violated("matrices D overlap each other");
}

#[test]
fn each_launch_counts_its_products_and_multiply_adds() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let counts = || (gpusim_matmuls(), gpusim_multiply_adds());
    let before = counts();
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
    assert_eq!(counts(), (before.0 + 1, before.1 + 16 * 8 * 256));
}

#[test]
fn an_injected_fault_answers_its_status_and_does_nothing() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    gpusim::fault::fail(Some("cublasLtMatmul"), 2, 14);
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
    write(format(BF16), good.d, &[0.0; 128]);
    assert_eq!(good.launch(handle, &descriptors), INTERNAL_ERROR);
    assert_eq!(download(format(BF16), good.d, 128), [0.0; 128]);
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
}

#[test]
fn two_products_that_share_a_workspace_or_an_output_must_be_ordered() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let (first, second) = (stream(1), stream(1));
    let left = Arguments { stream: first, ..good };
    let d = alloc(256);
    let right = Arguments { stream: second, d, c: d, ..good };
    assert_eq!(left.launch(handle, &descriptors), SUCCESS);
    order(first, second);
    assert_eq!(right.launch(handle, &descriptors), SUCCESS);
    clean();
    assert_eq!(left.launch(handle, &descriptors), SUCCESS);
    violated("race");
    assert_eq!(download(format(BF16), d, 128), [256.0; 128]);
}

#[test]
fn interleaved_outputs_on_two_streams_do_not_race() {
    let _sim = sim();
    let (handle, (mut descriptors, good)) = (handle(), ready());
    for layout in [&mut descriptors.c, &mut descriptors.d] {
        set_layout(layout, 4, &32i64);
    }
    let d = alloc(32 * 8 * 2);
    for (offset, stream) in [(0, stream(1)), (32, stream(1))] {
        let (d, algorithm) = (d + offset, None);
        let arguments = Arguments { d, c: d, algorithm, workspace_bytes: 0, stream, ..good };
        assert_eq!(arguments.launch(handle, &descriptors), SUCCESS);
    }
    clean();
    assert_eq!(download(format(BF16), d, 256), [256.0; 256]);
}

#[test]
fn an_operand_that_ends_too_early_is_noted_and_ends_its_context() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let short = Arguments { b: alloc(4096 - 512), ..good };
    assert_eq!(short.launch(handle, &descriptors), SUCCESS);
    violated("out of bounds");
    assert_eq!(unsafe { cuCtxSynchronize() }, 700);
    assert_eq!(good.launch(handle, &descriptors), EXECUTION_FAILED);
}

#[test]
fn an_operand_that_was_freed_is_noted() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let b = alloc(4096);
    ok(unsafe { cuMemFree_v2(b) });
    assert_eq!(Arguments { b, ..good }.launch(handle, &descriptors), SUCCESS);
    violated("freed");
}

#[test]
fn a_bias_that_is_too_short_for_the_batch_is_noted() {
    let _sim = sim();
    let mut descriptors = Descriptors::projection(BF16, 16, 8, 16);
    let layouts = [&mut descriptors.a, &mut descriptors.b, &mut descriptors.c, &mut descriptors.d];
    layouts.into_iter().for_each(|layout| set_layout(layout, 5, &2i32));
    let (bias, (_, good)) = (alloc(3 * 16), ready());
    set_operation(&mut descriptors.operation, 7, &EPILOGUE_BIAS);
    set_operation(&mut descriptors.operation, 8, &bias);
    set_operation(&mut descriptors.operation, 10, &16i64);
    let d = alloc(2 * 256);
    let arguments = Arguments { algorithm: None, workspace_bytes: 0, c: d, d, ..good };
    assert_eq!(arguments.launch(handle(), &descriptors), SUCCESS);
    violated("out of bounds");
}

#[test]
fn with_beta_zero_nothing_orders_a_product_and_its_c() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let c = alloc(256);
    let writer = Arguments { d: c, c, workspace: alloc(good.workspace_bytes), ..good };
    let writer = Arguments { stream: stream(1), ..writer };
    let reader = Arguments { c, stream: stream(1), ..good };
    assert_eq!(writer.launch(handle, &descriptors), SUCCESS);
    assert_eq!(reader.launch(handle, &descriptors), SUCCESS);
    clean();
    let reader = Arguments { beta: 1.0, ..reader };
    assert_eq!(reader.launch(handle, &descriptors), SUCCESS);
    violated("race");
}

#[test]
fn a_graph_computes_and_counts_at_every_launch() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let (on, mut graph, mut exec) = (stream(1), 0, 0);
    ok(unsafe { cuStreamBeginCapture_v2(on, 0) });
    let captured = Arguments { stream: on, ..good };
    assert_eq!(captured.launch(handle, &descriptors), SUCCESS);
    let before = gpusim_matmuls();
    unsafe {
        ok(cuStreamEndCapture(on, &mut graph));
        ok(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        ok(cuGraphLaunch(exec, on));
        ok(cuStreamSynchronize(on));
    }
    assert_eq!(download(format(BF16), good.d, 128), [256.0; 128]);
    write(format(BF16), good.a, &[2.0; 4096]);
    ok(unsafe { cuGraphLaunch(exec, on) });
    assert_eq!(download(format(BF16), good.d, 128), [512.0; 128]);
    assert_eq!(gpusim_matmuls(), before + 2);
    ok(unsafe { cuGraphExecDestroy(exec) });
    ok(unsafe { cuGraphDestroy(graph) });
}

#[test]
fn a_handle_serves_its_own_device() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let (mut other, mut popped) = (0, 0);
    ok(unsafe { cuCtxCreate_v2(&mut other, 0, 1) });
    assert_eq!(good.launch(handle, &descriptors), INTERNAL_ERROR);
    ok(unsafe { cuCtxPopCurrent_v2(&mut popped) });
    assert_eq!(good.launch(handle, &descriptors), SUCCESS);
    ok(unsafe { cuCtxDestroy_v2(other) });
}

#[test]
fn a_handle_needs_a_context_and_is_counted() {
    let sim = sim();
    let live = || unsafe { gpusim_live(c"cublaslt".as_ptr()) };
    let before = live();
    let (made, mut refused) = (handle(), null_mut());
    assert_eq!(live(), before + 1);
    assert_eq!(cublasLtDestroy(made), SUCCESS);
    assert_eq!((live(), cublasLtDestroy(null_mut())), (before, INVALID_VALUE));
    ok(unsafe { cuCtxSetCurrent(0) });
    assert_eq!(unsafe { cublasLtCreate(&mut refused) }, NOT_INITIALIZED);
    assert!(refused.is_null());
    ok(unsafe { cuCtxSetCurrent(sim.context) });
}

#[test]
fn a_stream_that_is_none_fails_the_launch() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let arguments = Arguments { stream: 0x1234_5678, ..good };
    assert_eq!(arguments.launch(handle, &descriptors), EXECUTION_FAILED);
}

#[test]
fn events_measure_the_same_for_the_same_product() {
    let _sim = sim();
    let (handle, (descriptors, good)) = (handle(), ready());
    let measure = || {
        let (start, end, mut milliseconds) = (event(0), event(0), 0.0);
        ok(unsafe { cuEventRecord(start, 0) });
        assert_eq!(good.launch(handle, &descriptors), SUCCESS);
        unsafe {
            ok(cuEventRecord(end, 0));
            ok(cuEventSynchronize(end));
            ok(cuEventElapsedTime(&mut milliseconds, start, end));
        }
        milliseconds
    };
    let first = measure();
    assert!(first > 0.001 && first == measure(), "{first}");
}
