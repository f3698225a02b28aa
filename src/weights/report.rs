//! What a checkpoint has of a spec's cross-attention: which tensors would be used, which are
//! missing or of another shape, and which stand beside them unused.

use super::checkpoint::Checkpoint;
use super::{Kind, Place};
use crate::error::Error;
use crate::spec::{Part, Spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Names of tensors, each in one of the lists.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    /// In the spec's shape.
    pub used: BTreeSet<String>,
    /// Needed and not there.
    pub missing: BTreeSet<String>,
    /// There in another shape, both of which are told.
    pub misshaped: BTreeSet<String>,
    /// Of the same attention modules, and needed by no projection.
    pub unused: BTreeSet<String>,
}

impl Report {
    /// Holds a checkpoint against the uncut layers.
    pub fn new(checkpoint: &Checkpoint, spec: &Spec) -> Result<Self, Error> {
        checkpoint.ensure_layers(spec)?;
        let mut report = Report::default();
        for place in places(spec) {
            report.add(checkpoint, spec, place);
        }
        let taken: BTreeSet<&str> = report.used.iter().map(String::as_str).collect();
        let beside = checkpoint.neighbours().filter(|name| !taken.contains(name));
        let misshaped = |name: &str| report.misshaped.iter().any(|told| told.starts_with(name));
        report.unused = beside.filter(|name| !misshaped(name)).map(str::to_owned).collect();
        Ok(report)
    }

    /// The lists as one JSON object, with the layers' numbers in the checkpoint.
    pub fn to_json(&self, checkpoint: &Checkpoint, spec: &Spec) -> String {
        let number =
            |layer| json!({ "layer": layer, "checkpoint_layer": checkpoint.layer_number(layer) });
        let layers: Vec<Value> = (0..spec.layer_count).map(number).collect();
        json!({
            "family": checkpoint.family_name(),
            "layers": layers,
            "used": self.used,
            "missing": self.missing,
            "misshaped": self.misshaped,
            "unused": self.unused,
        })
        .to_string()
    }

    fn add(&mut self, checkpoint: &Checkpoint, spec: &Spec, place: Place) {
        let name = checkpoint.name(place);
        let shape = spec.shape(place.1);
        let needed = if place.2 == Kind::Weight { &shape[..] } else { &shape[..1] };
        match checkpoint.shape(&name) {
            None => self.missing.insert(name),
            Some(given) if given == needed => self.used.insert(name),
            Some(given) => self.misshaped.insert(format!("{name} {given:?}, needed {needed:?}")),
        };
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
