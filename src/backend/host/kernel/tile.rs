//! A few rows times a few panels, the sums kept in registers.
//!
//! ```text
//! for k in 0..depth                      one step of the inner width
//!     for row in 0..ROWS                 rows that share the loaded weights
//!         for lane in 0..LANES           neighbouring outputs of the panels
//!             sums[row][lane] += inputs[row][k] * panel[k][lane]
//! ```

use super::simd::{Lanes, Simd};
use crate::dtype::Element;
use std::marker::PhantomData;

/// What one kernel call reads and writes.
#[derive(Clone, Copy)]
pub(in crate::backend::host) struct Call {
    /// The first row's inputs.
    pub(in crate::backend::host) inputs: *const u8,
    /// Bytes from one row to the next.
    pub(in crate::backend::host) input_stride: usize,
    /// The first panel's weights; a panel has two vectors of outputs.
    pub(in crate::backend::host) weights: *const u8,
    /// Bytes from one panel to the next.
    pub(in crate::backend::host) weight_stride: usize,
    /// Steps.
    pub(in crate::backend::host) depth: usize,
    /// The first panel's sums, row by row.
    pub(in crate::backend::host) sums: *mut f32,
    /// Elements from one panel's sums to the next one's.
    pub(in crate::backend::host) sum_stride: usize,
    /// Whether the sums begin at 0 and not at what is there.
    pub(in crate::backend::host) begins: bool,
    /// Weights that come soon.
    pub(in crate::backend::host) ahead: *const u8,
    /// Bytes of them for two steps.
    pub(in crate::backend::host) ahead_step: usize,
}

/// The sums of some rows and panels.
pub(super) type Sums<V, const ROWS: usize, const PANELS: usize> = [[[V; 2]; PANELS]; ROWS];

/// How a panel lays out its weights.
pub(in crate::backend::host) trait Format<S: Simd> {
    /// Bytes of two steps of a panel.
    const PAIR_BYTES: usize;

    /// One vector of a panel's weights: of a pair of steps, the first step's or the second's.
    ///
    /// # Safety
    /// `pair` points to those two steps, of which the one asked for exists.
    unsafe fn weights<const SECOND: bool>(pair: *const u8, vector: usize) -> S::Vector;
}

/// Step by step, output by output.
pub(in crate::backend::host) struct Straight<E>(PhantomData<E>);

impl<S: Lanes<E>, E: Element> Format<S> for Straight<E> {
    const PAIR_BYTES: usize = 4 * S::WIDTH * size_of::<E>();

    #[inline(always)]
    unsafe fn weights<const SECOND: bool>(pair: *const u8, vector: usize) -> S::Vector {
        let at = (2 * usize::from(SECOND) + vector) * S::WIDTH;
        // SAFETY: passed on.
        unsafe { S::load(pair.cast::<E>().add(at)) }
    }
}

/// bfloat16 in pairs of steps: of each output the first step's and the second's side by side, as
/// the dot products read them. Widening one of a pair is one instruction.
pub(in crate::backend::host) struct Paired;

impl<S: Simd> Format<S> for Paired {
    const PAIR_BYTES: usize = 2 * S::WIDTH * 4;

    #[inline(always)]
    unsafe fn weights<const SECOND: bool>(pair: *const u8, vector: usize) -> S::Vector {
        // SAFETY: passed on.
        unsafe { S::of_pairs::<SECOND>(pair.add(vector * S::WIDTH * 4)) }
    }
}

/// Widens so many steps of a panel, into f32 that lie step by step.
///
/// # Safety
/// As for [`super::Unpack`].
#[inline(always)]
pub(super) unsafe fn unpack<S: Lanes<f32>, F: Format<S>>(
    panel: *const u8,
    depth: usize,
    to: *mut f32,
) {
    for k in 0..depth {
        let pair = panel.wrapping_add(k / 2 * F::PAIR_BYTES);
        for vector in 0..2 {
            // SAFETY: the panel has this step, and the target a place for it.
            unsafe {
                let weights = match k % 2 {
                    0 => F::weights::<false>(pair, vector),
                    _ => F::weights::<true>(pair, vector),
                };
                S::store(to.add((2 * k + vector) * S::WIDTH), weights);
            }
        }
    }
}

/// # Safety
/// As for [`super::Kernel`].
#[inline(always)]
pub(in crate::backend::host) unsafe fn tile<
    S: Lanes<f32>,
    F: Format<S>,
    const ROWS: usize,
    const PANELS: usize,
>(
    call: &Call,
) {
    // SAFETY: passed on, here and below: the call holds what it says.
    let mut sums = unsafe { load::<S, ROWS, PANELS>(call) };
    let Call { mut inputs, mut weights, mut ahead, .. } = *call;
    for _ in 0..call.depth / 2 {
        // SAFETY: as above.
        unsafe { add_step::<S, F, false, ROWS, PANELS>(call, inputs, weights, &mut sums) };
        // SAFETY: as above.
        unsafe { add_step::<S, F, true, ROWS, PANELS>(call, inputs, weights, &mut sums) };
        // SAFETY: a prefetch may be of any address.
        unsafe { prefetch::<S>(ahead, call.ahead_step) };
        inputs = inputs.wrapping_add(8);
        weights = weights.wrapping_add(F::PAIR_BYTES);
        ahead = ahead.wrapping_add(call.ahead_step);
    }
    if call.depth % 2 == 1 {
        // SAFETY: as above.
        unsafe { add_step::<S, F, false, ROWS, PANELS>(call, inputs, weights, &mut sums) };
    }
    // SAFETY: as above.
    unsafe { store::<S, ROWS, PANELS>(call, &sums) };
}

/// One step of every sum.
#[inline(always)]
unsafe fn add_step<
    S: Simd,
    F: Format<S>,
    const SECOND: bool,
    const ROWS: usize,
    const PANELS: usize,
>(
    call: &Call,
    inputs: *const u8,
    weights: *const u8,
    sums: &mut Sums<S::Vector, ROWS, PANELS>,
) {
    // SAFETY: the panels have this step.
    let weights = unsafe {
        let mut loaded = [[S::splat(0.0); 2]; PANELS];
        for (panel, vectors) in loaded.iter_mut().enumerate() {
            let pair = weights.add(panel * call.weight_stride);
            *vectors = [F::weights::<SECOND>(pair, 0), F::weights::<SECOND>(pair, 1)];
        }
        loaded
    };
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the row has this step.
        unsafe {
            let input = inputs.add(row * call.input_stride).cast::<f32>();
            let input = S::splat(*input.add(usize::from(SECOND)));
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                sums[0] = S::multiply_add(input, weights[0], sums[0]);
                sums[1] = S::multiply_add(input, weights[1], sums[1]);
            }
        }
    }
}

/// Asks for the weights of two steps to come: two cache lines of f32 in 256-bit vectors; of wider
/// ones the CPU guesses the others.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd>(ahead: *const u8, step: usize) {
    // SAFETY: the caller's promise; the address need not exist.
    unsafe {
        S::prefetch(ahead);
        S::prefetch(ahead.wrapping_add(step / 2));
    }
}

/// The sums as they are before the call.
#[inline(always)]
pub(super) unsafe fn load<S: Lanes<f32>, const ROWS: usize, const PANELS: usize>(
    call: &Call,
) -> Sums<S::Vector, ROWS, PANELS> {
    // SAFETY: the caller's.
    let mut sums = unsafe { [[[S::splat(0.0); 2]; PANELS]; ROWS] };
    if call.begins {
        return sums;
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        for (panel, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let at = call.sums.add(panel * call.sum_stride + row * 2 * S::WIDTH);
                *sums = [S::load(at), S::load(at.add(S::WIDTH))];
            }
        }
    }
    sums
}

/// Puts the sums back.
#[inline(always)]
pub(super) unsafe fn store<S: Lanes<f32>, const ROWS: usize, const PANELS: usize>(
    call: &Call,
    sums: &Sums<S::Vector, ROWS, PANELS>,
) {
    for (row, sums) in sums.iter().enumerate() {
        for (panel, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let at = call.sums.add(panel * call.sum_stride + row * 2 * S::WIDTH);
                S::store(at, sums[0]);
                S::store(at.add(S::WIDTH), sums[1]);
            }
        }
    }
}
