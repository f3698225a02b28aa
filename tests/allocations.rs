//! A forward on the host allocates nothing, on no thread, for any number of layers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use xqkv::capi::context::*;
use xqkv::capi::forward::{xqkv_forward, xqkv_forward_init};
use xqkv::capi::parallel::{xqkv_parallel_for_callback, xqkv_task};
use xqkv::capi::projection::*;
use xqkv::capi::spec::{xqkv_spec, xqkv_spec_init};
use xqkv::capi::tensor::{xqkv_tensor, xqkv_tensor_init};
use xqkv::capi::update::*;
use xqkv::dtype::Dtype;
use xqkv::error::Status;

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LAYERS: usize = 32;
const PARTS: [PartChoice; 3] = [PartChoice::Query, PartChoice::Key, PartChoice::Value];
const WIDTH: usize = 64;
const ROWS: usize = 300;

macro_rules! initialised {
    ($name:ident, $init:ident) => {{
        let mut plain = std::mem::MaybeUninit::<$name>::uninit();
        // SAFETY: as many bytes as the size says, all written when the call succeeds.
        let status = unsafe { $init(plain.as_mut_ptr(), size_of::<$name>()) };
        assert_eq!(status, Status::Ok);
        // SAFETY: just initialised.
        unsafe { plain.assume_init() }
    }};
}

unsafe extern "C" fn in_order(count: i64, task: xqkv_task, task_user: *mut c_void, _: *mut c_void) {
    // SAFETY: called as it is documented.
    (0..count).for_each(|index| unsafe { task.unwrap()(index, task_user) });
}

fn context(parallel_for: xqkv_parallel_for_callback) -> *mut xqkv_context {
    let mut options = initialised!(xqkv_context_options, xqkv_context_options_init);
    options.backend = BackendChoice::Host as i32;
    options.thread_count = 3;
    options.parallel_for = parallel_for;
    let mut context = null_mut();
    // SAFETY: an initialised struct and a place for the handle.
    let status = unsafe { xqkv_context_create(&options, &mut context, null_mut()) };
    assert_eq!(status, Status::Ok);
    context
}

fn spec() -> xqkv_spec {
    let mut spec = initialised!(xqkv_spec, xqkv_spec_init);
    spec.weight_dtype = Dtype::F32 as i32;
    spec.layer_count = LAYERS as i64;
    (spec.decoder_width, spec.encoder_width) = (WIDTH as i64, WIDTH as i64);
    (spec.query_heads, spec.key_value_heads, spec.head_width) = (2, 2, WIDTH as i64 / 2);
    spec
}

/// A projection that all its layers are loaded of.
fn projection(context: *mut xqkv_context) -> *mut xqkv_projection {
    let (mut projection, mut update) = (null_mut(), null_mut());
    let weight = vec![1.0f32; WIDTH * WIDTH];
    let mut tensor = initialised!(xqkv_tensor, xqkv_tensor_init);
    tensor.data = weight.as_ptr().cast();
    (tensor.rows, tensor.columns, tensor.dtype) = (WIDTH as i64, WIDTH as i64, Dtype::F32 as i32);
    // SAFETY: live handles, initialised structs, places for handles, and a tensor of its shape.
    unsafe {
        let status = xqkv_projection_create(context, &spec(), null(), &mut projection, null_mut());
        assert_eq!(status, Status::Ok);
        assert_eq!(xqkv_update_begin(projection, &mut update, null_mut()), Status::Ok);
        for (layer, part) in (0..LAYERS).flat_map(|layer| PARTS.map(|part| (layer, part))) {
            let (part, kind) = (part as i32, KindChoice::Weight as i32);
            let status = xqkv_update_put(update, layer as i64, part, kind, &tensor, null_mut());
            assert_eq!(status, Status::Ok);
        }
        assert_eq!(xqkv_update_commit(update, null_mut(), null_mut()), Status::Ok);
    }
    projection
}

/// A call over some rows of each side and some layers.
fn call(memory: &mut [Vec<f32>; 4], counts: (i64, i64), layer_count: i64) -> xqkv_forward {
    let mut call = initialised!(xqkv_forward, xqkv_forward_init);
    let [rows, query, key, value] = memory;
    for (input, count) in [(&mut call.decoder, counts.0), (&mut call.encoder, counts.1)] {
        input.data = if count > 0 { rows.as_ptr().cast() } else { null() };
        (input.rows, input.dtype) = (count, Dtype::F32 as i32);
    }
    for (view, data) in [(&mut call.query, query), (&mut call.key, key), (&mut call.value, value)] {
        data.fill(f32::NAN);
        (view.data, view.dtype) = (data.as_mut_ptr().cast(), Dtype::F32 as i32);
    }
    call.layer_count = layer_count;
    call
}

/// How many allocations some forwards make: the fewest of several rounds, since threads that have
/// just been started, and the test's own, allocate at times.
fn allocations(projection: *mut xqkv_projection, call: &xqkv_forward) -> usize {
    let forward = || {
        // SAFETY: a live handle and a call that describes its memory truly.
        let status = unsafe { xqkv_projection_forward(projection, call, null_mut(), null_mut()) };
        assert_eq!(status, Status::Ok);
    };
    let round = |_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..5).for_each(|_| forward());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..5).map(round).min().unwrap()
}

#[test]
fn a_forward_allocates_nothing() {
    let mut memory = [(); 4].map(|()| vec![1.0; LAYERS * ROWS * WIDTH]);
    for parallel_for in [None, Some(in_order as unsafe extern "C" fn(_, _, _, _))] {
        let context = context(parallel_for);
        let projection = projection(context);
        for (counts, layer_count) in [((1, 0), 1), ((70, 300), 1), ((0, 300), 32)] {
            let call = call(&mut memory, counts, layer_count);
            assert_eq!(allocations(projection, &call), 0, "{counts:?} rows, {layer_count} layers");
        }
        assert!(memory[2].iter().chain(&memory[3]).all(|&sum| sum == WIDTH as f32));
        // SAFETY: live handles.
        unsafe {
            assert_eq!(xqkv_projection_destroy(projection, null_mut()), Status::Ok);
            assert_eq!(xqkv_context_destroy(context, null_mut()), Status::Ok);
        }
    }
}
