//! Matrix layouts, `cublasLtMatrixLayout*`.

use super::descriptor::{Attribute, Kind};
use super::status::answer;
use std::ffi::{c_int, c_void};

const TYPE: c_int = 0;
const ORDER: c_int = 1;
const ROWS: c_int = 2;
const COLUMNS: c_int = 3;
const LEADING: c_int = 4;
const BATCH_COUNT: c_int = 5;
const BATCH_STRIDE: c_int = 6;
const PLANE_OFFSET: c_int = 7;
const BATCH_MODE: c_int = 8;

pub const ORDER_COLUMN: u32 = 0;
pub const ORDER_ROW: u32 = 1;

/// Sizes: 64 bytes in the headers of CUDA 12 and 13.0, 112 with the grouped layouts.
static LAYOUT: Kind = Kind {
    name: "cublasLtMatrixLayout",
    magic: 0x4C41_594F,
    sizes: &[64, 112],
    attributes: &[
        Attribute::new(ROWS, 8, 0),
        Attribute::new(COLUMNS, 8, 0),
        Attribute::new(LEADING, 8, 0),
        Attribute::new(BATCH_STRIDE, 8, 0),
        Attribute::new(PLANE_OFFSET, 8, 0),
        Attribute::new(TYPE, 4, 0),
        Attribute::new(ORDER, 4, 0),
        Attribute::new(BATCH_COUNT, 4, 1),
        Attribute::new(BATCH_MODE, 4, 0),
        Attribute::since(130_401, 9, 8, 0),
        Attribute::since(130_401, 10, 8, 0),
        Attribute::since(130_401, 11, 8, 0),
        Attribute::since(130_401, 12, 4, 0),
        Attribute::since(130_401, 13, 4, 0),
    ],
};

/// What a layout says, still unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data_type: u32,
    pub order: u32,
    pub rows: u64,
    pub columns: u64,
    pub leading: i64,
    pub batch_count: i32,
    pub batch_stride: i64,
    pub plane_offset: i64,
    pub batch_mode: u32,
}

impl Layout {
    /// # Safety
    /// `source` must be NULL or a descriptor.
    pub unsafe fn read(source: *const c_void) -> Result<Layout, c_int> {
        // SAFETY: as promised.
        let descriptor = unsafe { LAYOUT.read(source)? };
        let get = |id| descriptor.get(&LAYOUT, id);
        Ok(Layout {
            data_type: get(TYPE) as u32,
            order: get(ORDER) as u32,
            rows: get(ROWS),
            columns: get(COLUMNS),
            leading: get(LEADING) as i64,
            batch_count: get(BATCH_COUNT) as i32,
            batch_stride: get(BATCH_STRIDE) as i64,
            plane_offset: get(PLANE_OFFSET) as i64,
            batch_mode: get(BATCH_MODE) as u32,
        })
    }

    /// How many elements follow one another in memory, and how many such runs there are.
    pub fn runs(&self) -> (u64, u64) {
        match self.order == ORDER_ROW {
            true => (self.columns, self.rows),
            false => (self.rows, self.columns),
        }
    }
}

fn values(data_type: c_int, rows: u64, columns: u64, leading: i64) -> [(c_int, u64); 4] {
    [
        (TYPE, u64::from(data_type as u32)),
        (ROWS, rows),
        (COLUMNS, columns),
        (LEADING, leading as u64),
    ]
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutInit_internal(
    layout: *mut c_void,
    bytes: usize,
    data_type: c_int,
    rows: u64,
    columns: u64,
    leading: i64,
) -> c_int {
    let values = values(data_type, rows, columns, leading);
    // SAFETY: the caller's memory, as the header asks.
    let init = || unsafe { LAYOUT.init(layout, bytes, &values) };
    answer("cublasLtMatrixLayoutInit_internal", init)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    layout: *mut *mut c_void,
    data_type: c_int,
    rows: u64,
    columns: u64,
    leading: i64,
) -> c_int {
    let values = values(data_type, rows, columns, leading);
    // SAFETY: the caller's memory, as the header asks.
    answer("cublasLtMatrixLayoutCreate", || unsafe { LAYOUT.create(layout, &values) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatrixLayoutDestroy(layout: *mut c_void) -> c_int {
    answer("cublasLtMatrixLayoutDestroy", || LAYOUT.destroy(layout))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutSetAttribute(
    layout: *mut c_void,
    attribute: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let set = || unsafe { LAYOUT.set(layout, attribute, buffer, bytes) };
    answer("cublasLtMatrixLayoutSetAttribute", set)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutGetAttribute(
    layout: *const c_void,
    attribute: c_int,
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let get = || unsafe { LAYOUT.get(layout, attribute, buffer, bytes, written) };
    answer("cublasLtMatrixLayoutGetAttribute", get)
}
