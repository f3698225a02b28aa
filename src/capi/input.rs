//! `xqkv_input`: rows of hidden states.

use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use crate::view::{Indices, Rows};
use std::ffi::c_void;

/// Rows of hidden states: the decoder's or the encoder's. Part of xqkv_forward by value, so its
/// layout is frozen.
///
/// Absent when `data` is NULL or `rows` is 0, whatever the other fields hold. Rows are packed: of
/// any number of sequences, without padding, and independent of each other.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub struct xqkv_input {
    /// The first element of the first row, in the memory of the context's device, aligned to its
    /// dtype. NULL: absent.
    pub data: *const c_void,
    /// How many rows; with a row list, how many it lists. 0: absent.
    pub rows: i64,
    /// Elements from one row to the next; 0 is the width of the hidden states.
    pub row_stride: i64,
    /// Indices of the rows to take, in the memory of the context's device, aligned to 8 bytes;
    /// NULL takes the first `rows`. A row may be named more than once, rows that are not named are
    /// not projected, and results have one row for each index. The host refuses an index that is
    /// not in [0, buffer_rows) before anything is written; CUDA cannot see the list, and results
    /// of such a row are NaN.
    pub row_list: *const i64,
    /// With a row list, rows in the buffer that it indexes; otherwise 0.
    pub buffer_rows: i64,
    /// An xqkv_dtype. The host takes any, whatever the weights are in.
    pub dtype: i32,
    /// Must be 0.
    pub reserved: i32,
}

impl xqkv_input {
    /// The rows, or None for an absent input.
    #[inline(always)]
    pub(super) fn rows(&self, name: &str, width: i64) -> Result<Option<Rows>, Error> {
        if self.data.is_null() || self.rows == 0 {
            return Ok(None);
        }
        ensure!(self.reserved == 0, InvalidArgument, "{name}.reserved is {}; use 0", self.reserved);
        let dtype = Dtype::from_integer(self.dtype, format_args!("{name}.dtype"))?;
        let list = self.row_list(name)?;
        Rows::new(name, self.data as usize, dtype, self.rows, width, self.row_stride, list)
            .map(Some)
    }

    fn row_list(&self, name: &str) -> Result<Option<Indices>, Error> {
        ensure!(
            !self.row_list.is_null() || self.buffer_rows == 0,
            InvalidArgument,
            "{name}.buffer_rows is {} and {name}.row_list is NULL; without a row list it is 0",
            self.buffer_rows
        );
        if self.row_list.is_null() {
            return Ok(None);
        }
        let (address, bound) = (self.row_list as usize, ("buffer_rows", self.buffer_rows));
        Indices::new(name, "row_list", address, self.rows, bound).map(Some)
    }
}
