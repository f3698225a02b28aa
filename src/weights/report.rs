//! What a checkpoint has of a spec's cross-attention: which tensors would be used, which are
//! missing or of another shape, and which stand beside them unused.

use super::checkpoint::Checkpoint;
use super::{Kind, Place};
use crate::error::Error;
use crate::spec::{Part, Spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every tensor that a spec needs, as it was found, and those that nobody needs.
pub struct Report {
    family: Option<&'static str>,
    needed: Vec<Needed>,
    unused: Vec<String>,
}

/// One tensor that the spec needs.
struct Needed {
    name: String,
    place: Place,
    checkpoint_layer: i64,
    shape: Vec<i64>,
    /// None if it is not there.
    found: Option<Vec<i64>>,
}

impl Report {
    /// Holds a checkpoint against the uncut layers.
    pub fn new(checkpoint: &Checkpoint, spec: &Spec) -> Result<Self, Error> {
        checkpoint.ensure_layers(spec)?;
        let needed: Vec<Needed> =
            places(spec).map(|place| Needed::new(checkpoint, spec, place)).collect();
        let names: BTreeSet<&str> = needed.iter().map(|needed| &*needed.name).collect();
        let beside = checkpoint.neighbours().filter(|name| !names.contains(name));
        let unused = beside.map(str::to_owned).collect();
        Ok(Self { family: checkpoint.family_name(), needed, unused })
    }

    /// The lists as one JSON object.
    pub fn to_json(&self) -> String {
        let listed = |belongs: fn(&Needed) -> bool| -> Vec<Value> {
            self.needed.iter().filter(|needed| belongs(needed)).map(Needed::to_json).collect()
        };
        json!({
            "family": self.family,
            "used": listed(Needed::is_used),
            "missing": listed(Needed::is_missing),
            "misshaped": listed(|needed| !needed.is_used() && !needed.is_missing()),
            "unused": self.unused,
        })
        .to_string()
    }
}

impl Needed {
    fn new(checkpoint: &Checkpoint, spec: &Spec, place: Place) -> Self {
        let (layer, part, kind) = place;
        let name = checkpoint.name(place);
        let found = checkpoint.shape(&name);
        let extents = if kind == Kind::Weight { 2 } else { 1 };
        let shape = spec.shape(part)[..extents].to_vec();
        Needed { name, place, checkpoint_layer: checkpoint.layer_number(layer), shape, found }
    }

    fn is_missing(&self) -> bool {
        self.found.is_none()
    }

    fn is_used(&self) -> bool {
        self.found.as_ref() == Some(&self.shape)
    }

    fn to_json(&self) -> Value {
        let (layer, part, kind) = self.place;
        json!({
            "name": self.name,
            "layer": layer,
            "checkpoint_layer": self.checkpoint_layer,
            "part": part.name(),
            "kind": kind.name(),
            "shape": self.found,
            "needed_shape": self.shape,
        })
    }
}

/// Every weight and bias of the spec.
fn places(spec: &Spec) -> impl Iterator<Item = Place> {
    let kinds = |part: Part| {
        let bias = spec.bias[part].then_some(Kind::Bias);
        [Some(Kind::Weight), bias].into_iter().flatten().map(move |kind| (part, kind))
    };
    let parts = Part::ALL.into_iter().filter(|&part| spec.heads(part) > 0);
    let of_layer: Vec<(Part, Kind)> = parts.flat_map(kinds).collect();
    (0..spec.layer_count).flat_map(move |layer| {
        of_layer.clone().into_iter().map(move |(part, kind)| (layer, part, kind))
    })
}
