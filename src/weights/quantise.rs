//! 8-bit integers of a weight's rows, each with the scale that an element is counted by.
//!
//! ```text
//! a row = columns integers | scale, an f32            element = integer · scale
//! ```

use super::source::{Integers, Source};
use crate::dtype::{Dtype, Element, with_element};
use crate::error::{Error, ensure};

/// The largest integer, and the smallest one's magnitude.
const MOST: f32 = 127.0;

/// Puts rows of integers behind those that are there, each with its scale behind it.
pub(super) fn append_integers(
    piece: &[u8],
    source: &Source<'_>,
    integers: Integers<'_>,
    rows: &mut impl Iterator<Item = i64>,
    packed: &mut Vec<u8>,
) {
    for (integer_row, row) in piece.chunks_exact(source.columns as usize).zip(rows) {
        packed.extend_from_slice(integer_row);
        integers.scale(row).append_to(packed);
    }
}

/// Puts rows of elements behind those that are there, as integers.
pub(super) fn append_quantised(
    piece: &[u8],
    dtype: Dtype,
    columns: usize,
    packed: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut rows = piece.chunks_exact(columns * dtype.bytes());
    rows.try_for_each(|row| with_element!(dtype, E => append_row::<E>(row, packed)))
}

/// The scale is the largest magnitude / 127, and an integer the nearest to its element / scale,
/// ties away from zero, as ggml has it.
fn append_row<E: Element>(row: &[u8], packed: &mut Vec<u8>) -> Result<(), Error> {
    let elements = || row.chunks_exact(size_of::<E>()).map(|bytes| E::from_bytes(bytes).widen());
    let is_finite = elements().all(f32::is_finite);
    ensure!(
        is_finite,
        InvalidArgument,
        "weight has an element that is infinite or not a number, which no scale makes an integer; \
         look for what wrote it, or keep the weights in a dtype of floating-point numbers"
    );
    let scale = elements().fold(0.0, |most: f32, element| most.max(element.abs())) / MOST;
    // The inverse of a denormal may be infinite; such a row counts as zeros.
    let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
    packed.extend(elements().map(|element| (element * inverse).round() as i8 as u8));
    scale.append_to(packed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(row: &[f32]) -> (Vec<i8>, f32) {
        let bytes: Vec<u8> = row.iter().flat_map(|element| element.to_ne_bytes()).collect();
        let mut packed = Vec::new();
        append_quantised(&bytes, Dtype::F32, row.len(), &mut packed).unwrap();
        let (integers, scale) = packed.split_at(row.len());
        (integers.iter().map(|&byte| byte as i8).collect(), f32::from_bytes(scale))
    }

    #[test]
    fn the_largest_element_is_127_and_ties_go_away_from_zero() {
        assert_eq!(quantised(&[254.0, -254.0, 1.0, -1.0, 3.0, 0.9]).0, [127, -127, 1, -1, 2, 0]);
        assert_eq!(quantised(&[254.0]).1, 2.0);
    }

    #[test]
    fn rows_of_zeros_and_of_the_least_numbers_count_as_zeros() {
        assert_eq!(quantised(&[0.0, -0.0]), (vec![0, 0], 0.0));
        assert_eq!(quantised(&[f32::from_bits(1)]).0, [0]);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bytes = [1.0f32, bad].map(f32::to_ne_bytes).concat();
            let error = append_quantised(&bytes, Dtype::F32, 2, &mut Vec::new()).unwrap_err();
            assert!(error.message.contains("not a number"), "{error}");
        }
    }
}
