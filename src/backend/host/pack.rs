//! A matrix as the kernels read it: panels of LANES neighbouring outputs, the inner width running
//! through each, so that a step of k is one contiguous load.
//!
//! ```text
//! packed[panel][k][lane] = matrix[first output of the panel + lane][k], and 0 beyond the last
//! ```
//!
//! Panels run through all outputs, or begin anew with each head where a norm takes heads whole or a
//! job may run some of them.

use super::kernel::LANES;
use crate::backend::{Columns, MatrixForm};
use crate::dtype::Dtype;
use crate::error::{Error, Status};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::ptr::NonNull;

/// A packed matrix.
pub(super) struct PackedMatrix {
    pub(super) dtype: Dtype,
    pub(super) inputs: usize,
    runs: Runs,
    panels: AlignedBytes,
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

    fn panels_each(self) -> usize {
        self.outputs.div_ceil(LANES)
    }
}

impl PackedMatrix {
    /// Copies a packed matrix of this form into panels.
    pub(super) fn pack(form: &MatrixForm, dtype: Dtype, bytes: &[u8]) -> Result<Self, Error> {
        let inputs = form.inputs;
        let length = Self::bytes_of(form, dtype).ok_or_else(|| out_of_memory(usize::MAX))?;
        let (runs, mut panels) = (Runs::of(form), AlignedBytes::zeroed(length)?);
        match dtype.bytes() {
            2 => interleave::<2>(bytes, inputs, runs, panels.as_mut_slice()),
            _ => interleave::<4>(bytes, inputs, runs, panels.as_mut_slice()),
        }
        Ok(Self { dtype, inputs, runs, panels })
    }

    /// Bytes of the panels, or None if there are too many to count.
    pub(super) fn bytes_of(form: &MatrixForm, dtype: Dtype) -> Option<usize> {
        let runs = Runs::of(form);
        let panel_count = runs.count.checked_mul(runs.panels_each())?;
        panel_count.checked_mul(LANES * dtype.bytes())?.checked_mul(form.inputs)
    }

    /// The panels of these columns, which are whole runs; the last of each run may be padded.
    pub(super) fn panels_of(&self, columns: Columns) -> Range<usize> {
        let panels = |outputs: usize| {
            debug_assert!(outputs.is_multiple_of(self.runs.outputs), "{columns:?} cut a run");
            outputs / self.runs.outputs * self.runs.panels_each()
        };
        panels(columns.begin)..panels(columns.begin + columns.count)
    }

    /// Panels of a run.
    pub(super) fn run_panels(&self) -> usize {
        self.runs.panels_each()
    }

    /// The outputs of a panel, which are its real lanes.
    pub(super) fn outputs_of(&self, panel: usize) -> Range<usize> {
        let (run, within) = (panel / self.runs.panels_each(), panel % self.runs.panels_each());
        let first = run * self.runs.outputs;
        first + within * LANES..first + self.runs.outputs.min((within + 1) * LANES)
    }

    /// A panel's weights from step `k` on.
    pub(super) fn panel_at(&self, panel: usize, k: usize) -> &[u8] {
        let step = LANES * self.dtype.bytes();
        &self.panels.as_slice()[(panel * self.inputs + k) * step..(panel + 1) * self.inputs * step]
    }
}

/// Writes each row of the matrix down its lane.
fn interleave<const BYTES: usize>(rows: &[u8], inputs: usize, runs: Runs, panels: &mut [u8]) {
    let (rows, _) = rows.as_chunks::<BYTES>();
    let (panels, _) = panels.as_chunks_mut::<BYTES>();
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        let (run, within) = (output / runs.outputs, output % runs.outputs);
        let first = run * runs.panels_each() + within / LANES;
        let (panel, lane) = (&mut panels[first * LANES * inputs..], within % LANES);
        for (target, element) in panel[lane..].iter_mut().step_by(LANES).zip(row) {
            *target = *element;
        }
    }
}

fn out_of_memory(bytes: usize) -> Error {
    Error::new(Status::OutOfMemory, format!("no memory for {bytes} bytes of packed weights"))
}

/// Bytes at a cache line's beginning.
struct AlignedBytes {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes, as a Vec does.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    fn zeroed(bytes: usize) -> Result<Self, Error> {
        let layout = Layout::from_size_align(bytes.max(1), 64).map_err(|_| out_of_memory(bytes))?;
        // SAFETY: the layout has a size.
        let first = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self { first: first.ok_or_else(|| out_of_memory(bytes))?, layout })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: as many bytes as were allocated, all initialised.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.layout.size()) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and not shared while borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.first.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::NormForm;

    fn element(output: usize, k: usize) -> f32 {
        (output * 100 + k) as f32
    }

    const INPUTS: usize = 5;

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

    fn packed(form: &MatrixForm) -> PackedMatrix {
        let rows =
            (0..form.outputs).flat_map(|output| (0..INPUTS).map(move |k| element(output, k)));
        let bytes: Vec<u8> = rows.flat_map(f32::to_ne_bytes).collect();
        PackedMatrix::pack(form, Dtype::F32, &bytes).unwrap()
    }

    fn panels(packed: &PackedMatrix, begin: usize, count: usize) -> Range<usize> {
        packed.panels_of(Columns { begin, count })
    }

    /// Each lane of so many panels is its output's row, and the others are zero.
    fn check(packed: &PackedMatrix, panel_count: usize) {
        for panel in 0..panel_count {
            let outputs = packed.outputs_of(panel);
            for (k, lane) in (0..INPUTS).flat_map(|k| (0..LANES).map(move |lane| (k, lane))) {
                let held = &packed.panel_at(panel, k)[lane * 4..][..4];
                let output = outputs.start + lane;
                let expected = if outputs.contains(&output) { element(output, k) } else { 0.0 };
                assert_eq!(f32::from_ne_bytes(held.try_into().unwrap()), expected, "{output} {k}");
            }
        }
    }

    #[test]
    fn each_row_runs_down_its_lane_and_padding_is_zero() {
        let packed = packed(&form(LANES + 3));
        assert_eq!(panels(&packed, 0, LANES + 3), 0..2);
        assert_eq!(packed.outputs_of(1), LANES..LANES + 3);
        check(&packed, 2);
    }

    #[test]
    fn panels_begin_anew_with_each_head_that_is_normed() {
        let head = LANES + 3;
        let norm = Some(NormForm { width: head, epsilon: 1.0, rounds_first: false });
        let packed = packed(&MatrixForm { norm, ..form(3 * head) });
        assert_eq!((panels(&packed, 0, 3 * head), packed.run_panels()), (0..6, 2));
        assert_eq!(packed.outputs_of(3), head + LANES..2 * head);
        check(&packed, 6);
    }

    #[test]
    fn heads_that_may_be_cut_have_panels_of_their_own() {
        let head = LANES - 2;
        let packed = packed(&MatrixForm { cut_width: head, ..form(3 * head) });
        assert_eq!(panels(&packed, 0, 3 * head), 0..3);
        assert_eq!(panels(&packed, head, 2 * head), 1..3);
        assert_eq!(packed.outputs_of(1), head..2 * head);
        check(&packed, 3);
    }
}
