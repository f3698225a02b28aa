//! The loops around the kernel. A product is cut into tasks of some rows x some panels, in an
//! order in which neighbouring tasks share their panels; a task walks its rows a few at a time.
//!
//! ```text
//! for rows, as many as a kernel takes
//!     for the inner width, DEPTH at a time
//!         widen the rows' inputs
//!         for panels of the task
//!             kernel
//!     for panels of the task
//!         store
//! ```
//!
//! Nothing here changes the order in which one output's sum grows.

use super::kernel::{DEPTH, Inputs, InstructionSet, Kernels, LANES, MOST_ROWS, Sums};
use super::norm::Norm;
use super::pack::PackedMatrix;
use super::rows::{Row, RowTable};
use super::store::Store;
use crate::backend::{MOST_NORM_WIDTH, Output};
use crate::dtype::{Element, with_element};
use crate::view::Rows;
use std::ops::Range;

/// Rows of one task: enough to use a panel again while it is in the second cache.
const TASK_ROWS: usize = 64;
/// Panels of one task: enough to use a widened row again.
const TASK_PANELS: usize = 4;
/// Panels of a task where a norm takes heads whole.
const HEAD_PANELS: usize = MOST_NORM_WIDTH.div_ceil(LANES);

/// view[layer] = scale · norm(rows · matrixᵀ + bias), rounded once.
pub(super) struct Product<'a> {
    pub(super) rows: &'a Rows,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) norm: Option<Norm<'a>>,
    pub(super) scale: f32,
    pub(super) output: Output<'a>,
    /// Which of the view's layers.
    pub(super) at: usize,
}

/// One product, resolved.
pub(super) struct Gemm<'a> {
    rows: RowTable,
    element_bytes: usize,
    widen: Widen,
    matrix: &'a PackedMatrix,
    /// Those of the matrix's panels that are multiplied with.
    panels: Range<usize>,
    outputs: usize,
    kernels: Kernels,
    store: Store<'a>,
}

// SAFETY: the pointers are to rows that are only read and views of which each element is written
// by one task; whoever calls `run_task` promises that they can be.
unsafe impl Sync for Gemm<'_> {}

/// Widens as many elements as `inputs` holds.
///
/// # Safety
/// `row` points to that many elements of the function's dtype.
type Widen = unsafe fn(row: *const u8, inputs: &mut [f32]);

/// What one task counted, kernel call by kernel call.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) multiply_adds: usize,
    pub(super) padding_multiply_adds: usize,
}

impl<'a> Gemm<'a> {
    /// Resolves a product with its matrix.
    pub(super) fn new(
        product: &Product<'a>,
        matrix: &'a PackedMatrix,
        instruction_set: InstructionSet,
    ) -> Self {
        let rows = product.rows;
        let element_bytes = rows.dtype().bytes();
        Gemm {
            rows: RowTable::new(rows, product.output.view),
            element_bytes,
            widen: with_element!(rows.dtype(), E => widen::<E>),
            matrix,
            panels: matrix.panels_of(product.output.columns),
            outputs: product.output.columns.count,
            kernels: instruction_set.kernels(matrix.dtype),
            store: Store::new(product),
        }
    }

    fn row_tasks(&self) -> usize {
        self.rows.count().div_ceil(TASK_ROWS)
    }

    pub(super) fn task_count(&self) -> usize {
        self.row_tasks() * self.panels.len().div_ceil(self.task_panels())
    }

    fn task_panels(&self) -> usize {
        if self.store.has_norm() { self.matrix.run_panels() } else { TASK_PANELS }
    }

    pub(super) fn multiply_adds(&self) -> usize {
        self.rows.count().saturating_mul(self.outputs).saturating_mul(self.matrix.inputs)
    }

    /// Runs one of the product's tasks.
    ///
    /// # Safety
    /// As for [`crate::backend::Backend::run`].
    pub(super) unsafe fn run_task(&self, index: usize) -> Tally {
        let mut tally = Tally::default();
        let rows = nth(index % self.row_tasks(), TASK_ROWS, 0..self.rows.count());
        let panels = nth(index / self.row_tasks(), self.task_panels(), self.panels.clone());
        let run_rows = match self.store.has_norm() {
            false => Self::run_rows::<TASK_PANELS>,
            true => Self::run_rows::<HEAD_PANELS>,
        };
        let mut places = [Row::default(); TASK_ROWS];
        // SAFETY: passed on; the rows are the product's.
        let mut rest = unsafe { self.rows.fill(rows, &mut places) };
        while !rest.is_empty() {
            // SAFETY: passed on; the rows and panels are the product's.
            let taken = unsafe { run_rows(self, rest, panels.clone(), &mut tally) };
            rest = &rest[taken..];
        }
        tally
    }

    /// Projects as many rows as one kernel takes, and tells how many those were.
    unsafe fn run_rows<const PANELS: usize>(
        &self,
        rows: &[Row],
        panels: Range<usize>,
        tally: &mut Tally,
    ) -> usize {
        let (taken, kernel) = self.kernels.largest(rows.len());
        let mut inputs: [Inputs; MOST_ROWS] = [[0.0; DEPTH]; MOST_ROWS];
        let mut sums: [[Sums; MOST_ROWS]; PANELS] = [[[0.0; LANES]; MOST_ROWS]; PANELS];
        for k in (0..self.matrix.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(self.matrix.inputs - k);
            // SAFETY: the rows exist, and so do the elements k..k + depth.
            unsafe { self.widen_rows(&rows[..taken], k, depth, &mut inputs) };
            for (panel, sums) in panels.clone().zip(&mut sums) {
                let weights = self.matrix.panel_at(panel, k);
                // SAFETY: `taken` rows and sums, and `depth` steps of the panel, are there.
                unsafe { kernel(inputs.as_ptr(), depth, weights.as_ptr(), sums.as_mut_ptr()) };
                tally.add(taken * depth, self.matrix.outputs_of(panel).len());
            }
        }
        // SAFETY: passed on; the rows and the panels' columns are the product's.
        unsafe { self.write_rows(&rows[..taken], panels, &sums) };
        taken
    }

    /// Writes what was summed; a norm's panels are one head.
    unsafe fn write_rows(&self, rows: &[Row], panels: Range<usize>, sums: &[[Sums; MOST_ROWS]]) {
        let mut factors = [1.0; MOST_ROWS];
        for (row, factor) in factors.iter_mut().enumerate().take(rows.len()) {
            let head = panels
                .clone()
                .zip(sums)
                .map(|(panel, sums)| (self.matrix.outputs_of(panel), &sums[row]));
            *factor = self.store.factor(head);
        }
        for (panel, sums) in panels.zip(sums) {
            let columns = self.store.columns(self.matrix.outputs_of(panel));
            for ((row, factor), sums) in rows.iter().zip(factors).zip(sums) {
                // SAFETY: passed on; the row and the columns are the product's.
                unsafe { self.store.write(row.target, &columns, factor, sums) };
            }
        }
    }

    unsafe fn widen_rows(&self, rows: &[Row], k: usize, depth: usize, inputs: &mut [Inputs]) {
        for (row, inputs) in rows.iter().zip(inputs) {
            // SAFETY: a row was checked to have `depth` elements from here.
            unsafe { (self.widen)(row.source.add(k * self.element_bytes), &mut inputs[..depth]) };
        }
    }
}

impl Tally {
    /// Counts one kernel call: so many rows x steps on so many real lanes.
    fn add(&mut self, steps: usize, real_lanes: usize) {
        self.multiply_adds += steps * real_lanes;
        self.padding_multiply_adds += steps * (LANES - real_lanes);
    }
}

/// The n-th stretch of a length, the last of which may be shorter.
fn nth(index: usize, length: usize, whole: Range<usize>) -> Range<usize> {
    let begin = whole.start + index * length;
    begin..whole.end.min(begin + length)
}

/// # Safety
/// As for [`Widen`].
unsafe fn widen<E: Element>(row: *const u8, inputs: &mut [f32]) {
    // SAFETY: the caller's promise; rows were checked to be aligned.
    let elements = unsafe { std::slice::from_raw_parts(row.cast::<E>(), inputs.len()) };
    for (input, element) in inputs.iter_mut().zip(elements) {
        *input = element.widen();
    }
}
