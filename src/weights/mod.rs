//! From the engine's tensors and checkpoints to what a commit applies: this rank's rows, in the
//! spec's dtype, one change for each layer, part and kind.

pub mod checkpoint;
mod convert;
mod cut;
mod family;
mod files;
mod json;
mod names;
mod quantise;
pub mod report;
mod safetensors_file;
mod source;

pub use cut::FusedOrder;
pub use source::{Data, Extent, Integers, Layout, Numbers, Source};

use crate::backend::Borrowed;
use crate::dtype::WeightDtype;
use crate::error::{Error, ensure};
use crate::shard::{Range, Shard};
use crate::spec::{Part, Spec};
use convert::with_room;
use cut::Rows;
use std::collections::BTreeMap;

/// What a tensor is to its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The matrix.
    Weight,
    /// The bias.
    Bias,
    /// The weight of its heads' norm.
    Norm,
}

impl Kind {
    /// In the order in which a layer's tensors are listed.
    pub(crate) const ALL: [Kind; 3] = [Kind::Weight, Kind::Bias, Kind::Norm];

    /// Whether a spec has it of a part.
    pub fn is_in(self, spec: &Spec, part: Part) -> bool {
        match self {
            Kind::Weight => true,
            Kind::Bias => spec.bias[part],
            Kind::Norm => spec.norm_of(part).is_some(),
        }
    }

    /// The shape that it has in the uncut layer.
    pub fn shape(self, spec: &Spec, part: Part) -> Vec<i64> {
        match self {
            Kind::Weight => spec.shape(part).to_vec(),
            Kind::Bias => vec![spec.outputs(part)],
            Kind::Norm => vec![spec.width(part)],
        }
    }

    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Weight => "weight",
            Kind::Bias => "bias",
            Kind::Norm => "norm",
        }
    }
}

/// Which tensor of the shard a change is for.
pub type Place = (i64, Part, Kind);

/// What a commit does to one tensor.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Replaces the matrix: this rank's rows, packed, in the spec's dtype.
    Weight(Vec<u8>),
    /// Replaces the matrix by one that lies in the device's memory.
    Borrow(Borrowed),
    /// Replaces the bias, by this rank's elements, or the norm's weight.
    Vector(Vec<f32>),
    /// Removes the tensor.
    Clear,
}

/// The changes gathered for one commit.
pub struct Update {
    spec: Spec,
    shard: Shard,
    changes: BTreeMap<Place, Change>,
}

impl Update {
    /// An update that changes nothing yet.
    pub fn new(spec: Spec, shard: Shard) -> Self {
        Self { spec, shard, changes: BTreeMap::new() }
    }

    /// The uncut layers.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What this rank holds of them.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// What was gathered.
    pub fn changes(&self) -> &BTreeMap<Place, Change> {
        &self.changes
    }

    /// Takes this rank's rows of a tensor of one part, or of several parts that are fused.
    pub fn put(
        &mut self,
        layer: i64,
        parts: &[Part],
        kind: Kind,
        source: &Source<'_>,
    ) -> Result<(), Error> {
        let &Source { extent, order, .. } = source;
        let rows = Rows { spec: &self.spec, shard: &self.shard, parts, extent, order };
        self.ensure_free(layer, parts, kind)?;
        self.ensure_shape(&rows, kind, source)?;
        self.ensure_dtype(kind, source)?;
        self.ensure_borrowable(&rows, kind, source)?;
        let cut = |&part: &Part| {
            Ok(((layer, part, kind), self.cut(kind, source, &self.runs(&rows, part, kind))?))
        };
        let cut = parts.iter().map(cut).collect::<Result<Vec<_>, Error>>()?;
        self.changes.extend(cut);
        Ok(())
    }

    /// Has the commit remove a tensor of one or several parts.
    pub fn clear(&mut self, layer: i64, parts: &[Part], kind: Kind) -> Result<(), Error> {
        self.ensure_free(layer, parts, kind)?;
        self.changes.extend(parts.iter().map(|&part| ((layer, part, kind), Change::Clear)));
        Ok(())
    }

    /// Takes changes that were made elsewhere, all or none.
    pub fn stage(&mut self, changes: Vec<(Place, Change)>) -> Result<(), Error> {
        for &((layer, part, kind), _) in &changes {
            self.ensure_free(layer, &[part], kind)?;
        }
        self.changes.extend(changes);
        Ok(())
    }

    /// This rank's rows of a part. All heads share a norm, so it is neither cut nor fused.
    fn runs(&self, rows: &Rows<'_>, part: Part, kind: Kind) -> Vec<Range> {
        match kind {
            Kind::Weight | Kind::Bias => rows.of(part),
            Kind::Norm => vec![Range { begin: 0, count: self.spec.width(part) }],
        }
    }

    /// These rows of a tensor; a borrowed one has them at one place.
    fn cut(&self, kind: Kind, source: &Source<'_>, runs: &[Range]) -> Result<Change, Error> {
        let data = match source.data {
            Data::Copied(data) => data,
            Data::Borrowed(address) => {
                let first = runs.first().map_or(0, |run| source.offset(run.begin));
                let (address, row_stride) = (address + first, source.row_stride);
                return Ok(Change::Borrow(Borrowed { address, row_stride }));
            }
        };
        match kind {
            Kind::Weight => self.packed(source, data, runs).map(Change::Weight),
            Kind::Bias | Kind::Norm => widened(source, data, runs).map(Change::Vector),
        }
    }

    /// Rows of the spec's dtype, one behind the other.
    fn packed(&self, source: &Source<'_>, data: &[u8], runs: &[Range]) -> Result<Vec<u8>, Error> {
        let to = self.spec.weight_dtype;
        let rows: i64 = runs.iter().map(|run| run.count).sum();
        let row_bytes = to.row_bytes(source.columns).unwrap_or(i64::MAX);
        let mut packed = with_room((rows * row_bytes) as usize)?;
        let mut rows = runs.iter().flat_map(|run| run.begin..run.end());
        source.each_piece(data, runs, |piece| match source.numbers {
            Numbers::Plain(from) => {
                convert::append_packed(piece, from, to, source.columns as usize, &mut packed)
            }
            Numbers::Scaled(integers) => {
                quantise::append_integers(piece, source, integers, &mut rows, &mut packed);
                Ok(())
            }
        })?;
        Ok(packed)
    }

    fn ensure_free(&self, layer: i64, parts: &[Part], kind: Kind) -> Result<(), Error> {
        let layers = self.shard.layers;
        ensure!(
            layers.begin <= layer && layer < layers.end(),
            LayerOutOfRange,
            "layer is {layer}; this projection holds layers {} to {}",
            layers.begin,
            layers.end() - 1
        );
        for &part in parts {
            let name = part.name();
            self.ensure_norm(part, kind)?;
            ensure!(
                kind != Kind::Bias || self.spec.bias[part],
                InvalidArgument,
                "the spec has no {name} bias; set {name}_bias to 1, or leave this bias out"
            );
            ensure!(
                !self.changes.contains_key(&(layer, part, kind)),
                DuplicatePart,
                "the {name} {} of layer {layer} is in this update already; put it once, or \
                 abandon the update",
                kind.name()
            );
        }
        Ok(())
    }

    fn ensure_norm(&self, part: Part, kind: Kind) -> Result<(), Error> {
        ensure!(
            kind != Kind::Norm || part != Part::Value,
            InvalidArgument,
            "value has no norm; put those of query and of key, each on its own"
        );
        ensure!(
            kind != Kind::Norm || self.spec.norm.is_some(),
            InvalidArgument,
            "the spec has no norm; set norm to XQKV_NORM_RMS, or leave this {} norm out",
            part.name()
        );
        Ok(())
    }

    fn ensure_shape(&self, rows: &Rows<'_>, kind: Kind, source: &Source<'_>) -> Result<(), Error> {
        let columns = self.columns(rows.parts, kind)?;
        let names: Vec<&str> = rows.parts.iter().map(|part| part.name()).collect();
        let rows = match kind {
            Kind::Weight | Kind::Bias => rows.count(),
            Kind::Norm => self.spec.head_width,
        };
        ensure!(
            (source.rows, source.columns) == (rows, columns),
            InvalidShape,
            "{} {} is [{}, {}], this {} needs [{rows}, {columns}]; are {} query and {} key/value \
             heads of width {} and {} right?",
            names.join(", "),
            kind.name(),
            source.rows,
            source.columns,
            match source.extent {
                Extent::Whole => "spec",
                Extent::Shard => "rank's shard",
            },
            self.spec.query_heads,
            self.spec.key_value_heads,
            self.spec.head_width,
            self.spec.value_head_width
        );
        Ok(())
    }

    fn columns(&self, parts: &[Part], kind: Kind) -> Result<i64, Error> {
        if kind != Kind::Weight {
            return Ok(1);
        }
        let columns = self.spec.inputs(parts[0]);
        ensure!(
            parts.iter().all(|&part| self.spec.inputs(part) == columns),
            InvalidShape,
            "a fused weight of query, key and value needs decoder_width {} and encoder_width {} \
             to be equal; put the parts on their own",
            self.spec.decoder_width,
            self.spec.encoder_width
        );
        Ok(columns)
    }

    fn ensure_dtype(&self, kind: Kind, source: &Source<'_>) -> Result<(), Error> {
        let (given, needed) = (source.dtype(), self.spec.weight_dtype);
        if kind != Kind::Weight {
            return ensure_numbers(kind, given);
        }
        ensure!(
            given == needed || given.element().is_some(),
            NotSupported,
            "weight is {}, this spec keeps {}; set weight_dtype to {}, or give the weight in a \
             dtype of floating-point numbers",
            given.name(),
            needed.name(),
            given.name()
        );
        ensure!(
            source.convert || given == needed,
            InvalidDtype,
            "weight is {}, this spec keeps {}; set convert to 1 to round, or weight_dtype to {}",
            given.name(),
            needed.name(),
            given.name()
        );
        Ok(())
    }

    fn ensure_borrowable(
        &self,
        rows: &Rows<'_>,
        kind: Kind,
        source: &Source<'_>,
    ) -> Result<(), Error> {
        let Data::Borrowed(address) = source.data else {
            return Ok(());
        };
        ensure!(
            kind == Kind::Weight,
            NotSupported,
            "a {} cannot be borrowed, since it is kept in other dtypes than it comes in; use \
             XQKV_OWNERSHIP_COPY",
            kind.name()
        );
        ensure!(
            source.dtype() == self.spec.weight_dtype,
            InvalidDtype,
            "a borrowed weight is used as it is, and this one is {}, but the spec keeps {}; borrow \
             one of that dtype, or copy with convert set to 1",
            source.dtype().name(),
            self.spec.weight_dtype.name()
        );
        ensure!(
            address.is_multiple_of(source.dtype().bytes()),
            Misaligned,
            "tensor.data is {address:#x}, not a multiple of the {} bytes of {}",
            source.dtype().bytes(),
            source.dtype().name()
        );
        ensure_whole_rows(rows, source)
    }
}

/// Refuses a borrowed weight that is not one block of [outputs, inputs] for each part.
fn ensure_whole_rows(rows: &Rows<'_>, source: &Source<'_>) -> Result<(), Error> {
    ensure!(
        source.layout == Layout::OutIn,
        NotSupported,
        "a borrowed weight is used as it lies, and this one is XQKV_LAYOUT_IN_OUT; keep it \
         XQKV_LAYOUT_OUT_IN, or have it copied with XQKV_OWNERSHIP_COPY"
    );
    for &part in rows.parts {
        let blocks = rows.of(part).len();
        ensure!(
            blocks <= 1,
            NotSupported,
            "a borrowed weight is used as it lies, and in XQKV_FUSED_ORDER_PER_HEAD this rank's \
             {} rows lie in {blocks} places; keep it XQKV_FUSED_ORDER_CONCATENATED, or have it \
             copied with XQKV_OWNERSHIP_COPY",
            part.name()
        );
    }
    Ok(())
}

/// Biases and norms are numbers by themselves.
fn ensure_numbers(kind: Kind, dtype: WeightDtype) -> Result<(), Error> {
    ensure!(
        dtype.element().is_some(),
        InvalidDtype,
        "{} is {}, and only a weight can be; give it in f32, f16 or bf16",
        kind.name(),
        dtype.name()
    );
    Ok(())
}

fn widened(source: &Source<'_>, data: &[u8], runs: &[Range]) -> Result<Vec<f32>, Error> {
    let mut widened = with_room(source.elements(runs))?;
    if let Numbers::Plain(dtype) = source.numbers {
        source.each_piece(data, runs, |piece| {
            convert::append_widened(piece, dtype, &mut widened);
            Ok(())
        })?;
    }
    Ok(widened)
}
