//! What every CPU of the target has. The compiler turns the lanes into the vectors there are.

use super::prelude::*;

#[derive(Clone, Copy)]
struct Portable;

type Vector = [f32; Portable::WIDTH];

impl Simd for Portable {
    type Vector = Vector;
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Vector {
        [value; Self::WIDTH]
    }

    #[inline(always)]
    unsafe fn add(a: Vector, b: Vector) -> Vector {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    unsafe fn multiply(a: Vector, b: Vector) -> Vector {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Vector, b: Vector, sum: Vector) -> Vector {
        std::array::from_fn(|lane| a[lane] * b[lane] + sum[lane])
    }

    #[inline(always)]
    unsafe fn of_pairs<const SECOND: bool>(pairs: *const u8) -> Vector {
        // SAFETY: the trait's; packed weights are aligned.
        let pairs = unsafe { &*pairs.cast::<[[bf16; 2]; Self::WIDTH]>() };
        pairs.map(|pair| pair[usize::from(SECOND)].widen())
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

impl<E: Element> Lanes<E> for Portable {
    #[inline(always)]
    unsafe fn load(elements: *const E) -> Vector {
        // SAFETY: the trait's.
        unsafe { &*elements.cast::<[E; Self::WIDTH]>() }.map(E::widen)
    }

    #[inline(always)]
    unsafe fn store(elements: *mut E, values: Vector) {
        // SAFETY: the trait's.
        unsafe { *elements.cast::<[E; Self::WIDTH]>() = values.map(<E as Element>::round) }
    }
}

impl Integers for Portable {
    type Floats = Self;
    type Vector = [i32; Self::WIDTH];
    const STEPS: usize = 2;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn zero() -> [i32; Self::WIDTH] {
        [0; Self::WIDTH]
    }

    #[inline(always)]
    unsafe fn load(sums: *const i32) -> [i32; Self::WIDTH] {
        // SAFETY: the trait's.
        unsafe { *sums.cast() }
    }

    #[inline(always)]
    unsafe fn store(sums: *mut i32, values: [i32; Self::WIDTH]) {
        // SAFETY: the trait's.
        unsafe { *sums.cast() = values }
    }

    /// Two integers in each, as 16 bits.
    #[inline(always)]
    unsafe fn weights(bytes: *const i8) -> [i32; Self::WIDTH] {
        // SAFETY: the trait's.
        let pairs = unsafe { &*bytes.cast::<[[i8; 2]; Self::WIDTH]>() };
        pairs.map(|[first, second]| i32::from(first) & 0xffff | i32::from(second) << 16)
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> [i32; Self::WIDTH] {
        // SAFETY: the trait's.
        let pair = unsafe { *bytes.cast::<[i16; 2]>() };
        [i32::from(pair[0]) & 0xffff | i32::from(pair[1]) << 16; Self::WIDTH]
    }

    #[inline(always)]
    unsafe fn dot(
        weights: [i32; Self::WIDTH],
        inputs: [i32; Self::WIDTH],
        sums: [i32; Self::WIDTH],
    ) -> [i32; Self::WIDTH] {
        let first = |pair: i32| i32::from(pair as i16);
        let product = |lane: usize| {
            let (weights, inputs) = (weights[lane], inputs[lane]);
            (first(weights) * first(inputs)).wrapping_add((weights >> 16) * (inputs >> 16))
        };
        std::array::from_fn(|lane| sums[lane].wrapping_add(product(lane)))
    }

    #[inline(always)]
    unsafe fn less(sums: [i32; Self::WIDTH], excess: i32) -> Vector {
        sums.map(|sum| sum.wrapping_sub(excess) as f32)
    }
}

integers_for!(Portable, [1 x 1, 2 x 1]);

compiled_for!(Portable, [1 x 1, 2 x 1]);
