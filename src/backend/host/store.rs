//! From sums to the engine's memory: bias, norm, scale, one rounding, and the view's strides.

use super::gemm::Product;
use super::kernel::{Kernels, Lanes, MOST_LANES, Write};
use super::norm::Norm;
use crate::dtype::Element;
use std::ops::Range;

/// Where and how the outputs of one product are written.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    base: *mut u8,
    head_stride: usize,
    lane_stride: usize,
    head_width: usize,
    /// The matrix's output that is the view's first.
    first_output: usize,
    element_bytes: usize,
    bias: Option<&'a [f32]>,
    norm: Option<Norm<'a>>,
    scale: f32,
    write: Write,
}

/// The outputs of one panel: which they are, and where each lies in a row.
pub(super) struct Panel<'a> {
    store: &'a Store<'a>,
    outputs: Range<usize>,
    /// Of the first, its head and its place in that.
    head: usize,
    width: usize,
    /// Whether each lies behind the one before.
    is_contiguous: bool,
}

impl<'a> Store<'a> {
    /// Resolves a product's view for its layer.
    pub(super) fn new(product: &Product<'a>, kernels: &Kernels) -> Self {
        let view = product.output.view;
        let strides = view.strides();
        let base = view.address(product.at);
        Store {
            base: std::ptr::with_exposed_provenance_mut(base),
            head_stride: strides.head as usize,
            lane_stride: strides.width as usize,
            head_width: view.shape().width as usize,
            first_output: product.output.columns.begin,
            element_bytes: view.dtype().bytes(),
            bias: product.bias,
            norm: product.norm,
            scale: product.scale,
            write: kernels.write(view.dtype(), view.accumulates()),
        }
    }

    /// Whether heads are taken whole.
    pub(super) fn has_norm(&self) -> bool {
        self.norm.is_some()
    }

    /// The panel of some outputs.
    pub(super) fn panel(&self, outputs: Range<usize>) -> Panel<'_> {
        let column = outputs.start - self.first_output;
        let (head, width) = (column / self.head_width, column % self.head_width);
        let is_in_head = width + outputs.len() <= self.head_width;
        let heads_touch = self.head_stride == self.head_width;
        let is_contiguous = self.lane_stride == 1 && (is_in_head || heads_touch);
        Panel { store: self, outputs, head, width, is_contiguous }
    }

    /// What a norm multiplies a head by, whose panels' outputs and sums these are.
    pub(super) fn factor<'b>(&self, head: impl Iterator<Item = (Range<usize>, &'b [f32])>) -> f32 {
        let biased = |(outputs, sums): (Range<usize>, &'b [f32])| {
            outputs.zip(sums).map(|(output, sum)| self.biased(*sum, output))
        };
        self.norm.map_or(1.0, |norm| norm.factor(head.flat_map(biased)))
    }

    fn biased(&self, sum: f32, output: usize) -> f32 {
        self.bias.map_or(sum, |bias| sum + bias[output])
    }
}

impl Panel<'_> {
    /// Writes the panel of the row at so many bytes behind the view's base.
    ///
    /// # Safety
    /// The view has that row and these outputs, and they can be written; `sums` holds a panel's.
    pub(super) unsafe fn write_to(&self, place: usize, factor: f32, sums: *const f32) {
        let store = self.store;
        let first = self.head * store.head_stride + self.width * store.lane_stride;
        // SAFETY: the view was checked to span this row and these columns.
        let first = unsafe { store.base.add(place + first * store.element_bytes) };
        // SAFETY: as above.
        unsafe { (store.write)(self, factor, sums, first) }
    }

    /// Finishes a row's sums and writes them from `first` on.
    ///
    /// # Safety
    /// As for [`Write`].
    #[inline(always)]
    pub(super) unsafe fn write<S, E, const ADDS: bool>(
        &self,
        factor: f32,
        sums: *const f32,
        first: *mut E,
    ) where
        S: Lanes<E> + Lanes<f32>,
        E: Element,
    {
        let is_full = self.outputs.len() == 2 * S::WIDTH;
        match self.is_contiguous && is_full && !self.store.has_norm() {
            // SAFETY: passed on; the outputs are two vectors, one behind the other.
            true => unsafe { self.write_vectors::<S, E, ADDS>(sums, first) },
            // SAFETY: passed on.
            false => unsafe { self.write_each::<E, ADDS>(factor, sums, first) },
        }
    }

    #[inline(always)]
    unsafe fn write_vectors<S, E, const ADDS: bool>(&self, sums: *const f32, first: *mut E)
    where
        S: Lanes<E> + Lanes<f32>,
        E: Element,
    {
        for at in [0, S::WIDTH] {
            // SAFETY: passed on; a bias has all outputs.
            unsafe {
                let mut values = <S as Lanes<f32>>::load(sums.add(at));
                if let Some(bias) = self.store.bias {
                    let bias = bias.as_ptr().add(self.outputs.start + at);
                    values = S::add(values, <S as Lanes<f32>>::load(bias));
                }
                values = S::multiply(S::splat(self.store.scale), values);
                if ADDS {
                    values = S::add(values, <S as Lanes<E>>::load(first.add(at)));
                }
                <S as Lanes<E>>::store(first.add(at), values);
            }
        }
    }

    /// One by one: edges, strides and norms.
    #[inline(always)]
    unsafe fn write_each<E: Element, const ADDS: bool>(
        &self,
        factor: f32,
        sums: *const f32,
        first: *mut E,
    ) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: as many sums as outputs, at least.
        let sums = unsafe { std::slice::from_raw_parts(sums, self.outputs.len()) };
        self.finish(factor, sums, &mut values);
        let store = self.store;
        let (mut width, mut place) = (self.width, first);
        for value in &values[..sums.len()] {
            // SAFETY: the view has this output at this place.
            unsafe { put::<E, ADDS>(place, *value) };
            (width, place) = (width + 1, place.wrapping_add(store.lane_stride));
            if width == store.head_width {
                let head = place.wrapping_sub(width * store.lane_stride);
                (width, place) = (0, head.wrapping_add(store.head_stride));
            }
        }
    }

    #[inline(always)]
    fn finish(&self, factor: f32, sums: &[f32], values: &mut [f32; MOST_LANES]) {
        let store = self.store;
        for ((value, sum), output) in values.iter_mut().zip(sums).zip(self.outputs.clone()) {
            let biased = store.biased(*sum, output);
            let normed = store.norm.map_or(biased, |norm| norm.apply(biased, factor, output));
            *value = store.scale * normed;
        }
    }
}

/// Writes one value, on top of what is there if asked to.
#[inline(always)]
unsafe fn put<E: Element, const ADDS: bool>(place: *mut E, value: f32) {
    // SAFETY: the caller's promise; what is added to was written by the engine.
    let sum = if ADDS { value + unsafe { place.read() }.widen() } else { value };
    // SAFETY: the caller's promise.
    unsafe { place.write(<E as Element>::round(sum)) };
}

#[cfg(test)]
mod tests {
    use super::super::InstructionSet;
    use super::super::kernel::Inputs;
    use super::*;
    use crate::dtype::{Dtype, WeightDtype, bf16, f16};

    /// Every upper half of an f32, with lower halves about the ties.
    fn numbers() -> Vec<f32> {
        let lower = [0x0000, 0x0001, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001];
        let all = (0..=0xffff_u32).flat_map(|upper| lower.map(|lower| upper << 16 | lower));
        all.map(f32::from_bits).collect()
    }

    fn written<E: Element>(kernels: &Kernels, numbers: &[f32], is_contiguous: bool) -> Vec<E> {
        let mut elements = vec![<E as Element>::round(7.0); numbers.len()];
        let store = Store {
            base: elements.as_mut_ptr().cast(),
            head_stride: 0,
            lane_stride: 1,
            head_width: kernels.lanes,
            first_output: 0,
            element_bytes: size_of::<E>(),
            bias: None,
            norm: None,
            scale: 1.0,
            write: kernels.write(E::DTYPE, false),
        };
        let outputs = 0..kernels.lanes;
        let panel = Panel { store: &store, outputs, head: 0, width: 0, is_contiguous };
        for (at, sums) in numbers.chunks_exact(kernels.lanes).enumerate() {
            let place = at * kernels.lanes * size_of::<E>();
            // SAFETY: as many elements as numbers.
            unsafe { panel.write_to(place, 1.0, sums.as_ptr()) };
        }
        elements
    }

    /// The bits of elements.
    fn bits<E: Element>(elements: &[E]) -> Vec<u8> {
        let mut bytes = Vec::new();
        elements.iter().for_each(|element| element.append_to(&mut bytes));
        bytes
    }

    fn rounds_as_one_by_one<E: Element>() {
        let numbers = numbers();
        let alone: Vec<E> = numbers.iter().map(|number| <E as Element>::round(*number)).collect();
        for kernels in InstructionSet::all().into_iter().filter_map(InstructionSet::kernels) {
            for is_contiguous in [true, false] {
                let written = written::<E>(kernels, &numbers, is_contiguous);
                assert!(bits(&written) == bits(&alone), "{:?} {is_contiguous}", E::DTYPE);
            }
        }
    }

    #[test]
    fn vectors_are_rounded_as_single_numbers_are() {
        rounds_as_one_by_one::<bf16>();
        rounds_as_one_by_one::<f16>();
    }

    #[test]
    fn vectors_are_widened_as_single_elements_are() {
        let patterns: Vec<u16> = (0..=0xffff).collect();
        for kernels in InstructionSet::all().into_iter().filter_map(InstructionSet::kernels) {
            for dtype in [Dtype::F16, Dtype::Bf16] {
                let mut widened = vec![0.0_f32; patterns.len()];
                let widen = kernels.family(dtype, WeightDtype::F32).inputs;
                let Inputs::Widened(widen) = widen else { unreachable!() };
                let (from, to) = (patterns.as_ptr().cast(), widened.as_mut_ptr().cast());
                // SAFETY: as many of both.
                unsafe { widen(from, to, patterns.len()) };
                let alone = patterns.iter().map(|pattern| match dtype {
                    Dtype::F16 => f16::from_bits(*pattern).to_f32(),
                    _ => bf16::from_bits(*pattern).to_f32(),
                });
                let same = |(one, other): (&f32, f32)| {
                    one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan())
                };
                assert!(widened.iter().zip(alone).all(same), "{dtype:?}");
            }
        }
    }
}
