//! What is done to Q, K and V after their biases: scales and norms, put into the spec, the library
//! and the reference.

use super::layer::NAMES;
use crate::library::{Checkpoint, Outcome, Update};
use crate::reference::{Finish, Norm};
use crate::tensors::{Tensor, of_checkpoint};
use serde_json::Value;
use std::path::Path;
use std::str::FromStr;
use xqkv::capi::spec::{Norm as NormChoice, xqkv_spec};
use xqkv::capi::update::{KindChoice, PartChoice};
use xqkv::dtype::Dtype;

#[derive(clap::Args)]
pub struct Choices {
    /// Scale Q, K and V by these three, such as --scale=0.5,1,2, or without them Q and K by
    /// head_width^-0.25 each
    #[arg(long, value_name = "Q,K,V", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = ROOT)]
    scale: Option<Scales>,
    /// Norm each head of Q and of K (RMS), by the checkpoint's weights, or if it has none by such
    /// as the command makes up; rounded before the weight is multiplied as the checkpoint's model
    /// does (own), at the end alone (once), or to the weights' dtype before as well (first)
    #[arg(long, value_name = "ROUNDING", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "own", hide_possible_values = true)]
    norm: Option<Rounding>,
}

/// Where a norm rounds.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Rounding {
    Own,
    Once,
    First,
}

const ROOT: &str = "head_width^-0.25";

#[derive(Clone)]
enum Scales {
    Root,
    Given([f32; 3]),
}

impl FromStr for Scales {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ROOT {
            return Ok(Scales::Root);
        }
        let scales: Option<Vec<f32>> = text.split(',').map(|scale| scale.parse().ok()).collect();
        let three = scales.and_then(|scales| scales.try_into().ok());
        three.map(Scales::Given).ok_or_else(|| "give three numbers, such as 0.5,1,2".to_owned())
    }
}

impl Choices {
    /// Puts what was chosen into a checkpoint's spec.
    pub fn apply(&self, spec: &mut xqkv_spec) {
        let root = (spec.head_width as f32).powf(-0.25);
        let scales = self.scale.as_ref().map(|scales| match scales {
            Scales::Root => [root, root, 1.0],
            Scales::Given(scales) => *scales,
        });
        if let Some(scales) = scales {
            [spec.query_scale, spec.key_scale, spec.value_scale] = scales;
        }
        let Some(rounding) = self.norm else {
            // What is recorded of a model is before its norm.
            spec.norm = NormChoice::None as i32;
            (spec.norm_epsilon, spec.norm_rounds_first) = (0.0, 0);
            return;
        };
        if spec.norm == NormChoice::None as i32 {
            (spec.norm, spec.norm_epsilon) = (NormChoice::Rms as i32, 1e-5);
        }
        match rounding {
            Rounding::Own => {}
            Rounding::Once => spec.norm_rounds_first = 0,
            Rounding::First => spec.norm_rounds_first = 1,
        }
    }
}

/// The weight of the norm of Q (part 0) or K (part 1) of a layer, one for each lane of a head.
struct NormWeight {
    layer: i64,
    part: usize,
    weight: Tensor,
}

/// The norms' weights.
#[derive(Default)]
pub struct Finishes {
    read: Vec<NormWeight>,
    /// Those that the checkpoint does not have.
    made_up: Vec<NormWeight>,
}

impl Finishes {
    /// Reads the weights that the report says are used, and makes up the others.
    pub fn new(directory: &Path, found: &Value, spec: &xqkv_spec) -> Outcome<Self> {
        let mut finishes = Self::default();
        if spec.norm != NormChoice::Rms as i32 {
            return Ok(finishes);
        }
        for layer in 0..spec.layer_count {
            for part in [0, 1] {
                let of = |weight| NormWeight { layer, part, weight };
                match place(found, layer, part) {
                    Some(name) => finishes.read.push(of(of_checkpoint(directory, name)?)),
                    None => finishes.made_up.push(of(made_up(spec.head_width, layer, part))),
                }
            }
        }
        Ok(finishes)
    }

    /// Fills a rank's weights: as the library reads the checkpoint, or where that has no norms
    /// tensor by tensor.
    pub fn fill(
        &self,
        update: &Update,
        checkpoint: &Checkpoint,
        directory: &Path,
        found: &Value,
    ) -> Outcome<()> {
        if self.made_up.is_empty() {
            return update.read(checkpoint);
        }
        for place in found["used"].as_array().into_iter().flatten() {
            let tensor = of_checkpoint(directory, place["name"].as_str().unwrap_or(""))?;
            let layer = place["layer"].as_i64().unwrap_or(-1);
            let part = NAMES.iter().position(|&name| place["part"] == name).unwrap_or(0);
            let is_weight = place["kind"] == "weight";
            let kind = if is_weight { KindChoice::Weight } else { KindChoice::Bias };
            update.put(layer, PARTS[part], kind, &tensor)?;
        }
        self.made_up.iter().try_for_each(|NormWeight { layer, part, weight }| {
            update.put(*layer, PARTS[*part], KindChoice::Norm, weight)
        })
    }

    /// What is done to a part of a layer.
    pub fn of(&self, spec: &xqkv_spec, layer: i64, part: usize) -> Finish {
        let scale = [spec.query_scale, spec.key_scale, spec.value_scale][part];
        let mut weights = self.read.iter().chain(&self.made_up);
        let weight = weights.find(|weight| (weight.layer, weight.part) == (layer, part));
        let rounds_first = spec.norm_rounds_first != 0;
        Finish {
            scale: if scale == 0.0 { 1.0 } else { scale.into() },
            norm: weight.map(|weight| Norm {
                weight: weight.weight.elements.clone(),
                epsilon: spec.norm_epsilon.into(),
                rounds_to: Dtype::from_integer(spec.weight_dtype, "weight_dtype")
                    .ok()
                    .filter(|_| rounds_first),
            }),
        }
    }
}

const PARTS: [PartChoice; 3] = [PartChoice::Query, PartChoice::Key, PartChoice::Value];

/// The name of a norm's weight in the checkpoint.
fn place(found: &Value, layer: i64, part: usize) -> Option<&str> {
    let mut used = found["used"].as_array()?.iter();
    let is_meant = |place: &&Value| {
        place["layer"] == layer && place["part"] == NAMES[part] && place["kind"] == "norm"
    };
    used.find(is_meant)?["name"].as_str()
}

/// Weights from 0.5 to 1.5 that every dtype has.
fn made_up(width: i64, layer: i64, part: usize) -> Tensor {
    let seed = layer * 2 + part as i64;
    let step = |lane: i64| (lane * 37 + seed * 11).rem_euclid(64) + 32;
    let elements = (0..width).map(|lane| step(lane) as f32 / 64.0).collect();
    Tensor { rows: width as usize, elements }
}
