//! The inner loops, once for each instruction set: a file each, with the same names inside.
//!
//! An output has one sum, which grows in the order of k, so its bits do not depend on how many rows
//! come along, on which thread runs it, or on where a shard begins. The instruction sets with fused
//! multiply-add agree to the bit. Two are classes of their own: the portable one rounds twice a
//! step, and the 16-bit dot products take two steps at once.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
#[cfg(target_arch = "x86_64")]
mod avx512f;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod set;
mod simd;
mod tile;

pub use set::{Arithmetic, InstructionSet};
pub(super) use simd::Lanes;
pub(super) use tile::Call;

use super::store::Panel;
use crate::dtype::Dtype;

/// Most outputs of one panel.
pub(super) const MOST_LANES: usize = 32;

/// Adds some steps to the sums of a fixed number of rows and panels.
///
/// # Safety
/// The call's pointers hold what it says; the CPU has the kernel's instruction set.
pub(super) type Kernel = unsafe fn(call: &Call);

/// Brings `count` elements to the form that a kernel multiplies.
///
/// # Safety
/// Both hold so many elements, of the function's dtypes; the CPU has its instruction set.
pub(super) type Widen = unsafe fn(row: *const u8, inputs: *mut u8, count: usize);

/// Widens so many steps of a panel of 16-bit weights.
///
/// # Safety
/// `panel` has that many steps, and `to` two vectors for each; the CPU has the instruction set.
pub(super) type Unpack = unsafe fn(panel: *const u8, depth: usize, to: *mut f32);

/// Finishes one row's sums of one panel and writes them to the row that begins at `row`.
///
/// # Safety
/// `sums` holds a panel's sums, `row` is a row of the view with the panel's columns, writable; the
/// CPU has the function's instruction set.
pub(super) type Write = unsafe fn(panel: &Panel<'_>, factor: f32, sums: *const f32, row: *mut u8);

/// The kernels for a number of rows.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Panels that `wide` takes at once, so that few rows have sums enough to add in parallel.
    pub(super) wide_panels: usize,
    wide: Kernel,
    /// Takes one panel.
    single: Kernel,
}

/// The kernels by the number of rows, from 1 on.
#[derive(Clone, Copy)]
pub(super) struct Shapes(&'static [Shape]);

/// All that is compiled for one instruction set.
pub(super) struct Kernels {
    /// Outputs of one panel: two vectors.
    pub(super) lanes: usize,
    f32: Shapes,
    f16: Shapes,
    bf16: Shapes,
    /// 16-bit rows times 16-bit weights, two steps at once.
    dot: Option<Shapes>,
    widen: fn(Dtype) -> Widen,
    write: fn(Dtype, bool) -> Write,
    unpack_f16: Unpack,
    unpack_bf16: Unpack,
}

/// The kernels for rows of one dtype and weights of one.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) shapes: Shapes,
    /// Bytes of an input in the form that the kernels multiply.
    pub(super) input_bytes: usize,
    pub(super) widen: Widen,
    /// Whether steps are multiplied in pairs.
    is_paired: bool,
    /// What widens 16-bit weights, and the kernels that take them then.
    pub(super) unpacked: Option<Unpacked>,
}

/// The way of 16-bit weights that many rows share: widened once.
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) unpack: Unpack,
    pub(super) shapes: Shapes,
}

impl Kernels {
    /// What multiplies rows and weights of these dtypes.
    pub(super) fn family(&self, rows: Dtype, weights: Dtype) -> Family {
        let both_bf16 = rows == Dtype::Bf16 && weights == Dtype::Bf16;
        if let Some(shapes) = self.dot.filter(|_| both_bf16) {
            let (widen, unpacked): (Widen, _) = (copy_halves, None);
            return Family { shapes, input_bytes: 2, widen, is_paired: true, unpacked };
        }
        let unpacked = |unpack| Some(Unpacked { unpack, shapes: self.f32 });
        let (shapes, unpacked) = match weights {
            Dtype::F32 => (self.f32, None),
            Dtype::F16 => (self.f16, unpacked(self.unpack_f16)),
            Dtype::Bf16 => (self.bf16, unpacked(self.unpack_bf16)),
        };
        Family { shapes, input_bytes: 4, widen: (self.widen)(rows), is_paired: false, unpacked }
    }

    /// What writes elements of a dtype, adding what is there if asked to.
    pub(super) fn write(&self, dtype: Dtype, adds: bool) -> Write {
        (self.write)(dtype, adds)
    }
}

impl Shapes {
    /// Most rows of one call.
    pub(super) fn most_rows(self) -> usize {
        self.0.len()
    }

    /// The kernels for so many rows, at least 1 and at most as many as there are.
    pub(super) fn of(self, rows: usize) -> Shape {
        self.0[rows - 1]
    }
}

impl Shape {
    /// The kernel that takes so many panels: one, or as many as the wide one does.
    pub(super) fn kernel(self, panels: usize) -> Kernel {
        if panels == self.wide_panels { self.wide } else { self.single }
    }
}

impl Family {
    /// Steps that a kernel multiplies where there are so many: an odd one is filled up to a pair.
    pub(super) fn steps(self, depth: usize) -> usize {
        if self.is_paired { depth.next_multiple_of(2) } else { depth }
    }
}

/// # Safety
/// As for [`Widen`], with 2 bytes an element.
unsafe fn copy_halves(row: *const u8, inputs: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { inputs.copy_from_nonoverlapping(row, 2 * count) };
}

/// Compiles the loops with the instructions of one set, for each number of rows whose sums that set
/// keeps in registers, with the panels that are taken at once.
macro_rules! compiled_for {
    ($simd:ty, [$($rows:literal x $panels:literal),+] $(, $feature:meta)?) => {
        /// # Safety
        /// As for [`Kernel`].
        $(#[$feature])?
        unsafe fn kernel<F: Format<$simd>, const ROWS: usize, const PANELS: usize>(call: &Call) {
            // SAFETY: passed on.
            unsafe { tile::tile::<$simd, F, ROWS, PANELS>(call) }
        }

        /// # Safety
        /// As for [`Widen`].
        $(#[$feature])?
        unsafe fn widen<E: Element>(row: *const u8, inputs: *mut u8, count: usize)
        where
            $simd: Lanes<E>,
        {
            // SAFETY: passed on.
            unsafe { simd::widen::<$simd, E>(row.cast(), inputs.cast(), count) }
        }

        /// # Safety
        /// As for [`Unpack`].
        $(#[$feature])?
        unsafe fn unpack<F: Format<$simd>>(panel: *const u8, depth: usize, to: *mut f32) {
            // SAFETY: passed on.
            unsafe { tile::unpack::<$simd, F>(panel, depth, to) }
        }

        /// # Safety
        /// As for [`Write`].
        $(#[$feature])?
        unsafe fn write<E: Element, const ADDS: bool>(
            panel: &Panel<'_>,
            factor: f32,
            sums: *const f32,
            row: *mut u8,
        ) where
            $simd: Lanes<E>,
        {
            // SAFETY: passed on.
            unsafe { panel.write::<$simd, E, ADDS>(factor, sums, row.cast()) }
        }

        const fn shapes<F: Format<$simd>>() -> Shapes {
            Shapes(const { &[$(Shape {
                wide_panels: $panels,
                wide: kernel::<F, $rows, $panels>,
                single: kernel::<F, $rows, 1>,
            }),+] })
        }

        pub(super) const KERNELS: Kernels = Kernels {
            lanes: 2 * <$simd>::WIDTH,
            f32: shapes::<Straight<f32>>(),
            f16: shapes::<Straight<f16>>(),
            bf16: shapes::<Paired>(),
            dot: None,
            unpack_f16: unpack::<Straight<f16>>,
            unpack_bf16: unpack::<Paired>,
            widen: |dtype| with_element!(dtype, E => widen::<E>),
            write: |dtype, adds| match adds {
                false => with_element!(dtype, E => write::<E, false>),
                true => with_element!(dtype, E => write::<E, true>),
            },
        };
    };
}
use compiled_for;

/// What the files of the instruction sets build on.
mod prelude {
    pub(super) use super::simd::{self, Lanes, Simd};
    pub(super) use super::tile::{self, Call, Format, Paired, Straight};
    pub(super) use super::{Kernels, Shape, Shapes, compiled_for};
    pub(super) use crate::backend::host::store::Panel;
    pub(super) use crate::dtype::{Element, bf16, f16, with_element};
}
