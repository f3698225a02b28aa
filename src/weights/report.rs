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
        checkpoint.ensure_norm(spec)?;
        let needed: Vec<Needed> =
            places(spec).filter_map(|place| Needed::new(checkpoint, spec, place)).collect();
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
    /// None of a norm that a pattern has no name for.
    fn new(checkpoint: &Checkpoint, spec: &Spec, place: Place) -> Option<Self> {
        let (layer, part, kind) = place;
        let name = checkpoint.name(place)?;
        let (shape, found) = (kind.shape(spec, part), checkpoint.shape(&name));
        Some(Needed { name, place, checkpoint_layer: checkpoint.layer_number(layer), shape, found })
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

/// Every weight, bias and norm of the spec.
fn places(spec: &Spec) -> impl Iterator<Item = Place> {
    let kinds = |part: Part| {
        let there = Kind::ALL.into_iter().filter(move |kind| kind.is_in(spec, part));
        there.map(move |kind| (part, kind))
    };
    let parts = Part::ALL.into_iter().filter(|&part| spec.heads(part) > 0);
    let of_layer: Vec<(Part, Kind)> = parts.flat_map(kinds).collect();
    (0..spec.layer_count).flat_map(move |layer| {
        of_layer.clone().into_iter().map(move |(part, kind)| (layer, part, kind))
    })
}
