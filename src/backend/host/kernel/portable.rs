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

impl Dots for Portable {
    type Floats = Self;
    type Vector = [[i16; 2]; Self::WIDTH];
    const STEPS: usize = 2;
    const VECTOR_BYTES: usize = 2 * Self::WIDTH;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> [[i16; 2]; Self::WIDTH] {
        // SAFETY: the trait's.
        let pairs = unsafe { &*bytes.cast::<[[i8; 2]; Self::WIDTH]>() };
        pairs.map(|pair| pair.map(i16::from))
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> [[i16; 2]; Self::WIDTH] {
        // SAFETY: the trait's.
        [unsafe { *bytes.cast::<[i16; 2]>() }; Self::WIDTH]
    }

    #[inline(always)]
    unsafe fn dot(
        weights: [[i16; 2]; Self::WIDTH],
        inputs: [[i16; 2]; Self::WIDTH],
        sums: Vector,
    ) -> Vector {
        let product = |lane: usize| {
            let [first, second] =
                [0, 1].map(|step| i32::from(weights[lane][step]) * i32::from(inputs[lane][step]));
            first.wrapping_add(second)
        };
        let sum = |lane: usize| (sums[lane].to_bits() as i32).wrapping_add(product(lane));
        std::array::from_fn(|lane| f32::from_bits(sum(lane) as u32))
    }
}

impl Integers for Portable {
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn less(sums: Vector, excess: i32) -> Vector {
        sums.map(|sum| (sum.to_bits() as i32).wrapping_sub(excess) as f32)
    }
}

compiled_for!(Portable, [1 x 1, 2 x 1]);
