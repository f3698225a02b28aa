//! What is done to Q, K and V after their biases: scales and norms, put into the spec, the library
//! and the reference.

use super::layer::NAMES;
use crate::library::{NormWeight, Outcome};
use crate::reference::{Finish, Norm};
use crate::tensors::of_checkpoint;
use serde_json::Value;
use std::path::Path;
use std::str::FromStr;
use xqkv::capi::spec::{Norm as NormChoice, xqkv_spec};
use xqkv::dtype::Dtype;

#[derive(clap::Args)]
pub struct Choices {
    /// Scale Q, K and V by these three, such as --scale=0.5,1,2, or without them Q and K by
    /// head_width^-0.25 each
    #[arg(long, value_name = "Q,K,V", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = ROOT)]
    scale: Option<Scales>,
    /// Norm each head of Q and of K (RMS), by the checkpoint's weights, or if it has none by such as
    /// the command makes up
    #[arg(long)]
    norm: bool,
    /// Round to the weights' dtype before the norm's weight is multiplied, as Hugging Face does
    #[arg(long, requires = "norm")]
    norm_rounds_first: bool,
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
        if self.norm {
            spec.norm = NormChoice::Rms as i32;
            spec.norm_rounds_first = self.norm_rounds_first.into();
            if spec.norm_epsilon == 0.0 {
                spec.norm_epsilon = 1e-5;
            }
        }
    }
}

/// The norms' weights.
#[derive(Default)]
pub struct Finishes {
    read: Vec<NormWeight>,
    /// Those that the checkpoint does not have.
    pub made_up: Vec<NormWeight>,
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
                let weight = |elements| NormWeight { layer, part, elements };
                match place(found, layer, part) {
                    Some(name) => {
                        finishes.read.push(weight(of_checkpoint(directory, name)?.elements));
                    }
                    None => finishes.made_up.push(weight(made_up(spec.head_width, layer, part))),
                }
            }
        }
        Ok(finishes)
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
                weight: weight.elements.clone(),
                epsilon: spec.norm_epsilon.into(),
                rounds_to: Dtype::from_integer(spec.weight_dtype, "weight_dtype")
                    .ok()
                    .filter(|_| rounds_first),
            }),
        }
    }
}

/// The name of a norm's weight in the checkpoint.
fn place(found: &Value, layer: i64, part: usize) -> Option<&str> {
    let mut used = found["used"].as_array()?.iter();
    let is_meant = |place: &&Value| {
        place["layer"] == layer && place["part"] == NAMES[part] && place["kind"] == "norm"
    };
    used.find(is_meant)?["name"].as_str()
}

/// Weights from 0.5 to 1.5 that every dtype has.
fn made_up(width: i64, layer: i64, part: usize) -> Vec<f32> {
    let seed = layer * 2 + part as i64;
    let step = |lane: i64| (lane * 37 + seed * 11).rem_euclid(64) + 32;
    (0..width).map(|lane| step(lane) as f32 / 64.0).collect()
}
