//! Rows by a list, byte for byte.

use super::super::Gather;
use super::device::Device;
use crate::error::Error;

/// Indices into a buffer of 4 rows: twice one, and such as it does not have.
const LIST: [i64; 7] = [3, -1, 0, 3, 4, i64::MIN, 2];
const BUFFER_ROWS: i64 = 4;

fn bytes_of(list: &[i64]) -> Vec<u8> {
    list.iter().flat_map(|index| index.to_le_bytes()).collect()
}

/// Gathers rows of a buffer whose rows are 3 elements longer than is taken.
fn gathers(device: &Device, width: i64, element_bytes: i64) -> Result<(), Error> {
    let row_bytes = ((width + 3) * element_bytes) as usize;
    let contents: Vec<u8> =
        (0..BUFFER_ROWS as usize * row_bytes).map(|at| (at * 7 % 251) as u8).collect();
    let taken = (width * element_bytes) as usize;
    let (source, list) = (device.buffer(&contents), device.buffer(&bytes_of(&LIST)));
    let staged = device.buffer(&vec![0; LIST.len() * taken]);
    device.gather(&Gather {
        source: source.address(),
        list: list.address(),
        staged: staged.address(),
        rows: LIST.len() as i64,
        buffer_rows: BUFFER_ROWS,
        width,
        row_stride: width + 3,
        element_bytes,
    })?;
    let found = device.read(&staged);
    for (row, index) in found.chunks_exact(taken).zip(LIST) {
        match usize::try_from(index).ok().filter(|index| *index < BUFFER_ROWS as usize) {
            Some(index) => assert_eq!(row, &contents[index * row_bytes..][..taken]),
            None => assert!(row.chunks_exact(element_bytes as usize).all(is_nan)),
        }
    }
    device.free(&[&source, &list, &staged]);
    Ok(())
}

/// Whether an element is a NaN, of two bytes in both of their formats.
fn is_nan(element: &[u8]) -> bool {
    match element {
        [low, high] => {
            let bits = u16::from_le_bytes([*low, *high]);
            half::f16::from_bits(bits).is_nan() && half::bf16::from_bits(bits).is_nan()
        }
        bytes => f32::from_le_bytes(bytes.try_into().unwrap()).is_nan(),
    }
}

pub(super) fn one(device: &Device) -> Result<(), Error> {
    gathers(device, 5, 2)
}

#[test]
#[ignore = "run by the test beside it"]
fn widths_and_elements() {
    let device = Device::open();
    for width in [1, 31, 256, 1000] {
        gathers(&device, width, 2).unwrap();
        gathers(&device, width, 4).unwrap();
    }
}

#[test]
#[ignore = "run by the test beside it"]
fn no_rows_are_no_launch() {
    let nothing = Gather {
        source: 0,
        list: 0,
        staged: 0,
        rows: 0,
        buffer_rows: 0,
        width: 8,
        row_stride: 8,
        element_bytes: 4,
    };
    Device::open().gather(&nothing).unwrap();
}
