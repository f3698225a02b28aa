//! 128-bit vectors of 64-bit ARM with fused multiply-add, two of them as one.

use super::prelude::*;
use crate::dtype::bf16;
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
struct Neon;

type Vector = [float32x4_t; 2];

impl Simd for Neon {
    type Vector = Vector;
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Vector {
        // SAFETY: the trait's, here and below.
        unsafe { [vdupq_n_f32(value); 2] }
    }

    #[inline(always)]
    unsafe fn add(a: Vector, b: Vector) -> Vector {
        // SAFETY: as above.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn multiply(a: Vector, b: Vector) -> Vector {
        // SAFETY: as above.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Vector, b: Vector, sum: Vector) -> Vector {
        // SAFETY: as above.
        unsafe { [vfmaq_f32(sum[0], a[0], b[0]), vfmaq_f32(sum[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn of_pairs<const SECOND: bool>(pairs: *const u8) -> Vector {
        // SAFETY: as above.
        unsafe {
            let pairs = [vld1q_u32(pairs.cast()), vld1q_u32(pairs.add(16).cast())];
            pairs.map(|pairs| {
                vreinterpretq_f32_u32(match SECOND {
                    false => vshlq_n_u32::<16>(pairs),
                    true => vandq_u32(pairs, vdupq_n_u32(0xffff_0000)),
                })
            })
        }
    }

    /// There is no stable instruction to ask with; the CPU's own guesses have to do.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

impl Lanes<f32> for Neon {
    #[inline(always)]
    unsafe fn load(elements: *const f32) -> Vector {
        // SAFETY: as above.
        unsafe { [vld1q_f32(elements), vld1q_f32(elements.add(4))] }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f32, values: Vector) {
        // SAFETY: as above.
        unsafe {
            vst1q_f32(elements, values[0]);
            vst1q_f32(elements.add(4), values[1]);
        }
    }
}

impl Lanes<bf16> for Neon {
    #[inline(always)]
    unsafe fn load(elements: *const bf16) -> Vector {
        // SAFETY: as above.
        unsafe {
            let halves = vld1q_u16(elements.cast());
            let widened = [vmovl_u16(vget_low_u16(halves)), vmovl_high_u16(halves)];
            widened.map(|bits| vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits)))
        }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut bf16, values: Vector) {
        // SAFETY: as above.
        unsafe {
            let low = vmovn_u32(rounded_to_upper_half(values[0]));
            let halves = vmovn_high_u32(low, rounded_to_upper_half(values[1]));
            vst1q_u16(elements.cast(), halves);
        }
    }
}

/// One by one: the intrinsics of binary16 are not stable, and the compiler knows the instructions.
impl Lanes<f16> for Neon {
    #[inline(always)]
    unsafe fn load(elements: *const f16) -> Vector {
        // SAFETY: as above.
        unsafe {
            let widened = (*elements.cast::<[f16; 8]>()).map(f16::widen);
            <Self as Lanes<f32>>::load(widened.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(elements: *mut f16, values: Vector) {
        // SAFETY: as above.
        unsafe {
            let mut single = [0.0; 8];
            <Self as Lanes<f32>>::store(single.as_mut_ptr(), values);
            *elements.cast::<[f16; 8]>() = single.map(<f16 as Element>::round);
        }
    }
}

/// bfloat16, ties to even, in the lower halves; what is not a number stays so, made quiet.
#[inline(always)]
unsafe fn rounded_to_upper_half(values: float32x4_t) -> uint32x4_t {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let bits = vreinterpretq_u32_f32(values);
        let upper = vshrq_n_u32::<16>(bits);
        let half = vaddq_u32(vandq_u32(upper, vdupq_n_u32(1)), vdupq_n_u32(0x7fff));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, half));
        let quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
        vbslq_u32(vceqq_f32(values, values), rounded, quiet)
    }
}

/// Two steps at once, as 16-bit integers.
impl Dots for Neon {
    type Floats = Self;
    type Vector = [int16x8_t; 2];
    const STEPS: usize = 2;
    const VECTOR_BYTES: usize = 16;

    #[inline(always)]
    unsafe fn weights(bytes: *const u8) -> [int16x8_t; 2] {
        // SAFETY: as above.
        unsafe { [vmovl_s8(vld1_s8(bytes.cast())), vmovl_s8(vld1_s8(bytes.cast::<i8>().add(8)))] }
    }

    #[inline(always)]
    unsafe fn inputs(bytes: *const u8) -> [int16x8_t; 2] {
        // SAFETY: as above.
        unsafe {
            let pair = vdupq_n_s32(bytes.cast::<i32>().read_unaligned());
            [vreinterpretq_s16_s32(pair); 2]
        }
    }

    #[inline(always)]
    unsafe fn dot(weights: [int16x8_t; 2], inputs: [int16x8_t; 2], sums: Vector) -> Vector {
        // SAFETY: as above.
        unsafe {
            std::array::from_fn(|half| {
                let (weights, inputs) = (weights[half], inputs[half]);
                let low = vmull_s16(vget_low_s16(weights), vget_low_s16(inputs));
                let product = vpaddq_s32(low, vmull_high_s16(weights, inputs));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(sums[half]), product))
            })
        }
    }
}

impl Integers for Neon {
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn less(sums: Vector, excess: i32) -> Vector {
        // SAFETY: as above.
        unsafe {
            let excess = vdupq_n_s32(excess);
            sums.map(|sums| vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_f32(sums), excess)))
        }
    }
}

compiled_for!(Neon, [1 x 2, 2 x 2, 3 x 1, 4 x 1, 5 x 1, 6 x 1], target_feature(enable = "neon"));
