//! Weights on the device. All matrices and biases of one version that are ours lie in one block:
//! stack by stack, layer by layer at one stride, the matrices of a stack one behind the other, so
//! that a matmul can take a stack's rows as one matrix and the layers as its batch.
//!
//! ```text
//! stack 0: layer 0 | layer 1 | ..    each [outputs of its matrices, inputs]
//! stack 1: layer 0 | layer 1 | ..
//! biases of stack 0 and 1, in each dtype that outputs may have: layer 0 | layer 1 | ..
//! norms' weights, matrix by matrix, in f32: layer 0 | layer 1 | ..
//! ```
//!
//! A commit always makes a new block and copies on the device what it keeps, so that the layers
//! stay at one stride whatever was changed.

use super::memory::{ALIGNMENT, Block, Heap};
use crate::backend::{Borrowed, Content, Form, MatrixForm, Stock, VectorSource, WeightSource};
use crate::dtype::{Dtype, Element, with_element};
use crate::error::{Error, Status};
use std::ffi::c_void;
use std::sync::Arc;

/// One version of the weights.
pub(super) struct DeviceWeights {
    /// Kept for its address's life.
    block: Option<Block>,
    layout: Arc<Layout>,
    /// Layer by layer, matrix by matrix.
    places: Vec<Option<Borrowed>>,
    is_ours: Vec<bool>,
    /// Whether no place is borrowed.
    is_all_ours: bool,
    biases: Vec<Option<Arc<[f32]>>>,
    norms: Vec<Option<Arc<[f32]>>>,
}

/// Where everything of a block lies, in bytes from its beginning.
#[derive(Clone, Debug, Default, PartialEq)]
struct Layout {
    stacks: Vec<Stack>,
    /// For each stack, in each dtype of outputs.
    biases: Vec<BiasStack>,
    /// For each matrix, where its norms' weights begin; None if it has none.
    norms: Vec<Option<usize>>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Stack {
    begin: usize,
    layer_bytes: usize,
    /// For each matrix of the form, where in a layer it begins; None if it is not in this stack.
    matrices: Vec<Option<usize>>,
}

#[derive(Clone, Debug, PartialEq)]
struct BiasStack {
    stack: usize,
    dtype: Dtype,
    begin: usize,
    /// Elements from one layer to the next.
    layer_stride: usize,
    /// For each matrix, elements before its own in a layer.
    offsets: Vec<usize>,
}

/// How weights lie that are all in their block, in which every layer lies like the others. Versions
/// share it for as long as it stays the same.
pub(super) struct Arrangement(Arc<Layout>);

/// The biases that one kind of output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bias {
    /// Of the form's first layer and of the stack's first matrix.
    pub(super) address: usize,
    /// Elements from one layer to the next.
    pub(super) layer_stride: i64,
}

/// What dtypes outputs may have: the weights', and f32.
pub(super) fn output_dtypes(weights: Dtype) -> impl Iterator<Item = Dtype> {
    let wide = (weights != Dtype::F32).then_some(Dtype::F32);
    [weights].into_iter().chain(wide)
}

/// Bytes of the block that these contents need; 0 if all of them are borrowed and have no bias.
pub(super) fn bytes_of(stock: &Stock<'_>, before: Option<&DeviceWeights>) -> Result<usize, Error> {
    Layout::of(stock.form, &owned(stock, before)).map(|layout| layout.bytes)
}

/// For each matrix of a form whether any layer has one that is in our block.
fn owned(stock: &Stock<'_>, before: Option<&DeviceWeights>) -> Vec<bool> {
    let count = stock.form.matrices.len();
    let mut owned = vec![false; count];
    for place in 0..stock.contents.len() {
        owned[place % count] |= is_ours(stock, before, place);
    }
    owned
}

/// Whether what is to stand there goes into our block.
fn is_ours(stock: &Stock<'_>, before: Option<&DeviceWeights>, place: usize) -> bool {
    match stock.contents[place].weight {
        WeightSource::Copied(_) => {
            stock.form.matrices[place % stock.form.matrices.len()].outputs > 0
        }
        WeightSource::Kept => before.is_some_and(|before| before.is_in_block(place)),
        WeightSource::Absent | WeightSource::Borrowed(_) => false,
    }
}

impl Layout {
    fn of(form: &Form, owned: &[bool]) -> Result<Layout, Error> {
        let counted = Layout::counted(form, owned);
        counted.ok_or_else(|| Error::new(Status::SizeOverflow, "weights exceed 2^63 bytes"))
    }

    fn counted(form: &Form, owned: &[bool]) -> Option<Layout> {
        let mut layout = Layout::default();
        let last = form.matrices.iter().map(|matrix| matrix.stack).max()?;
        for stack in 0..=last {
            layout.add_stack(form, owned, stack)?;
        }
        for stack in 0..=last {
            output_dtypes(form.element())
                .try_for_each(|dtype| layout.add_biases(form, stack, dtype))?;
        }
        form.matrices.iter().try_for_each(|matrix| layout.add_norm(form, matrix))?;
        Some(layout)
    }

    fn add_stack(&mut self, form: &Form, owned: &[bool], stack: usize) -> Option<()> {
        let mut layer_bytes: usize = 0;
        let mut matrices = Vec::new();
        for (matrix, &is_owned) in form.matrices.iter().zip(owned) {
            let is_here = is_owned && matrix.stack == stack;
            matrices.push(is_here.then_some(layer_bytes));
            if is_here {
                let elements = matrix.outputs.checked_mul(matrix.inputs)?;
                layer_bytes =
                    layer_bytes.checked_add(elements.checked_mul(form.element().bytes())?)?;
            }
        }
        let layer_bytes = layer_bytes.checked_next_multiple_of(ALIGNMENT)?;
        self.stacks.push(Stack { begin: self.bytes, layer_bytes, matrices });
        self.bytes = self.bytes.checked_add(layer_bytes.checked_mul(form.layer_count)?)?;
        Some(())
    }

    fn add_biases(&mut self, form: &Form, stack: usize, dtype: Dtype) -> Option<()> {
        let mut offsets = Vec::new();
        let (mut elements, mut is_needed) = (0usize, false);
        for matrix in &form.matrices {
            offsets.push(elements);
            if matrix.stack == stack {
                elements = elements.checked_add(matrix.outputs)?;
                is_needed |= matrix.has_bias && matrix.outputs > 0;
            }
        }
        if is_needed {
            let layer_stride = elements.checked_next_multiple_of(ALIGNMENT / dtype.bytes())?;
            self.biases.push(BiasStack { stack, dtype, begin: self.bytes, layer_stride, offsets });
            let bytes = layer_stride.checked_mul(dtype.bytes())?.checked_mul(form.layer_count)?;
            self.bytes = self.bytes.checked_add(bytes)?;
        }
        Some(())
    }

    fn add_norm(&mut self, form: &Form, matrix: &MatrixForm) -> Option<()> {
        let norm = matrix.norm.filter(|_| matrix.outputs > 0);
        self.norms.push(norm.map(|_| self.bytes));
        let width = norm.map_or(0, |norm| norm.width);
        let bytes = width.checked_mul(Dtype::F32.bytes())?.checked_mul(form.layer_count)?;
        self.bytes = self.bytes.checked_add(bytes.checked_next_multiple_of(ALIGNMENT)?)?;
        Some(())
    }

    /// Where a matrix of a layer begins, if it is in the block.
    fn offset_of(&self, layer: usize, matrix: usize) -> Option<usize> {
        let of =
            |stack: &Stack| Some(stack.begin + layer * stack.layer_bytes + stack.matrices[matrix]?);
        self.stacks.iter().find_map(of)
    }
}

impl DeviceWeights {
    /// Makes weights of a stock; our context must be current. All copies are done on return.
    pub(super) fn load(
        heap: &Arc<Heap>,
        stock: &Stock<'_>,
        before: Option<&DeviceWeights>,
    ) -> Result<DeviceWeights, Error> {
        let layout = shared_layout(Layout::of(stock.form, &owned(stock, before))?, before);
        let block = match layout.bytes {
            0 => None,
            bytes => Some(heap.allocate(bytes)?),
        };
        let base = block.as_ref().map_or(0, Block::address);
        let places = places(stock, before, &layout, base);
        let is_ours: Vec<bool> =
            (0..places.len()).map(|place| is_ours(stock, before, place)).collect();
        let is_all_ours =
            places.iter().zip(&is_ours).all(|(place, &is_ours)| place.is_none() || is_ours);
        let biases = vectors(stock, |content| content.bias, before.map(|before| &*before.biases));
        let norms = vectors(stock, |content| content.norm, before.map(|before| &*before.norms));
        let made = DeviceWeights { block, layout, places, is_ours, is_all_ours, biases, norms };
        match made.fill(heap, stock, before) {
            Ok(()) => Ok(made),
            Err(error) => {
                // Copies that began must be over before the block goes.
                let _ = heap.context.synchronize();
                made.discard();
                Err(error)
            }
        }
    }

    /// How the weights lie, if none is borrowed.
    pub(super) fn arrangement(&self) -> Option<Arrangement> {
        self.is_all_ours.then(|| Arrangement(self.layout.clone()))
    }

    /// Whether the weights are all ours, and lie like this.
    pub(super) fn has(&self, arrangement: &Arrangement) -> bool {
        self.is_all_ours && Arc::ptr_eq(&self.layout, &arrangement.0)
    }

    fn discard(self) {
        if let Some(block) = self.block {
            block.discard();
        }
    }

    /// Copies everything that is ours into the block.
    fn fill(
        &self,
        heap: &Heap,
        stock: &Stock<'_>,
        before: Option<&DeviceWeights>,
    ) -> Result<(), Error> {
        let count = stock.form.matrices.len();
        let base = self.block.as_ref().map_or(0, Block::address);
        for (place, content) in stock.contents.iter().enumerate() {
            let Some(offset) = self.layout.offset_of(place / count, place % count) else {
                continue;
            };
            match content.weight {
                WeightSource::Copied(bytes) => copy_in(heap, base + offset, bytes)?,
                WeightSource::Kept => {
                    let matrix = &stock.form.matrices[place % count];
                    let bytes = matrix.outputs * matrix.inputs * stock.form.element().bytes();
                    let kept = before.filter(|before| before.is_in_block(place));
                    if let Some(from) = kept.and_then(|before| before.places[place]) {
                        copy_over(heap, base + offset, from.address, bytes)?;
                    }
                }
                WeightSource::Absent | WeightSource::Borrowed(_) => {}
            }
        }
        let images = self.bias_images(stock.form).into_iter().chain(self.norm_images(stock.form));
        let images: Vec<_> = images.collect();
        for (offset, image) in &images {
            copy_in(heap, base + offset, image)?;
        }
        heap.context.synchronize()
    }

    /// The biases as the device reads them: scaled, rounded to the outputs' dtype, zero where there
    /// is none; and where each image goes.
    fn bias_images(&self, form: &Form) -> Vec<(usize, Vec<u8>)> {
        let image = |stack: &BiasStack| {
            let mut bytes = Vec::new();
            for layer in 0..form.layer_count {
                let mut elements = vec![0.0; stack.layer_stride];
                self.place_biases(form, stack, layer, &mut elements);
                // Named in full, since f32 has a `round` of its own, to whole numbers.
                with_element!(stack.dtype, E => elements
                    .iter()
                    .for_each(|&element| <E as Element>::round(element).append_to(&mut bytes)));
            }
            (stack.begin, bytes)
        };
        self.layout.biases.iter().map(image).collect()
    }

    /// The norms' weights of each matrix, and where each image goes.
    fn norm_images(&self, form: &Form) -> Vec<(usize, Vec<u8>)> {
        let count = form.matrices.len();
        let image = |(matrix, begin): (usize, &Option<usize>)| {
            let weights = (0..form.layer_count).filter_map(|layer| {
                let norm = form.matrices[matrix].norm?;
                let weight = self.norms[layer * count + matrix].as_deref();
                Some(weight.map_or_else(|| vec![0.0; norm.width], <[f32]>::to_vec))
            });
            Some(((*begin)?, weights.flatten().flat_map(f32::to_ne_bytes).collect()))
        };
        self.layout.norms.iter().enumerate().filter_map(image).collect()
    }

    fn place_biases(&self, form: &Form, stack: &BiasStack, layer: usize, elements: &mut [f32]) {
        for (number, matrix) in form.matrices.iter().enumerate() {
            let bias = self.biases[layer * form.matrices.len() + number].as_deref();
            let is_here = matrix.stack == stack.stack && matrix.has_bias;
            // A norm comes between the bias and the scale.
            let scale = if matrix.norm.is_some() { 1.0 } else { matrix.scale };
            for (at, element) in bias.filter(|_| is_here).unwrap_or_default().iter().enumerate() {
                elements[stack.offsets[number] + at] = scale * element;
            }
        }
    }

    /// Whether what stands there is in our block, and not borrowed.
    fn is_in_block(&self, place: usize) -> bool {
        self.is_ours[place]
    }

    /// Where a matrix lies; projections ask only for what was loaded.
    pub(super) fn place(&self, place: usize) -> Result<Borrowed, Error> {
        let found = self.places.get(place).copied().flatten();
        found.ok_or_else(|| Error::new(Status::Panic, "a job without its weights"))
    }

    /// The biases of a stack for outputs of a dtype.
    pub(super) fn bias(&self, stack: usize, dtype: Dtype) -> Option<Bias> {
        let found =
            self.layout.biases.iter().find(|bias| (bias.stack, bias.dtype) == (stack, dtype));
        let base = self.block.as_ref().map_or(0, Block::address);
        found
            .map(|bias| Bias { address: base + bias.begin, layer_stride: bias.layer_stride as i64 })
    }

    /// Where the weight of a layer's norm lies, if its matrix, of this form, has one.
    pub(super) fn norm(&self, layer: usize, matrix: usize, form: &MatrixForm) -> Option<usize> {
        let (norm, begin) = (form.norm?, self.layout.norms[matrix]?);
        let base = self.block.as_ref().map_or(0, Block::address);
        Some(base + begin + layer * norm.width * Dtype::F32.bytes())
    }
}

/// The layout that the version before has, if it is equal.
fn shared_layout(layout: Layout, before: Option<&DeviceWeights>) -> Arc<Layout> {
    let shared = before.map(|before| &before.layout).filter(|&before| **before == layout);
    shared.cloned().unwrap_or_else(|| Arc::new(layout))
}

fn places(
    stock: &Stock<'_>,
    before: Option<&DeviceWeights>,
    layout: &Layout,
    base: usize,
) -> Vec<Option<Borrowed>> {
    let count = stock.form.matrices.len();
    let place = |(place, content): (usize, &Content<'_>)| {
        let row_stride = stock.form.matrices[place % count].inputs as i64;
        let ours = || {
            let offset = layout.offset_of(place / count, place % count)?;
            Some(Borrowed { address: base + offset, row_stride })
        };
        match content.weight {
            WeightSource::Absent => None,
            WeightSource::Borrowed(borrowed) => Some(borrowed),
            WeightSource::Copied(_) => ours(),
            WeightSource::Kept => match before {
                Some(before) if before.is_in_block(place) => ours(),
                before => before.and_then(|before| before.places[place]),
            },
        }
    };
    stock.contents.iter().enumerate().map(place).collect()
}

/// One vector of each place: new, or the one that was there before.
fn vectors(
    stock: &Stock<'_>,
    which: impl for<'a> Fn(&Content<'a>) -> VectorSource<'a>,
    before: Option<&[Option<Arc<[f32]>>]>,
) -> Vec<Option<Arc<[f32]>>> {
    let vector = |(place, content): (usize, &Content<'_>)| match which(content) {
        VectorSource::Absent => None,
        VectorSource::Kept => before.and_then(|before| before[place].clone()),
        VectorSource::Copied(elements) => Some(elements.into()),
    };
    stock.contents.iter().enumerate().map(vector).collect()
}

fn copy_in(heap: &Heap, target: usize, bytes: &[u8]) -> Result<(), Error> {
    let (driver, stream) = (heap.context.driver, heap.context.stream);
    // SAFETY: the block has that many bytes there; the source lives until the stream was waited
    // for, also on an error.
    let status = unsafe {
        let source = bytes.as_ptr().cast::<c_void>();
        (driver.functions.copy_to_device)(target as u64, source, bytes.len(), stream)
    };
    driver.check("cuMemcpyHtoDAsync", status)
}

fn copy_over(heap: &Heap, target: usize, source: usize, bytes: usize) -> Result<(), Error> {
    let (driver, stream) = (heap.context.driver, heap.context.stream);
    // SAFETY: both blocks have that many bytes there, and the older one is held by the caller.
    let status =
        unsafe { (driver.functions.copy_on_device)(target as u64, source as u64, bytes, stream) };
    driver.check("cuMemcpyDtoDAsync", status)
}
