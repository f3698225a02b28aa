//! What launched products compute: exact for small integers, and near f64 otherwise.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod cublaslt;

use cublaslt::support::{alloc, clean};
use cublaslt::*;
use gpusim::cublaslt::status::*;
use gpusim::reference::tf32;
use std::ffi::c_int;

/// A product with its host copies.
#[derive(Clone, Debug)]
struct Case {
    compute: c_int,
    a: Shape,
    b: Shape,
    d: Shape,
    transposes: [bool; 2],
    batch: u64,
    alpha: f32,
    beta: f32,
    bias_stride: Option<i64>,
    integers: bool,
}

impl Case {
    /// A projection of `n` rows of width `k` to `m` columns.
    fn projection(data_type: c_int, m: u64, n: u64, k: u64) -> Case {
        Case {
            compute: COMPUTE_32F,
            a: Shape::column(data_type, k, m),
            b: Shape::column(data_type, k, n),
            d: Shape::column(data_type, m, n),
            transposes: [true, false],
            batch: 1,
            alpha: 1.0,
            beta: 0.0,
            bias_stride: None,
            integers: true,
        }
    }

    fn descriptors(&self) -> Descriptors {
        let batch = self.batch as i32;
        let d = self.d.words(batch);
        let mut operation = operation(self.compute, self.transposes);
        if let Some(stride) = self.bias_stride {
            set_operation(&mut operation, 7, &EPILOGUE_BIAS);
            set_operation(&mut operation, 10, &stride);
        }
        Descriptors { operation, a: self.a.words(batch), b: self.b.words(batch), c: d, d }
    }

    fn values(&self, count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 40
        };
        let value = |bits: u64| match self.integers {
            true => (bits % 5) as f32 - 2.0,
            false => bits as f32 / (1u32 << 23) as f32 - 1.0,
        };
        (0..count).map(|_| value(next())).collect()
    }

    fn run(&self) {
        let (handle, descriptors) = (handle(), self.descriptors());
        let (status, found) = descriptors.search(&preference(), 32);
        assert_eq!(status, SUCCESS, "{self:?}");
        for result in found {
            self.run_with(handle, descriptors, &result.algorithm);
        }
        assert_eq!(gpusim::cublaslt::handle::cublasLtDestroy(handle), SUCCESS);
        clean();
    }

    fn run_with(
        &self,
        handle: *mut std::ffi::c_void,
        mut descriptors: Descriptors,
        algorithm: &[u64; 8],
    ) {
        let (input, output) = (format(self.a.data_type), format(self.d.data_type));
        let round = |format: gpusim::reference::Format, values: Vec<f32>| -> Vec<f32> {
            values.into_iter().map(|value| format.round(value)).collect()
        };
        let a = round(input, self.values(self.a.elements(self.batch), 1));
        let b = round(input, self.values(self.b.elements(self.batch), 2));
        let before = round(output, self.values(self.d.elements(self.batch), 3));
        let step = self.bias_stride.unwrap_or(0) as u64;
        let bias = round(output, self.values((self.d.rows + step * self.batch) as usize, 4));
        let bias_address = upload(output, &bias);
        if self.bias_stride.is_some() {
            set_operation(&mut descriptors.operation, 8, &bias_address);
        }
        let d = upload(output, &before);
        let (workspace_bytes, workspace) = (8 << 20, alloc(8 << 20));
        let arguments = Arguments {
            alpha: self.alpha,
            beta: self.beta,
            a: upload(input, &a),
            b: upload(input, &b),
            c: d,
            d,
            algorithm: Some(*algorithm),
            workspace,
            workspace_bytes,
            stream: 0,
        };
        assert_eq!(arguments.launch(handle, &descriptors), SUCCESS, "{self:?}");
        self.check(&a, &b, &before, &bias, &download(output, d, before.len()));
    }

    /// Every element is the f64 sum up to f32's and the format's rounding, and every byte that
    /// is none is what it was.
    fn check(&self, a: &[f32], b: &[f32], before: &[f32], bias: &[f32], after: &[f32]) {
        let output = format(self.d.data_type);
        let mut expected: Vec<f64> = before.iter().map(|value| f64::from(*value)).collect();
        let mut bound = vec![0f64; before.len()];
        for index in 0..self.batch {
            for (row, column) in (0..self.d.columns)
                .flat_map(|column| (0..self.d.rows).map(move |row| (row, column)))
            {
                let place = self.d.place(index, row, column);
                let (sum, size) = self.sum(a, b, index, row, column);
                let bias = self.bias_stride.map_or(0.0, |step| {
                    f64::from(bias[(index as i64 * step) as usize + row as usize])
                });
                let joined = f64::from(self.beta) * f64::from(before[place]);
                expected[place] = f64::from(self.alpha) * sum + joined + bias;
                bound[place] = size + joined.abs() + bias.abs();
            }
        }
        let unit = match output.bytes() {
            _ if self.integers => 0.0,
            4 => 0.0,
            _ => 1.0 / 256.0,
        };
        let slack = if self.integers { 0.0 } else { 1e-4 };
        for (place, after) in after.iter().enumerate() {
            let wrong = (f64::from(*after) - expected[place]).abs();
            let allowed = bound[place] * slack + expected[place].abs() * unit;
            assert!(wrong <= allowed, "{self:?}: {place}: {after} for {}", expected[place]);
        }
    }

    fn sum(&self, a: &[f32], b: &[f32], index: u64, row: u64, column: u64) -> (f64, f64) {
        let k = if self.transposes[0] { self.a.rows } else { self.a.columns };
        let computed =
            |value: f32| f64::from(if self.compute == COMPUTE_TF32 { tf32(value) } else { value });
        let mut sums = (0.0, 0.0);
        for depth in 0..k {
            let left = if self.transposes[0] { (depth, row) } else { (row, depth) };
            let right = if self.transposes[1] { (column, depth) } else { (depth, column) };
            let product = computed(a[self.a.place(index, left.0, left.1)])
                * computed(b[self.b.place(index, right.0, right.1)]);
            sums = (sums.0 + product, sums.1 + product.abs());
        }
        sums
    }
}

const KINDS: [[c_int; 2]; 5] = [[F32, F32], [BF16, BF16], [BF16, F32], [F16, F16], [F16, F32]];

#[test]
fn small_integers_are_exact_with_every_algorithm_and_type() {
    let _sim = sim();
    for [input, output] in KINDS {
        // One shape that vectorised and split algorithms take, and odd ones that they do not.
        for (m, n, k) in [(16, 8, 128), (7, 3, 5), (1, 1, 1), (9, 1, 130)] {
            let d = Shape::column(output, m, n);
            Case { d, ..Case::projection(input, m, n, k) }.run();
        }
    }
}

#[test]
fn random_values_are_right_up_to_rounding() {
    let _sim = sim();
    for [input, output] in KINDS {
        let d = Shape::column(output, 24, 16);
        let case = Case { d, integers: false, ..Case::projection(input, 24, 16, 512) };
        Case { alpha: 0.25, beta: -0.5, bias_stride: Some(0), ..case }.run();
    }
}

#[test]
fn orders_and_transposes_are_independent() {
    let _sim = sim();
    let (m, n, k) = (5, 3, 4);
    let shape = |order: bool, swapped: bool, rows, columns| {
        let (rows, columns) = if swapped { (columns, rows) } else { (rows, columns) };
        if order { Shape::row(F32, rows, columns) } else { Shape::column(F32, rows, columns) }
    };
    for bits in 0..32 {
        let is = |bit: u32| bits >> bit & 1 == 1;
        let transposes = [is(0), is(1)];
        Case {
            a: shape(is(2), is(0), m, k),
            b: shape(is(3), is(1), k, n),
            d: shape(is(4), false, m, n),
            transposes,
            beta: 2.0,
            ..Case::projection(F32, m, n, k)
        }
        .run();
    }
}

#[test]
fn leading_strides_leave_what_is_between_alone() {
    let _sim = sim();
    let mut case = Case::projection(BF16, 8, 4, 16);
    (case.a.leading, case.b.leading, case.d.leading) = (24, 17, 40);
    case.run();
}

#[test]
fn heads_of_a_projection_are_a_batch_over_the_same_rows() {
    let _sim = sim();
    let (heads, width, rows, k) = (3, 4, 5, 16);
    let mut case = Case::projection(BF16, width, rows, k);
    case.batch = heads;
    case.b.batch_stride = 0;
    case.bias_stride = Some(width as i64);
    case.run();
    // The same with heads interleaved in each row of D.
    case.d.leading = (heads * width) as i64;
    case.d.batch_stride = width as i64;
    case.run();
}

#[test]
fn tf32_rounds_what_is_multiplied() {
    let _sim = sim();
    let case = Case { integers: false, ..Case::projection(F32, 8, 8, 64) };
    Case { compute: COMPUTE_TF32, ..case }.run();
}
