//! An algorithm's own attributes: how it is configured and what it can do.

use super::algorithm::{Algorithm, REDUCTION_COMPUTE_TYPE};
use super::descriptor::give;
use super::status::{INVALID_VALUE, answer};
use std::ffi::{c_int, c_void};

const POINTER_MODES: u32 = 1 | 2;
/// The default one and the bias.
const EPILOGUES: u32 = 1 | 4;

/// A value of the size that the header gives it.
enum Value {
    Short(u16),
    Word(u32),
    Long(u64),
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Short(value) => value.to_ne_bytes().to_vec(),
            Value::Word(value) => value.to_ne_bytes().to_vec(),
            Value::Long(value) => value.to_ne_bytes().to_vec(),
        }
    }
}

fn configuration(algorithm: &Algorithm, attribute: c_int) -> Result<Value, c_int> {
    match attribute {
        0 => Ok(Value::Word(algorithm.id as u32)),
        1 => Ok(Value::Word(algorithm.family().tile_id)),
        2 => Ok(Value::Word(algorithm.splits)),
        3 => Ok(Value::Word(algorithm.reduction)),
        // Swizzling, the custom option and stages.
        4..=6 => Ok(Value::Word(0)),
        // Inner and cluster shape.
        7 | 8 => Ok(Value::Short(0)),
        _ => Err(INVALID_VALUE),
    }
}

fn capability(algorithm: &Algorithm, attribute: c_int) -> Result<Value, c_int> {
    match attribute {
        // Splits, strided batches, results out of place.
        0 | 3 | 4 => Ok(Value::Word(1)),
        1 => Ok(Value::Word(REDUCTION_COMPUTE_TYPE)),
        6 => Ok(Value::Word(algorithm.family().tile_id)),
        11 => Ok(Value::Word(POINTER_MODES)),
        12 => Ok(Value::Word(EPILOGUES)),
        15 => Ok(Value::Long(algorithm.numerics())),
        16..=19 => {
            let element_bytes = algorithm.format_of(attribute as u32 - 16).bytes();
            Ok(Value::Word(algorithm.alignment(element_bytes) as u32))
        }
        // Swizzling, triangles, custom options and orders, stages, negative strides, pointer
        // arrays, emulation, groups.
        2 | 5 | 7 | 10 | 13 | 14 | 21..=23 => Ok(Value::Word(0)),
        _ => Err(INVALID_VALUE),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoConfigGetAttribute(
    algorithm: *const c_void,
    attribute: c_int,
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> c_int {
    answer("cublasLtMatmulAlgoConfigGetAttribute", || {
        // SAFETY: the caller's 64 bytes.
        let algorithm = unsafe { Algorithm::read(algorithm)? };
        let value = configuration(&algorithm, attribute)?.bytes();
        // SAFETY: the caller's buffer, as the header asks.
        unsafe { give(&value, buffer, bytes, written) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoCapGetAttribute(
    algorithm: *const c_void,
    attribute: c_int,
    buffer: *mut c_void,
    bytes: usize,
    written: *mut usize,
) -> c_int {
    answer("cublasLtMatmulAlgoCapGetAttribute", || {
        // SAFETY: the caller's 64 bytes.
        let algorithm = unsafe { Algorithm::read(algorithm)? };
        let value = capability(&algorithm, attribute)?.bytes();
        // SAFETY: the caller's buffer, as the header asks.
        unsafe { give(&value, buffer, bytes, written) }
    })
}
