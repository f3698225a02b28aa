//! `xqkv_view`: where results go.

use super::plain::{ensure_pointer, flag};
use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use crate::view::{Base, Indices, Shape, Strides, Target, View};
use std::ffi::c_void;
use std::slice;

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
/// [layers, groups, group_rows, heads, width], where without groups all places are one group.
/// Heads are this rank's, counted from 0.
///
/// Strides must nest: sorted by size, each is at least the extent inside it, so that no element is
/// written twice. Bytes between the elements are not touched; nothing is read unless `accumulate`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub struct xqkv_view {
    /// The first element, in the memory of the context's device, aligned to its dtype.
    pub data: *mut c_void,
    /// One base pointer for each layer of the call, instead of `data` and `layer_stride`: an array
    /// in host memory, read during the call.
    pub layer_data: *const *mut c_void,
    /// Elements from one row to the next; 0 is heads · width.
    pub row_stride: i64,
    /// Elements from one head to the next; 0 is the head's width.
    pub head_stride: i64,
    /// Elements from one lane of a head to the next; 0 is 1.
    pub width_stride: i64,
    /// Elements from one layer to the next; 0 is all groups' rows · heads · width. Used only when a
    /// call spans several layers.
    pub layer_stride: i64,
    /// Rows of one group, such as a sequence of a batch or a page; 0 is all. The last group may be
    /// filled in part.
    pub group_rows: i64,
    /// Elements from one group to the next; 0 is group_rows · heads · width. Without groups 0.
    pub group_stride: i64,
    /// For each row the place it goes to, in the memory of the context's device, aligned to 8
    /// bytes; -1 leaves the row out, and no two rows may go to one place. The host refuses a list
    /// that breaks this before anything is written, for which it takes workspace
    /// (xqkv_plan_get_workspace), and does not project rows that are left out. CUDA cannot see the
    /// list: a place out of range is left out as -1 is, of two rows in one place either may win,
    /// and all rows are projected.
    pub slots: *const i64,
    /// With slots, how many places there are; otherwise 0.
    pub slot_count: i64,
    /// For fp8 caches to come: one f32 in the memory of the context's device by which this view's
    /// results are divided before they are rounded, so that K and V have each their own. No dtype
    /// of this version takes one: must be NULL, or the call is NOT_SUPPORTED.
    pub quantization_scale: *const f32,
    /// An xqkv_dtype. The host writes any, rounded once to nearest even.
    pub dtype: i32,
    /// 1 adds to what is there (beta = 1), rounding the sum once; 0 overwrites it unread. Not with
    /// a norm.
    pub accumulate: i32,
}

impl xqkv_view {
    /// The checked view of a result of this shape.
    ///
    /// # Safety
    /// `layer_data` is NULL or points to as many pointers as the shape has layers, which stay.
    #[inline(always)]
    pub(super) unsafe fn resolve<'a>(
        &'a self,
        name: &str,
        shape: Shape,
    ) -> Result<View<'a>, Error> {
        // SAFETY: passed on.
        let base = unsafe { self.base(name, shape.layers) }?;
        self.ensure_supported(name)?;
        let strides = Strides {
            layer: self.layer_stride,
            group: self.group_stride,
            row: self.row_stride,
            head: self.head_stride,
            width: self.width_stride,
        };
        let target = Target {
            base,
            dtype: Dtype::from_integer(self.dtype, format_args!("{name}.dtype"))?,
            strides,
            group_rows: self.group_rows,
            slots: self.slots(name, shape.rows)?,
            accumulates: flag(self.accumulate, format_args!("{name}.accumulate"))?,
        };
        View::new(name, shape, target)
    }

    /// # Safety
    /// As for `resolve`.
    #[inline(always)]
    unsafe fn base<'a>(&'a self, name: &str, layers: i64) -> Result<Base<'a>, Error> {
        let has_layers = !self.layer_data.is_null();
        ensure!(
            has_layers || !self.data.is_null(),
            NullArgument,
            "{name}.data is NULL, but its input was given"
        );
        if !has_layers {
            return Ok(Base::First(self.data as usize));
        }
        ensure!(
            self.data.is_null() && self.layer_stride == 0,
            InvalidArgument,
            "{name}.layer_data is set, and {name}.data or {name}.layer_stride as well; say in one \
             way where the layers are"
        );
        ensure_pointer(self.layer_data, format_args!("{name}.layer_data"))?;
        // SAFETY: the caller's promise; a pointer is as large as an address.
        Ok(Base::Each(unsafe { slice::from_raw_parts(self.layer_data.cast(), layers as usize) }))
    }

    #[inline(always)]
    fn slots(&self, name: &str, rows: i64) -> Result<Option<Indices>, Error> {
        ensure!(
            !self.slots.is_null() || self.slot_count == 0,
            InvalidArgument,
            "{name}.slot_count is {} and {name}.slots is NULL; without slots it is 0",
            self.slot_count
        );
        if self.slots.is_null() {
            return Ok(None);
        }
        Indices::new(name, "slots", self.slots as usize, rows, ("slot_count", self.slot_count))
            .map(Some)
    }

    #[inline(always)]
    fn ensure_supported(&self, name: &str) -> Result<(), Error> {
        ensure!(
            self.quantization_scale.is_null(),
            NotSupported,
            "{name}.quantization_scale is not NULL, but this version has no quantised outputs; \
             leave it NULL"
        );
        Ok(())
    }
}
