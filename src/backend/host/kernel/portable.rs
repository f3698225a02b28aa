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

compiled_for!(Portable, [1 x 1, 2 x 1]);
