//! How many matmuls a side takes, and which: a pure function of its shape. docs/matmuls.md holds
//! the table of its answers, and a test holds the two together.
//!
//! cuBLASLt adds a bias to the rows of D only, and not when D is in row order. So operands are
//! swapped: D in column order has our outputs as its rows and our rows as its columns, and
//!
//! ```text
//! D[outputs, rows] = A[inputs, outputs]ᵀ · B[inputs, rows]      A is the weights, B the rows
//! ```
//!
//! which is our row-major result in place. Outputs that do not follow each other in the view are
//! further axes: the pair of K and V, layers, heads. Axes that step alike through weights, bias and
//! view are merged; one that remains becomes the matmul's batch, and the others are loops.
//!
//! What no D can be (groups, slots, lanes that are no neighbours, a norm) is staged: a matmul of
//! each layer into scratch memory, packed and in f32, and a kernel that writes it where it goes.

use crate::dtype::Dtype;
use crate::view::Strides;

/// A side of a job, as far as matmuls are shaped by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SideShape {
    pub(super) inputs: usize,
    pub(super) row_stride: i64,
    /// Whether rows are gathered into scratch memory first.
    pub(super) has_list: bool,
    pub(super) layers: usize,
    pub(super) parts: [Option<PartShape>; 2],
    /// Rows of weights from the first part's to the second's, where both are of one stack: as many
    /// as the first has outputs, or more if it is some heads of its matrix.
    pub(super) stack_rows: Option<i64>,
    /// Where the second part's view begins, from the first one's.
    pub(super) relation: Relation,
}

/// One part of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PartShape {
    pub(super) heads: usize,
    pub(super) width: usize,
    /// Those that are stepped by; 0 where there is one layer or one head.
    pub(super) strides: Strides,
    /// Whether layers are one stride apart; those of other views have each its own address.
    pub(super) has_layer_stride: bool,
    /// Whether places are no one stride apart, or not known here.
    pub(super) is_scattered: bool,
    pub(super) has_norm: bool,
    /// Whether results are added to what is there.
    pub(super) accumulates: bool,
    pub(super) dtype: Dtype,
    pub(super) has_bias: bool,
    pub(super) scale: f32,
    /// Elements of bias before this part's, in its layer.
    pub(super) bias_offset: i64,
    /// Elements from one layer's biases to the next.
    pub(super) bias_layer_stride: i64,
    /// Elements from one row of weights to the next.
    pub(super) weight_row_stride: i64,
    /// Elements from one layer's weights to the next, if they are all as far apart.
    pub(super) weight_layer_stride: Option<i64>,
    /// Bytes that all layers' addresses of weights are a multiple of.
    pub(super) weight_alignment: usize,
}

/// How two views lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// There is one view, or the second lies before the first, or no whole elements behind it.
    Apart,
    /// The second begins so many elements behind the first, wherever that is.
    Behind(i64),
}

/// One shape of matmul, and where it is run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matmul {
    /// D's rows.
    pub(super) outputs: usize,
    /// D's rows, neighbours in memory; its columns are this far apart.
    pub(super) view_row_stride: i64,
    /// A's columns are this far apart.
    pub(super) weight_row_stride: i64,
    pub(super) weight_alignment: usize,
    pub(super) batch: Option<Axis>,
    pub(super) dtype: Dtype,
    pub(super) has_bias: bool,
    pub(super) scale: f32,
    /// Whether D adds to what is there.
    pub(super) accumulates: bool,
    /// Whether D is scratch memory, from where a kernel takes it.
    pub(super) is_staged: bool,
    pub(super) needs: Needs,
    pub(super) starts: Vec<Start>,
}

/// What must hold of a call's two views so that a matmul writes both where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: each is written by its own address.
    Nothing,
    /// The second lies behind the first; how far is set for each call.
    Behind,
    /// They lie exactly as they did.
    Exactly(Relation),
}

impl Needs {
    /// Whether views that lie like this to each other are written where they are.
    pub(super) fn suit(self, given: Relation) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Behind => matches!(given, Relation::Behind(_)),
            Needs::Exactly(relation) => relation == given,
        }
    }
}

/// A direction in which a matmul is repeated, and how far each operand steps, in its elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) count: usize,
    pub(super) weight: i64,
    pub(super) bias: i64,
    pub(super) view: i64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pair,
    Layer,
    Head,
}

/// Where one matmul begins: a part and a layer, whose addresses differ from call to call, and
/// elements from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) part: usize,
    pub(super) layer: usize,
    pub(super) weight: i64,
    pub(super) bias: i64,
    pub(super) view: i64,
}

impl Matmul {
    /// How many matrices one call multiplies.
    pub(super) fn batch_count(&self) -> usize {
        self.batch.map_or(1, |axis| axis.count)
    }

    /// Bytes that A's addresses are all a multiple of.
    pub(super) fn weight_alignment_with(&self, dtype: Dtype) -> usize {
        let steps = self.starts.iter().map(|start| start.weight);
        let steps = steps.chain(self.batch.map(|axis| axis.weight));
        common_alignment(self.weight_alignment, steps, dtype)
    }

    /// Bytes that D's addresses are all a multiple of if the views' are of so many. The distance
    /// of a pair is a difference of such addresses.
    pub(super) fn view_alignment_with(&self, alignment: usize) -> usize {
        let steps = self.starts.iter().map(|start| start.view);
        let batch = self.batch.filter(|_| !self.batches_pair()).map(|axis| axis.view);
        common_alignment(alignment, steps.chain(batch), self.dtype)
    }

    /// An address as little aligned as any bias of this matmul.
    pub(super) fn bias_alignment(&self) -> usize {
        let steps = self.starts.iter().map(|start| start.bias);
        common_alignment(256, steps.chain(self.batch.map(|axis| axis.bias)), self.dtype)
    }

    /// Whether its batch is the pair of views, so that its step is the distance between them.
    pub(super) fn batches_pair(&self) -> bool {
        self.batch.is_some_and(|axis| axis.kind == Kind::Pair)
    }

    /// What a pair asks for that became the batch, or a loop, or was merged into another axis.
    fn needs_of(&self, relation: Relation) -> Needs {
        match (self.batches_pair(), self.starts.iter().any(|start| start.part > 0)) {
            (true, _) => Needs::Behind,
            (false, true) => Needs::Nothing,
            (false, false) => Needs::Exactly(relation),
        }
    }
}

fn common_alignment(most: usize, steps: impl Iterator<Item = i64>, dtype: Dtype) -> usize {
    let bits = steps.fold(most, |bits, step| bits | (step as usize * dtype.bytes()));
    1 << bits.trailing_zeros()
}

impl SideShape {
    /// Whether all but the rows' and views' own addresses are alike.
    pub(super) fn same_layout(&self, other: &SideShape) -> bool {
        let facts = |side: &SideShape| {
            (side.inputs, side.row_stride, side.has_list, side.layers, side.stack_rows)
        };
        facts(self) == facts(other) && self.parts == other.parts
    }
}

/// The matmuls of a side.
pub(super) fn matmuls(side: &SideShape) -> Vec<Matmul> {
    match &side.parts {
        [Some(first), Some(second)] if may_share(first, second) => shared(side, first, second),
        parts => each_alone(side, parts),
    }
}

fn each_alone(side: &SideShape, parts: &[Option<PartShape>; 2]) -> Vec<Matmul> {
    let present = parts.iter().enumerate();
    present.filter_map(|(number, part)| Some(alone(side, number, part.as_ref()?))).collect()
}

/// Whether one alpha, one beta and one D can serve both.
fn may_share(first: &PartShape, second: &PartShape) -> bool {
    let scalars = |part: &PartShape| (part.dtype, part.scale.to_bits(), part.accumulates);
    !first.is_staged() && !second.is_staged() && scalars(first) == scalars(second)
}

/// Both parts by the same matmuls where their views allow it.
fn shared(side: &SideShape, first: &PartShape, second: &PartShape) -> Vec<Matmul> {
    let (Relation::Behind(distance), Some(stack_rows)) = (side.relation, side.stack_rows) else {
        return each_alone(side, &side.parts);
    };
    let strides_agree = has_same_strides(first, second, side.layers);
    let has_bias = first.has_bias || second.has_bias;
    let outputs = first.outputs() + second.outputs();
    let continues = [distance, stack_rows] == [first.outputs() as i64; 2];
    if strides_agree && first.is_run() && second.is_run() && continues {
        let axes = layer_axis(side, first).into_iter().flatten();
        let mut both = with_axes(first, outputs, has_bias, axes);
        both.needs = Needs::Exactly(side.relation);
        return vec![both];
    }
    if !strides_agree || (first.heads, first.width) != (second.heads, second.width) {
        return each_alone(side, &side.parts);
    }
    let pair = Axis {
        count: 2,
        weight: stack_rows * first.weight_row_stride,
        bias: stack_rows,
        view: distance,
        kind: Kind::Pair,
    };
    let axes = [Some(pair)].into_iter().chain(layer_axis(side, first)).chain(head_axis(first));
    let mut both = with_axes(first, first.run(), has_bias, axes.flatten());
    both.needs = both.needs_of(side.relation);
    vec![both]
}

/// One part by matmuls of its own.
fn alone(side: &SideShape, number: usize, part: &PartShape) -> Matmul {
    if part.is_staged() {
        let staged = alone(side, number, &part.staged());
        return Matmul { is_staged: true, ..staged };
    }
    let axes = layer_axis(side, part).into_iter().chain(head_axis(part)).flatten();
    let mut matmul = with_axes(part, part.run(), part.has_bias, axes);
    matmul.starts.iter_mut().for_each(|start| start.part = number);
    matmul
}

/// Merges axes, batches over the longest that can be, and loops over the rest.
fn with_axes(
    part: &PartShape,
    outputs: usize,
    has_bias: bool,
    axes: impl IntoIterator<Item = Axis>,
) -> Matmul {
    let mut axes = merged(axes, has_bias);
    let longest = axes
        .iter()
        .enumerate()
        .filter(|(_, axis)| axis.kind != Kind::Layer || part.batches_layers())
        .max_by_key(|(_, axis)| axis.count)
        .map(|(place, _)| place);
    let batch = longest.map(|place| axes.remove(place));
    Matmul {
        outputs,
        view_row_stride: part.strides.row,
        weight_row_stride: part.weight_row_stride,
        weight_alignment: part.weight_alignment,
        batch,
        dtype: part.dtype,
        has_bias,
        scale: part.scale,
        accumulates: part.accumulates,
        is_staged: false,
        needs: Needs::Nothing,
        starts: starts(&axes, part.bias_offset),
    }
}

/// Axes with those joined that continue each other, whichever lie between: heads of V behind those
/// of K, say.
fn merged(axes: impl IntoIterator<Item = Axis>, has_bias: bool) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::new();
    for inner in axes {
        let length = inner.count as i64;
        let continues = |outer: &&mut Axis| {
            outer.weight == inner.weight.wrapping_mul(length)
                && outer.view == inner.view.wrapping_mul(length)
                && (!has_bias || outer.bias == inner.bias * length)
        };
        match merged.iter_mut().find(continues) {
            Some(outer) => *outer = Axis { count: outer.count * inner.count, ..inner },
            None => merged.push(inner),
        }
    }
    merged
}

/// The step of an operand whose layers are no one stride apart: they are looped over, and their
/// addresses looked up.
const ANYWHERE: i64 = i64::MAX;

/// Every combination of the axes that are looped over.
fn starts(loops: &[Axis], bias_offset: i64) -> Vec<Start> {
    let mut starts = vec![Start { bias: bias_offset, ..Start::default() }];
    for axis in loops {
        let step = |start: Start| (0..axis.count).map(move |at| start.stepped(axis, at));
        starts = starts.into_iter().flat_map(step).collect();
    }
    starts
}

impl Start {
    /// The pair's second view and other layers' weights have addresses of their own.
    fn stepped(mut self, axis: &Axis, at: usize) -> Start {
        let steps = at as i64;
        self.bias += steps * axis.bias;
        match axis.kind {
            Kind::Pair => self.part += at,
            Kind::Layer => {
                self.layer += at;
                self.view += if axis.view == ANYWHERE { 0 } else { steps * axis.view };
            }
            Kind::Head => {
                self.weight += steps * axis.weight;
                self.view += steps * axis.view;
            }
        }
        self
    }
}

fn layer_axis(side: &SideShape, part: &PartShape) -> [Option<Axis>; 1] {
    let axis = Axis {
        count: side.layers,
        weight: part.weight_layer_stride.unwrap_or(ANYWHERE),
        bias: part.bias_layer_stride,
        view: if part.has_layer_stride { part.strides.layer } else { ANYWHERE },
        kind: Kind::Layer,
    };
    [(side.layers > 1).then_some(axis)]
}

fn head_axis(part: &PartShape) -> [Option<Axis>; 1] {
    let width = part.width as i64;
    let axis = Axis {
        count: part.heads,
        weight: width * part.weight_row_stride,
        bias: width,
        view: part.strides.head,
        kind: Kind::Head,
    };
    [(!part.is_run()).then_some(axis)]
}

fn has_same_strides(first: &PartShape, second: &PartShape, layers: usize) -> bool {
    let same_heads = first.strides.head == second.strides.head;
    first.strides.row == second.strides.row
        && (layers == 1 || first.strides.layer == second.strides.layer)
        && (same_heads || (first.is_run() && second.is_run()))
}

impl PartShape {
    /// Whether no D is the view: its places are scattered or its lanes no neighbours, or a norm
    /// comes between.
    pub(super) fn is_staged(&self) -> bool {
        self.is_scattered || self.has_norm || (self.width > 1 && self.strides.width != 1)
    }

    /// What the matmul's results are.
    pub(super) fn result_dtype(&self) -> Dtype {
        if self.is_staged() { Dtype::F32 } else { self.dtype }
    }

    /// The part as it is staged: packed, in f32, layer by layer. A norm's scale comes after it, and
    /// the kernel adds.
    fn staged(&self) -> PartShape {
        let (head, row) = (self.width as i64, self.outputs() as i64);
        PartShape {
            strides: Strides { row, head, width: 1, ..Strides::default() },
            has_layer_stride: false,
            is_scattered: false,
            has_norm: false,
            accumulates: false,
            dtype: Dtype::F32,
            scale: if self.has_norm { 1.0 } else { self.scale },
            ..*self
        }
    }

    /// Whether layers can be a batch.
    fn batches_layers(&self) -> bool {
        self.weight_layer_stride.is_some() && self.has_layer_stride
    }

    /// Columns of the result.
    fn outputs(&self) -> usize {
        self.heads * self.width
    }

    /// Whether all columns of a row are neighbours.
    fn is_run(&self) -> bool {
        self.heads == 1 || self.strides.head == self.width as i64
    }

    /// Columns of a row that are neighbours.
    fn run(&self) -> usize {
        if self.is_run() { self.outputs() } else { self.width }
    }
}

#[cfg(test)]
mod tests;
