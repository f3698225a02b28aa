//! A matrix as the kernels read it: panels of LANES neighbouring outputs, the inner width running
//! through each, so that a step of k is one contiguous load.
//!
//! ```text
//! packed[panel][k][lane] = matrix[panel * LANES + lane][k], and 0 beyond the last output
//! ```

use super::kernel::LANES;
use crate::backend::MatrixForm;
use crate::dtype::Dtype;
use crate::error::{Error, Status};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A packed matrix.
pub(super) struct PackedMatrix {
    pub(super) dtype: Dtype,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    panels: AlignedBytes,
}

impl PackedMatrix {
    /// Copies a packed matrix of this form into panels.
    pub(super) fn pack(form: &MatrixForm, dtype: Dtype, bytes: &[u8]) -> Result<Self, Error> {
        let &MatrixForm { outputs, inputs, .. } = form;
        let length = Self::bytes_of(form, dtype).ok_or_else(|| out_of_memory(usize::MAX))?;
        let mut panels = AlignedBytes::zeroed(length)?;
        match dtype.bytes() {
            2 => interleave::<2>(bytes, inputs, panels.as_mut_slice()),
            _ => interleave::<4>(bytes, inputs, panels.as_mut_slice()),
        }
        Ok(Self { dtype, outputs, inputs, panels })
    }

    /// Bytes of the panels, or None if there are too many to count.
    pub(super) fn bytes_of(form: &MatrixForm, dtype: Dtype) -> Option<usize> {
        let panel_count = form.outputs.div_ceil(LANES);
        panel_count.checked_mul(LANES * dtype.bytes())?.checked_mul(form.inputs)
    }

    /// Panels, the last of which may be padded.
    pub(super) fn panel_count(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The outputs of a panel that are real.
    pub(super) fn real_lanes(&self, panel: usize) -> usize {
        LANES.min(self.outputs - panel * LANES)
    }

    /// A panel's weights from step `k` on.
    pub(super) fn panel_at(&self, panel: usize, k: usize) -> &[u8] {
        let step = LANES * self.dtype.bytes();
        &self.panels.as_slice()[(panel * self.inputs + k) * step..(panel + 1) * self.inputs * step]
    }
}

/// Writes each row of the matrix down its lane.
fn interleave<const BYTES: usize>(rows: &[u8], inputs: usize, panels: &mut [u8]) {
    let (rows, _) = rows.as_chunks::<BYTES>();
    let (panels, _) = panels.as_chunks_mut::<BYTES>();
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        let panel = &mut panels[output / LANES * LANES * inputs..];
        let lane = output % LANES;
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

    #[test]
    fn each_row_runs_down_its_lane_and_padding_is_zero() {
        let (outputs, inputs) = (LANES + 3, 5);
        let element = |output: usize, k: usize| (output * 100 + k) as f32;
        let rows = (0..outputs).flat_map(|output| (0..inputs).map(move |k| element(output, k)));
        let bytes: Vec<u8> = rows.flat_map(f32::to_ne_bytes).collect();
        let form =
            MatrixForm { outputs, inputs, scale: 1.0, has_bias: false, norm: None, stack: 0 };
        let packed = PackedMatrix::pack(&form, Dtype::F32, &bytes).unwrap();
        assert_eq!((packed.panel_count(), packed.real_lanes(1)), (2, 3));
        for (output, k) in (0..2 * LANES).flat_map(|output| (0..inputs).map(move |k| (output, k))) {
            let step = packed.panel_at(output / LANES, k);
            let lane = &step[output % LANES * 4..][..4];
            let expected = if output < outputs { element(output, k) } else { 0.0 };
            assert_eq!(f32::from_ne_bytes(lane.try_into().unwrap()), expected, "{output} {k}");
        }
    }
}
