//! A few rows of integers times a few panels of them. Sums are exact, so their bits are the same
//! with every instruction set.
//!
//! ```text
//! for k in 0..depth, STEPS at a time     steps that an instruction adds up
//!     for row in 0..ROWS
//!         for lane in 0..LANES
//!             sums[row][lane] += inputs[row][k..] · panel[k..][lane]
//! ```

use super::simd::{Lanes, Simd};
use super::tile::Call;
use crate::dtype::Element;

/// The largest magnitude of a row's integers.
const MOST: f32 = 127.0;
/// Added to a number of at most 2^22, it leaves the nearest integer in the lowest bits, ties to
/// even.
const ROUNDER: f32 = 12_582_912.0;

/// What makes numbers of a row's sums.
#[derive(Clone, Copy, Default)]
pub(in crate::backend::host) struct Quantum {
    /// What an integer of 1 counts.
    pub(in crate::backend::host) scale: f32,
    /// What sums are too large by.
    pub(in crate::backend::host) excess: i32,
}

/// WIDTH sums of 32 bits, and how an instruction set multiplies what it adds to them.
///
/// # Safety
/// As for [`super::Simd`].
pub(in crate::backend::host) trait Integers {
    /// Its numbers.
    type Floats: Lanes<f32>;
    type Vector: Copy;
    /// Neighbouring steps that are multiplied and added at once; an input takes 4 / STEPS bytes.
    const STEPS: usize;
    /// What is added to each weight to make it unsigned.
    const OFFSET: i32;

    unsafe fn zero() -> Self::Vector;

    unsafe fn load(sums: *const i32) -> Self::Vector;

    unsafe fn store(sums: *mut i32, values: Self::Vector);

    /// STEPS steps of WIDTH outputs.
    unsafe fn weights(bytes: *const i8) -> Self::Vector;

    /// The same STEPS inputs for each output.
    unsafe fn inputs(bytes: *const u8) -> Self::Vector;

    /// sums + weights · inputs.
    unsafe fn dot(weights: Self::Vector, inputs: Self::Vector, sums: Self::Vector) -> Self::Vector;

    /// The sums less a number, rounded to f32.
    unsafe fn less(sums: Self::Vector, excess: i32) -> <Self::Floats as Simd>::Vector;
}

/// The sums of some rows and panels.
type Sums<V, const ROWS: usize, const PANELS: usize> = [[[V; 2]; PANELS]; ROWS];

/// Outputs of a vector.
const fn width<I: Integers>() -> usize {
    <I::Floats as Simd>::WIDTH
}

/// # Safety
/// As for [`super::Kernel`]; the sums are of 32-bit integers, and depth is whole groups of steps.
#[inline(always)]
pub(super) unsafe fn tile<I: Integers, const ROWS: usize, const PANELS: usize>(call: &Call) {
    // SAFETY: passed on, here and below: the call holds what it says.
    let mut sums = unsafe { load::<I, ROWS, PANELS>(call) };
    let Call { mut inputs, mut weights, mut ahead, .. } = *call;
    let ahead_step = call.ahead_step * I::STEPS / 2;
    for _ in 0..call.depth.div_ceil(I::STEPS) {
        // SAFETY: as above; a prefetch may be of any address.
        unsafe {
            add_steps::<I, ROWS, PANELS>(call, inputs, weights.cast(), &mut sums);
            I::Floats::prefetch(ahead);
        }
        inputs = inputs.wrapping_add(4);
        weights = weights.wrapping_add(2 * width::<I>() * I::STEPS);
        ahead = ahead.wrapping_add(ahead_step);
    }
    // SAFETY: as above.
    unsafe { store::<I, ROWS, PANELS>(call, &sums) };
}

/// STEPS steps of every sum.
#[inline(always)]
unsafe fn add_steps<I: Integers, const ROWS: usize, const PANELS: usize>(
    call: &Call,
    inputs: *const u8,
    weights: *const i8,
    sums: &mut Sums<I::Vector, ROWS, PANELS>,
) {
    // SAFETY: the panels have these steps.
    let weights = unsafe {
        let mut loaded = [[I::zero(); 2]; PANELS];
        for (panel, vectors) in loaded.iter_mut().enumerate() {
            let first = weights.add(panel * call.weight_stride);
            *vectors = [I::weights(first), I::weights(first.add(width::<I>() * I::STEPS))];
        }
        loaded
    };
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the row has these steps.
        unsafe {
            let inputs = I::inputs(inputs.add(row * call.input_stride));
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                sums[0] = I::dot(weights[0], inputs, sums[0]);
                sums[1] = I::dot(weights[1], inputs, sums[1]);
            }
        }
    }
}

#[inline(always)]
unsafe fn load<I: Integers, const ROWS: usize, const PANELS: usize>(
    call: &Call,
) -> Sums<I::Vector, ROWS, PANELS> {
    // SAFETY: the caller's.
    let mut sums = unsafe { [[[I::zero(); 2]; PANELS]; ROWS] };
    if call.begins {
        return sums;
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        for (panel, sums) in sums.iter_mut().enumerate() {
            let at = panel * call.sum_stride + row * 2 * width::<I>();
            // SAFETY: the caller's promise.
            unsafe {
                let at = call.sums.add(at).cast::<i32>();
                *sums = [I::load(at), I::load(at.add(width::<I>()))];
            }
        }
    }
    sums
}

#[inline(always)]
unsafe fn store<I: Integers, const ROWS: usize, const PANELS: usize>(
    call: &Call,
    sums: &Sums<I::Vector, ROWS, PANELS>,
) {
    for (row, sums) in sums.iter().enumerate() {
        for (panel, sums) in sums.iter().enumerate() {
            let at = panel * call.sum_stride + row * 2 * width::<I>();
            // SAFETY: the caller's promise.
            unsafe {
                let at = call.sums.add(at).cast::<i32>();
                I::store(at, sums[0]);
                I::store(at.add(width::<I>()), sums[1]);
            }
        }
    }
}

/// Makes numbers of a row's sums of one panel, in place.
///
/// # Safety
/// As for [`super::Dequantise`].
#[inline(always)]
pub(super) unsafe fn dequantise<I: Integers>(sums: *mut f32, scales: *const f32, quantum: Quantum) {
    for at in [0, width::<I>()] {
        // SAFETY: a panel has two vectors of sums, and of scales.
        unsafe {
            let sum = I::less(I::load(sums.add(at).cast::<i32>()), quantum.excess);
            let scaled = I::Floats::multiply(sum, I::Floats::load(scales.add(at)));
            let value = I::Floats::multiply(scaled, I::Floats::splat(quantum.scale));
            I::Floats::store(sums.add(at), value);
        }
    }
}

/// What the integers of a row count, and what they are multiplied by to become them: not a number
/// if an element is none or infinite, and 0 for a row of almost nothing, whose inverse may be too
/// large.
#[inline(always)]
pub(super) unsafe fn scale<E: Element>(row: *const u8, count: usize) -> (f32, f32) {
    // SAFETY: the caller's promise; rows of views are aligned.
    let row = unsafe { std::slice::from_raw_parts(row.cast::<E>(), count) };
    let magnitude = |element: &E| element.widen().to_bits() & 0x7fff_ffff;
    // Bits of what is not a number are greater than those of all numbers.
    let most = f32::from_bits(row.iter().map(magnitude).fold(0, u32::max));
    let scale = most / MOST;
    match scale.is_normal() {
        true => (scale, MOST / most),
        false => (if most.is_finite() { 0.0 } else { f32::NAN }, 0.0),
    }
}

/// Brings some of a row's elements to integers, each in the kernel's input, and gives their sum.
#[inline(always)]
pub(super) unsafe fn quantise<I: Integers, E: Element>(
    row: *const u8,
    inputs: *mut u8,
    count: usize,
    inverse: f32,
) -> i32 {
    // SAFETY: the caller's promise.
    let row = unsafe { std::slice::from_raw_parts(row.cast::<E>(), count) };
    let mut sum = 0_i32;
    for (at, element) in row.iter().enumerate() {
        // ROUNDER's lowest 16 bits are 0. What is not a number may leave anything there.
        let integer = (element.widen() * inverse + ROUNDER).to_bits() as i16;
        sum = sum.wrapping_add(i32::from(integer));
        // SAFETY: the target has a place for each.
        unsafe {
            match I::STEPS {
                4 => inputs.cast::<i8>().add(at).write(integer as i8),
                _ => inputs.cast::<i16>().add(at).write(integer),
            }
        }
    }
    sum
}
