//! The table of docs/matmuls.md through the exported functions, on the simulated GPU: for each row
//! the calls of cublasLtMatmul that the library counts, and that the device counts, are the
//! table's, and their multiply-adds are the necessary ones.

mod common {
    #[allow(dead_code, reason = "other tests use the rest")]
    pub mod simulated;
}
#[allow(dead_code, reason = "the planner's own tests use the rest")]
#[path = "../src/backend/cuda/planner/table.rs"]
mod table;

use common::simulated::Device;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use table::{HEADS, Place, Row, Weights};
use xqkv::capi::context::*;
use xqkv::capi::error::xqkv_error;
use xqkv::capi::forward::{xqkv_forward, xqkv_forward_init};
use xqkv::capi::projection::*;
use xqkv::capi::spec::{Norm, xqkv_spec, xqkv_spec_init};
use xqkv::capi::stats::{xqkv_stats, xqkv_stats_init};
use xqkv::capi::tensor::*;
use xqkv::capi::update::*;
use xqkv::capi::view::xqkv_view;
use xqkv::dtype::Dtype;
use xqkv::error::Status;

const INPUTS: i64 = 16;

/// A plain struct as its `_init` function leaves it.
macro_rules! initialised {
    ($name:ident, $init:ident) => {{
        let mut plain = std::mem::MaybeUninit::<$name>::uninit();
        // SAFETY: as many bytes as the size says.
        ok(|_| unsafe { $init(plain.as_mut_ptr(), size_of::<$name>()) });
        // SAFETY: just initialised.
        unsafe { plain.assume_init() }
    }};
}

fn ok(call: impl FnOnce(*mut xqkv_error) -> Status) {
    let mut error = xqkv_error { status: 0, message: [0; 508] };
    let status = call(&mut error);
    let text = error.message.map(|letter| letter as u8);
    let text = String::from_utf8_lossy(&text);
    assert!(status == Status::Ok, "{status:?}: {}", text.trim_end_matches('\0'));
}

/// What belongs to a row while it is run.
struct Case<'a> {
    row: &'a Row,
    device: &'a Device,
    projection: *mut xqkv_projection,
}

impl Case<'_> {
    fn spec(row: &Row) -> xqkv_spec {
        let mut spec = initialised!(xqkv_spec, xqkv_spec_init);
        spec.weight_dtype = Dtype::Bf16 as i32;
        spec.layer_count = row.layers;
        [spec.head_width, spec.value_head_width] = row.extents().widths;
        match row.is_query() {
            true => (spec.query_heads, spec.decoder_width) = (HEADS, INPUTS),
            false => (spec.key_value_heads, spec.encoder_width) = (HEADS, INPUTS),
        }
        spec.query_bias = i32::from(row.is_query() && row.bias[0]);
        [spec.key_bias, spec.value_bias] = row.bias.map(|has| i32::from(has && !row.is_query()));
        if row.but == "normed" {
            (spec.norm, spec.norm_epsilon) = (Norm::Rms as i32, 1.0);
        }
        spec.value_scale = if row.scales_differ { 2.0 } else { 1.0 };
        spec
    }

    /// Parts of the row's side, each with its number of outputs.
    fn parts(&self) -> Vec<(PartChoice, i64)> {
        let [key, value] = self.row.extents().widths.map(|width| HEADS * width);
        match self.row.is_query() {
            true => vec![(PartChoice::Query, key)],
            false => vec![(PartChoice::Key, key), (PartChoice::Value, value)],
        }
    }

    fn load(&self) {
        let mut update = null_mut();
        // SAFETY: live handles, here and below.
        ok(|error| unsafe { xqkv_update_begin(self.projection, &mut update, error) });
        let zeros = vec![0u8; (HEADS * 16 * INPUTS) as usize * 4];
        for layer in 0..self.row.layers {
            for (number, (part, outputs)) in self.parts().into_iter().enumerate() {
                let mut weight = tensor(zeros.as_ptr() as usize, Dtype::Bf16, outputs, INPUTS);
                if self.row.weights != Weights::Ours {
                    weight.data = self.lent(layer, number) as *const _;
                    weight.memory = Memory::Device as i32;
                    weight.ownership = Ownership::Borrow as i32;
                }
                put(update, layer, part, KindChoice::Weight, &weight);
                if self.row.but == "normed" && number == 0 {
                    let norm = tensor(zeros.as_ptr() as usize, Dtype::F32, 8, 1);
                    put(update, layer, part, KindChoice::Norm, &norm);
                }
                if self.row.bias[number] {
                    let bias = tensor(zeros.as_ptr() as usize, Dtype::F32, outputs, 1);
                    put(update, layer, part, KindChoice::Bias, &bias);
                }
            }
        }
        // SAFETY: as above.
        ok(|error| unsafe { xqkv_update_commit(update, null_mut(), error) });
    }

    /// Where an engine has a matrix of its own.
    fn lent(&self, layer: i64, part: usize) -> usize {
        let sizes = self.parts().into_iter().map(|(_, outputs)| outputs * INPUTS * 2);
        let sizes: Vec<i64> = sizes.collect();
        let before: i64 = sizes[..part].iter().sum();
        let stacked = sizes.iter().sum::<i64>() + 64;
        let gap = 64 * part as i64;
        let bytes = match self.row.weights {
            Weights::Ours => unreachable!("a matrix of the engine's"),
            Weights::Stacked => layer * (stacked + layer * 16) + before,
            Weights::Apart => layer * (stacked + layer * 16) + before + gap,
            Weights::Even => layer * sizes[part] + before * self.row.layers + gap,
        };
        self.device.weights + bytes as usize
    }

    fn views(&self) -> [xqkv_view; 2] {
        let places = self.row.places();
        [0, 1].map(|part| {
            let is_wide = self.row.but == "V in f32" && part == 1;
            let dtype = if is_wide { Dtype::F32 } else { Dtype::Bf16 };
            self.varied(part, view(self.device.views, &places[part], dtype))
        })
    }

    /// The view as the row has it beside: slots that say where the rows go anyway, groups of two.
    fn varied(&self, part: usize, mut view: xqkv_view) -> xqkv_view {
        match self.row.but.as_str() {
            "slots" => {
                (view.slots, view.slot_count) = (self.device.indices as *const i64, 3);
            }
            "groups" => {
                (view.group_rows, view.group_stride) = (2, 3 * view.row_stride);
                view.layer_stride += 3 * view.row_stride;
                view.data = view.data.wrapping_byte_add(part << 20);
            }
            "added" => view.accumulate = 1,
            _ => {}
        }
        view
    }

    /// Each layer's address where it has one of its own: those that a stride would give.
    fn layer_data(&self, view: &xqkv_view) -> Vec<*mut c_void> {
        let bytes = view.layer_stride as usize * Dtype::Bf16.bytes();
        (0..self.row.layers as usize)
            .map(|layer| (view.data as usize + layer * bytes) as _)
            .collect()
    }

    fn run(&self) -> xqkv_stats {
        let mut call = initialised!(xqkv_forward, xqkv_forward_init);
        let mut views = self.views();
        let bases = views.each_ref().map(|view| self.layer_data(view));
        for (view, bases) in views.iter_mut().zip(&bases).filter(|_| self.row.but == "layers apart")
        {
            (view.data, view.layer_stride, view.layer_data) = (null_mut(), 0, bases.as_ptr());
        }
        let [first, second] = views;
        call.layer_count = self.row.layers;
        let input = match self.row.is_query() {
            true => {
                call.query = first;
                &mut call.decoder
            }
            false => {
                (call.key, call.value) = (first, second);
                &mut call.encoder
            }
        };
        input.data = self.device.rows as *const _;
        (input.rows, input.dtype) = (self.row.extents().rows, Dtype::Bf16 as i32);
        if self.row.but == "listed" {
            (input.row_list, input.buffer_rows) = (self.device.indices as *const i64, 3);
        }
        call.workspace = self.device.workspace as *mut _;
        call.workspace_bytes = 1 << 20;
        let mut stats = initialised!(xqkv_stats, xqkv_stats_init);
        // SAFETY: a live handle, and device memory as large as the shapes say.
        ok(|error| unsafe { xqkv_projection_forward(self.projection, &call, &mut stats, error) });
        stats
    }

    fn necessary(&self) -> i64 {
        let outputs: i64 = self.parts().iter().map(|(_, outputs)| outputs).sum();
        self.row.layers * self.row.extents().rows * outputs * INPUTS
    }
}

fn tensor(address: usize, dtype: Dtype, rows: i64, columns: i64) -> xqkv_tensor {
    let mut tensor = initialised!(xqkv_tensor, xqkv_tensor_init);
    (tensor.data, tensor.dtype) = (address as *const _, dtype as i32);
    (tensor.rows, tensor.columns) = (rows, columns);
    tensor
}

fn put(
    update: *mut xqkv_update,
    layer: i64,
    part: PartChoice,
    kind: KindChoice,
    tensor: &xqkv_tensor,
) {
    // SAFETY: a live handle, and memory as large as the tensor says.
    ok(|error| unsafe { xqkv_update_put(update, layer, part as i32, kind as i32, tensor, error) });
}

fn view(buffer: usize, place: &Place, dtype: Dtype) -> xqkv_view {
    // SAFETY: numbers and pointers, all of which may be zero.
    let mut view: xqkv_view = unsafe { std::mem::zeroed() };
    view.data = (buffer + place.offset as usize * dtype.bytes()) as *mut _;
    (view.layer_stride, view.row_stride) = (place.layer, place.row);
    (view.head_stride, view.width_stride) = (place.head, place.width);
    view.dtype = dtype as i32;
    view
}

fn check(row: &Row, device: &Device, context: *mut xqkv_context) {
    let (spec, mut projection) = (Case::spec(row), null_mut());
    // SAFETY: a live handle and an initialised struct.
    ok(|error| unsafe { xqkv_projection_create(context, &spec, null(), &mut projection, error) });
    let case = Case { row, device, projection };
    case.load();
    let before = device.counts();
    let stats = case.run();
    let after = device.counts();
    let counted = (after.0 - before.0, after.1 - before.1);
    assert_eq!(after.2 - before.2, row.kernels as u64, "the device's kernels, {row:?}");
    assert_eq!(stats.matmuls, row.calls as i64, "the library's count, {row:?}");
    assert_eq!(stats.multiply_adds, case.necessary(), "the library's multiply-adds, {row:?}");
    assert_eq!(counted, (row.calls as u64, case.necessary() as u64), "the device's, {row:?}");
    device.finish();
    // SAFETY: a live handle.
    ok(|error| unsafe { xqkv_projection_destroy(projection, error) });
}

/// The only test of this file, since it sets the process's environment.
#[test]
fn calls_on_a_device_are_as_many_as_the_table_says_and_each_is_necessary() {
    let device = Device::open(1 << 22);
    let mut options = initialised!(xqkv_context_options, xqkv_context_options_init);
    options.backend = BackendChoice::Cuda as i32;
    let mut context = null_mut();
    // SAFETY: an initialised struct and a place for the handle.
    ok(|error| unsafe { xqkv_context_create(&options, &mut context, error) });
    for row in table::rows() {
        check(&row, &device, context);
    }
    // SAFETY: a live handle.
    ok(|error| unsafe { xqkv_context_destroy(context, error) });
}
