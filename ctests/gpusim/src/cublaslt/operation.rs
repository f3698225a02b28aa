//! What a product is besides its matrices, `cublasLtMatmulDesc*`.

use super::descriptor::{Attribute, Kind};
use super::status::answer;
use std::ffi::{c_int, c_void};

const COMPUTE_TYPE: c_int = 0;
const SCALE_TYPE: c_int = 1;
const POINTER_MODE: c_int = 2;
const TRANSPOSE_A: c_int = 3;
const TRANSPOSE_B: c_int = 4;
const TRANSPOSE_C: c_int = 5;
const FILL_MODE: c_int = 6;
const EPILOGUE: c_int = 7;
const BIAS_POINTER: c_int = 8;
const BIAS_BATCH_STRIDE: c_int = 10;
const SM_COUNT_TARGET: c_int = 15;
const BIAS_DATA_TYPE: c_int = 26;
/// Scale factors and maxima of narrow formats: A, B, C, D, D's maximum, and the auxiliary two.
const SCALE_POINTERS: [c_int; 7] = [17, 18, 19, 20, 21, 23, 24];
const UNSET: u64 = 0xFFFF_FFFF;

/// Sizes: 184 bytes in the headers of CUDA 12, 256 in those of CUDA 13.
static OPERATION: Kind = Kind {
    name: "cublasLtMatmulDesc",
    magic: 0x4D41_544D,
    sizes: &[184, 256],
    attributes: &[
        Attribute::new(BIAS_POINTER, 8, 0),
        Attribute::new(BIAS_BATCH_STRIDE, 8, 0),
        Attribute::new(11, 8, 0),
        Attribute::new(12, 8, 0),
        Attribute::new(13, 8, 0),
        Attribute::new(14, 8, 0),
        Attribute::new(17, 8, 0),
        Attribute::new(18, 8, 0),
        Attribute::new(19, 8, 0),
        Attribute::new(20, 8, 0),
        Attribute::new(21, 8, 0),
        Attribute::new(23, 8, 0),
        Attribute::new(24, 8, 0),
        Attribute::new(COMPUTE_TYPE, 4, 0),
        Attribute::new(SCALE_TYPE, 4, 0),
        Attribute::new(POINTER_MODE, 4, 0),
        Attribute::new(TRANSPOSE_A, 4, 0),
        Attribute::new(TRANSPOSE_B, 4, 0),
        Attribute::new(TRANSPOSE_C, 4, 0),
        Attribute::new(FILL_MODE, 4, 2),
        Attribute::new(EPILOGUE, 4, 1),
        Attribute::new(SM_COUNT_TARGET, 4, 0),
        // Not in the header; the library has it.
        Attribute::new(16, 4, 0),
        Attribute::new(22, 4, UNSET),
        Attribute::new(BIAS_DATA_TYPE, 4, UNSET),
        Attribute::new(25, 1, 0),
        Attribute::since(120_800, 31, 4, 0),
        Attribute::since(120_800, 32, 4, 0),
        Attribute::since(120_800, 33, 4, 0),
        Attribute::since(120_800, 34, 4, 0),
        Attribute::since(120_800, 35, 4, 0),
        Attribute::since(120_800, 36, 8, 0),
        Attribute::since(120_800, 37, 4, 0),
        Attribute::since(130_401, 38, 8, 0),
        Attribute::since(130_401, 39, 8, 0),
        Attribute::since(130_401, 40, 8, 0),
        Attribute::since(131_000, 41, 4, 0x8000),
    ],
};

/// What a descriptor says, still unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub compute_type: c_int,
    pub scale_type: c_int,
    pub pointer_mode: c_int,
    pub transpose_a: c_int,
    pub transpose_b: c_int,
    pub transpose_c: c_int,
    pub fill_mode: c_int,
    pub epilogue: u32,
    pub bias: u64,
    pub bias_batch_stride: i64,
    /// -1 is D's type.
    pub bias_type: c_int,
    pub processors: i32,
    /// Whether any scale factor of a narrow format is set.
    pub scaled: bool,
}

impl Operation {
    /// # Safety
    /// `source` must be NULL or a descriptor.
    pub unsafe fn read(source: *const c_void) -> Result<Operation, c_int> {
        // SAFETY: as promised.
        let descriptor = unsafe { OPERATION.read(source)? };
        let number = |id| descriptor.get(&OPERATION, id) as c_int;
        Ok(Operation {
            compute_type: number(COMPUTE_TYPE),
            scale_type: number(SCALE_TYPE),
            pointer_mode: number(POINTER_MODE),
            transpose_a: number(TRANSPOSE_A),
            transpose_b: number(TRANSPOSE_B),
            transpose_c: number(TRANSPOSE_C),
            fill_mode: number(FILL_MODE),
            epilogue: number(EPILOGUE) as u32,
            bias: descriptor.get(&OPERATION, BIAS_POINTER),
            bias_batch_stride: descriptor.get(&OPERATION, BIAS_BATCH_STRIDE) as i64,
            bias_type: number(BIAS_DATA_TYPE),
            processors: number(SM_COUNT_TARGET),
            scaled: SCALE_POINTERS.iter().any(|id| descriptor.get(&OPERATION, *id) != 0),
        })
    }
}

fn values(compute_type: c_int, scale_type: c_int) -> [(c_int, u64); 2] {
    [(COMPUTE_TYPE, u64::from(compute_type as u32)), (SCALE_TYPE, u64::from(scale_type as u32))]
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescInit_internal(
    operation: *mut c_void,
    bytes: usize,
    compute_type: c_int,
    scale_type: c_int,
) -> c_int {
    let values = values(compute_type, scale_type);
    // SAFETY: the caller's memory, as the header asks.
    let init = || unsafe { OPERATION.init(operation, bytes, &values) };
    answer("cublasLtMatmulDescInit_internal", init)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescCreate(
    operation: *mut *mut c_void,
    compute_type: c_int,
    scale_type: c_int,
) -> c_int {
    let values = values(compute_type, scale_type);
    // SAFETY: the caller's memory, as the header asks.
    answer("cublasLtMatmulDescCreate", || unsafe { OPERATION.create(operation, &values) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulDescDestroy(operation: *mut c_void) -> c_int {
    answer("cublasLtMatmulDescDestroy", || OPERATION.destroy(operation))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    operation: *mut c_void,
    attribute: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let set = || unsafe { OPERATION.set(operation, attribute, buffer, bytes) };
    answer("cublasLtMatmulDescSetAttribute", set)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescGetAttribute(
    operation: *const c_void,
    attribute: c_int,
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> c_int {
    // SAFETY: the caller's memory, as the header asks.
    let get = || unsafe { OPERATION.get(operation, attribute, buffer, bytes, written) };
    answer("cublasLtMatmulDescGetAttribute", get)
}
