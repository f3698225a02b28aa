//! 256-bit vectors with fused multiply-add, and conversions of binary16.

use super::prelude::*;
use crate::dtype::bf16;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
struct Avx2;

impl Simd for Avx2 {
    type Vector = __m256;
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn of_pairs<const SECOND: bool>(pairs: *const u8) -> __m256 {
        // SAFETY: the trait's.
        unsafe {
            let pairs = _mm256_loadu_si256(pairs.cast());
            _mm256_castsi256_ps(match SECOND {
                false => _mm256_slli_epi32::<16>(pairs),
                true => _mm256_and_si256(pairs, _mm256_set1_epi32(!0xffff)),
            })
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: the trait's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

impl Lanes<f32> for Avx2 {
    #[inline(always)]
    unsafe fn load(elements: *const f32) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_loadu_ps(elements) }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f32, values: __m256) {
        // SAFETY: the trait's.
        unsafe { _mm256_storeu_ps(elements, values) }
    }
}

impl Lanes<f16> for Avx2 {
    #[inline(always)]
    unsafe fn load(elements: *const f16) -> __m256 {
        // SAFETY: the trait's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(elements.cast())) }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f16, values: __m256) {
        // SAFETY: the trait's.
        unsafe {
            let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
            _mm_storeu_si128(elements.cast(), rounded);
        }
    }
}

impl Lanes<bf16> for Avx2 {
    #[inline(always)]
    unsafe fn load(elements: *const bf16) -> __m256 {
        // SAFETY: the trait's.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(elements.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut bf16, values: __m256) {
        // SAFETY: the trait's.
        unsafe {
            let halves = rounded_to_upper_half(values);
            let packed = _mm256_packus_epi32(halves, halves);
            let packed = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm_storeu_si128(elements.cast(), _mm256_castsi256_si128(packed));
        }
    }
}

/// bfloat16, ties to even, in the lower halves; what is not a number stays so, made quiet.
#[inline(always)]
unsafe fn rounded_to_upper_half(values: __m256) -> __m256i {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let bits = _mm256_castps_si256(values);
        let upper = _mm256_srli_epi32::<16>(bits);
        let is_odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(is_odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
        _mm256_blendv_epi8(rounded, quiet, is_nan)
    }
}

/// Two steps at once, as 16-bit integers: products of 8-bit ones overflow no sum of theirs.
impl Dots for Avx2 {
    type Floats = Self;
    type Vector = __m256i;
    const STEPS: usize = 2;
    const VECTOR_BYTES: usize = 16;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.cast())) }
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(bytes.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot(weights: __m256i, inputs: __m256i, sums: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let product = _mm256_madd_epi16(weights, inputs);
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sums), product))
        }
    }
}

impl Integers for Avx2 {
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn less(sums: __m256, excess: i32) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let excess = _mm256_set1_epi32(excess);
            _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(sums), excess))
        }
    }
}

compiled_for!(
    Avx2,
    [1 x 4, 2 x 2, 3 x 2, 4 x 1, 5 x 1, 6 x 1],
    target_feature(enable = "avx2,fma,f16c")
);
