//! One layer's three calls on all ranks, their heads put together as rows of all heads, against
//! the exact results.

use super::Setting;
use super::elements::Elements;
use super::layer::{Call, Layer, Part};
use super::lent::{Lent, alignment};
use super::ranks::Rank;
use super::report::{LayerVerdict, Matrix};
use crate::library::{Outcome, call};
use crate::memory::Held;
use crate::reference::Reference;
use xqkv::capi::forward::xqkv_forward;
use xqkv::capi::input::xqkv_input;
use xqkv::dtype::Dtype;

/// What a layer's Q, K and V are, exactly and as the plain calls gave them.
pub struct Plain {
    pub layer: Layer,
    pub decoder: Elements,
    pub encoder: Elements,
    pub exact: [Reference; 3],
    pub results: [Elements; 3],
}

/// Runs the three calls and holds each result against the exact one.
pub fn verify(layer: Layer, setting: &Setting<'_>) -> Outcome<(LayerVerdict, Plain)> {
    let mut decoder = Elements::rounded(&layer.decoder, setting.rows);
    let mut encoder = Elements::rounded(&layer.encoder, setting.rows);
    let mut verdict = LayerVerdict::new(layer.number, layer.checkpoint_number, setting.ranks.len());
    let mut outputs = Vec::new();
    for kind in [Call::Prefill, Call::Decode, Call::Fill] {
        let memory = setting.memory;
        let inputs = [memory.hold(&mut decoder.bytes)?, memory.hold(&mut encoder.bytes)?];
        outputs.push(run(&layer, kind, setting, &inputs, &mut verdict)?);
    }
    let (of_decoder, of_encoder) = (decoder.widened(), encoder.widened());
    let inputs = [&of_decoder, &of_encoder, &of_encoder];
    let exact = [0, 1, 2].map(|index| layer.parts[index].exact(inputs[index]));
    for (index, part) in layer.parts.iter().enumerate() {
        let ran: Vec<&Elements> =
            outputs.iter().filter_map(|of_call| of_call[index].as_ref()).collect();
        verdict.matrices.push(judge(part, &exact[index], &ran, setting.rows == Dtype::F32));
    }
    let prefill = outputs.swap_remove(0).map(|result| result.expect("a prefill runs all parts"));
    Ok((verdict, Plain { layer, decoder, encoder, exact, results: prefill }))
}

/// Makes one call on every rank, without a plan but lent what one asks for, each writing its heads
/// into the common outputs.
fn run(
    layer: &Layer,
    kind: Call,
    setting: &Setting<'_>,
    inputs: &[Held<'_>; 2],
    verdict: &mut LayerVerdict,
) -> Outcome<[Option<Elements>; 3]> {
    let (rows, runs) = (layer.rows(), kind.runs());
    let mut outputs = [0, 1, 2].map(|index| {
        let part = &layer.parts[index];
        runs[index].then(|| Elements::poisoned(rows[index] * part.heads * part.width, setting.out))
    });
    let mut held = Vec::new();
    for output in &mut outputs {
        let hold = |output: &mut Elements| setting.memory.hold(&mut output.bytes);
        held.push(output.as_mut().map(hold).transpose()?);
    }
    let mut lent = Vec::new();
    for rank in setting.ranks {
        let mut forward = call(layer.number);
        if runs[0] {
            forward.decoder = input(&inputs[0], setting.rows, layer.decoder.rows);
        }
        if runs[1] {
            forward.encoder = input(&inputs[1], setting.rows, layer.encoder.rows);
        }
        place(layer, &mut forward, rank, &held, setting.out);
        let views = [&forward.query, &forward.key, &forward.value].map(|view| view.data);
        let alignment = alignment(&forward, views.into_iter());
        lent.push(Lent::new(rank, &mut forward, alignment, setting.memory)?);
        // SAFETY: inputs and outputs are as long as their shapes say, and alive.
        let done = unsafe { rank.projection.forward(&forward) }?;
        verdict.count(rank.number, done.multiply_adds, layer.necessary(rank, rows, runs));
        verdict.matmuls += done.matmuls;
    }
    verdict.uncut += layer.uncut(runs);
    for (held, output) in held.iter().zip(&mut outputs) {
        if let (Some(held), Some(output)) = (held, output) {
            held.fetch(&mut output.bytes)?;
        }
    }
    Ok(outputs)
}

/// Points the call's views at this rank's heads of the common outputs.
fn place(
    layer: &Layer,
    forward: &mut xqkv_forward,
    rank: &Rank,
    outputs: &[Option<Held<'_>>],
    dtype: Dtype,
) {
    let views = [&mut forward.query, &mut forward.key, &mut forward.value];
    for (index, view) in views.into_iter().enumerate() {
        if let Some(output) = &outputs[index] {
            let part = &layer.parts[index];
            let offset = rank.first_heads()[index] * part.width * dtype.bytes();
            view.data = output.address().wrapping_add(offset).cast();
            view.dtype = dtype as i32;
            view.row_stride = (part.heads * part.width) as i64;
        }
    }
}

/// The largest error of any call, and whether all calls agree to the bit. Rows that were not
/// rounded must also give what the model's own module gave.
fn judge(part: &Part, exact: &Reference, ran: &[&Elements], is_stored: bool) -> Matrix {
    let mut largest: f64 = 0.0;
    for output in ran {
        for (index, result) in output.widened().into_iter().enumerate() {
            largest = largest.max(exact.error_over_bound(index, result.into(), output.dtype));
        }
    }
    let expected = part.expected.elements.iter().enumerate();
    let stored = expected
        .map(|(index, &value)| exact.stored_error_over_bound(index, f64::from(value)))
        .fold(0.0, f64::max);
    Matrix {
        name: part.name,
        error_over_bound: largest,
        agrees: !is_stored || stored <= 1.0 && part.expected.elements.len() == exact.values.len(),
        same_bits: ran.windows(2).all(|pair| pair[0].bytes == pair[1].bytes),
    }
}

/// So many packed rows.
pub fn input(rows: &Held<'_>, dtype: Dtype, count: usize) -> xqkv_input {
    // SAFETY: a plain struct of which zero is a value.
    let mut input: xqkv_input = unsafe { std::mem::zeroed() };
    input.data = rows.address().cast();
    input.rows = count as i64;
    input.dtype = dtype as i32;
    input
}
