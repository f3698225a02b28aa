//! The weights after one commit: which of them there are, and the backend's form of them.

use super::Call;
use crate::backend::{
    Content, Form, MatrixForm, NormForm, Numerics, Stock, VectorSource, WeightSource, Weights,
};
use crate::error::{Error, ensure, listed};
use crate::shard::Shard;
use crate::spec::{Part, Spec};
use crate::weights::{Change, Kind, Update};

/// The weights after one commit; which ones, layer by layer and part by part.
#[derive(Clone, Default)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) weights: Option<Weights>,
    held: Vec<Held>,
    /// Whether all is held that any call may need.
    is_complete: bool,
}

#[derive(Clone, Copy, Default)]
struct Held {
    weight: bool,
    bias: bool,
    norm: bool,
}

impl Held {
    fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Weight => self.weight,
            Kind::Bias => self.bias,
            Kind::Norm => self.norm,
        }
    }
}

/// What a backend is to hold of every layer of a shard.
pub(super) fn form(
    spec: &Spec,
    shard: &Shard,
    numerics: Numerics,
    has_replicas: impl Fn(Part) -> bool,
) -> Form {
    let matrix = |part| MatrixForm {
        outputs: shard.outputs(spec, part).count as usize,
        inputs: spec.inputs(part) as usize,
        scale: spec.scale[part],
        has_bias: spec.bias[part],
        norm: spec.norm_of(part).map(|norm| NormForm {
            width: spec.width(part) as usize,
            epsilon: norm.epsilon,
            rounds_first: norm.rounds_first,
        }),
        // Heads that several ranks hold may be projected one by one.
        cut_width: if has_replicas(part) { spec.width(part) as usize } else { 0 },
        stack: usize::from(part != Part::Query),
    };
    Form {
        layer_count: shard.layers.count as usize,
        dtype: spec.weight_dtype,
        matrices: Part::ALL.map(matrix).to_vec(),
        numerics,
    }
}

/// Where a part stands in a form's layer.
pub(super) fn matrix_of(part: Part) -> usize {
    match part {
        Part::Query => 0,
        Part::Key => 1,
        Part::Value => 2,
    }
}

impl Version {
    /// What the backend is to hold after this update.
    pub(super) fn stock<'a>(
        &self,
        form: &'a Form,
        update: &'a Update,
        first_layer: i64,
    ) -> Stock<'a> {
        let places = places(form, first_layer);
        let contents = places.enumerate().map(|(at, (layer, part))| {
            let held = self.held.get(at).copied().unwrap_or_default();
            let change = |kind| update.changes().get(&(layer, part, kind));
            Content {
                weight: weight_source(change(Kind::Weight), held.weight),
                bias: vector_source(change(Kind::Bias), held.bias),
                norm: vector_source(change(Kind::Norm), held.norm),
            }
        });
        Stock { form, contents: contents.collect() }
    }

    /// The version after this one, of what the stock became.
    pub(super) fn next(&self, stock: &Stock<'_>, weights: Weights, spec: &Spec) -> Version {
        let held = |content: &Content<'_>| Held {
            weight: !matches!(content.weight, WeightSource::Absent),
            bias: !matches!(content.bias, VectorSource::Absent),
            norm: !matches!(content.norm, VectorSource::Absent),
        };
        let held = stock.contents.iter().map(held).collect();
        let (number, weights) = (self.number + 1, Some(weights));
        let mut next = Version { number, weights, held, is_complete: false };
        let lacks = |(layer, part)| next.missing(spec, layer, part).next().is_some();
        next.is_complete = !places(stock.form, 0).any(lacks);
        next
    }

    /// What the spec has of a part and is not held, of a layer counted in the form.
    fn missing<'a>(
        &self,
        spec: &'a Spec,
        layer: i64,
        part: Part,
    ) -> impl Iterator<Item = Kind> + use<'a> {
        let at = layer as usize * Part::ALL.len() + matrix_of(part);
        let held = self.held.get(at).copied().unwrap_or_default();
        Kind::ALL.into_iter().filter(move |kind| kind.is_in(spec, part) && !held.has(*kind))
    }

    /// The weights, if nothing is missing that any call may need.
    pub(super) fn complete(&self) -> Option<&Weights> {
        self.weights.as_ref().filter(|_| self.is_complete)
    }

    /// Refuses a call that needs what was not loaded, and names it.
    pub(super) fn ensure_ready(
        &self,
        spec: &Spec,
        shard: &Shard,
        call: &Call,
    ) -> Result<&Weights, Error> {
        if let Some(weights) = self.complete() {
            return Ok(weights);
        }
        let mut missing = Vec::new();
        for layer in call.layer..call.layer + call.layer_count {
            // Of what this rank has no heads of, others have.
            for part in call.parts().filter(|&part| shard.heads(part).count > 0) {
                let kinds = self.missing(spec, layer - shard.layers.begin, part);
                missing.extend(
                    kinds.map(|kind| format!("{} {} of layer {layer}", part.name(), kind.name())),
                );
            }
        }
        let weights = self.weights.as_ref().filter(|_| missing.is_empty());
        ensure!(
            weights.is_some(),
            NotReady,
            "not loaded: {}; put them with xqkv_update_put or read a checkpoint, and commit",
            listed(&missing)
        );
        Ok(weights.expect("just checked"))
    }
}

/// The layers and parts of a form, in the order of a stock.
fn places(form: &Form, first_layer: i64) -> impl Iterator<Item = (i64, Part)> {
    let layers = first_layer..first_layer + form.layer_count as i64;
    layers.flat_map(|layer| Part::ALL.into_iter().map(move |part| (layer, part)))
}

fn weight_source(change: Option<&Change>, is_held: bool) -> WeightSource<'_> {
    match change {
        Some(Change::Weight(bytes)) => WeightSource::Copied(bytes),
        Some(Change::Borrow(borrowed)) => WeightSource::Borrowed(*borrowed),
        Some(Change::Vector(_) | Change::Clear) => WeightSource::Absent,
        None if is_held => WeightSource::Kept,
        None => WeightSource::Absent,
    }
}

fn vector_source(change: Option<&Change>, is_held: bool) -> VectorSource<'_> {
    match change {
        Some(Change::Vector(elements)) => VectorSource::Copied(elements),
        Some(Change::Weight(_) | Change::Borrow(_) | Change::Clear) => VectorSource::Absent,
        None if is_held => VectorSource::Kept,
        None => VectorSource::Absent,
    }
}
