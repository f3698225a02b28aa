//! One layer's three calls on all ranks, their heads put together, against the exact results.

use super::report::{LayerVerdict, Matrix};
use crate::library::{Outcome, Projection, call};
use crate::memory::{Held, Memory};
use crate::reference::Reference;
use crate::tensors::{Archive, Tensor, of_checkpoint};
use serde_json::Value;
use std::path::Path;
use xqkv::capi::forward::xqkv_forward;
use xqkv::capi::input::xqkv_input;
use xqkv::capi::shard::xqkv_shard;
use xqkv::capi::spec::xqkv_spec;
use xqkv::dtype::{Dtype, Element, bf16, f16};

/// One rank: its projection and what it holds.
pub struct Rank {
    projection: Projection,
    shard: xqkv_shard,
}

impl Rank {
    pub fn new(projection: Projection) -> Outcome<Self> {
        let shard = projection.shard()?;
        Ok(Self { projection, shard })
    }
}

/// One of the three calls.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Prefill,
    Decode,
    Fill,
}

/// One projection of a layer: its weights, the rows that were given and what came out then.
struct Part {
    name: &'static str,
    heads: usize,
    width: usize,
    inner: usize,
    weight: Tensor,
    bias: Option<Tensor>,
    expected: Tensor,
}

/// One layer's inputs.
pub struct Layer {
    number: i64,
    checkpoint_number: i64,
    decoder: Tensor,
    encoder: Tensor,
    parts: [Part; 3],
}

/// A result of all ranks, in its dtype's bytes.
struct Output {
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Output {
    /// All bits set, which is NaN in every dtype.
    fn poisoned(elements: usize, dtype: Dtype) -> Self {
        Self { dtype, bytes: vec![0xff; elements * dtype.bytes()] }
    }

    fn elements(&self) -> Vec<f64> {
        let size = self.dtype.bytes();
        self.bytes.chunks_exact(size).map(|element| f64::from(widen(element, self.dtype))).collect()
    }
}

impl Layer {
    /// Reads a layer's rows, expected results and weights.
    pub fn read(
        directory: &Path,
        io: &Archive,
        found: &Value,
        spec: &xqkv_spec,
        number: i64,
    ) -> Outcome<Self> {
        let places = found["used"].as_array().cloned().unwrap_or_default();
        let of_layer: Vec<Value> =
            places.into_iter().filter(|place| place["layer"].as_i64() == Some(number)).collect();
        let checkpoint_number =
            of_layer.first().and_then(|place| place["checkpoint_layer"].as_i64()).unwrap_or(number);
        let part = |name: &'static str, heads: i64, width: i64, inner: i64| -> Outcome<Part> {
            let tensor = |kind: &str| {
                let place =
                    of_layer.iter().find(|place| place["part"] == name && place["kind"] == kind);
                place.map(|place| of_checkpoint(directory, place["name"].as_str().unwrap_or("")))
            };
            Ok(Part {
                name,
                heads: heads as usize,
                width: width as usize,
                inner: inner as usize,
                weight: tensor("weight").ok_or(format!("no {name} weight of layer {number}"))??,
                bias: tensor("bias").transpose()?,
                expected: io.tensor(&format!("layers.{checkpoint_number}.{name}"))?,
            })
        };
        Ok(Self {
            number,
            checkpoint_number,
            decoder: io.tensor(&format!("layers.{checkpoint_number}.decoder"))?,
            encoder: io.tensor("encoder")?,
            parts: [
                part("query", spec.query_heads, spec.head_width, spec.decoder_width)?,
                part("key", spec.key_value_heads, spec.head_width, spec.encoder_width)?,
                part("value", spec.key_value_heads, spec.value_head_width, spec.encoder_width)?,
            ],
        })
    }

    /// Runs the three calls in these dtypes and holds each result against the exact one.
    pub fn verify(
        &self,
        ranks: &[Rank],
        (rows, out): (Dtype, Dtype),
        memory: &Memory,
    ) -> Outcome<LayerVerdict> {
        let (mut decoder, mut encoder) =
            (rounded(&self.decoder, rows), rounded(&self.encoder, rows));
        let mut verdict = LayerVerdict::new(self.number, self.checkpoint_number, ranks.len());
        let mut outputs = Vec::new();
        for kind in [Call::Prefill, Call::Decode, Call::Fill] {
            let inputs = [memory.hold(&mut decoder.bytes)?, memory.hold(&mut encoder.bytes)?];
            outputs.push(self.run(kind, ranks, (&inputs, rows), out, memory, &mut verdict)?);
        }
        for (index, part) in self.parts.iter().enumerate() {
            let input = if index == 0 { &decoder } else { &encoder };
            let exact = part.exact(&input.elements().iter().map(|&x| x as f32).collect::<Vec<_>>());
            let ran: Vec<&Output> =
                outputs.iter().filter_map(|of_call| of_call[index].as_ref()).collect();
            let is_stored = rows == Dtype::F32;
            verdict.matrices.push(part.judge(&exact, &ran, is_stored));
        }
        Ok(verdict)
    }

    /// Makes one call on every rank, each writing its heads into the common outputs.
    fn run(
        &self,
        kind: Call,
        ranks: &[Rank],
        (inputs, dtype): (&[Held<'_>; 2], Dtype),
        out: Dtype,
        memory: &Memory,
        verdict: &mut LayerVerdict,
    ) -> Outcome<[Option<Output>; 3]> {
        let rows = [self.decoder.rows, self.encoder.rows, self.encoder.rows];
        let runs = [kind != Call::Fill, kind != Call::Decode, kind != Call::Decode];
        let mut outputs = [0, 1, 2].map(|index| {
            let part = &self.parts[index];
            runs[index].then(|| Output::poisoned(rows[index] * part.heads * part.width, out))
        });
        let mut held = Vec::new();
        for output in &mut outputs {
            held.push(output.as_mut().map(|output| memory.hold(&mut output.bytes)).transpose()?);
        }
        for (number, rank) in ranks.iter().enumerate() {
            let mut forward = call(self.number);
            if runs[0] {
                forward.decoder = input(&inputs[0], dtype, self.decoder.rows);
            }
            if runs[1] {
                forward.encoder = input(&inputs[1], dtype, self.encoder.rows);
            }
            self.place(&mut forward, &rank.shard, &held, out);
            // SAFETY: inputs and outputs are as long as their shapes say, and alive.
            let executed = unsafe { rank.projection.forward(&forward) }?;
            verdict.count(number, executed, self.necessary(&rank.shard, runs));
        }
        verdict.uncut += self.uncut(runs);
        for (held, output) in held.iter().zip(&mut outputs) {
            if let (Some(held), Some(output)) = (held, output) {
                held.fetch(&mut output.bytes)?;
            }
        }
        Ok(outputs)
    }

    /// Points the call's views at this rank's heads of the common outputs.
    fn place(
        &self,
        forward: &mut xqkv_forward,
        shard: &xqkv_shard,
        outputs: &[Option<Held<'_>>],
        dtype: Dtype,
    ) {
        let first =
            [shard.query_head_begin, shard.key_value_head_begin, shard.key_value_head_begin];
        let views = [&mut forward.query, &mut forward.key, &mut forward.value];
        for (index, view) in views.into_iter().enumerate() {
            if let Some(output) = &outputs[index] {
                let part = &self.parts[index];
                let offset = first[index] as usize * part.width * dtype.bytes();
                view.data = output.address().wrapping_add(offset).cast();
                view.dtype = dtype as i32;
                view.row_stride = (part.heads * part.width) as i64;
            }
        }
    }

    /// Multiply-adds that a rank cannot do without, from shapes alone.
    fn necessary(&self, shard: &xqkv_shard, runs: [bool; 3]) -> i64 {
        let columns = [shard.query_columns, shard.key_columns, shard.value_columns];
        self.multiply_adds(columns, runs)
    }

    /// Multiply-adds of the uncut layer.
    fn uncut(&self, runs: [bool; 3]) -> i64 {
        let columns = [0, 1, 2].map(|index| {
            let part = &self.parts[index];
            (part.heads * part.width) as i64
        });
        self.multiply_adds(columns, runs)
    }

    fn multiply_adds(&self, columns: [i64; 3], runs: [bool; 3]) -> i64 {
        let rows = [self.decoder.rows, self.encoder.rows, self.encoder.rows];
        let of_part =
            |index: usize| rows[index] as i64 * columns[index] * self.parts[index].inner as i64;
        (0..3).filter(|&index| runs[index]).map(of_part).sum()
    }
}

impl Part {
    fn exact(&self, rows: &[f32]) -> Reference {
        let bias = self.bias.as_ref().map(|bias| &bias.elements[..]);
        Reference::new(rows, self.inner, &self.weight.elements, bias)
    }

    /// The largest error of any call, and whether all calls agree to the bit. Rows that were not
    /// rounded must also give what the model's own module gave.
    fn judge(&self, exact: &Reference, ran: &[&Output], is_stored: bool) -> Matrix {
        let mut largest: f64 = 0.0;
        for output in ran {
            for (index, result) in output.elements().into_iter().enumerate() {
                largest = largest.max(exact.error_over_bound(index, result, output.dtype));
            }
        }
        let expected = self.expected.elements.iter().enumerate();
        let stored = expected
            .map(|(index, &value)| exact.stored_error_over_bound(index, f64::from(value)))
            .fold(0.0, f64::max);
        Matrix {
            name: self.name,
            error_over_bound: largest,
            agrees: !is_stored
                || stored <= 1.0 && self.expected.elements.len() == exact.values.len(),
            same_bits: ran.windows(2).all(|pair| pair[0].bytes == pair[1].bytes),
        }
    }
}

fn input(rows: &Held<'_>, dtype: Dtype, count: usize) -> xqkv_input {
    // SAFETY: a plain struct of which zero is a value.
    let mut input: xqkv_input = unsafe { std::mem::zeroed() };
    input.data = rows.address().cast();
    input.rows = count as i64;
    input.dtype = dtype as i32;
    input
}

/// Rows in another dtype, rounded to nearest even.
fn rounded(rows: &Tensor, dtype: Dtype) -> Output {
    let mut bytes = Vec::new();
    for &element in &rows.elements {
        match dtype {
            Dtype::F32 => element.append_to(&mut bytes),
            Dtype::F16 => f16::round(element).append_to(&mut bytes),
            Dtype::Bf16 => bf16::round(element).append_to(&mut bytes),
        }
    }
    Output { dtype, bytes }
}

fn widen(element: &[u8], dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_bytes(element),
        Dtype::F16 => f16::from_bytes(element).widen(),
        Dtype::Bf16 => bf16::from_bytes(element).widen(),
    }
}
