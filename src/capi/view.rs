//! `xqkv_view`: where results go.

use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use crate::view::{Shape, Strides, View};
use std::ffi::c_void;

/// Where one of Q, K and V is written, in memory that the engine owns: its KV cache, say. Part of
/// xqkv_forward by value, so its layout is frozen.
///
/// Element (row r, head h, lane d) of layer l, counted from the call's first layer, goes to
///
///     base[l] + (p / group_rows) * group_stride + (p % group_rows) * row_stride
///             + h * head_stride + d * width_stride
///
/// where p is r, or slots[r] when slots are given, and base[l] is data + l * layer_stride, or
/// layer_data[l]. All strides are in elements of the view's dtype, and 0 is packed as
/// [layers, rows, heads, width]. Heads are this rank's, counted from 0.
///
/// Strides must nest: sorted by size, each is at least the extent inside it, so that no element is
/// written twice. Bytes between the elements are not touched; nothing is read unless `accumulate`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_view {
    /// The first element, in the memory of the context's device, aligned to its dtype.
    pub data: *mut c_void,
    /// One base pointer for each layer of the call, instead of `data`. Not in this version: must
    /// be NULL.
    pub layer_data: *const *mut c_void,
    /// Elements from one row to the next; 0 is heads · width.
    pub row_stride: i64,
    /// Elements from one head to the next; 0 is the head's width.
    pub head_stride: i64,
    /// Elements from one lane of a head to the next; 0 is 1.
    pub width_stride: i64,
    /// Elements from one layer to the next; 0 is rows · heads · width. Used only when a call spans
    /// several layers.
    pub layer_stride: i64,
    /// Rows of one group, such as a sequence of a batch or a page; 0 is all. Not in this version:
    /// must be 0.
    pub group_rows: i64,
    /// Elements from one group to the next. Not in this version: must be 0.
    pub group_stride: i64,
    /// For each row the place it goes to, in the memory of the context's device; -1 leaves the row
    /// out. Not in this version: must be NULL.
    pub slots: *const i64,
    /// With slots, how many places there are; otherwise 0.
    pub slot_count: i64,
    /// Quantised outputs: the scale that results are divided by; NULL for outputs that are not.
    /// Not in this version: must be NULL.
    pub quantization_scale: *const f32,
    /// An xqkv_dtype. The host writes any, rounded once to nearest even.
    pub dtype: i32,
    /// 1 adds to what is there (beta = 1); 0 overwrites it unread. Not in this version: must be 0.
    pub accumulate: i32,
}

impl xqkv_view {
    /// The checked view of a result of this shape.
    #[inline(always)]
    pub(super) fn resolve(&self, name: &str, shape: Shape) -> Result<View, Error> {
        ensure!(!self.data.is_null(), NullArgument, "{name}.data is NULL, but its input was given");
        self.ensure_supported(name)?;
        let dtype = Dtype::from_integer(self.dtype, format_args!("{name}.dtype"))?;
        let strides = Strides {
            layer: self.layer_stride,
            row: self.row_stride,
            head: self.head_stride,
            width: self.width_stride,
        };
        View::new(name, self.data as usize, dtype, shape, strides)
    }

    fn ensure_supported(&self, name: &str) -> Result<(), Error> {
        for (given, field) in [
            (!self.layer_data.is_null(), "layer_data"),
            (self.group_rows != 0, "group_rows"),
            (self.group_stride != 0, "group_stride"),
            (!self.slots.is_null(), "slots"),
            (self.slot_count != 0, "slot_count"),
            (!self.quantization_scale.is_null(), "quantization_scale"),
            (self.accumulate != 0, "accumulate"),
        ] {
            ensure!(
                !given,
                NotSupported,
                "{name}.{field} is set, but this version writes only rows, heads, lanes and \
                 layers at a fixed stride; leave it 0"
            );
        }
        Ok(())
    }
}
