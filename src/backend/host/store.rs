//! From sums to the engine's memory: bias, scale, one rounding, and the view's strides.

use super::gemm::Product;
use super::kernel::{LANES, Sums};
use crate::dtype::{Element, with_element};

/// Where and how the outputs of one product are written.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    base: *mut u8,
    head_bytes: usize,
    lane_bytes: usize,
    head_width: usize,
    bias: Option<&'a [f32]>,
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
pub(super) struct Columns<'a> {
    offsets: [usize; LANES],
    bias: Option<&'a [f32]>,
    count: usize,
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
            bias: product.bias,
            scale: product.scale,
            write_row: match view.accumulates() {
                false => with_element!(view.dtype(), E => write_row::<E, false>),
                true => with_element!(view.dtype(), E => write_row::<E, true>),
            },
        }
    }

    /// The columns from `first` on.
    pub(super) fn columns(&self, first: usize, count: usize) -> Columns<'a> {
        let mut offsets = [0; LANES];
        for (lane, offset) in offsets.iter_mut().enumerate().take(count) {
            let (head, width) =
                ((first + lane) / self.head_width, (first + lane) % self.head_width);
            *offset = head * self.head_bytes + width * self.lane_bytes;
        }
        Columns { offsets, bias: self.bias.map(|bias| &bias[first..first + count]), count }
    }

    /// Writes one panel of a row whose place is so many bytes behind the base.
    ///
    /// # Safety
    /// The view has that row and those columns, and they can be written.
    pub(super) unsafe fn write(&self, place: usize, columns: &Columns<'_>, sums: &Sums) {
        let mut values = *sums;
        for (lane, value) in values.iter_mut().enumerate().take(columns.count) {
            let biased = columns.bias.map_or(*value, |bias| *value + bias[lane]);
            *value = self.scale * biased;
        }
        let (values, offsets) = (&values[..columns.count], &columns.offsets[..columns.count]);
        // SAFETY: the view was checked to span this row and these columns.
        unsafe { (self.write_row)(values, offsets, self.base.add(place)) }
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
