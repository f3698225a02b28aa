//! Layers of one shape with random weights, more than the caches hold, and calls that go through
//! them one after the other.

use super::counters::Instructions;
use super::floor::Necessary;
use super::models::Shape;
use super::{Arguments, Sample, Work, clock};
use crate::library::{Context, Outcome, Projection, Update, balanced, call, cut};
use crate::tensors::Tensor;
use crate::verify::elements::Elements;
use std::cell::Cell;
use xqkv::capi::forward::xqkv_forward;
use xqkv::capi::spec::xqkv_spec;
use xqkv::capi::update::{KindChoice, PartChoice};
use xqkv::dtype::{Dtype, WeightDtype};

/// Layers, and memory for rows and results.
pub struct Rotation {
    pub shape: Shape,
    pub weights: WeightDtype,
    /// Of rows and results.
    dtype: Dtype,
    projection: Projection,
    /// Layers that decode steps go through.
    layers: i64,
    /// Layers of a prefill's call.
    at_once: i64,
    next: Cell<i64>,
    /// This rank's columns of Q and of K or V.
    columns: [i64; 2],
    /// Bytes of the packed weights over those of the weights.
    pub packed_ratio: f64,
    has_workaround: bool,
    rows: Vec<u8>,
    results: [Vec<u8>; 3],
}

impl Rotation {
    pub fn new(
        context: &Context,
        shape: &Shape,
        weights: WeightDtype,
        arguments: &Arguments,
    ) -> Outcome<Self> {
        let dtype = weights.element().unwrap_or(Dtype::F32);
        let most_rows = arguments.rows.iter().copied().chain([shape.encoder_rows]).max();
        let one_layer = spec(shape, weights, 1);
        let options = balanced(&one_layer, 0, arguments.ranks)?;
        let shard = cut(&one_layer, &options)?;
        let columns = [shard.query_columns, shard.key_columns];
        let query_bytes = (columns[0] * shape.decoder_width) as usize * weights.bytes();
        let cold = clock::rotation_bytes().div_ceil(query_bytes) as i64;
        let layers = if arguments.warm { 1 } else { cold };
        let at_once = if arguments.layers_at_once { shape.layers } else { 1 };
        let spec = spec(shape, weights, layers.max(at_once));
        let mut packed_bytes = 0;
        let has_workaround = arguments.workaround && shape.decoder_width == shape.encoder_width;
        let full = if has_workaround { layers.max(at_once) } else { at_once };
        let projection = Projection::load(context, &spec, &options, |update| {
            fill(update, shape, spec.layer_count, full)?;
            packed_bytes = update.commit_bytes()?;
            Ok(())
        })?;
        let query = spec.layer_count * columns[0] * shape.decoder_width;
        let key_value = 2 * full * columns[1] * shape.encoder_width;
        let necessary = (query + key_value) * weights.bytes() as i64;
        let rows = most_rows.unwrap_or(1).max(1);
        let bytes = |columns: i64| vec![0xff; (rows * columns * at_once) as usize * dtype.bytes()];
        let width = shape.decoder_width.max(shape.encoder_width);
        Ok(Rotation {
            results: [bytes(columns[0]), bytes(columns[1]), bytes(columns[1])],
            rows: Elements::rounded(&random(rows as usize, width as usize), dtype).bytes,
            shape: shape.clone(),
            weights,
            dtype,
            projection,
            layers,
            at_once,
            next: Cell::new(0),
            columns,
            packed_ratio: packed_bytes as f64 / necessary as f64,
            has_workaround,
        })
    }

    /// What any projection must read, write and multiply for one call.
    pub fn necessary(&self, work: Work) -> Necessary {
        let [query, key] = self.columns;
        let (rows, inputs, outputs) = match work {
            Work::Decode { rows } => (rows, self.shape.decoder_width, query),
            Work::Prefill { rows } => (rows, self.shape.encoder_width, 2 * key * self.at_once),
        };
        let weight_bytes = inputs as f64 * outputs as f64 * self.weights.bytes() as f64;
        let row_bytes = (inputs + outputs) as f64 * self.dtype.bytes() as f64;
        Necessary {
            bytes: weight_bytes + rows as f64 * row_bytes,
            multiply_adds: rows as f64 * inputs as f64 * outputs as f64,
        }
    }

    /// Times calls, and the workaround's if it was asked for.
    pub fn sample(&self, work: Work, instructions: Option<&Instructions>) -> Outcome<Sample> {
        let before = instructions.and_then(Instructions::read);
        let (seconds, count) = clock::seconds(|_| self.run(work, false))?;
        let after = instructions.and_then(Instructions::read);
        let each = |(before, after): (u64, u64)| (after - before) / count as u64;
        let workaround = || clock::seconds(|_| self.run(work, true)).map(|(seconds, _)| seconds);
        Ok(Sample {
            seconds,
            floor_seconds: 0.0,
            instructions: before.zip(after).map(each),
            workaround_seconds: self.has_workaround.then(workaround).transpose()?,
        })
    }

    fn run(&self, work: Work, is_workaround: bool) -> Outcome<()> {
        match work {
            Work::Decode { rows } => {
                let layer = self.next.replace((self.next.get() + 1) % self.layers);
                self.forward(layer, 1, |forward| {
                    self.decode(forward, rows);
                    if is_workaround {
                        self.prefill(forward, rows);
                    }
                })
            }
            Work::Prefill { rows } => {
                self.forward(0, self.at_once, |forward| self.prefill(forward, rows))?;
                // Decoder rows belong to one layer, so Q of all rows takes a call for each.
                let wasted = if is_workaround { self.at_once } else { 0 };
                (0..wasted).try_for_each(|layer| {
                    self.forward(layer, 1, |forward| self.decode(forward, rows))
                })
            }
        }
    }

    fn forward(
        &self,
        layer: i64,
        layer_count: i64,
        fill: impl FnOnce(&mut xqkv_forward),
    ) -> Outcome<()> {
        let mut forward = call(layer);
        forward.layer_count = layer_count;
        fill(&mut forward);
        // SAFETY: rows and results for the most rows of any work.
        unsafe { self.projection.forward(&forward) }.map(drop)
    }

    fn decode(&self, forward: &mut xqkv_forward, rows: i64) {
        let dtype = self.dtype as i32;
        forward.decoder.data = self.rows.as_ptr().cast();
        (forward.decoder.rows, forward.decoder.dtype) = (rows, dtype);
        (forward.query.data, forward.query.dtype) =
            (self.results[0].as_ptr().cast_mut().cast(), dtype);
    }

    fn prefill(&self, forward: &mut xqkv_forward, rows: i64) {
        let dtype = self.dtype as i32;
        forward.encoder.data = self.rows.as_ptr().cast();
        (forward.encoder.rows, forward.encoder.dtype) = (rows, dtype);
        (forward.key.data, forward.key.dtype) = (self.results[1].as_ptr().cast_mut().cast(), dtype);
        (forward.value.data, forward.value.dtype) =
            (self.results[2].as_ptr().cast_mut().cast(), dtype);
    }
}

fn spec(shape: &Shape, weights: WeightDtype, layers: i64) -> xqkv_spec {
    let mut spec = crate::library::spec();
    spec.layer_count = layers;
    spec.decoder_width = shape.decoder_width;
    spec.encoder_width = shape.encoder_width;
    spec.query_heads = shape.heads;
    spec.key_value_heads = shape.key_value_heads;
    spec.head_width = shape.head_width;
    spec.weight_dtype = weights as i32;
    spec
}

/// Q of all layers, K and V of the first `full`.
fn fill(update: &Update, shape: &Shape, layers: i64, full: i64) -> Outcome<()> {
    let heads = [shape.heads, shape.key_value_heads, shape.key_value_heads];
    let widths = [shape.decoder_width, shape.encoder_width, shape.encoder_width];
    let parts = [PartChoice::Query, PartChoice::Key, PartChoice::Value];
    for (at, part) in parts.into_iter().enumerate() {
        let rows = (heads[at] * shape.head_width) as usize;
        let weight = random(rows, widths[at] as usize);
        let count = if at == 0 { layers } else { full };
        (0..count).try_for_each(|layer| update.put(layer, part, KindChoice::Weight, &weight))?;
    }
    Ok(())
}

/// Numbers in [-1/16, 1/16), the same in every run.
fn random(rows: usize, columns: usize) -> Tensor {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) / 16.0
    };
    Tensor { rows, elements: (0..rows * columns).map(|_| next()).collect() }
}
