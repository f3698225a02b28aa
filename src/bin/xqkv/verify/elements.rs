//! Elements of a dtype as bytes, in which calls are given rows and write results.

use crate::tensors::Tensor;
use xqkv::dtype::{Dtype, Element, bf16, f16};

/// Elements in their dtype's bytes.
pub struct Elements {
    pub dtype: Dtype,
    pub bytes: Vec<u8>,
}

/// A byte of which every dtype's elements are NaN.
pub const POISON: u8 = 0xff;

impl Elements {
    pub fn poisoned(count: usize, dtype: Dtype) -> Self {
        Self { dtype, bytes: vec![POISON; count * dtype.bytes()] }
    }

    /// A tensor's, rounded to nearest even.
    pub fn rounded(tensor: &Tensor, dtype: Dtype) -> Self {
        let mut bytes = Vec::new();
        for &element in &tensor.elements {
            match dtype {
                Dtype::F32 => element.append_to(&mut bytes),
                Dtype::F16 => f16::round(element).append_to(&mut bytes),
                Dtype::Bf16 => bf16::round(element).append_to(&mut bytes),
            }
        }
        Self { dtype, bytes }
    }

    pub fn widened(&self) -> Vec<f32> {
        self.bytes.chunks_exact(self.dtype.bytes()).map(|bytes| widen(bytes, self.dtype)).collect()
    }
}

/// One element's value.
pub fn widen(element: &[u8], dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_bytes(element),
        Dtype::F16 => f16::from_bytes(element).widen(),
        Dtype::Bf16 => bf16::from_bytes(element).widen(),
    }
}
