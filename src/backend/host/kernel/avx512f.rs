//! 512-bit vectors with fused multiply-add.

use super::prelude::*;
use crate::dtype::bf16;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Simd for Avx512 {
    type Vector = __m512;
    const WIDTH: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn of_pairs<const SECOND: bool>(pairs: *const u8) -> __m512 {
        // SAFETY: the trait's.
        unsafe {
            let pairs = _mm512_loadu_si512(pairs.cast());
            _mm512_castsi512_ps(match SECOND {
                false => _mm512_slli_epi32::<16>(pairs),
                true => _mm512_and_si512(pairs, _mm512_set1_epi32(!0xffff)),
            })
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: the trait's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

impl Lanes<f32> for Avx512 {
    #[inline(always)]
    unsafe fn load(elements: *const f32) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_loadu_ps(elements) }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f32, values: __m512) {
        // SAFETY: the trait's.
        unsafe { _mm512_storeu_ps(elements, values) }
    }
}

impl Lanes<f16> for Avx512 {
    #[inline(always)]
    unsafe fn load(elements: *const f16) -> __m512 {
        // SAFETY: the trait's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(elements.cast())) }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f16, values: __m512) {
        // SAFETY: the trait's.
        unsafe {
            let rounded = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
            _mm256_storeu_si256(elements.cast(), rounded);
        }
    }
}

impl Lanes<bf16> for Avx512 {
    #[inline(always)]
    unsafe fn load(elements: *const bf16) -> __m512 {
        // SAFETY: the trait's.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(elements.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut bf16, values: __m512) {
        // SAFETY: the trait's.
        unsafe {
            let halves = _mm512_cvtepi32_epi16(rounded_to_upper_half(values));
            _mm256_storeu_si256(elements.cast(), halves);
        }
    }
}

/// bfloat16, ties to even, in the lower halves; what is not a number stays so, made quiet. The
/// CPU's own conversion would take denormals for zero.
#[inline(always)]
unsafe fn rounded_to_upper_half(values: __m512) -> __m512i {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let bits = _mm512_castps_si512(values);
        let upper = _mm512_srli_epi32::<16>(bits);
        let is_odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(is_odd, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
        let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        _mm512_mask_blend_epi32(is_nan, rounded, quiet)
    }
}

/// Two steps at once, as 16-bit integers: products of 8-bit ones overflow no sum of theirs.
impl Dots for Avx512 {
    type Floats = Self;
    type Vector = __m512i;
    const STEPS: usize = 2;
    const VECTOR_BYTES: usize = 32;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(bytes.cast())) }
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(bytes.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot(weights: __m512i, inputs: __m512i, sums: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let product = _mm512_madd_epi16(weights, inputs);
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sums), product))
        }
    }
}

impl Integers for Avx512 {
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn less(sums: __m512, excess: i32) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let excess = _mm512_set1_epi32(excess);
            _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sums), excess))
        }
    }
}

compiled_for!(
    Avx512,
    [
        1 x 2, 2 x 2, 3 x 2, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 9 x 1, 10 x 1, 11 x 1, 12 x 1
    ],
    target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")
);
