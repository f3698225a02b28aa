//! The loops around the kernel. A product is cut into tasks of some rows x some panels; tasks of
//! the same rows are neighbours, so that a thread brings its rows to the kernels' form once.
//!
//! ```text
//! for the inner width, DEPTH at a time   (all of it at once, if a kernel takes all rows)
//!     for panels of the task             its weights stay in the first cache
//!         for rows, as many as a kernel takes
//!             kernel                     and asks for a part of the next panel
//! for rows, for panels
//!     store
//! ```
//!
//! Nothing here changes the order in which one output's sum grows.

use super::cut::Cut;
use super::inputs::{self, Block, Held};
use super::kernel::{Call, Family, Inputs, Kernels, Shapes, Unpacked};
use super::norm::Norm;
use super::pack::PackedMatrix;
use super::rows::RowTable;
use super::scratch::{Scratch, TASK_ROWS};
use super::store::Store;
use crate::backend::Output;
use crate::view::Rows;
use std::ops::Range;

/// How far ahead weights are asked for that one kernel call goes along: the CPU's own guesses stop
/// at each page of 4 KB.
const DISTANCE: usize = 4096;
/// Kernel calls on the same 16-bit weights from which widening them once is worth it.
const WORTH_UNPACKING: usize = 5;

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
    pub(super) rows: RowTable,
    pub(super) family: Family,
    pub(super) matrix: &'a PackedMatrix,
    /// Those of the matrix's panels that are multiplied with.
    panels: Range<usize>,
    outputs: usize,
    store: Store<'a>,
    cut: Cut,
}

// SAFETY: the pointers are to rows that are only read and views of which each element is written
// by one task; whoever calls `run_task` promises that they can be.
unsafe impl Sync for Gemm<'_> {}

/// What one task counted, kernel call by kernel call.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) multiply_adds: usize,
    pub(super) padding_multiply_adds: usize,
}

/// The part of a task that one round of kernel calls multiplies.
struct Step {
    /// Of the inner width.
    k: usize,
    depth: usize,
    /// Panels taken at once, from the first on.
    panel: usize,
    panels: usize,
    ahead: *const u8,
}

impl<'a> Gemm<'a> {
    /// Resolves a product with its matrix, to be run on so many threads.
    pub(super) fn new(
        product: &Product<'a>,
        matrix: &'a PackedMatrix,
        kernels: &Kernels,
        thread_count: usize,
    ) -> Self {
        let rows = RowTable::new(product.rows, product.output.view);
        let family = kernels.family(product.rows.dtype(), matrix.dtype);
        let panels = matrix.panels_of(product.output.columns);
        let head = product.norm.map(|_| matrix.run_panels());
        let lanes = matrix.lanes;
        Gemm {
            cut: Cut::new(
                rows.count(),
                panels.len(),
                lanes,
                head,
                family.shapes.most_rows(),
                thread_count,
            ),
            rows,
            family,
            matrix,
            panels,
            outputs: product.output.columns.count,
            store: Store::new(product, kernels),
        }
    }

    pub(super) fn task_count(&self) -> usize {
        self.cut.task_count()
    }

    pub(super) fn multiply_adds(&self) -> usize {
        self.rows.count().saturating_mul(self.outputs).saturating_mul(self.matrix.inputs)
    }

    /// Bytes of a task's inputs.
    pub(super) fn input_bytes(&self) -> usize {
        inputs::bytes_of(self.family, self.cut.rows, self.matrix.inputs)
    }

    /// Runs one of the product's tasks and counts it, in a scratch that holds rows of this job or
    /// none.
    ///
    /// # Safety
    /// As for [`crate::backend::Backend::run`].
    pub(super) unsafe fn run_task(
        &self,
        index: usize,
        scratch: &mut Scratch,
        held: &mut Held,
        tally: &mut Tally,
    ) {
        let (rows, panels) = self.cut.task(index, self.rows.count(), &self.panels);
        // SAFETY: passed on; the rows are the product's.
        let block = unsafe { held.hold(self, rows, scratch) };
        if block.rows > 0 {
            // SAFETY: the scratch has room for a task's sums and a panel.
            unsafe { self.multiply(&block, &panels, scratch, tally) };
            // SAFETY: all sums were made.
            unsafe { self.dequantise(scratch, &block, &panels) };
            // SAFETY: passed on; all sums are numbers.
            unsafe { self.write(scratch, &block, &panels) };
        }
    }

    /// Stretch by stretch of the inner width, all panels of the task.
    unsafe fn multiply(
        &self,
        block: &Block,
        panels: &Range<usize>,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let shapes = self.family.shapes;
        let most = if block.groups() == 1 { shapes.of(block.rows).wide_panels } else { 1 };
        for k in (0..self.matrix.inputs).step_by(block.depth) {
            let depth = block.depth.min(self.matrix.inputs - k);
            let mut panel = panels.start;
            while panel < panels.end {
                let taken = if panel + most <= panels.end { most } else { 1 };
                let ahead = match block.groups() {
                    1 => self.matrix.panel_at(panel, k).wrapping_add(DISTANCE),
                    _ => self.ahead(k + depth, panel + taken, panels, k),
                };
                let step = Step { k, depth, panel, panels: taken, ahead };
                // SAFETY: the panels are the task's.
                unsafe { self.multiply_panels(block, &step, panel - panels.start, scratch) };
                self.count(&step, block.rows, tally);
                panel += taken;
            }
        }
    }

    /// All rows of a block times the panels of a step, of which the first is the task's `number`th.
    unsafe fn multiply_panels(
        &self,
        block: &Block,
        step: &Step,
        number: usize,
        scratch: &mut Scratch,
    ) {
        let sums = scratch.sums.as_mut_ptr().cast::<f32>();
        let sums = sums.wrapping_add(number * self.panel_sums(block));
        let weights = self.matrix.panel_at(step.panel, step.k);
        match self.family.unpacked.filter(|_| block.groups() >= WORTH_UNPACKING) {
            Some(Unpacked { unpack, shapes }) => {
                let widened = scratch.panel.as_mut_ptr();
                // SAFETY: the panel has these steps, and the scratch room for them.
                unsafe { unpack(weights, step.depth, widened.cast()) };
                // SAFETY: the sums are the task's.
                unsafe { self.multiply_groups(block, step, widened, shapes, sums) };
            }
            // SAFETY: as above.
            None => unsafe { self.multiply_groups(block, step, weights, self.family.shapes, sums) },
        }
    }

    /// Some rows after the others, as many as a kernel takes.
    unsafe fn multiply_groups(
        &self,
        block: &Block,
        step: &Step,
        weights: *const u8,
        shapes: Shapes,
        mut sums: *mut f32,
    ) {
        let group_bytes = self.matrix.bytes_of_steps(step.depth) / block.groups();
        let mut ahead = step.ahead;
        for group in 0..block.groups() {
            let (row, rows) = block.group(group);
            let call = Call {
                inputs: block.inputs(row, step.k, step.depth),
                input_stride: block.stride(step.depth),
                weights,
                weight_stride: self.matrix.panel_bytes(),
                depth: step.depth,
                sums,
                sum_stride: self.panel_sums(block),
                begins: step.k == 0,
                ahead,
                ahead_step: 2 * group_bytes / step.depth.max(2),
            };
            // SAFETY: the block has these rows, and the matrix these panels and steps.
            unsafe { shapes.of(rows).kernel(step.panels)(&call) };
            sums = sums.wrapping_add(rows * self.matrix.lanes);
            ahead = ahead.wrapping_add(group_bytes);
        }
    }

    /// The weights that are multiplied after a panel: the next one's, or the first one's further
    /// on.
    fn ahead(&self, end: usize, next: usize, panels: &Range<usize>, k: usize) -> *const u8 {
        match next < panels.end {
            true => self.matrix.panel_at(next, k),
            false if end < self.matrix.inputs => self.matrix.panel_at(panels.start, end),
            false => self.matrix.panel_at(next, 0),
        }
    }

    fn count(&self, step: &Step, rows: usize, tally: &mut Tally) {
        let steps = self.family.steps(step.depth);
        for panel in step.panel..step.panel + step.panels {
            let real = self.matrix.outputs_of(panel).len();
            tally.multiply_adds += rows * step.depth * real;
            tally.padding_multiply_adds += rows * (steps * self.matrix.lanes - step.depth * real);
        }
    }

    /// Elements of one panel's sums.
    fn panel_sums(&self, block: &Block) -> usize {
        block.rows * self.matrix.lanes
    }

    /// Makes numbers of the sums of integers.
    unsafe fn dequantise(&self, scratch: &mut Scratch, block: &Block, panels: &Range<usize>) {
        let Inputs::Integers(integral) = self.family.inputs else { return };
        let mut sums = scratch.sums.as_mut_ptr().cast::<f32>();
        for panel in panels.clone() {
            for quantum in &scratch.quanta[..block.rows] {
                // SAFETY: the scratch has the task's sums, and the matrix the panel's scales.
                unsafe { (integral.dequantise)(sums, self.matrix.scales_of(panel), *quantum) };
                sums = sums.wrapping_add(self.matrix.lanes);
            }
        }
    }

    /// Writes what was summed; a norm's panels are one head.
    unsafe fn write(&self, scratch: &mut Scratch, block: &Block, panels: &Range<usize>) {
        let lanes = self.matrix.lanes;
        let sums = scratch.sums.as_mut_ptr().cast::<f32>().cast_const();
        let at = |panel: usize, row: usize| {
            sums.wrapping_add((panel - panels.start) * self.panel_sums(block) + row * lanes)
        };
        let mut factors = [1.0; TASK_ROWS];
        for (row, factor) in factors[..block.rows].iter_mut().enumerate() {
            *factor = self.store.factor(panels.clone().map(|panel| {
                // SAFETY: as many sums as a panel has lanes.
                let sums = unsafe { std::slice::from_raw_parts(at(panel, row), lanes) };
                (self.matrix.outputs_of(panel), sums)
            }));
        }
        for panel in panels.clone() {
            let columns = self.store.panel(self.matrix.outputs_of(panel));
            for (row, place) in scratch.rows[..block.rows].iter().enumerate() {
                // SAFETY: passed on; the row and the columns are the product's.
                unsafe { columns.write_to(place.target, factors[row], at(panel, row)) };
            }
        }
    }
}
