//! A few rows times a few panels, some steps at once, as an instruction adds them up.
//!
//! ```text
//! for k in 0..depth, STEPS at a time
//!     for row in 0..ROWS
//!         for lane in 0..LANES
//!             sums[row][lane] += inputs[row][k..] · panel[k..][lane]
//! ```

use super::simd::{Lanes, Simd};
use super::tile::{Call, Sums, load, prefetch, store};

/// Bytes that one prefetch brings.
const LINE: usize = 64;

/// How an instruction set multiplies steps that lie together. Sums are vectors of f32, or what an
/// implementation takes their bits for.
///
/// # Safety
/// As for [`Simd`].
pub(in crate::backend::host) trait Dots {
    /// Its sums.
    type Floats: Lanes<f32>;
    /// Its factors.
    type Vector: Copy;
    /// Neighbouring steps that are multiplied and added at once; an input takes 4 / STEPS bytes.
    const STEPS: usize;
    /// What so many steps of WIDTH outputs take.
    const VECTOR_BYTES: usize;

    /// STEPS steps of WIDTH outputs.
    unsafe fn weights(bytes: *const u8) -> Self::Vector;

    /// The same STEPS inputs for each output.
    unsafe fn inputs(bytes: *const u8) -> Self::Vector;

    /// sums + weights · inputs.
    unsafe fn dot(
        weights: Self::Vector,
        inputs: Self::Vector,
        sums: <Self::Floats as Simd>::Vector,
    ) -> <Self::Floats as Simd>::Vector;
}

/// # Safety
/// As for [`super::Kernel`]; a last group of steps is filled up with zeros in rows and panels.
#[inline(always)]
pub(super) unsafe fn tile<D: Dots, const ROWS: usize, const PANELS: usize>(call: &Call) {
    // SAFETY: passed on, here and below: the call holds what it says.
    let mut sums = unsafe { load::<D::Floats, ROWS, PANELS>(call) };
    let Call { mut inputs, mut weights, mut ahead, .. } = *call;
    let ahead_step = call.ahead_step * D::STEPS / 2;
    for _ in 0..call.depth.div_ceil(D::STEPS) {
        // SAFETY: as above.
        unsafe { add_steps::<D, ROWS, PANELS>(call, inputs, weights, &mut sums) };
        // SAFETY: a prefetch may be of any address.
        unsafe {
            match 2 * D::VECTOR_BYTES > LINE {
                true => prefetch::<D::Floats>(ahead, ahead_step),
                false => D::Floats::prefetch(ahead),
            }
        }
        inputs = inputs.wrapping_add(4);
        weights = weights.wrapping_add(2 * D::VECTOR_BYTES);
        ahead = ahead.wrapping_add(ahead_step);
    }
    // SAFETY: as above.
    unsafe { store::<D::Floats, ROWS, PANELS>(call, &sums) };
}

/// STEPS steps of every sum.
#[inline(always)]
unsafe fn add_steps<D: Dots, const ROWS: usize, const PANELS: usize>(
    call: &Call,
    inputs: *const u8,
    weights: *const u8,
    sums: &mut Sums<<D::Floats as Simd>::Vector, ROWS, PANELS>,
) {
    let weights: [[D::Vector; 2]; PANELS] = std::array::from_fn(|panel| {
        let first = weights.wrapping_add(panel * call.weight_stride);
        // SAFETY: the panels have these steps.
        unsafe { [D::weights(first), D::weights(first.add(D::VECTOR_BYTES))] }
    });
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the row has these steps.
        unsafe {
            let inputs = D::inputs(inputs.add(row * call.input_stride));
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                sums[0] = D::dot(weights[0], inputs, sums[0]);
                sums[1] = D::dot(weights[1], inputs, sums[1]);
            }
        }
    }
}
