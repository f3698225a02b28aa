//! From a job to what its matmuls are shaped by.

use super::planner::{PartShape, Relation, SideShape};
use super::weights::DeviceWeights;
use crate::backend::{Borrowed, Form, Job, Output, Side};
use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use crate::view::View;

/// Most that an alignment is told apart.
const MOST_ALIGNMENT: u32 = 8;

/// The shape of a side, whose memory was checked; refuses what no matmul can do.
pub(super) fn side_shape(
    job: &Job<'_>,
    side: &Side<'_>,
    weights: &DeviceWeights,
) -> Result<SideShape, Error> {
    let [first, second] = &side.outputs;
    let part = |output: &Option<Output<'_>>| {
        output.as_ref().map(|output| part_shape(job, side, output, weights)).transpose()
    };
    let parts = [part(first)?, part(second)?];
    let inputs = first.map_or(0, |output| job.form.matrices[output.matrix].inputs);
    let has_list = side.rows.list().is_some();
    Ok(SideShape {
        inputs,
        row_stride: if has_list { inputs as i64 } else { side.rows.row_stride() },
        has_list,
        layers: job.layer_count,
        parts,
        stack_rows: stack_rows(job, side, weights)?,
        relation: relation(side),
    })
}

fn part_shape(
    job: &Job<'_>,
    side: &Side<'_>,
    output: &Output<'_>,
    weights: &DeviceWeights,
) -> Result<PartShape, Error> {
    ensure_dtypes(job, side, output)?;
    let (view, matrix) = (output.view, &job.form.matrices[output.matrix]);
    let before = job.form.matrices[..output.matrix].iter();
    let bias_offset =
        before.filter(|other| other.stack == matrix.stack).map(|m| m.outputs).sum::<usize>();
    let (row_stride, layer_stride, alignment) = weight_strides(job, output, weights)?;
    debug_assert_eq!(output.columns.count as i64, view.shape().heads * view.shape().width);
    let mut part = PartShape {
        heads: view.shape().heads as usize,
        width: view.shape().width as usize,
        strides: view.stepped_strides(),
        has_layer_stride: view.has_layer_stride() || job.layer_count == 1,
        is_scattered: is_scattered(view),
        has_norm: matrix.norm.is_some(),
        accumulates: view.accumulates(),
        dtype: view.dtype(),
        has_bias: matrix.has_bias,
        scale: matrix.scale,
        bias_offset: (bias_offset + output.columns.begin) as i64,
        bias_layer_stride: 0,
        weight_row_stride: row_stride,
        weight_layer_stride: layer_stride,
        weight_alignment: alignment,
    };
    let bias = weights.bias(matrix.stack, part.result_dtype());
    part.bias_layer_stride = bias.map_or(0, |bias| bias.layer_stride);
    Ok(part)
}

/// Whether places are not one stride apart. How many groups there are must not matter, since a plan
/// is for fewer rows as well.
fn is_scattered(view: &View<'_>) -> bool {
    view.slots().is_some() || view.group_rows().is_some()
}

fn ensure_dtypes(job: &Job<'_>, side: &Side<'_>, output: &Output<'_>) -> Result<(), Error> {
    let (weights, rows, results) = (job.form.element(), side.rows.dtype(), output.view.dtype());
    ensure!(
        rows == weights,
        NotSupported,
        "{}.dtype is {}, and the weights are {}; on CUDA rows must be of the weights' dtype",
        side.name,
        rows.name(),
        weights.name()
    );
    ensure!(
        super::weights::output_dtypes(weights).any(|dtype| dtype == results),
        NotSupported,
        "{}.dtype is {}, and the weights are {}; on CUDA a result is of that dtype or \
         XQKV_DTYPE_F32",
        output.name,
        results.name(),
        weights.name()
    );
    Ok(())
}

/// How a matrix's rows and layers lie: elements between rows, between layers if these are all as
/// far apart, and what all addresses are a multiple of.
fn weight_strides(
    job: &Job<'_>,
    output: &Output<'_>,
    weights: &DeviceWeights,
) -> Result<(i64, Option<i64>, usize), Error> {
    let place = |at| weight_place(job, output, weights, at);
    let first = place(0)?;
    let step = if job.layer_count > 1 { address_step(first, place(1)?) } else { 0 };
    let (mut is_even, mut bits) = (step > 0 || job.layer_count == 1, first.address);
    let mut last = first;
    for at in 1..job.layer_count {
        let next = place(at)?;
        is_even &= address_step(last, next) == step && next.row_stride == first.row_stride;
        bits |= next.address;
        last = next;
    }
    let bytes = job.form.element().bytes() as i64;
    let layer_stride = (is_even && step % bytes == 0).then_some(step / bytes);
    Ok((first.row_stride, layer_stride, 1 << bits.trailing_zeros().min(MOST_ALIGNMENT)))
}

/// Where the weights of an output's columns are, in the at-th layer of the job.
pub(super) fn weight_place(
    job: &Job<'_>,
    output: &Output<'_>,
    weights: &DeviceWeights,
    at: usize,
) -> Result<Borrowed, Error> {
    column_place(job.form, weights, job.layer + at, (output.matrix, output.columns.begin))
}

/// Where the weights of a layer's matrix are, from one of its outputs on.
pub(super) fn column_place(
    form: &Form,
    weights: &DeviceWeights,
    layer: usize,
    (matrix, begin): (usize, usize),
) -> Result<Borrowed, Error> {
    let whole = weights.place(layer * form.matrices.len() + matrix)?;
    let before = begin * whole.row_stride as usize;
    Ok(Borrowed { address: whole.address + before * form.element().bytes(), ..whole })
}

fn address_step(from: Borrowed, to: Borrowed) -> i64 {
    (to.address as i64).wrapping_sub(from.address as i64)
}

/// Rows of weights from the first output's to the second's if the second matrix continues the first
/// in every layer, as the biases do then.
fn stack_rows(
    job: &Job<'_>,
    side: &Side<'_>,
    weights: &DeviceWeights,
) -> Result<Option<i64>, Error> {
    let [Some(first), Some(second)] = side.outputs else {
        return Ok(None);
    };
    let outputs = job.form.matrices[first.matrix].outputs;
    let rows = (outputs - first.columns.begin + second.columns.begin) as i64;
    for at in 0..job.layer_count {
        let upper = weight_place(job, &first, weights, at)?;
        let lower = weight_place(job, &second, weights, at)?;
        let bytes = rows * upper.row_stride * job.form.element().bytes() as i64;
        if upper.row_stride != lower.row_stride || address_step(upper, lower) != bytes {
            return Ok(None);
        }
    }
    Ok(Some(rows))
}

/// How a side's views lie to each other.
pub(super) fn relation(side: &Side<'_>) -> Relation {
    let [Some(first), Some(second)] = &side.outputs else {
        return Relation::Apart;
    };
    let has_strides = first.view.has_layer_stride() && second.view.has_layer_stride();
    if !has_strides && first.view.shape().layers > 1 {
        return Relation::Apart;
    }
    relation_of(first.view.address(0), second.view.address(0), first.view.dtype())
}

/// How two views lie to each other, the first of this dtype.
pub(super) fn relation_of(first: usize, second: usize, dtype: Dtype) -> Relation {
    match second.checked_sub(first) {
        Some(bytes) => Relation::Behind((bytes / dtype.bytes()) as i64),
        None => Relation::Apart,
    }
}
