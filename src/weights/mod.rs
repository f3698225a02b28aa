//! From the engine's tensors and checkpoints to what a commit applies: this rank's rows, in the
//! spec's dtype, one change for each layer, part and kind.

pub mod checkpoint;
mod convert;
mod family;
mod files;
mod json;
mod names;
pub mod report;
mod safetensors_file;

use crate::backend::Borrowed;
use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use crate::shard::{Range, Shard};
use crate::spec::{Part, Spec};
use std::collections::BTreeMap;

/// What a tensor is to its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The matrix.
    Weight,
    /// The bias.
    Bias,
}

impl Kind {
    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Weight => "weight",
            Kind::Bias => "bias",
        }
    }
}

/// Whose rows a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The uncut layer's.
    Whole,
    /// This rank's.
    Shard,
}

/// The elements of a tensor.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// In host memory, in any alignment, up to the last of the last row; copied.
    Copied(&'a [u8]),
    /// At this address of the backend's device; used in place.
    Borrowed(usize),
}

/// A tensor in the engine's memory.
pub struct Source<'a> {
    /// What its elements are.
    pub dtype: Dtype,
    /// Where its elements are.
    pub data: Data<'a>,
    /// Output features.
    pub rows: i64,
    /// Input features; 1 for a bias.
    pub columns: i64,
    /// Elements from one row to the next.
    pub row_stride: i64,
    /// Whose rows it has.
    pub extent: Extent,
    /// Whether a weight of another dtype is rounded to the spec's.
    pub convert: bool,
}

impl Source<'_> {
    /// Bytes from the first element to behind the last.
    pub fn bytes_of(
        dtype: Dtype,
        rows: i64,
        columns: i64,
        row_stride: i64,
    ) -> Result<usize, Error> {
        if rows == 0 || columns == 0 {
            return Ok(0);
        }
        let elements =
            (rows - 1).checked_mul(row_stride).and_then(|last| last.checked_add(columns));
        let bytes = elements.and_then(|elements| elements.checked_mul(dtype.bytes() as i64));
        bytes.map(|bytes| bytes as usize).ok_or_else(|| {
            let message = format!(
                "tensor [{rows}, {columns}] with row_stride {row_stride} exceeds 2^63 bytes"
            );
            Error::new(Status::SizeOverflow, message)
        })
    }

    /// Bytes before a row.
    fn offset(&self, row: i64) -> usize {
        (row * self.row_stride) as usize * self.dtype.bytes()
    }

    /// The elements of one row of tensors that are copied.
    fn row<'b>(&self, data: &'b [u8], row: i64) -> &'b [u8] {
        &data[self.offset(row)..][..self.columns as usize * self.dtype.bytes()]
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
    /// Replaces the bias: this rank's elements.
    Bias(Vec<f32>),
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

    /// Takes this rank's rows of a tensor of one part, or of several parts stacked.
    pub fn put(
        &mut self,
        layer: i64,
        parts: &[Part],
        kind: Kind,
        source: &Source<'_>,
    ) -> Result<(), Error> {
        self.ensure_free(layer, parts, kind)?;
        self.ensure_shape(parts, kind, source)?;
        self.ensure_dtype(kind, source)?;
        self.ensure_borrowable(kind, source)?;
        let mut cut = Vec::new();
        let mut first = 0;
        for &part in parts {
            let rows = self.rows_in(part, source.extent);
            let taken = Range { begin: first + rows.begin, count: rows.count };
            cut.push(((layer, part, kind), self.cut(kind, source, taken)?));
            first += self.height(part, source.extent);
        }
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

    /// Rows of a part's tensor as the source has it.
    fn height(&self, part: Part, extent: Extent) -> i64 {
        match extent {
            Extent::Whole => self.spec.outputs(part),
            Extent::Shard => self.shard.outputs(&self.spec, part).count,
        }
    }

    /// This rank's rows within them.
    fn rows_in(&self, part: Part, extent: Extent) -> Range {
        let rows = self.shard.outputs(&self.spec, part);
        match extent {
            Extent::Whole => rows,
            Extent::Shard => Range { begin: 0, count: rows.count },
        }
    }

    fn cut(&self, kind: Kind, source: &Source<'_>, rows: Range) -> Result<Change, Error> {
        let data = match source.data {
            Data::Copied(data) => data,
            Data::Borrowed(address) => {
                let address = address + source.offset(rows.begin);
                return Ok(Change::Borrow(Borrowed { address, row_stride: source.row_stride }));
            }
        };
        let rows = (rows.begin..rows.end()).map(|row| source.row(data, row));
        match kind {
            Kind::Weight => {
                convert::packed(rows, source.dtype, self.spec.weight_dtype).map(Change::Weight)
            }
            Kind::Bias => convert::widened(rows, source.dtype).map(Change::Bias),
        }
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

    fn ensure_shape(&self, parts: &[Part], kind: Kind, source: &Source<'_>) -> Result<(), Error> {
        let rows: i64 = parts.iter().map(|&part| self.height(part, source.extent)).sum();
        let columns = self.columns(parts, kind)?;
        let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
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
        if kind == Kind::Bias {
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
        let (given, needed) = (source.dtype, self.spec.weight_dtype);
        ensure!(
            kind == Kind::Bias || source.convert || given == needed,
            InvalidDtype,
            "weight is {}, this spec keeps {}; set convert to 1 to round, or weight_dtype to {}",
            given.name(),
            needed.name(),
            given.name()
        );
        Ok(())
    }

    fn ensure_borrowable(&self, kind: Kind, source: &Source<'_>) -> Result<(), Error> {
        let Data::Borrowed(address) = source.data else {
            return Ok(());
        };
        ensure!(
            kind == Kind::Weight,
            NotSupported,
            "a bias cannot be borrowed, since it is kept scaled and in the dtypes of outputs; use \
             XQKV_OWNERSHIP_COPY"
        );
        ensure!(
            source.dtype == self.spec.weight_dtype,
            InvalidDtype,
            "a borrowed weight is used as it is, and this one is {}, but the spec keeps {}; borrow \
             one of that dtype, or copy with convert set to 1",
            source.dtype.name(),
            self.spec.weight_dtype.name()
        );
        ensure!(
            address.is_multiple_of(source.dtype.bytes()),
            Misaligned,
            "tensor.data is {address:#x}, not a multiple of the {} bytes of {}",
            source.dtype.bytes(),
            source.dtype.name()
        );
        Ok(())
    }
}
