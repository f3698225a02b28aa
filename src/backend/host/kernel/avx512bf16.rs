//! 512-bit vectors with dot products of bfloat16: each adds two steps to a sum, exactly multiplied,
//! and takes denormals for zero, whatever the CPU's mode (Intel SDM, VDPBF16PS). All that is not
//! bfloat16 times bfloat16 is done as without them.

use super::avx512f::Avx512;
use super::avx512vnni;
use super::prelude::*;
use std::arch::x86_64::*;
use std::mem::transmute;

struct Avx512Bf16;

impl Dots for Avx512Bf16 {
    type Floats = Avx512;
    type Vector = __m512bh;
    const STEPS: usize = 2;
    const VECTOR_BYTES: usize = 64;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> __m512bh {
        // SAFETY: the trait's, here and below.
        unsafe { bytes.cast::<__m512bh>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> __m512bh {
        // SAFETY: as above; as many bits, all of which mean something.
        unsafe { transmute::<__m512i, __m512bh>(Avx512::inputs(bytes)) }
    }

    #[inline(always)]
    unsafe fn dot(weights: __m512bh, inputs: __m512bh, sums: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_dpbf16_ps(sums, weights, inputs) }
    }
}

dots_for!(
    Avx512Bf16,
    [
        1 x 2, 2 x 2, 3 x 2, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 9 x 1, 10 x 1, 11 x 1, 12 x 1
    ],
    target_feature(enable = "avx512bf16,avx512f,avx2,fma,f16c")
);

pub(super) const KERNELS: Kernels = Kernels { dot: Some(DOTS), ..avx512vnni::KERNELS };
