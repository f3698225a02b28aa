//! The element types, and how each widens to f32 and is rounded from it.

use crate::error::named_enum;
pub use half::{bf16, f16};

/// The type of an element of rows and results.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32 = 1,
    /// IEEE 754 binary16.
    F16 = 2,
    /// bfloat16: the upper half of a binary32.
    Bf16 = 3,
}

named_enum!(Dtype {
    F32 => c"XQKV_DTYPE_F32",
    F16 => c"XQKV_DTYPE_F16",
    Bf16 => c"XQKV_DTYPE_BF16",
});

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// The type of elements in memory. Zero is not a dtype, so that a forgotten one is found.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// IEEE 754 binary32.
    F32 = 1,
    /// IEEE 754 binary16.
    F16 = 2,
    /// bfloat16: the upper half of a binary32.
    Bf16 = 3,
    /// 8-bit two's complement integers beside scales, an element being its integer times its scale.
    /// Of weights alone, and on the host alone: see weight_dtype of xqkv_spec.
    Int8 = 4,
}

named_enum!(WeightDtype {
    F32 => c"XQKV_DTYPE_F32",
    F16 => c"XQKV_DTYPE_F16",
    Bf16 => c"XQKV_DTYPE_BF16",
    Int8 => c"XQKV_DTYPE_INT8",
});

impl WeightDtype {
    /// Bytes of one element, without its scale.
    pub const fn bytes(self) -> usize {
        match self.element() {
            Some(dtype) => dtype.bytes(),
            None => 1,
        }
    }

    /// Bytes of a row of so many columns; behind integers their scale, an f32. None beyond 63 bits.
    pub fn row_bytes(self, columns: i64) -> Option<i64> {
        let scale = if self.element().is_none() { size_of::<f32>() as i64 } else { 0 };
        columns.checked_mul(self.bytes() as i64)?.checked_add(scale)
    }

    /// The type of its elements, if they are numbers by themselves.
    pub const fn element(self) -> Option<Dtype> {
        match self {
            WeightDtype::F32 => Some(Dtype::F32),
            WeightDtype::F16 => Some(Dtype::F16),
            WeightDtype::Bf16 => Some(Dtype::Bf16),
            WeightDtype::Int8 => None,
        }
    }
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::Bf16 => WeightDtype::Bf16,
        }
    }
}

/// An element as the kernels see it: accumulation is in f32, whatever lies in memory.
pub trait Element: Copy + Send + Sync + 'static {
    /// The element's own name among the dtypes.
    const DTYPE: Dtype;

    /// The same number in f32, exactly.
    fn widen(self) -> f32;

    /// The nearest element, ties to even; NaN stays NaN and infinity stays infinity.
    fn round(value: f32) -> Self;

    /// The element that these bytes are; as many as it has.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// Puts the element's bytes at the end.
    fn append_to(self, bytes: &mut Vec<u8>);
}

/// The two methods about bytes, alike for every type.
macro_rules! as_bytes {
    () => {
        fn from_bytes(bytes: &[u8]) -> Self {
            Self::from_ne_bytes(bytes.try_into().expect("as many bytes as the element has"))
        }

        fn append_to(self, bytes: &mut Vec<u8>) {
            bytes.extend_from_slice(&self.to_ne_bytes());
        }
    };
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    as_bytes!();
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        bf16::from_f32(value)
    }

    as_bytes!();
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;

    /// Without a branch, so that a loop over weights becomes vector code: the exponent is moved
    /// by a multiplication (which also normalises denormals), and what was infinite or NaN gets
    /// its full exponent back.
    #[inline(always)]
    fn widen(self) -> f32 {
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        let magnitude = u32::from(self.to_bits() & 0x7fff);
        let sign = u32::from(self.to_bits() & 0x8000) << 16;
        let scaled = (f32::from_bits(magnitude << 13) * REBIAS).to_bits();
        let full_exponent = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled | full_exponent | sign)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        f16::from_f32(value)
    }

    as_bytes!();
}

/// Runs the body once with the type that a dtype stands for.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::F32 => {
                type $element = f32;
                $body
            }
            $crate::dtype::Dtype::F16 => {
                type $element = $crate::dtype::f16;
                $body
            }
            $crate::dtype::Dtype::Bf16 => {
                type $element = $crate::dtype::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_element;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_as_the_reference_does() {
        for bits in 0..=u16::MAX {
            let (ours, reference) = (f16::from_bits(bits).widen(), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == reference.to_bits() || ours.is_nan() && reference.is_nan());
        }
    }

    #[test]
    fn every_bf16_widens_and_rounds_back_to_itself() {
        for bits in 0..=u16::MAX {
            let value = bf16::from_bits(bits);
            let back = bf16::round(value.widen());
            assert!(back.to_bits() == bits || value.is_nan() && back.is_nan());
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        assert_eq!(bf16::round(1.0 + 1.0 / 256.0).widen(), 1.0);
        assert_eq!(bf16::round(1.0 + 3.0 / 256.0).widen(), 1.0 + 4.0 / 256.0);
        assert_eq!(f16::round(1.0 + 1.0 / 2048.0).widen(), 1.0);
        assert_eq!(f16::round(65520.0).widen(), f32::INFINITY);
    }
}
