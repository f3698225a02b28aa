//! Elements from one dtype to another: copied where they agree, else widened to f32 and
//! rounded once.

use super::quantise;
use crate::dtype::{Dtype, Element, WeightDtype, with_element};
use crate::error::{Error, Status};

/// Rows of so many columns in the dtype that weights are kept in.
pub(super) fn packed(
    rows: &[u8],
    from: Dtype,
    to: WeightDtype,
    columns: usize,
) -> Result<Vec<u8>, Error> {
    let row_bytes = to.row_bytes(columns as i64).unwrap_or(i64::MAX) as usize;
    let mut packed = with_room(rows.len() / (columns * from.bytes()).max(1) * row_bytes)?;
    append_packed(rows, from, to, columns, &mut packed)?;
    Ok(packed)
}

/// The elements in f32.
pub(super) fn widened(elements: &[u8], from: Dtype) -> Result<Vec<f32>, Error> {
    let mut widened = with_room(elements.len() / from.bytes())?;
    append_widened(elements, from, &mut widened);
    Ok(widened)
}

/// Puts rows of so many columns behind those that are there, in the dtype that weights are kept in.
pub(super) fn append_packed(
    rows: &[u8],
    from: Dtype,
    to: WeightDtype,
    columns: usize,
    packed: &mut Vec<u8>,
) -> Result<(), Error> {
    match to.element() {
        None => return quantise::append_quantised(rows, from, columns, packed),
        Some(to) if to == from => packed.extend_from_slice(rows),
        Some(to) => with_element!(from, F => with_element!(to, T => convert::<F, T>(rows, packed))),
    }
    Ok(())
}

/// Puts the elements in f32 behind those that are there.
pub(super) fn append_widened(row: &[u8], from: Dtype, widened: &mut Vec<f32>) {
    with_element!(from, F => widened.extend(elements::<F>(row).map(F::widen)));
}

fn convert<F: Element, T: Element>(row: &[u8], packed: &mut Vec<u8>) {
    elements::<F>(row).for_each(|element| T::round(element.widen()).append_to(packed));
}

fn elements<E: Element>(row: &[u8]) -> impl Iterator<Item = E> {
    row.chunks_exact(size_of::<E>()).map(E::from_bytes)
}

/// An empty vector that can take so many without growing.
pub(super) fn with_room<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| {
        let message = format!("no memory for {count} elements of {} bytes", size_of::<T>());
        Error::new(Status::OutOfMemory, message)
    })?;
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::bf16;

    #[test]
    fn equal_dtypes_keep_every_bit_and_others_are_rounded_once() {
        let row: Vec<u8> =
            [1.0f32, 1.0 + 1.0 / 256.0, f32::NAN].iter().flat_map(|x| x.to_ne_bytes()).collect();
        assert_eq!(packed(&row, Dtype::F32, WeightDtype::F32, 3).unwrap(), row);
        let mut rounded = packed(&row[..8], Dtype::F32, WeightDtype::Bf16, 2).unwrap();
        append_packed(&row[4..], Dtype::F32, WeightDtype::Bf16, 2, &mut rounded).unwrap();
        let values: Vec<f32> = elements::<bf16>(&rounded).map(bf16::widen).collect();
        assert_eq!(values[..3], [1.0, 1.0, 1.0]);
        assert!(values[3].is_nan());
    }

    #[test]
    fn widening_is_exact() {
        let row: Vec<u8> = [0x3f80u16, 0xc000].iter().flat_map(|x| x.to_ne_bytes()).collect();
        assert_eq!(widened(&row, Dtype::Bf16).unwrap(), [1.0, -2.0]);
    }

    #[test]
    fn memory_that_is_not_there_is_a_status() {
        assert_eq!(with_room::<f32>(usize::MAX / 8).unwrap_err().status, Status::OutOfMemory);
    }
}
