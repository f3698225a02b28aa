//! A matrix as the kernels read it: panels of neighbouring outputs, two vectors of them, the inner
//! width running through each, so that a step of k is one contiguous load. bfloat16 goes in pairs
//! of steps, the last of which is filled up with zeros.
//!
//! ```text
//! packed[panel][k][lane]          = matrix[first output of the panel + lane][k]
//! packed[panel][k / 2][lane][k % 2] = the same, of bfloat16
//! ```
//!
//! Lanes beyond the last output are 0. Panels run through all outputs, or begin anew with each head
//! where a norm takes heads whole or a job may run some of them.

use super::region::Part;
use super::tasks::Tasks;
use super::threads::Threads;
use crate::backend::{Columns, MatrixForm};
use crate::dtype::Dtype;
use std::ops::Range;

/// A packed matrix.
pub(super) struct PackedMatrix {
    pub(super) dtype: Dtype,
    pub(super) inputs: usize,
    /// Outputs of a panel.
    pub(super) lanes: usize,
    runs: Runs,
    part: Part,
}

/// Outputs that panels run through without a break: each head, or all.
#[derive(Clone, Copy)]
struct Runs {
    count: usize,
    outputs: usize,
}

impl Runs {
    fn of(form: &MatrixForm) -> Self {
        let uncut = if form.cut_width == 0 { form.outputs } else { form.cut_width };
        let outputs = form.norm.map_or(uncut, |norm| norm.width);
        Self { count: form.outputs.checked_div(outputs).unwrap_or(0), outputs }
    }

    fn panels_each(self, lanes: usize) -> usize {
        self.outputs.div_ceil(lanes)
    }
}

impl PackedMatrix {
    /// Copies a matrix of this form into panels of so many lanes, in a part that has their bytes.
    pub(super) fn pack(
        form: &MatrixForm,
        dtype: Dtype,
        lanes: usize,
        part: Part,
        bytes: &[u8],
        threads: &Threads,
    ) -> Self {
        let packed = Self { dtype, inputs: form.inputs, lanes, runs: Runs::of(form), part };
        threads.run_apart(packed.panel_count(), &|tasks: &mut Tasks<'_>| {
            // SAFETY: the part has the bytes of all panels, and one task writes each.
            tasks.for_each(|panel| unsafe { packed.pack_panel(panel, bytes) });
        });
        packed
    }

    /// Bytes of the panels, or None if there are too many to count.
    pub(super) fn bytes_of(form: &MatrixForm, dtype: Dtype, lanes: usize) -> Option<usize> {
        let runs = Runs::of(form);
        let panel_count = runs.count.checked_mul(runs.panels_each(lanes))?;
        panel_count.checked_mul(lanes * dtype.bytes())?.checked_mul(steps(form.inputs, dtype))
    }

    fn panel_count(&self) -> usize {
        self.runs.count * self.runs.panels_each(self.lanes)
    }

    /// The panels of these columns, which are whole runs; the last of each run may be padded.
    pub(super) fn panels_of(&self, columns: Columns) -> Range<usize> {
        let panels = |outputs: usize| {
            debug_assert!(outputs.is_multiple_of(self.runs.outputs), "{columns:?} cut a run");
            outputs / self.runs.outputs * self.run_panels()
        };
        panels(columns.begin)..panels(columns.begin + columns.count)
    }

    /// Panels of a run.
    pub(super) fn run_panels(&self) -> usize {
        self.runs.panels_each(self.lanes)
    }

    /// The outputs of a panel, which are its real lanes.
    pub(super) fn outputs_of(&self, panel: usize) -> Range<usize> {
        let (run, within) = (panel / self.run_panels(), panel % self.run_panels());
        let first = run * self.runs.outputs;
        let end = self.runs.outputs.min((within + 1) * self.lanes);
        first + within * self.lanes..first + end
    }

    /// Bytes of so many steps of a panel.
    pub(super) fn bytes_of_steps(&self, count: usize) -> usize {
        count * self.lanes * self.dtype.bytes()
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.bytes_of_steps(steps(self.inputs, self.dtype))
    }

    /// Where a panel's weights are from step `k` on, which is even. One behind the last panel is
    /// nowhere.
    pub(super) fn panel_at(&self, panel: usize, k: usize) -> *const u8 {
        let offset = panel * self.panel_bytes() + self.bytes_of_steps(k);
        self.part.first().wrapping_add(offset).cast_const()
    }

    /// # Safety
    /// The part has the panel's bytes, which nobody else writes or reads.
    unsafe fn pack_panel(&self, panel: usize, bytes: &[u8]) {
        let outputs = self.outputs_of(panel);
        let row_bytes = self.inputs * self.dtype.bytes();
        let rows = &bytes[outputs.start * row_bytes..outputs.end * row_bytes];
        let first = self.panel_at(panel, 0).cast_mut();
        // SAFETY: the caller's promise; a new part is all 0.
        let target = unsafe { std::slice::from_raw_parts_mut(first, self.panel_bytes()) };
        match self.dtype {
            Dtype::F32 => interleave::<4>(rows, row_bytes, self.lanes, target),
            Dtype::F16 => interleave::<2>(rows, row_bytes, self.lanes, target),
            Dtype::Bf16 => interleave_pairs(rows, row_bytes, self.lanes, target),
        }
    }
}

/// Steps of the inner width with those that fill up a pair.
fn steps(inputs: usize, dtype: Dtype) -> usize {
    if dtype == Dtype::Bf16 { inputs.next_multiple_of(2) } else { inputs }
}

/// Pairs of steps, of which the second of an odd last one stays 0.
fn interleave_pairs(rows: &[u8], row_bytes: usize, lanes: usize, panel: &mut [u8]) {
    interleave::<4>(rows, row_bytes, lanes, panel);
    let last = row_bytes / 4 * 4;
    if last < row_bytes {
        let pairs = panel[last * lanes..].chunks_exact_mut(4);
        for (row, pair) in rows.chunks_exact(row_bytes).zip(pairs) {
            pair[..2].copy_from_slice(&row[last..]);
        }
    }
}

/// Writes each row down its lane, as many whole elements as it has, some steps of all rows at a
/// time: those lie in the first cache.
fn interleave<const BYTES: usize>(rows: &[u8], row_bytes: usize, lanes: usize, panel: &mut [u8]) {
    const STEPS: usize = 64;
    let (panel, _) = panel.as_chunks_mut::<BYTES>();
    let steps = row_bytes / BYTES;
    for begin in (0..steps).step_by(STEPS) {
        let end = steps.min(begin + STEPS);
        let panel = &mut panel[begin * lanes..end * lanes];
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (row, _) = row[begin * BYTES..end * BYTES].as_chunks::<BYTES>();
            for (target, element) in panel[lane..].iter_mut().step_by(lanes).zip(row) {
                *target = *element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::Region;
    use super::*;
    use crate::backend::NormForm;
    use crate::dtype::{Element, with_element};

    fn element(output: usize, k: usize) -> f32 {
        ((output + k) % 251) as f32
    }

    const INPUTS: usize = 131;
    const LANES: usize = 16;

    fn form(outputs: usize) -> MatrixForm {
        MatrixForm {
            outputs,
            inputs: INPUTS,
            scale: 1.0,
            has_bias: false,
            norm: None,
            cut_width: 0,
            stack: 0,
        }
    }

    fn packed(form: &MatrixForm, dtype: Dtype) -> PackedMatrix {
        let numbers =
            (0..form.outputs).flat_map(|output| (0..INPUTS).map(move |k| element(output, k)));
        let bytes: Vec<u8> = numbers.flat_map(|number| bytes_of(number, dtype)).collect();
        let length = PackedMatrix::bytes_of(form, dtype, LANES).unwrap();
        let part = Part::new(&Region::new(length).unwrap(), 0..length);
        let threads = Threads::start(2, None).unwrap();
        PackedMatrix::pack(form, dtype, LANES, part, &bytes, &threads)
    }

    fn bytes_of(number: f32, dtype: Dtype) -> Vec<u8> {
        let mut bytes = Vec::new();
        with_element!(dtype, E => <E as Element>::round(number).append_to(&mut bytes));
        bytes
    }

    /// The bytes at a lane of a step.
    fn held(packed: &PackedMatrix, panel: usize, k: usize, lane: usize) -> &[u8] {
        let bytes = packed.dtype.bytes();
        let (step, place) = match packed.dtype {
            Dtype::Bf16 => (k / 2 * 2, 2 * lane + k % 2),
            _ => (k, lane),
        };
        let first = packed.panel_at(panel, step).wrapping_add(place * bytes);
        // SAFETY: the panel has this lane of this step.
        unsafe { std::slice::from_raw_parts(first, bytes) }
    }

    fn panels(packed: &PackedMatrix, begin: usize, count: usize) -> Range<usize> {
        packed.panels_of(Columns { begin, count })
    }

    /// Each lane of so many panels is its output's row, and the others are zero.
    fn check(packed: &PackedMatrix, panel_count: usize) {
        let steps = steps(INPUTS, packed.dtype);
        for panel in 0..panel_count {
            let outputs = packed.outputs_of(panel);
            for (k, lane) in (0..steps).flat_map(|k| (0..LANES).map(move |lane| (k, lane))) {
                let output = outputs.start + lane;
                let is_real = outputs.contains(&output) && k < INPUTS;
                let expected = if is_real { element(output, k) } else { 0.0 };
                let held = held(packed, panel, k, lane);
                assert_eq!(held, bytes_of(expected, packed.dtype), "{output} {k}");
            }
        }
    }

    #[test]
    fn each_row_runs_down_its_lane_and_padding_is_zero() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let packed = packed(&form(LANES + 3), dtype);
            assert_eq!(panels(&packed, 0, LANES + 3), 0..2);
            assert_eq!(packed.outputs_of(1), LANES..LANES + 3);
            check(&packed, 2);
        }
    }

    #[test]
    fn panels_begin_anew_with_each_head_that_is_normed() {
        let head = LANES + 3;
        let norm = Some(NormForm { width: head, epsilon: 1.0, rounds_first: false });
        let packed = packed(&MatrixForm { norm, ..form(3 * head) }, Dtype::F32);
        assert_eq!((panels(&packed, 0, 3 * head), packed.run_panels()), (0..6, 2));
        assert_eq!(packed.outputs_of(3), head + LANES..2 * head);
        check(&packed, 6);
    }

    #[test]
    fn heads_that_may_be_cut_have_panels_of_their_own() {
        let head = LANES - 2;
        let packed = packed(&MatrixForm { cut_width: head, ..form(3 * head) }, Dtype::F32);
        assert_eq!(panels(&packed, 0, 3 * head), 0..3);
        assert_eq!(panels(&packed, head, 2 * head), 1..3);
        assert_eq!(packed.outputs_of(1), head..2 * head);
        check(&packed, 3);
    }
}
