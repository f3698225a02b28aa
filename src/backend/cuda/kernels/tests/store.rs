//! Results in views of every kind, byte for byte: numbers are chosen so that every sum is exact,
//! and only the roundings that are asked for happen.

use super::super::Store;
use super::device::Device;
use crate::dtype::{Dtype, bf16, f16};

/// Where the elements of one shape go; element strides.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    row: i64,
    head: i64,
    width: i64,
    group_rows: i64,
    group: i64,
}

/// One launch.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: i64,
    heads: i64,
    width: i64,
    /// How many places the view has; with slots, some are left out.
    places: i64,
    has_slots: bool,
    view: View,
    dtype: Dtype,
    norm: Option<Norm>,
    accumulates: bool,
}

#[derive(Clone, Copy, Debug)]
struct Norm {
    rounds: Option<Dtype>,
}

/// The absolute value of what is normed, and an epsilon that makes the divisor 1024.
const NORMED: i64 = 513;
const EPSILON: f32 = (1024 * 1024 - NORMED * NORMED) as f32;
const SCALE: f64 = 0.5;

/// Views that hold so many places.
fn views(places: i64, heads: i64, width: i64) -> [View; 5] {
    let grouped = View { group_rows: 3, ..View::default() };
    let padded = heads * width + 5;
    [
        View { row: padded, head: width, width: 1, ..View::default() },
        View { row: width, head: places * width, width: 1, ..View::default() },
        View { row: 1, head: width * places + 1, width: places, ..View::default() },
        View { row: width, head: 3 * width, width: 1, group: heads * 3 * width + 2, ..grouped },
        View { row: 1, head: 3 * width, width: 3, group: heads * 3 * width, ..grouped },
    ]
}

impl Case {
    fn place(&self, row: i64) -> i64 {
        match self.has_slots {
            false => row,
            true if row % 5 == 2 => -1,
            true if row % 7 == 3 => self.places + row,
            // A prime that is larger than any case's rows, so that no place is named twice.
            true => (row * 89 + 11) % self.places,
        }
    }

    /// Which element a lane goes to, if its row goes anywhere.
    fn element(&self, row: i64, head: i64, lane: i64) -> Option<i64> {
        let (place, view) = (self.place(row), self.view);
        let (group, within) = match view.group_rows {
            0 => (0, place),
            rows => (place / rows, place % rows),
        };
        let start = group * view.group + within * view.row;
        let element = start + head * view.head + lane * view.width;
        (0..self.places).contains(&place).then_some(element)
    }

    /// Every row, head and lane, and the number of each in the staged memory.
    fn lanes(self) -> impl Iterator<Item = (i64, i64, i64)> {
        let count = self.rows * self.heads * self.width;
        (0..count).map(move |at| {
            (at / (self.heads * self.width), at / self.width % self.heads, at % self.width)
        })
    }

    fn staged(&self, row: i64, head: i64, lane: i64) -> i64 {
        let mixed = row * 31 + head * 17 + lane * 7;
        match self.norm {
            None => mixed % 1001 - 500,
            Some(_) if mixed % 3 == 0 => -NORMED,
            Some(_) => NORMED,
        }
    }

    fn weight(lane: i64) -> i64 {
        lane % 5 - 2
    }

    /// What stands at an element before the launch, of a view that is added to.
    fn there(element: i64) -> i64 {
        element % 301 - 150
    }

    fn result(&self, row: i64, head: i64, lane: i64, element: i64) -> f64 {
        let mut value = self.staged(row, head, lane) as f64;
        if let Some(norm) = self.norm {
            value /= 1024.0;
            value = norm.rounds.map_or(value, |dtype| value_of(dtype, &bytes_of(dtype, value)));
            value *= Self::weight(lane) as f64;
        }
        match self.accumulates {
            true => value * SCALE + Self::there(element) as f64,
            false => value * SCALE,
        }
    }

    /// The elements of all places, and a few behind.
    fn elements(&self) -> i64 {
        let all = Case { rows: self.places, has_slots: false, ..*self };
        let last = all.lanes().filter_map(|(row, head, lane)| all.element(row, head, lane)).max();
        last.unwrap() + 4
    }

    fn before(&self) -> Vec<u8> {
        let value = |element| match self.accumulates {
            true => bytes_of(self.dtype, Self::there(element) as f64),
            false => vec![0xFF; self.dtype.bytes()],
        };
        (0..self.elements()).flat_map(value).collect()
    }

    fn after(&self) -> Vec<u8> {
        let (mut bytes, size) = (self.before(), self.dtype.bytes());
        for (row, head, lane) in self.lanes() {
            if let Some(element) = self.element(row, head, lane) {
                let value = self.result(row, head, lane, element);
                bytes[element as usize * size..][..size]
                    .copy_from_slice(&bytes_of(self.dtype, value));
            }
        }
        bytes
    }

    fn check(&self, device: &Device) {
        let staged: Vec<u8> = self
            .lanes()
            .flat_map(|(row, head, lane)| (self.staged(row, head, lane) as f32).to_le_bytes())
            .collect();
        let slots: Vec<u8> = (0..self.rows).flat_map(|row| self.place(row).to_le_bytes()).collect();
        let weights: Vec<u8> =
            (0..self.width).flat_map(|lane| (Self::weight(lane) as f32).to_le_bytes()).collect();
        let buffers = [&staged, &self.before(), &slots, &weights].map(|bytes| device.buffer(bytes));
        let [staged, view, slots, weights] = &buffers;
        device
            .store(&Store {
                staged: staged.address(),
                destination: view.address(),
                slots: if self.has_slots { slots.address() } else { 0 },
                norm_weight: self.norm.map_or(0, |_| weights.address()),
                ..self.numbers()
            })
            .unwrap();
        self.compare(&device.read(view));
        device.free(&buffers.each_ref());
    }

    fn numbers(&self) -> Store {
        Store {
            staged: 0,
            destination: 0,
            slots: 0,
            norm_weight: 0,
            rows: self.rows,
            first_row: 0,
            slot_count: self.places,
            heads: self.heads,
            width: self.width,
            staged_row_stride: self.heads * self.width,
            row_stride: self.view.row,
            head_stride: self.view.head,
            width_stride: self.view.width,
            group_rows: self.view.group_rows,
            group_stride: self.view.group,
            scale: SCALE as f32,
            epsilon: EPSILON,
            staged_dtype: Dtype::F32 as i32,
            dtype: self.dtype as i32,
            round_dtype: self.norm.and_then(|norm| norm.rounds).map_or(0, |dtype| dtype as i32),
            accumulate: self.accumulates as i32,
        }
    }

    fn compare(&self, found: &[u8]) {
        let (expected, size) = (self.after(), self.dtype.bytes());
        assert_eq!(found.len(), expected.len());
        let pairs = found.chunks_exact(size).zip(expected.chunks_exact(size));
        for (element, (found, expected)) in pairs.enumerate() {
            let (is, should) = (value_of(self.dtype, found), value_of(self.dtype, expected));
            assert!(found == expected, "{self:?}: element {element} is {is}, should be {should}");
        }
    }
}

/// The nearest element, ties to even.
fn bytes_of(dtype: Dtype, value: f64) -> Vec<u8> {
    match dtype {
        Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
        Dtype::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
    }
}

fn value_of(dtype: Dtype, bytes: &[u8]) -> f64 {
    match (dtype, bytes) {
        (Dtype::F32, bytes) => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        (Dtype::F16, bytes) => f16::from_le_bytes(bytes.try_into().unwrap()).into(),
        (Dtype::Bf16, bytes) => bf16::from_le_bytes(bytes.try_into().unwrap()).into(),
    }
}

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// Rows, heads and width at the edges of a tile, and at the widest.
const SHAPES: [[i64; 3]; 6] =
    [[1, 1, 1], [5, 2, 3], [33, 3, 64], [40, 2, 33], [3, 1, 1024], [70, 2, 40]];

fn every_view(device: &Device, norm: Option<Norm>, has_slots: bool) {
    for [rows, heads, width] in SHAPES {
        let places = if has_slots { rows + 6 } else { rows };
        for view in views(places, heads, width) {
            for dtype in DTYPES {
                for accumulates in [false, true] {
                    let case = Case {
                        rows,
                        heads,
                        width,
                        places,
                        has_slots,
                        view,
                        dtype,
                        norm,
                        accumulates,
                    };
                    case.check(device);
                }
            }
        }
    }
}

#[test]
#[ignore = "run by the test beside it"]
fn rows_in_order() {
    every_view(&Device::open(), None, false);
}

#[test]
#[ignore = "run by the test beside it"]
fn rows_by_slots() {
    every_view(&Device::open(), None, true);
}

#[test]
#[ignore = "run by the test beside it"]
fn normed_rows() {
    let device = Device::open();
    for rounds in [None, Some(Dtype::F16), Some(Dtype::Bf16)] {
        every_view(&device, Some(Norm { rounds }), true);
    }
}

#[test]
#[ignore = "run by the test beside it"]
fn a_norm_takes_the_whole_heads_mean() {
    const WIDTH: i64 = 77;
    let view = View { row: WIDTH, head: WIDTH, width: 1, ..View::default() };
    let (rows, heads, places, norm) = (2, 1, 2, Some(Norm { rounds: None }));
    let case = Case {
        rows,
        heads,
        width: WIDTH,
        places,
        has_slots: false,
        view,
        dtype: Dtype::F32,
        norm,
        accumulates: false,
    };
    let device = Device::open();
    let values: Vec<f32> = (0..2 * WIDTH).map(|at| ((at * at) % 97) as f32 / 8.0 - 5.0).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let weights: Vec<f32> = (0..WIDTH).map(|lane| lane as f32 / 16.0 + 0.5).collect();
    let (staged, weight) = (device.buffer(&bytes(&values)), device.buffer(&bytes(&weights)));
    let output = device.buffer(&vec![0xFF; values.len() * 4]);
    let (staged, norm_weight) = (staged.address(), weight.address());
    let destination = output.address();
    let call = Store { staged, norm_weight, destination, epsilon: 0.25, ..case.numbers() };
    device.store(&call).unwrap();
    let found = device.read(&output);
    for (at, found) in found.chunks_exact(4).enumerate() {
        let (row, lane) = (at / WIDTH as usize, at % WIDTH as usize);
        let head = values[row * WIDTH as usize..][..WIDTH as usize].iter().map(|v| *v as f64);
        let mean = head.map(|value| value * value).sum::<f64>() / WIDTH as f64;
        let factor = weights[lane] as f64 * SCALE / (mean + 0.25).sqrt();
        let (expected, found) = (values[at] as f64 * factor, value_of(Dtype::F32, found));
        assert!((found - expected).abs() <= expected.abs() * 2e-6, "{at}: {found}, {expected}");
    }
}
