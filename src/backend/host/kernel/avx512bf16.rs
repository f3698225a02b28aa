//! 512-bit vectors with dot products of bfloat16: each adds two steps to a sum, exactly multiplied,
//! and takes denormals for zero, whatever the CPU's mode (Intel SDM, VDPBF16PS). All that is not
//! bfloat16 times bfloat16 is done as without them.

use super::prelude::*;
use super::tile::{load, prefetch, store};
use super::{avx512f, avx512vnni};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Bytes of two steps of a panel.
const PAIR_BYTES: usize = 2 * avx512f::Avx512::WIDTH * 4;

/// # Safety
/// As for [`super::Kernel`]; an odd last step is followed by a zero in rows and panels.
#[target_feature(enable = "avx512bf16,avx512f,avx2,fma,f16c")]
unsafe fn kernel<const ROWS: usize, const PANELS: usize>(call: &Call) {
    // SAFETY: passed on.
    let mut sums = unsafe { load::<avx512f::Avx512, ROWS, PANELS>(call) };
    let Call { mut inputs, mut weights, mut ahead, .. } = *call;
    for _ in 0..call.depth.div_ceil(2) {
        // SAFETY: the rows and panels have this pair of steps.
        unsafe { add_pair(call, inputs, weights, &mut sums) };
        // SAFETY: a prefetch may be of any address.
        unsafe { prefetch::<avx512f::Avx512>(ahead, call.ahead_step) };
        inputs = inputs.wrapping_add(4);
        weights = weights.wrapping_add(PAIR_BYTES);
        ahead = ahead.wrapping_add(call.ahead_step);
    }
    // SAFETY: passed on.
    unsafe { store::<avx512f::Avx512, ROWS, PANELS>(call, &sums) };
}

/// Two steps of every sum.
#[inline]
#[target_feature(enable = "avx512bf16,avx512f,avx2,fma,f16c")]
unsafe fn add_pair<const ROWS: usize, const PANELS: usize>(
    call: &Call,
    inputs: *const u8,
    weights: *const u8,
    sums: &mut [[[__m512; 2]; PANELS]; ROWS],
) {
    // SAFETY: the panels have this pair.
    let weights = unsafe {
        let zero = transmute::<__m512i, __m512bh>(_mm512_setzero_si512());
        let mut loaded = [[zero; 2]; PANELS];
        for (panel, vectors) in loaded.iter_mut().enumerate() {
            let pairs = weights.add(panel * call.weight_stride).cast::<__m512bh>();
            *vectors = [pairs.read_unaligned(), pairs.add(1).read_unaligned()];
        }
        loaded
    };
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the row has this pair.
        let pair = unsafe { inputs.add(row * call.input_stride).cast::<i32>().read_unaligned() };
        // SAFETY: as many bits, all of which mean something.
        let input = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair)) };
        for (sums, weights) in sums.iter_mut().zip(&weights) {
            sums[0] = _mm512_dpbf16_ps(sums[0], weights[0], input);
            sums[1] = _mm512_dpbf16_ps(sums[1], weights[1], input);
        }
    }
}

/// The kernels for so many rows and panels.
const fn shape<const ROWS: usize, const PANELS: usize>() -> Shape {
    Shape { wide_panels: PANELS, wide: kernel::<ROWS, PANELS>, single: kernel::<ROWS, 1> }
}

pub(super) const KERNELS: Kernels = Kernels {
    dot: Some(Shapes(&[
        shape::<1, 2>(),
        shape::<2, 2>(),
        shape::<3, 2>(),
        shape::<4, 1>(),
        shape::<5, 1>(),
        shape::<6, 1>(),
        shape::<7, 1>(),
        shape::<8, 1>(),
        shape::<9, 1>(),
        shape::<10, 1>(),
        shape::<11, 1>(),
        shape::<12, 1>(),
    ])),
    ..avx512vnni::KERNELS
};
