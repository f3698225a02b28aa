//! One layer of a checkpoint: the rows to project, the weights and what came out of the model.

use super::finishes::Finishes;
use super::ranks::Rank;
use crate::library::Outcome;
use crate::reference::{Finish, Reference};
use crate::tensors::{Archive, Tensor, of_checkpoint};
use serde_json::Value;
use std::path::Path;
use xqkv::capi::spec::xqkv_spec;

/// One of the three calls.
#[derive(Clone, Copy, PartialEq)]
pub enum Call {
    Prefill,
    Decode,
    Fill,
}

impl Call {
    /// Which of Q, K and V it runs.
    pub fn runs(self) -> [bool; 3] {
        [self != Call::Fill, self != Call::Decode, self != Call::Decode]
    }
}

/// One projection of a layer: its weights, and what the model's own module gave.
pub struct Part {
    pub name: &'static str,
    pub heads: usize,
    pub width: usize,
    pub inner: usize,
    weight: Tensor,
    bias: Option<Tensor>,
    finish: Finish,
    pub expected: Tensor,
}

/// One layer's inputs.
pub struct Layer {
    pub number: i64,
    pub checkpoint_number: i64,
    pub decoder: Tensor,
    pub encoder: Tensor,
    pub parts: [Part; 3],
}

/// Where layers are read from.
pub struct Source<'a> {
    pub directory: &'a Path,
    pub io: &'a Archive,
    /// The library's report on the checkpoint.
    pub found: &'a Value,
    pub spec: &'a xqkv_spec,
    pub finishes: &'a Finishes,
}

impl Source<'_> {
    /// What the report says of a layer's tensors.
    fn places(&self, layer: i64) -> Vec<&Value> {
        let places = self.found["used"].as_array().into_iter().flatten();
        places.filter(|place| place["layer"].as_i64() == Some(layer)).collect()
    }

    /// Reads a layer's rows, expected results and weights.
    pub fn layer(&self, number: i64) -> Outcome<Layer> {
        let places = self.places(number);
        let checkpoint_number =
            places.first().and_then(|place| place["checkpoint_layer"].as_i64()).unwrap_or(number);
        let parts = [0, 1, 2].map(|index| self.part(&places, number, checkpoint_number, index));
        let [query, key, value] = parts;
        Ok(Layer {
            number,
            checkpoint_number,
            decoder: self.io.tensor(&format!("layers.{checkpoint_number}.decoder"))?,
            encoder: self.io.tensor("encoder")?,
            parts: [query?, key?, value?],
        })
    }

    fn part(
        &self,
        places: &[&Value],
        layer: i64,
        checkpoint_layer: i64,
        index: usize,
    ) -> Outcome<Part> {
        let (name, [heads, width, inner]) = (NAMES[index], shape(self.spec, index));
        let tensor = |kind: &str| {
            let place = places.iter().find(|place| place["part"] == name && place["kind"] == kind);
            place.map(|place| of_checkpoint(self.directory, place["name"].as_str().unwrap_or("")))
        };
        Ok(Part {
            name,
            heads,
            width,
            inner,
            weight: tensor("weight").ok_or(format!("no {name} weight of layer {layer}"))??,
            bias: tensor("bias").transpose()?,
            finish: self.finishes.of(self.spec, layer, index),
            expected: self.io.tensor(&format!("layers.{checkpoint_layer}.{name}"))?,
        })
    }
}

/// Q, K and V by their names in the report.
pub const NAMES: [&str; 3] = ["query", "key", "value"];

/// Heads, their width and columns of the input.
fn shape(spec: &xqkv_spec, part: usize) -> [usize; 3] {
    let shape = match part {
        0 => [spec.query_heads, spec.head_width, spec.decoder_width],
        1 => [spec.key_value_heads, spec.head_width, spec.encoder_width],
        _ => [spec.key_value_heads, spec.value_head_width, spec.encoder_width],
    };
    shape.map(|extent| extent as usize)
}

impl Layer {
    /// Rows of the inputs of Q, K and V.
    pub fn rows(&self) -> [usize; 3] {
        [self.decoder.rows, self.encoder.rows, self.encoder.rows]
    }

    /// Multiply-adds that a rank cannot do without, from shapes alone, for so many rows.
    pub fn necessary(&self, rank: &Rank, rows: [usize; 3], runs: [bool; 3]) -> i64 {
        self.multiply_adds(rank.columns(), rows, runs)
    }

    /// Multiply-adds of the uncut layer.
    pub fn uncut(&self, runs: [bool; 3]) -> i64 {
        let columns =
            [0, 1, 2].map(|index| (self.parts[index].heads * self.parts[index].width) as i64);
        self.multiply_adds(columns, self.rows(), runs)
    }

    fn multiply_adds(&self, columns: [i64; 3], rows: [usize; 3], runs: [bool; 3]) -> i64 {
        let of_part =
            |index: usize| rows[index] as i64 * columns[index] * self.parts[index].inner as i64;
        (0..3).filter(|&index| runs[index]).map(of_part).sum()
    }
}

impl Part {
    pub fn exact(&self, rows: &[f32]) -> Reference {
        let bias = self.bias.as_ref().map(|bias| &bias.elements[..]);
        Reference::new(rows, self.inner, &self.weight.elements, bias, self.width, &self.finish)
    }
}
