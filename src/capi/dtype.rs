//! `xqkv_dtype`: the element types, for bindings that build their tables from the library.

use super::boundary;
use crate::dtype::WeightDtype;
use std::ffi::c_char;

/// Bytes of one element of a dtype, of integers without their scales, or 0 if the number is not an
/// xqkv_dtype. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_dtype_bytes(dtype: i32) -> i64 {
    boundary::value(0, || {
        WeightDtype::from_integer(dtype, "dtype").map_or(0, |dtype| dtype.bytes() as i64)
    })
}

/// The name of a dtype as it stands in this header, such as "XQKV_DTYPE_BF16", or NULL if the
/// number is not an xqkv_dtype. The text lives as long as the library. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_dtype_name(dtype: i32) -> *const c_char {
    boundary::value(std::ptr::null(), || {
        let dtype = WeightDtype::from_integer(dtype, "dtype");
        dtype.map_or(std::ptr::null(), |dtype| dtype.c_name().as_ptr())
    })
}
