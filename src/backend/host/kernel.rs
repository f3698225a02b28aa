//! The inner loop: a few rows times one panel of packed weights, sums kept in registers.
//!
//! ```text
//! for k in 0..depth                      one step of the inner width
//!     for row in 0..ROWS                 rows that share the loaded weights
//!         for lane in 0..LANES           neighbouring outputs, one vector or two
//!             sums[row][lane] += rows[row][k] * panel[k][lane]
//! ```
//!
//! That is also the code; the compiler turns the lanes into vectors. Each output has one sum, which
//! grows in the order of k, so its bits do not depend on how many rows come along, on which thread
//! runs it, or on where a shard begins. The instruction sets with fused multiply-add agree to the
//! bit; the portable one rounds twice a step and is a class of its own.

use crate::dtype::{Dtype, Element, with_element};

/// Outputs of one panel: two 512-bit vectors of sums for each row.
pub(super) const LANES: usize = 32;
/// Steps of the inner width that are widened at a time; rows x this stay in the first cache.
pub(super) const DEPTH: usize = 256;
/// Most rows of one kernel call.
pub(super) const MOST_ROWS: usize = 4;

/// The sums of one row in one panel.
pub(super) type Sums = [f32; LANES];
/// One row's inputs, widened.
pub(super) type Inputs = [f32; DEPTH];

/// Adds `depth` steps to the sums of a fixed number of rows.
///
/// # Safety
/// `rows` and `sums` hold as many elements as the kernel has rows; `panel` holds `depth` times
/// LANES weights of the kernel's dtype; `depth` is at most DEPTH; the CPU has the kernel's
/// instruction set.
type Kernel = unsafe fn(rows: *const Inputs, depth: usize, panel: *const u8, sums: *mut Sums);

/// The kernels of one instruction set and one weight dtype with the rows that each takes, most
/// rows first; the last takes one.
#[derive(Clone, Copy)]
pub(super) struct Kernels(&'static [(usize, Kernel)]);

impl Kernels {
    /// The kernel that takes the most of so many rows, and how many it takes.
    pub(super) fn largest(self, rows: usize) -> (usize, Kernel) {
        let fits = self.0.iter().find(|(taken, _)| *taken <= rows);
        *fits.unwrap_or(&self.0[self.0.len() - 1])
    }
}

/// The vector instructions that a kernel was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// What every CPU of the target has; multiplies and adds round separately.
    Portable,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors with fused multiply-add.
    Avx512,
}

impl InstructionSet {
    /// The best that this CPU has.
    pub(super) fn best() -> Self {
        let all = [InstructionSet::Avx512, InstructionSet::Avx2];
        all.into_iter().find(|set| set.is_available()).unwrap_or(InstructionSet::Portable)
    }

    /// Whether this CPU has it.
    pub(super) fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx2 | InstructionSet::Avx512 => false,
        }
    }

    /// The kernels of this instruction set for weights of a dtype.
    pub(super) fn kernels(self, weights: Dtype) -> Kernels {
        with_element!(weights, W => match self {
            InstructionSet::Portable => portable::kernels::<W>(),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::kernels::<W>(),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512::kernels::<W>(),
            #[cfg(not(target_arch = "x86_64"))]
            InstructionSet::Avx2 | InstructionSet::Avx512 => portable::kernels::<W>(),
        })
    }
}

/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn accumulate<W: Element, const ROWS: usize, const FUSED: bool>(
    rows: *const Inputs,
    depth: usize,
    panel: *const u8,
    sums: *mut Sums,
) {
    let panel = panel.cast::<[W; LANES]>();
    // SAFETY: the caller gives ROWS rows and ROWS sums, and depth steps of the panel.
    let (rows, sums, panel) = unsafe {
        let rows = &*rows.cast::<[Inputs; ROWS]>();
        (rows, &mut *sums.cast::<[Sums; ROWS]>(), std::slice::from_raw_parts(panel, depth))
    };
    let mut local = *sums;
    for (k, step) in panel.iter().enumerate() {
        let weights = step.map(W::widen);
        // Written out, since a loop over rows is not always unrolled, and the sums then live in
        // memory: four times slower. What is beyond ROWS is compiled to nothing.
        let mut row = |row: usize| {
            if row < ROWS {
                // SAFETY: k < depth <= DEPTH; a checked index would break up the vector loop.
                let input = unsafe { *rows[row].get_unchecked(k) };
                multiply_add::<FUSED>(&mut local[row], input, &weights);
            }
        };
        row(0);
        row(1);
        row(2);
        row(3);
    }
    *sums = local;
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(sums: &mut Sums, input: f32, weights: &[f32; LANES]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum = match FUSED {
            true => input.mul_add(*weight, *sum),
            false => input * *weight + *sum,
        };
    }
}

/// Compiles the loop with the instructions of one set, for the numbers of rows whose sums that set
/// can keep in registers.
macro_rules! instruction_set {
    ($name:ident, $fused:literal, [$($rows:literal),+] $(, $feature:meta)?) => {
        mod $name {
            use super::*;

            /// # Safety
            /// As for [`Kernel`].
            $(#[$feature])?
            unsafe fn kernel<W: Element, const ROWS: usize>(
                rows: *const Inputs,
                depth: usize,
                panel: *const u8,
                sums: *mut Sums,
            ) {
                // SAFETY: passed on unchanged.
                unsafe { accumulate::<W, ROWS, $fused>(rows, depth, panel, sums) }
            }

            pub(super) fn kernels<W: Element>() -> Kernels {
                Kernels(const { &[$(($rows, kernel::<W, $rows> as Kernel)),+] })
            }
        }
    };
}

instruction_set!(portable, false, [1]);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, true, [2, 1], target_feature(enable = "avx2,fma"));
#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, true, [4, 2, 1], target_feature(enable = "avx512f"));
