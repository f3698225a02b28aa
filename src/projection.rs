//! The layer: Q when there are decoder rows, K and V when there are encoder rows. Holds this
//! rank's weights as versions, of which each forward runs on exactly one.

use crate::backend::{Backend, Matrix, Product, Weights};
use crate::error::{Error, ensure, listed};
use crate::shard::Shard;
use crate::spec::{Part, Parts, Spec};
use crate::stats::Counts;
use crate::view::{Footprint, Rows, View, ensure_disjoint};
use crate::weights::{Change, Kind, Place, Update};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// One call, its inputs and views checked one by one. A side is None when its input is absent or
/// this rank has no heads of it.
pub struct Call {
    /// The first layer.
    pub layer: i64,
    /// Layers that share the encoder's rows; 1 if there are decoder rows.
    pub layer_count: i64,
    /// Decoder rows and where their result goes.
    pub decoder: Option<DecoderSide>,
    /// Encoder rows and where their results go.
    pub encoder: Option<EncoderSide>,
}

/// What Q is made from and written to.
pub struct DecoderSide {
    /// The decoder's hidden states.
    pub rows: Rows,
    /// Where Q goes.
    pub query: View,
}

/// What K and V are made from and written to.
pub struct EncoderSide {
    /// The encoder's hidden states.
    pub rows: Rows,
    /// Where K goes.
    pub key: View,
    /// Where V goes.
    pub value: View,
}

/// This rank's shard of Wq, Wk and Wv of all its layers, on one backend.
pub struct Projection {
    backend: Arc<dyn Backend>,
    spec: Spec,
    shard: Shard,
    current: RwLock<Arc<Version>>,
    /// Commits come one after the other; forwards do not wait for them.
    committing: Mutex<()>,
}

/// The weights after one commit. Versions share what they have in common.
#[derive(Clone, Default)]
struct Version {
    number: u64,
    layers: BTreeMap<i64, Parts<PartWeights>>,
}

#[derive(Clone, Default)]
struct PartWeights {
    weight: Option<Weights>,
    bias: Option<Arc<[f32]>>,
}

impl Projection {
    /// A projection without weights, for a checked spec and its shard.
    pub fn new(backend: Arc<dyn Backend>, spec: Spec, shard: Shard) -> Self {
        let (current, committing) = (RwLock::default(), Mutex::new(()));
        Self { backend, spec, shard, current, committing }
    }

    /// The uncut layers.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What this rank holds of them.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The number of the last commit.
    pub fn weights_version(&self) -> u64 {
        self.current().number
    }

    /// Projects what the call gives rows for, and tells on which version of the weights.
    ///
    /// # Safety
    /// The call's rows can be read and its views written, and nobody else writes the rows or
    /// touches the views meanwhile.
    pub unsafe fn forward(&self, call: &Call) -> Result<(Counts, u64), Error> {
        self.check(call)?;
        let version = self.current();
        version.ensure_ready(&self.spec, call)?;
        let mut products = Vec::new();
        if let Some(DecoderSide { rows, query }) = &call.decoder {
            products.push(self.product(&version, call.layer, 0, Part::Query, rows, query));
        }
        if let Some(EncoderSide { rows, key, value }) = &call.encoder {
            for at in 0..call.layer_count {
                products.push(self.product(&version, call.layer, at, Part::Key, rows, key));
                products.push(self.product(&version, call.layer, at, Part::Value, rows, value));
            }
        }
        // SAFETY: passed on; the call was checked, and all it needs is loaded.
        let counts = unsafe { self.backend.run(&products) }?;
        Ok((counts, version.number))
    }

    /// An update that changes nothing yet.
    pub fn begin(&self) -> Update {
        Update::new(self.spec.clone(), self.shard)
    }

    /// Makes a new version of what the update changes and what it leaves, and gives its number.
    pub fn commit(&self, update: &Update) -> Result<u64, Error> {
        let _one_at_a_time = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Version::clone(&self.current());
        next.number += 1;
        for (&place, change) in update.changes() {
            self.apply(&mut next, place, change)?;
        }
        let number = next.number;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(number)
    }

    fn current(&self) -> Arc<Version> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn apply(&self, next: &mut Version, place: Place, change: &Change) -> Result<(), Error> {
        let (layer, part, kind) = place;
        let target = &mut next.layers.entry(layer).or_default()[part];
        match (change, kind) {
            (Change::Weight(bytes), _) => target.weight = self.load(part, bytes)?,
            (Change::Bias(elements), _) => target.bias = Some(elements.as_slice().into()),
            (Change::Clear, Kind::Weight) => target.weight = None,
            (Change::Clear, Kind::Bias) => target.bias = None,
        }
        Ok(())
    }

    /// The backend's form of a part's rows; None when this rank has none.
    fn load(&self, part: Part, bytes: &[u8]) -> Result<Option<Weights>, Error> {
        let outputs = self.shard.outputs(&self.spec, part).count as usize;
        let inputs = self.spec.inputs(part) as usize;
        if outputs == 0 {
            return Ok(None);
        }
        let matrix = Matrix { outputs, inputs, dtype: self.spec.weight_dtype, bytes };
        self.backend.load(&matrix).map(Some)
    }

    fn product<'a>(
        &self,
        version: &'a Version,
        first_layer: i64,
        at: i64,
        part: Part,
        rows: &'a Rows,
        view: &'a View,
    ) -> Product<'a> {
        let loaded = &version.layers[&(first_layer + at)][part];
        let weights = loaded.weight.as_ref().expect("ensure_ready found every weight");
        let bias = loaded.bias.as_deref().filter(|_| self.spec.bias[part]);
        Product { rows, weights, bias, scale: self.spec.scale[part], view, layer: at }
    }

    /// Refuses layers that this rank does not hold, and outputs that share memory.
    fn check(&self, call: &Call) -> Result<(), Error> {
        let (layers, last) = (self.shard.layers, call.layer.checked_add(call.layer_count));
        ensure!(
            call.layer_count > 0
                && layers.begin <= call.layer
                && last.is_some_and(|last| last <= layers.end()),
            LayerOutOfRange,
            "layer {} and layer_count {} leave this projection's layers {} to {}",
            call.layer,
            call.layer_count,
            layers.begin,
            layers.end() - 1
        );
        let (inputs, outputs) = call.footprints();
        for (number, output) in outputs.iter().enumerate() {
            for other in inputs.iter().chain(&outputs[number + 1..]) {
                ensure_disjoint(*output, *other)?;
            }
        }
        Ok(())
    }
}

type Named<'a> = (&'static str, &'a Footprint);

impl Call {
    /// The memory that is read and the memory that is written.
    fn footprints(&self) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        if let Some(side) = &self.decoder {
            inputs.push(("decoder", side.rows.footprint()));
            outputs.push(("query", side.query.footprint()));
        }
        if let Some(side) = &self.encoder {
            inputs.push(("encoder", side.rows.footprint()));
            outputs.push(("key", side.key.footprint()));
            outputs.push(("value", side.value.footprint()));
        }
        (inputs, outputs)
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let query = self.decoder.iter().map(|_| Part::Query);
        query.chain(self.encoder.iter().flat_map(|_| [Part::Key, Part::Value]))
    }
}

impl Version {
    /// Refuses a call that needs what was not loaded, and names it.
    fn ensure_ready(&self, spec: &Spec, call: &Call) -> Result<(), Error> {
        let mut missing = Vec::new();
        for layer in call.layer..call.layer + call.layer_count {
            for part in call.parts() {
                let loaded = self.layers.get(&layer).map(|layer| &layer[part]);
                if loaded.is_none_or(|loaded| loaded.weight.is_none()) {
                    missing.push(format!("{} weight of layer {layer}", part.name()));
                }
                if spec.bias[part] && loaded.is_none_or(|loaded| loaded.bias.is_none()) {
                    missing.push(format!("{} bias of layer {layer}", part.name()));
                }
            }
        }
        ensure!(
            missing.is_empty(),
            NotReady,
            "not loaded: {}; put them with xqkv_update_put or read a checkpoint, and commit",
            listed(&missing)
        );
        Ok(())
    }
}
