//! A matrix as the kernels read it: panels of neighbouring outputs, two vectors of them, the inner
//! width running through each, so that a step of k is one contiguous load. bfloat16 goes in pairs
//! of steps, integers in pairs or fours, the last of which is filled up with zeros.
//!
//! ```text
//! packed[panel][k][lane]                    = matrix[first output of the panel + lane][k]
//! packed[panel][k / group][lane][k % group] = the same, of steps in groups
//! scales[panel][lane]                       of integers, behind all panels
//! ```
//!
//! Lanes beyond the last output are 0. Panels run through all outputs, or begin anew with each head
//! where a norm takes heads whole or a job may run some of them.

use super::kernel::Kernels;
use super::region::Part;
use super::tasks::Tasks;
use super::threads::Threads;
use crate::backend::{Columns, MatrixForm};
use crate::dtype::{Element, WeightDtype};
use std::ops::Range;

/// A packed matrix.
pub(super) struct PackedMatrix {
    pub(super) dtype: WeightDtype,
    /// Neighbouring steps that lie together.
    group: usize,
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
    /// Copies a matrix of this form into panels for these kernels, in a part that has their bytes.
    pub(super) fn pack(
        form: &MatrixForm,
        dtype: WeightDtype,
        kernels: &Kernels,
        part: Part,
        bytes: &[u8],
        threads: &Threads,
    ) -> Self {
        let packed = Self::laid_out(form, dtype, kernels, part);
        threads.run_apart(packed.panel_count(), &|tasks: &mut Tasks<'_>| {
            // SAFETY: the part has the bytes of all panels, and one task writes each.
            tasks.for_each(|panel| unsafe { packed.pack_panel(panel, bytes) });
        });
        packed
    }

    /// Bytes of the panels and scales, or None if there are too many to count.
    pub(super) fn bytes_of(
        form: &MatrixForm,
        dtype: WeightDtype,
        kernels: &Kernels,
    ) -> Option<usize> {
        let (runs, lanes) = (Runs::of(form), kernels.lanes);
        let outputs = runs.count.checked_mul(runs.panels_each(lanes))?.checked_mul(lanes)?;
        let steps = form.inputs.checked_next_multiple_of(kernels.group(dtype))?;
        outputs.checked_mul(dtype.row_bytes(steps as i64)? as usize)
    }

    fn laid_out(form: &MatrixForm, dtype: WeightDtype, kernels: &Kernels, part: Part) -> Self {
        let (inputs, lanes, group) = (form.inputs, kernels.lanes, kernels.group(dtype));
        Self { dtype, group, inputs, lanes, runs: Runs::of(form), part }
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
        self.bytes_of_steps(self.inputs.next_multiple_of(self.group))
    }

    /// The scales of a panel's integers.
    pub(super) fn scales_of(&self, panel: usize) -> *const f32 {
        let panels = self.part.first().wrapping_add(self.panel_count() * self.panel_bytes());
        panels.cast::<f32>().wrapping_add(panel * self.lanes).cast_const()
    }

    /// Where a panel's weights are from step `k` on, which begins a group. One behind the last
    /// panel is nowhere.
    pub(super) fn panel_at(&self, panel: usize, k: usize) -> *const u8 {
        let offset = panel * self.panel_bytes() + self.bytes_of_steps(k);
        self.part.first().wrapping_add(offset).cast_const()
    }

    /// # Safety
    /// The part has the panel's bytes, which nobody else writes or reads.
    unsafe fn pack_panel(&self, panel: usize, bytes: &[u8]) {
        let outputs = self.outputs_of(panel);
        let row_bytes = self.dtype.row_bytes(self.inputs as i64).unwrap_or_default() as usize;
        let rows = &bytes[outputs.start * row_bytes..outputs.end * row_bytes];
        let first = self.panel_at(panel, 0).cast_mut();
        // SAFETY: the caller's promise; a new part is all 0.
        let target = unsafe { std::slice::from_raw_parts_mut(first, self.panel_bytes()) };
        let rows = rows.chunks_exact(row_bytes);
        let elements = rows.clone().map(|row| &row[..self.inputs * self.dtype.bytes()]);
        match self.group * self.dtype.bytes() {
            2 => interleave::<2>(elements, self.lanes, target),
            _ => interleave::<4>(elements, self.lanes, target),
        }
        if self.dtype.element().is_none() {
            let scales = self.scales_of(panel).cast_mut();
            for (lane, row) in rows.enumerate() {
                let scale = f32::from_bytes(&row[self.inputs..]);
                // SAFETY: the caller's promise; there is one for each lane.
                unsafe { scales.add(lane).write(scale) };
            }
        }
    }
}

/// Writes each row down its lane, a group of so many bytes at a time and some groups of all rows:
/// those lie in the first cache. What the last group lacks stays 0.
fn interleave<'a, const BYTES: usize>(
    rows: impl Iterator<Item = &'a [u8]> + Clone,
    lanes: usize,
    panel: &mut [u8],
) {
    const STEPS: usize = 64;
    let (panel, _) = panel.as_chunks_mut::<BYTES>();
    for (begin, panel) in (0..).step_by(STEPS).zip(panel.chunks_mut(STEPS * lanes)) {
        for (lane, row) in rows.clone().enumerate() {
            let (groups, last) = row[begin * BYTES..].as_chunks::<BYTES>();
            let targets = panel[lane..].iter_mut().step_by(lanes);
            targets.zip(groups).for_each(|(target, group)| *target = *group);
            if groups.len() * lanes < panel.len() && !last.is_empty() {
                panel[groups.len() * lanes + lane][..last.len()].copy_from_slice(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::InstructionSet;
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

    fn packed(form: &MatrixForm, dtype: WeightDtype) -> PackedMatrix {
        let row = |output: usize| {
            let numbers = (0..INPUTS).map(move |k| element(output, k));
            let scale = dtype.element().is_none().then(|| scale(output).to_ne_bytes());
            numbers.flat_map(|number| bytes_of(number, dtype)).chain(scale.into_iter().flatten())
        };
        let bytes: Vec<u8> = (0..form.outputs).flat_map(row).collect();
        let length = PackedMatrix::bytes_of(form, dtype, kernels()).unwrap();
        let part = Part::new(&Region::new(length).unwrap(), 0..length);
        let threads = Threads::start(2, None).unwrap();
        PackedMatrix::pack(form, dtype, kernels(), part, &bytes, &threads)
    }

    fn bytes_of(number: f32, dtype: WeightDtype) -> Vec<u8> {
        let mut bytes = Vec::new();
        match dtype.element() {
            Some(dtype) => {
                with_element!(dtype, E => <E as Element>::round(number).append_to(&mut bytes));
            }
            None => bytes.push(number as u8),
        }
        bytes
    }

    fn scale(output: usize) -> f32 {
        output as f32 + 0.5
    }

    fn kernels() -> &'static Kernels {
        InstructionSet::Portable.kernels().unwrap()
    }

    /// The bytes at a lane of a step.
    fn held(packed: &PackedMatrix, panel: usize, k: usize, lane: usize) -> &[u8] {
        let bytes = packed.dtype.bytes();
        let group = packed.group;
        let (step, place) = (k / group * group, group * lane + k % group);
        let first = packed.panel_at(panel, step).wrapping_add(place * bytes);
        // SAFETY: the panel has this lane of this step.
        unsafe { std::slice::from_raw_parts(first, bytes) }
    }

    fn panels(packed: &PackedMatrix, begin: usize, count: usize) -> Range<usize> {
        packed.panels_of(Columns { begin, count })
    }

    /// Each lane of so many panels is its output's row, and the others are zero.
    fn check(packed: &PackedMatrix, panel_count: usize) {
        let steps = INPUTS.next_multiple_of(packed.group);
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
        for &dtype in WeightDtype::ALL {
            let packed = packed(&form(LANES + 3), dtype);
            assert_eq!(panels(&packed, 0, LANES + 3), 0..2);
            assert_eq!(packed.outputs_of(1), LANES..LANES + 3);
            check(&packed, 2);
        }
    }

    #[test]
    fn integers_have_the_scale_of_their_output() {
        let packed = packed(&form(LANES + 3), WeightDtype::Int8);
        for output in 0..LANES + 3 {
            let scales = packed.scales_of(output / LANES);
            // SAFETY: a panel has a scale for each lane.
            assert_eq!(unsafe { *scales.add(output % LANES) }, scale(output));
        }
    }

    #[test]
    fn panels_begin_anew_with_each_head_that_is_normed() {
        let head = LANES + 3;
        let norm = Some(NormForm { width: head, epsilon: 1.0, rounds_first: false });
        let packed = packed(&MatrixForm { norm, ..form(3 * head) }, WeightDtype::F32);
        assert_eq!((panels(&packed, 0, 3 * head), packed.run_panels()), (0..6, 2));
        assert_eq!(packed.outputs_of(3), head + LANES..2 * head);
        check(&packed, 6);
    }

    #[test]
    fn heads_that_may_be_cut_have_panels_of_their_own() {
        let head = LANES - 2;
        let packed = packed(&MatrixForm { cut_width: head, ..form(3 * head) }, WeightDtype::F32);
        assert_eq!(panels(&packed, 0, 3 * head), 0..3);
        assert_eq!(panels(&packed, head, 2 * head), 1..3);
        assert_eq!(packed.outputs_of(1), head..2 * head);
        check(&packed, 3);
    }
}
