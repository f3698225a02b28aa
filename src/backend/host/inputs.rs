//! Some rows in the form that the kernels multiply: widened, as integers, or in their own dtype
//! where a kernel multiplies that; cut along the inner width as the loops walk it.
//!
//! ```text
//! inputs[k / depth][row][k % depth]
//! ```

use super::gemm::Gemm;
use super::kernel::{Family, Inputs, Integral, Quantum};
use super::rows::{Row, RowTable};
use super::scratch::Scratch;
use std::ops::Range;

/// Steps of the inner width that are multiplied at a time: a panel's weights of so many stay in
/// the first cache.
pub(super) const DEPTH: usize = 256;
/// Bytes between two rows, so that they are not at the same places of the first cache.
const LINE: usize = 64;

/// Rows that a scratch holds.
#[derive(Clone, Copy)]
pub(super) struct Block {
    first: *const u8,
    pub(super) rows: usize,
    /// Steps from one stretch of the inner width to the next.
    pub(super) depth: usize,
    family: Family,
}

/// Which rows a scratch holds: those of the same range of the same table need not be brought again.
/// Forgotten with the job, since rows change.
#[derive(Default)]
pub(super) struct Held(Option<(Key, Block)>);

#[derive(PartialEq)]
struct Key {
    table: RowTable,
    range: Range<usize>,
    inputs: usize,
}

impl Held {
    /// Brings some of a product's rows to the scratch, unless they are there.
    ///
    /// # Safety
    /// The rows can be read, their list and slots too, and those were checked.
    pub(super) unsafe fn hold(
        &mut self,
        gemm: &Gemm<'_>,
        range: Range<usize>,
        scratch: &mut Scratch,
    ) -> Block {
        let key = Key { table: gemm.rows.clone(), range, inputs: gemm.matrix.inputs };
        if let Some((_, block)) = self.0.as_ref().filter(|(held, _)| *held == key) {
            return *block;
        }
        // SAFETY: passed on; a scratch has a place for each row of a task.
        let rows = unsafe { gemm.rows.fill(key.range.clone(), &mut scratch.rows) };
        let block = Block::new(gemm, rows.len(), scratch.inputs.as_mut_ptr());
        // SAFETY: passed on; the scratch was made large enough for a task of the job.
        unsafe { block.bring(gemm, rows, &mut scratch.quanta) };
        self.0 = Some((key, block));
        block
    }
}

impl Block {
    fn new(gemm: &Gemm<'_>, rows: usize, first: *const u8) -> Self {
        let (family, inputs) = (gemm.family, gemm.matrix.inputs);
        // A kernel that takes all rows reads its weights once, and goes along them.
        let depth = if rows > family.shapes.most_rows() { DEPTH } else { inputs };
        Block { first, rows, depth, family }
    }

    /// Kernel calls that take all rows.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(self.family.shapes.most_rows())
    }

    /// The first row of a call and how many it takes: all as many, or one more.
    pub(super) fn group(&self, group: usize) -> (usize, usize) {
        let (each, more) = (self.rows / self.groups(), self.rows % self.groups());
        (group * each + group.min(more), each + usize::from(group < more))
    }

    /// Bytes from one row to the next, where so many steps lie together.
    pub(super) fn stride(&self, depth: usize) -> usize {
        stride(self.family, depth)
    }

    /// A row's inputs from step `k` on, which begins a stretch.
    pub(super) fn inputs(&self, row: usize, k: usize, depth: usize) -> *const u8 {
        let before = self.rows * self.stride(self.depth) * (k / self.depth);
        self.first.wrapping_add(before + row * self.stride(depth))
    }

    /// # Safety
    /// As for [`Held::hold`].
    unsafe fn bring(&self, gemm: &Gemm<'_>, rows: &[Row], quanta: &mut [Quantum]) {
        for (number, (row, quantum)) in rows.iter().zip(quanta).enumerate() {
            match self.family.inputs {
                // SAFETY: passed on.
                Inputs::Widened(widen) => unsafe {
                    self.bring_row(gemm, row, number, |source, target, depth| {
                        widen(source, target, depth);
                    });
                },
                // SAFETY: passed on.
                Inputs::Integers(integral) => unsafe {
                    *quantum = self.quantise_row(gemm, row, number, &integral);
                },
            }
        }
    }

    /// Brings a row stretch by stretch.
    unsafe fn bring_row(
        &self,
        gemm: &Gemm<'_>,
        row: &Row,
        number: usize,
        mut bring: impl FnMut(*const u8, *mut u8, usize),
    ) {
        let inputs = gemm.matrix.inputs;
        for k in (0..inputs).step_by(self.depth) {
            let depth = self.depth.min(inputs - k);
            let target = self.inputs(number, k, depth).cast_mut();
            // SAFETY: passed on; the row has `depth` elements from here.
            unsafe {
                bring(row.source.add(k * gemm.rows.dtype.bytes()), target, depth);
                self.pad(target, depth);
            }
        }
    }

    /// Brings a row as integers, and tells what they count.
    unsafe fn quantise_row(
        &self,
        gemm: &Gemm<'_>,
        row: &Row,
        number: usize,
        integral: &Integral,
    ) -> Quantum {
        // SAFETY: passed on; the row has so many elements.
        let (scale, inverse) = unsafe { (integral.scale)(row.source, gemm.matrix.inputs) };
        let mut sum = 0_i32;
        // SAFETY: passed on.
        unsafe {
            self.bring_row(gemm, row, number, |source, target, depth| {
                sum = (integral.quantise)(source, target, depth, inverse).wrapping_add(sum);
            });
        }
        Quantum { scale, excess: sum.wrapping_mul(integral.offset) }
    }

    /// Puts zeros behind the last steps where they are less than a group.
    unsafe fn pad(&self, row: *mut u8, depth: usize) {
        let (bytes, missing) = (self.family.input_bytes, self.family.steps(depth) - depth);
        // SAFETY: the stride has a place for it.
        unsafe { row.add(depth * bytes).write_bytes(0, missing * bytes) };
    }
}

/// Bytes from one row to the next, where so many steps lie together.
fn stride(family: Family, depth: usize) -> usize {
    family.steps(depth) * family.input_bytes + LINE
}

/// Bytes of so many rows at most, however they are cut.
pub(super) fn bytes_of(family: Family, rows: usize, inputs: usize) -> usize {
    let row = stride(family, inputs).saturating_add(inputs / DEPTH * LINE);
    rows.saturating_mul(row)
}
