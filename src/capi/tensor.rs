//! `xqkv_tensor`: where a weight or bias lies before it is loaded.

use super::boundary;
use super::plain::{self, Plain, ensure_pointer, flag};
use crate::backend::{self, Backend};
use crate::dtype::{Dtype, WeightDtype};
use crate::error::{Error, Status, ensure, named_enum};
use crate::weights::{self, Data, Extent, Integers, Kind, Numbers, Source};
use std::ffi::c_void;

/// Whether a tensor is the whole layer's or this rank's.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorExtent {
    /// The uncut layer's: the library takes this rank's rows and touches no others.
    Whole = 0,
    /// This rank's rows already.
    Shard = 1,
}

named_enum!(TensorExtent {
    Whole => c"XQKV_EXTENT_WHOLE",
    Shard => c"XQKV_EXTENT_SHARD",
});

/// How a weight's elements are ordered.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// [outputs, inputs], as torch.nn.Linear keeps it.
    OutIn = 0,
    /// [inputs, outputs], as FasterTransformer and ONNX Runtime keep it. It cannot be borrowed.
    InOut = 1,
}

named_enum!(Layout {
    OutIn => c"XQKV_LAYOUT_OUT_IN",
    InOut => c"XQKV_LAYOUT_IN_OUT",
});

/// How the parts of a fused weight follow each other.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedOrder {
    /// All rows of Q, then all of K, then all of V.
    Concatenated = 0,
    /// The rows of each key/value head together, as Megatron and Transformer Engine keep them:
    /// those of Q of the query heads that it serves, those of K, those of V. Of a shard the rows
    /// that it has, in this order. It can be borrowed only where each part's rows lie together all
    /// the same, as those of a single key/value head do.
    PerHead = 1,
}

named_enum!(FusedOrder {
    Concatenated => c"XQKV_FUSED_ORDER_CONCATENATED",
    PerHead => c"XQKV_FUSED_ORDER_PER_HEAD",
});

/// Whose memory a tensor lies in.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The host's.
    Host = 0,
    /// The context's device's; CUDA only. It must be written already: no stream is waited for.
    Device = 1,
}

named_enum!(Memory {
    Host => c"XQKV_MEMORY_HOST",
    Device => c"XQKV_MEMORY_DEVICE",
});

impl From<TensorExtent> for Extent {
    fn from(extent: TensorExtent) -> Extent {
        match extent {
            TensorExtent::Whole => Extent::Whole,
            TensorExtent::Shard => Extent::Shard,
        }
    }
}

impl From<Layout> for weights::Layout {
    fn from(layout: Layout) -> weights::Layout {
        match layout {
            Layout::OutIn => weights::Layout::OutIn,
            Layout::InOut => weights::Layout::InOut,
        }
    }
}

impl From<FusedOrder> for weights::FusedOrder {
    fn from(order: FusedOrder) -> weights::FusedOrder {
        match order {
            FusedOrder::Concatenated => weights::FusedOrder::Concatenated,
            FusedOrder::PerHead => weights::FusedOrder::PerHead,
        }
    }
}

impl From<Memory> for backend::Memory {
    fn from(memory: Memory) -> backend::Memory {
        match memory {
            Memory::Host => backend::Memory::Host,
            Memory::Device => backend::Memory::Device,
        }
    }
}

/// Whether the library copies a tensor.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Copied during the call; the memory may go right after it.
    Copy = 0,
    /// CUDA weights in device memory, of the spec's dtype: used in place, so that the library takes
    /// no memory for them. They must stay until no version of the weights has them and the work
    /// launched with those is done. A fused weight is borrowed row block by row block: where V's
    /// rows follow K's, as in the engine's own fused QKV, both still run as one product.
    Borrow = 1,
}

named_enum!(Ownership {
    Copy => c"XQKV_OWNERSHIP_COPY",
    Borrow => c"XQKV_OWNERSHIP_BORROW",
});

/// A weight, a bias or a norm in the caller's memory, to be loaded by xqkv_update_put. `data` needs
/// no alignment, since it may lie in a mapped file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_tensor {
    /// Set by xqkv_tensor_init.
    pub struct_size: u32,
    /// An xqkv_dtype.
    pub dtype: i32,
    /// The first element. Read only during the call, unless borrowed.
    pub data: *const c_void,
    /// Output features, whatever the layout. A bias has one element for each. Of a norm head_width.
    pub rows: i64,
    /// Input features, whatever the layout. Biases and norms have 1, or 0 for the same.
    pub columns: i64,
    /// Elements from one output to the next; 0 is `columns`. With XQKV_LAYOUT_IN_OUT elements from
    /// one input to the next; 0 is `rows`. A bias may be a column of a matrix.
    pub row_stride: i64,
    /// An xqkv_extent.
    pub extent: i32,
    /// 1 converts a weight of another dtype than the spec's, with one rounding to nearest even, or
    /// to integers as weight_dtype of xqkv_spec says; 0 refuses it. Biases and norms are kept in
    /// f32 and always converted, which is exact.
    pub convert: i32,
    /// An xqkv_layout. Biases and norms have none, and it is not looked at.
    pub layout: i32,
    /// An xqkv_fused_order, of a fused weight or bias.
    pub fused_order: i32,
    /// An xqkv_memory.
    pub memory: i32,
    /// An xqkv_ownership.
    pub ownership: i32,
    /// Of XQKV_DTYPE_INT8: the scales, where the weight is too and in any alignment, one for each
    /// block of scale_block_rows x scale_block_columns elements; read only during the call. An
    /// element counts as its integer times its block's scale. Blocks have whole rows: those of 1
    /// row have a scale for each output, one of all rows has one for the tensor. Otherwise NULL.
    pub scale: *const c_void,
    /// Of XQKV_DTYPE_INT8: an xqkv_dtype of floating-point numbers, of `scale`; otherwise 0.
    pub scale_dtype: i32,
    /// Must be 0.
    pub reserved: i32,
    /// Of XQKV_DTYPE_INT8: rows that share a scale, of outputs whatever the layout; otherwise 0.
    pub scale_block_rows: i64,
    /// Of XQKV_DTYPE_INT8: columns that share a scale, which are all; otherwise 0.
    pub scale_block_columns: i64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_tensor {
    const NAME: &'static str = "xqkv_tensor";
}

/// Fills the tensor with zeros. `size` is sizeof(xqkv_tensor).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_tensor_init(tensor: *mut xqkv_tensor, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(tensor, size) })
}

impl xqkv_tensor {
    /// The tensor's elements as bytes that can be read.
    ///
    /// # Safety
    /// `data` points to as many rows, columns and strides of the dtype as the fields say, for as
    /// long as the source is used.
    pub(super) unsafe fn source<'a>(
        &self,
        kind: Kind,
        backend: &dyn Backend,
        fetched: &'a mut Vec<u8>,
    ) -> Result<Source<'a>, Error> {
        ensure!(self.reserved == 0, InvalidArgument, "tensor.reserved is {}; use 0", self.reserved);
        let layout = match (Layout::from_integer(self.layout, "tensor.layout")?, kind) {
            (layout, Kind::Weight) => layout,
            (_, Kind::Bias | Kind::Norm) => Layout::OutIn,
        };
        let (columns, row_stride) = self.columns_and_stride(layout)?;
        let order = FusedOrder::from_integer(self.fused_order, "tensor.fused_order")?;
        let mut source = Source {
            // SAFETY: passed on.
            numbers: unsafe { self.numbers(columns) }?,
            data: Data::Copied(&[]),
            rows: self.rows,
            columns,
            row_stride,
            layout: layout.into(),
            order: order.into(),
            extent: TensorExtent::from_integer(self.extent, "tensor.extent")?.into(),
            convert: flag(self.convert, "tensor.convert")?,
        };
        let bytes = source.bytes()?;
        if bytes > 0 {
            // SAFETY: passed on.
            source.data = unsafe { self.data(backend, bytes, fetched) }?;
        }
        Ok(source)
    }

    /// Where the elements are; of a device's memory a copy, unless they are borrowed.
    ///
    /// # Safety
    /// There are that many bytes at `data`.
    unsafe fn data<'a>(
        &self,
        backend: &dyn Backend,
        bytes: usize,
        fetched: &'a mut Vec<u8>,
    ) -> Result<Data<'a>, Error> {
        ensure_pointer(self.data.cast::<u8>(), "tensor.data")?;
        let memory = Memory::from_integer(self.memory, "tensor.memory")?;
        let ownership = Ownership::from_integer(self.ownership, "tensor.ownership")?;
        let address = self.data as usize;
        backend.ensure_memory(memory.into(), address, "tensor.data")?;
        match (memory, ownership) {
            // SAFETY: not NULL, and the caller's promise covers these bytes.
            (Memory::Host, Ownership::Copy) => Ok(Data::Copied(unsafe {
                std::slice::from_raw_parts(self.data.cast::<u8>(), bytes)
            })),
            (Memory::Device, Ownership::Copy) => {
                *fetched = backend.fetch(address, bytes)?;
                Ok(Data::Copied(fetched))
            }
            (Memory::Device, Ownership::Borrow) => Ok(Data::Borrowed(address)),
            (Memory::Host, Ownership::Borrow) => {
                let message = "host memory cannot be borrowed, since the host backend packs \
                               weights; use XQKV_OWNERSHIP_COPY, or XQKV_MEMORY_DEVICE on CUDA";
                Err(Error::new(Status::NotSupported, message))
            }
        }
    }

    fn columns_and_stride(&self, layout: Layout) -> Result<(i64, i64), Error> {
        let (rows, columns) = (self.rows, if self.columns == 0 { 1 } else { self.columns });
        ensure!(
            rows >= 0 && columns >= 0,
            InvalidShape,
            "tensor is [{rows}, {columns}]; rows and columns must not be negative"
        );
        let (least, across) = match layout {
            Layout::OutIn => (columns, "columns"),
            Layout::InOut => (rows, "rows, which XQKV_LAYOUT_IN_OUT has side by side"),
        };
        let row_stride = if self.row_stride == 0 { least } else { self.row_stride };
        ensure!(
            row_stride >= least,
            InvalidStride,
            "tensor.row_stride is {row_stride}, less than its {least} {across}"
        );
        Ok((columns, row_stride))
    }

    /// What the elements are, with the scales of integers; anything else must have none.
    ///
    /// # Safety
    /// As for `source`, and `scale` has as many elements as there are blocks.
    unsafe fn numbers<'a>(&self, columns: i64) -> Result<Numbers<'a>, Error> {
        let dtype = WeightDtype::from_integer(self.dtype, "tensor.dtype")?;
        if let Some(element) = dtype.element() {
            return self.ensure_no_scale(element).map(|()| Numbers::Plain(element));
        }
        let (block_rows, block_columns) = (self.scale_block_rows, self.scale_block_columns);
        ensure!(
            block_rows > 0 && block_columns > 0,
            InvalidArgument,
            "tensor.scale_block_rows is {block_rows} and scale_block_columns {block_columns}; give \
             how many rows and columns of the {} share a scale, 1 and {columns} for one an output",
            dtype.name()
        );
        ensure!(
            block_columns >= columns,
            NotSupported,
            "tensor.scale_block_columns is {block_columns}, and the tensor has {columns} columns; \
             only scales of whole rows are supported"
        );
        let scale_dtype = Dtype::from_integer(self.scale_dtype, "tensor.scale_dtype")?;
        let mut scales: &[u8] = &[];
        if self.rows > 0 {
            let bytes = self.scale_bytes(scale_dtype)?;
            ensure_pointer(self.scale.cast::<u8>(), "tensor.scale")?;
            // SAFETY: not NULL, and the caller's promise covers these bytes.
            scales = unsafe { std::slice::from_raw_parts(self.scale.cast::<u8>(), bytes) };
        }
        Ok(Numbers::Scaled(Integers { scales, dtype: scale_dtype, block_rows }))
    }

    /// Bytes of the scales of rows that there are.
    fn scale_bytes(&self, dtype: Dtype) -> Result<usize, Error> {
        let blocks = (self.rows - 1) / self.scale_block_rows + 1;
        let bytes = blocks.checked_mul(dtype.bytes() as i64).map(|bytes| bytes as usize);
        bytes.ok_or_else(|| {
            let message = format!("tensor.scale of {blocks} blocks of rows exceeds 2^63 bytes");
            Error::new(Status::SizeOverflow, message)
        })
    }

    fn ensure_no_scale(&self, dtype: Dtype) -> Result<(), Error> {
        let blocks = (self.scale_dtype, self.scale_block_rows, self.scale_block_columns);
        ensure!(
            self.scale.is_null() && blocks == (0, 0, 0),
            InvalidArgument,
            "tensor.scale or its blocks are set, and tensor.dtype is {}, which has none; leave \
             them 0, or give XQKV_DTYPE_INT8",
            dtype.name()
        );
        Ok(())
    }
}
