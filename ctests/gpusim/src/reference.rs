//! Plain matrix products and number formats: what the simulated kernels compute. Each output is
//! one f32 sum in the order of k (or one per part of k, added in order), scaled, joined by C and
//! the bias, and rounded once.

use half::{bf16, f16};

/// An element's format, by cudaDataType's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
}

impl Format {
    pub fn from_cuda(data_type: u32) -> Option<Format> {
        match data_type {
            0 => Some(Format::F32),
            2 => Some(Format::F16),
            14 => Some(Format::Bf16),
            _ => None,
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
        }
    }

    /// The value of the element at the start of `source`.
    pub fn load(self, source: &[u8]) -> f32 {
        let narrow = || u16::from_ne_bytes([source[0], source[1]]);
        match self {
            Format::F32 => f32::from_ne_bytes([source[0], source[1], source[2], source[3]]),
            Format::F16 => f16::from_bits(narrow()).to_f32(),
            Format::Bf16 => bf16::from_bits(narrow()).to_f32(),
        }
    }

    /// Writes the value, rounded to nearest even, at the start of `target`.
    pub fn store(self, value: f32, target: &mut [u8]) {
        match self {
            Format::F32 => target[..4].copy_from_slice(&value.to_ne_bytes()),
            Format::F16 => target[..2].copy_from_slice(&f16::from_f32(value).to_ne_bytes()),
            Format::Bf16 => target[..2].copy_from_slice(&bf16::from_f32(value).to_ne_bytes()),
        }
    }

    /// The value as this format holds it.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Format::F32 => value,
            Format::F16 => f16::from_f32(value).to_f32(),
            Format::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// The value with 10 bits of mantissa, to nearest even.
pub fn tf32(value: f32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    let bits = value.to_bits();
    let rounded = bits + 0xFFF + ((bits >> 13) & 1);
    f32::from_bits(rounded & !0x1FFF)
}

/// The parts of k that a product in `splits` parts sums on their own.
pub fn parts(k: usize, splits: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let length = k.div_ceil(splits).max(1);
    (0..splits).map(move |part| (part * length).min(k)..((part + 1) * length).min(k))
}

/// The sums over one part of k. `left` is k rows of m, `right` k rows of n; the answer is n rows
/// of m, which is column order.
pub fn product(left: &[f32], right: &[f32], m: usize, n: usize) -> Vec<f32> {
    let mut sums = vec![0f32; m * n];
    for (column, sums) in sums.chunks_exact_mut(m).enumerate() {
        for (left, right) in left.chunks_exact(m).zip(right.chunks_exact(n)) {
            let factor = right[column];
            for (sum, value) in sums.iter_mut().zip(left) {
                *sum += value * factor;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_keeps_ten_bits_and_rounds_ties_to_even() {
        let unit = 1.0 / 1024.0;
        assert_eq!(tf32(1.0 + unit), 1.0 + unit);
        assert_eq!(tf32(1.0 + unit / 2.0), 1.0);
        assert_eq!(tf32(1.0 + unit * 1.5), 1.0 + unit * 2.0);
        assert_eq!(tf32(-1.0 - unit * 0.75), -1.0 - unit);
        assert!(tf32(f32::NAN).is_nan());
    }

    #[test]
    fn a_product_is_rows_of_left_by_rows_of_right() {
        // k = 2, m = 2, n = 1: [1 3; 2 4] as rows of k.
        assert_eq!(product(&[1.0, 2.0, 3.0, 4.0], &[10.0, 100.0], 2, 1), [310.0, 420.0]);
    }

    #[test]
    fn parts_cover_k_once_also_when_it_does_not_divide() {
        for (k, splits) in [(7, 2), (8, 4), (5, 8), (1, 1)] {
            let covered: Vec<usize> = parts(k, splits).flatten().collect();
            assert_eq!(covered, (0..k).collect::<Vec<_>>());
        }
    }

    #[test]
    fn stores_round_once_to_nearest_even() {
        let mut bytes = [0; 2];
        Format::Bf16.store(1.0 + 1.0 / 256.0, &mut bytes);
        assert_eq!(Format::Bf16.load(&bytes), 1.0);
        Format::F16.store(1.0 + 3.0 / 2048.0, &mut bytes);
        assert_eq!(Format::F16.load(&bytes), 1.0 + 2.0 / 1024.0);
    }
}
