//! One vector of an instruction set, and how elements come into it and out of it.

use crate::dtype::Element;

/// Some f32 lanes.
///
/// # Safety
/// Every function is to be called where the CPU has the instruction set; it is compiled to its
/// instructions only where it is inlined into a function with that set's target features.
pub(in crate::backend::host) trait Simd: Copy {
    type Vector: Copy;
    /// Lanes of a vector.
    const WIDTH: usize;

    /// The same number in every lane.
    unsafe fn splat(value: f32) -> Self::Vector;

    /// a + b.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a · b.
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a · b + sum.
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector;

    /// The first, or the second, of each of WIDTH pairs of bfloat16, widened.
    unsafe fn of_pairs<const SECOND: bool>(pairs: *const u8) -> Self::Vector;

    /// Asks for the cache line of an address, which need not exist.
    unsafe fn prefetch(address: *const u8);
}

/// How WIDTH neighbouring elements of a type are widened, and rounded to nearest even.
pub(in crate::backend::host) trait Lanes<E: Element>: Simd {
    unsafe fn load(elements: *const E) -> Self::Vector;
    unsafe fn store(elements: *mut E, values: Self::Vector);
}

/// Widens so many elements.
///
/// # Safety
/// Both hold so many.
#[inline(always)]
pub(super) unsafe fn widen<S: Lanes<E> + Lanes<f32>, E: Element>(
    from: *const E,
    to: *mut f32,
    count: usize,
) {
    let whole = count - count % S::WIDTH;
    for at in (0..whole).step_by(S::WIDTH) {
        // SAFETY: a whole vector is left of both.
        unsafe { <S as Lanes<f32>>::store(to.add(at), <S as Lanes<E>>::load(from.add(at))) };
    }
    for at in whole..count {
        // SAFETY: both have this element.
        unsafe { to.add(at).write(from.add(at).read().widen()) };
    }
}
