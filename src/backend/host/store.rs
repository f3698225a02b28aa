//! From sums to the engine's memory: bias, scale, one rounding, and the view's strides.

use super::gemm::Product;
use super::kernel::{LANES, Sums};
use super::norm::Norm;
use crate::dtype::{Element, with_element};
use std::ops::Range;

/// Where and how the outputs of one product are written.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    base: *mut u8,
    head_bytes: usize,
    lane_bytes: usize,
    head_width: usize,
    /// The matrix's output that is the view's first.
    first_output: usize,
    bias: Option<&'a [f32]>,
    norm: Option<Norm<'a>>,
    scale: f32,
    write_row: WriteRow,
}

/// Adds what is there, if asked to, to the finished values of one row, rounds each and writes it at
/// its offset from `row`.
///
/// # Safety
/// `row` plus each offset is a writable element of the row writer's dtype.
type WriteRow = unsafe fn(values: &[f32], offsets: &[usize], row: *mut u8);

/// The outputs of one panel: which columns they are, and where each lies in a row.
pub(super) struct Columns {
    offsets: [usize; LANES],
    outputs: Range<usize>,
}

impl<'a> Store<'a> {
    /// Resolves a product's view for its layer.
    pub(super) fn new(product: &Product<'a>) -> Self {
        let view = product.output.view;
        let strides = view.strides();
        let bytes = |stride: i64| stride as usize * view.dtype().bytes();
        let base = view.address(product.at);
        Store {
            base: std::ptr::with_exposed_provenance_mut(base),
            head_bytes: bytes(strides.head),
            lane_bytes: bytes(strides.width),
            head_width: view.shape().width as usize,
            first_output: product.output.columns.begin,
            bias: product.bias,
            norm: product.norm,
            scale: product.scale,
            write_row: match view.accumulates() {
                false => with_element!(view.dtype(), E => write_row::<E, false>),
                true => with_element!(view.dtype(), E => write_row::<E, true>),
            },
        }
    }

    /// Whether heads are taken whole.
    pub(super) fn has_norm(&self) -> bool {
        self.norm.is_some()
    }

    /// What a norm multiplies a head by, whose panels these are.
    pub(super) fn factor<'b>(&self, head: impl Iterator<Item = (Range<usize>, &'b Sums)>) -> f32 {
        let biased = |(outputs, sums): (Range<usize>, &'b Sums)| {
            outputs.zip(sums).map(|(output, sum)| self.biased(*sum, output))
        };
        self.norm.map_or(1.0, |norm| norm.factor(head.flat_map(biased)))
    }

    /// The columns of some outputs.
    pub(super) fn columns(&self, outputs: Range<usize>) -> Columns {
        let mut offsets = [0; LANES];
        for (output, offset) in outputs.clone().zip(&mut offsets) {
            let column = output - self.first_output;
            let (head, width) = (column / self.head_width, column % self.head_width);
            *offset = head * self.head_bytes + width * self.lane_bytes;
        }
        Columns { offsets, outputs }
    }

    /// Writes one panel of a row whose place is so many bytes behind the base.
    ///
    /// # Safety
    /// The view has that row and those columns, and they can be written.
    pub(super) unsafe fn write(&self, place: usize, columns: &Columns, factor: f32, sums: &Sums) {
        let mut values = *sums;
        for (value, output) in values.iter_mut().zip(columns.outputs.clone()) {
            let biased = self.biased(*value, output);
            let normed = self.norm.map_or(biased, |norm| norm.apply(biased, factor, output));
            *value = self.scale * normed;
        }
        let count = columns.outputs.len();
        let (values, offsets) = (&values[..count], &columns.offsets[..count]);
        // SAFETY: the view was checked to span this row and these columns.
        unsafe { (self.write_row)(values, offsets, self.base.add(place)) }
    }

    fn biased(&self, sum: f32, output: usize) -> f32 {
        self.bias.map_or(sum, |bias| sum + bias[output])
    }
}

/// # Safety
/// As for [`WriteRow`].
unsafe fn write_row<E: Element, const ADDS: bool>(values: &[f32], offsets: &[usize], row: *mut u8) {
    for (value, offset) in values.iter().zip(offsets) {
        // SAFETY: the caller's promise for each offset.
        let place = unsafe { row.add(*offset).cast::<E>() };
        // SAFETY: as above; what is added to was written by the engine.
        let sum = if ADDS { *value + unsafe { place.read() }.widen() } else { *value };
        // SAFETY: as above.
        unsafe { place.write(<E as Element>::round(sum)) };
    }
}
