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
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod dots;
mod integer;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod set;
mod simd;
mod tile;

pub(super) use integer::Quantum;
pub use set::{Arithmetic, InstructionSet};
pub(super) use simd::Lanes;
pub(super) use tile::Call;

use super::store::Panel;
use crate::dtype::{Dtype, WeightDtype};

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

/// What so many elements of a row are to be multiplied by to become integers, and what those count.
///
/// # Safety
/// The row has so many elements of the function's dtype; the CPU has its instruction set.
pub(super) type Scale = unsafe fn(row: *const u8, count: usize) -> (f32, f32);

/// Brings `count` elements to integers, multiplied by `inverse`, and gives their sum.
///
/// # Safety
/// As for [`Widen`].
pub(super) type Quantise =
    unsafe fn(row: *const u8, inputs: *mut u8, count: usize, inverse: f32) -> i32;

/// Makes numbers of one row's sums of one panel, in place.
///
/// # Safety
/// `sums` holds a panel's sums, of integers, `scales` as many; the CPU has the instruction set.
pub(super) type Dequantise = unsafe fn(sums: *mut f32, scales: *const f32, quantum: Quantum);

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
    int8: Int8,
    widen: fn(Dtype) -> Widen,
    write: fn(Dtype, bool) -> Write,
    unpack_f16: Unpack,
    unpack_bf16: Unpack,
}

/// What multiplies 8-bit integers.
#[derive(Clone, Copy)]
struct Int8 {
    shapes: Shapes,
    /// Neighbouring steps that are multiplied at once.
    steps: usize,
    rows: fn(Dtype) -> Integral,
}

/// The kernels for rows of one dtype and weights of one.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) shapes: Shapes,
    /// Bytes of an input in the form that the kernels multiply.
    pub(super) input_bytes: usize,
    pub(super) inputs: Inputs,
    /// Steps that are multiplied at once.
    group: usize,
    /// What widens 16-bit weights, and the kernels that take them then.
    pub(super) unpacked: Option<Unpacked>,
}

/// How rows come into the form that the kernels multiply.
#[derive(Clone, Copy)]
pub(super) enum Inputs {
    /// Element by element.
    Widened(Widen),
    /// As integers with a scale for the whole row.
    Integers(Integral),
}

/// What makes integers of rows, and numbers of their sums.
#[derive(Clone, Copy)]
pub(super) struct Integral {
    pub(super) scale: Scale,
    pub(super) quantise: Quantise,
    pub(super) dequantise: Dequantise,
    /// What the integers' sum, times this, is of each of their sums of products.
    pub(super) offset: i32,
}

/// The way of 16-bit weights that many rows share: widened once.
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) unpack: Unpack,
    pub(super) shapes: Shapes,
}

impl Kernels {
    /// What multiplies rows and weights of these dtypes.
    pub(super) fn family(&self, rows: Dtype, weights: WeightDtype) -> Family {
        let both_bf16 = rows == Dtype::Bf16 && weights == WeightDtype::Bf16;
        if let Some(shapes) = self.dot.filter(|_| both_bf16) {
            let (inputs, unpacked) = (Inputs::Widened(copy_halves), None);
            return Family { shapes, input_bytes: 2, inputs, group: 2, unpacked };
        }
        let unpacked = |unpack| Some(Unpacked { unpack, shapes: self.f32 });
        let (shapes, unpacked) = match weights {
            WeightDtype::F32 => (self.f32, None),
            WeightDtype::F16 => (self.f16, unpacked(self.unpack_f16)),
            WeightDtype::Bf16 => (self.bf16, unpacked(self.unpack_bf16)),
            WeightDtype::Int8 => return self.integers(rows),
        };
        let inputs = Inputs::Widened((self.widen)(rows));
        Family { shapes, input_bytes: 4, inputs, group: 1, unpacked }
    }

    fn integers(&self, rows: Dtype) -> Family {
        let Int8 { shapes, steps, rows: integral } = self.int8;
        let inputs = Inputs::Integers(integral(rows));
        Family { shapes, input_bytes: 4 / steps, inputs, group: steps, unpacked: None }
    }

    /// Neighbouring steps of a panel's weights that lie together, output by output.
    pub(super) fn group(&self, weights: WeightDtype) -> usize {
        match weights {
            WeightDtype::F32 | WeightDtype::F16 => 1,
            WeightDtype::Bf16 => 2,
            WeightDtype::Int8 => self.int8.steps,
        }
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
    /// Steps that a kernel multiplies where there are so many: the last group is filled up.
    pub(super) fn steps(self, depth: usize) -> usize {
        depth.next_multiple_of(self.group)
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
        integers_for!($simd, [$($rows x $panels),+] $(, $feature)?);

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
            int8: INT8,
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

/// Compiles the loops of dot products.
macro_rules! dots_for {
    ($dots:ty, [$($rows:literal x $panels:literal),+] $(, $feature:meta)?) => {
        /// # Safety
        /// As for [`Kernel`].
        $(#[$feature])?
        unsafe fn dots_kernel<const ROWS: usize, const PANELS: usize>(call: &Call) {
            // SAFETY: passed on.
            unsafe { dots::tile::<$dots, ROWS, PANELS>(call) }
        }

        const DOTS: Shapes = Shapes(&[$(Shape {
            wide_panels: $panels,
            wide: dots_kernel::<$rows, $panels>,
            single: dots_kernel::<$rows, 1>,
        }),+]);
    };
}
use dots_for;

/// Compiles the loops of integers.
macro_rules! integers_for {
    ($integers:ty, [$($rows:literal x $panels:literal),+] $(, $feature:meta)?) => {
        dots_for!($integers, [$($rows x $panels),+] $(, $feature)?);

        /// # Safety
        /// As for [`Scale`].
        $(#[$feature])?
        unsafe fn scale<E: Element>(row: *const u8, count: usize) -> (f32, f32) {
            // SAFETY: passed on.
            unsafe { integer::scale::<E>(row, count) }
        }

        /// # Safety
        /// As for [`Quantise`].
        $(#[$feature])?
        unsafe fn quantise<E: Element>(
            row: *const u8,
            inputs: *mut u8,
            count: usize,
            inverse: f32,
        ) -> i32 {
            // SAFETY: passed on.
            unsafe { integer::quantise::<$integers, E>(row, inputs, count, inverse) }
        }

        /// # Safety
        /// As for [`Dequantise`].
        $(#[$feature])?
        unsafe fn dequantise(sums: *mut f32, scales: *const f32, quantum: Quantum) {
            // SAFETY: passed on.
            unsafe { integer::dequantise::<$integers>(sums, scales, quantum) }
        }

        pub(super) const INT8: Int8 = Int8 {
            shapes: DOTS,
            steps: <$integers as Dots>::STEPS,
            rows: |dtype| with_element!(dtype, E => Integral {
                scale: scale::<E>,
                quantise: quantise::<E>,
                dequantise,
                offset: <$integers as Integers>::OFFSET,
            }),
        };
    };
}
use integers_for;

/// What the files of the instruction sets build on.
mod prelude {
    pub(super) use super::dots::{self, Dots};
    pub(super) use super::integer::{self, Integers, Quantum};
    pub(super) use super::simd::{self, Lanes, Simd};
    pub(super) use super::tile::{self, Call, Format, Paired, Straight};
    pub(super) use super::{
        Int8, Integral, Kernels, Shape, Shapes, compiled_for, dots_for, integers_for,
    };
    pub(super) use crate::backend::host::store::Panel;
    pub(super) use crate::dtype::{Element, bf16, f16, with_element};
}
