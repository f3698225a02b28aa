//! 512-bit vectors with dot products of 8-bit integers: four steps at once, of unsigned weights and
//! signed rows. All that is not of integers is done as without them.

use super::avx512f::{self, Avx512};
use super::prelude::*;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
struct Avx512Vnni;

impl Dots for Avx512Vnni {
    type Floats = Avx512;
    type Vector = __m512i;
    const STEPS: usize = 4;
    const VECTOR_BYTES: usize = 64;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> __m512i {
        // SAFETY: the trait's, here and below.
        unsafe {
            let weights = _mm512_loadu_si512(bytes.cast());
            _mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN))
        }
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { Avx512::inputs(bytes) }
    }

    #[inline(always)]
    unsafe fn dot(weights: __m512i, inputs: __m512i, sums: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sums), weights, inputs))
        }
    }
}

impl Integers for Avx512Vnni {
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn less(sums: __m512, excess: i32) -> __m512 {
        // SAFETY: as above.
        unsafe { Avx512::less(sums, excess) }
    }
}

integers_for!(
    Avx512Vnni,
    [
        1 x 2, 2 x 2, 3 x 2, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 9 x 1, 10 x 1, 11 x 1, 12 x 1
    ],
    target_feature(enable = "avx512vnni,avx512f,avx512bw,avx2,fma,f16c")
);

pub(super) const KERNELS: Kernels = Kernels { int8: INT8, ..avx512f::KERNELS };
