//! Rows brought to integers, and numbers made of sums of their products. Those sums are exact, so
//! their bits are the same with every instruction set.

use super::dots::Dots;
use super::simd::{Lanes, Simd};
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

/// Dot products of integers, whose sums are bits of 32-bit integers.
///
/// # Safety
/// As for [`Simd`].
pub(in crate::backend::host) trait Integers: Dots {
    /// What is added to each weight to make it unsigned.
    const OFFSET: i32;

    /// The sums less a number, rounded to f32.
    unsafe fn less(
        sums: <Self::Floats as Simd>::Vector,
        excess: i32,
    ) -> <Self::Floats as Simd>::Vector;
}

/// Makes numbers of a row's sums of one panel, in place.
///
/// # Safety
/// As for [`super::Dequantise`].
#[inline(always)]
pub(super) unsafe fn dequantise<I: Integers>(sums: *mut f32, scales: *const f32, quantum: Quantum) {
    for at in [0, <I::Floats as Simd>::WIDTH] {
        // SAFETY: a panel has two vectors of sums, and of scales.
        unsafe {
            let sum = I::less(I::Floats::load(sums.add(at)), quantum.excess);
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
