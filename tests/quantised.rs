//! Weights of 8-bit integers: exact where rows are integers, within the stated bound where they are
//! not, and alike however the weights come.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;

use case::{Case, Elements, Outputs, Random, host, instruction_sets, prefill, square};
use std::sync::Arc;
use xqkv::backend::{Backend, Numerics};
use xqkv::dtype::{Dtype, WeightDtype};
use xqkv::error::{Error, Status};
use xqkv::projection::{Membership, Projection};
use xqkv::shard::{Range, Shard, Split, balanced};
use xqkv::spec::{Part, Parts, Spec};
use xqkv::weights::{Data, Extent, FusedOrder, Integers, Kind, Layout, Numbers, Source};

const INPUTS: usize = 101;
const HEADS: i64 = 5;
const OUTPUTS: usize = 5 * 9;
const ROWS: usize = 23;

fn spec() -> Spec {
    let bias = Parts { query: false, key: false, value: false };
    Spec { bias, ..square(INPUTS as i64, HEADS, 9, WeightDtype::Int8) }
}

/// Integers of a part, all of which occur, -128 too.
fn integer(part: usize, output: usize, k: usize) -> i8 {
    ((part * 31 + output * 17 + k * 5) % 256) as u8 as i8
}

fn scale(part: usize, output: usize) -> f32 {
    [0.5, 0.25, 2.0, 1.0][(part + output) % 4]
}

/// How a weight is given.
#[derive(Clone, Copy)]
struct Way {
    layout: Layout,
    /// Which rows share a scale.
    block_rows: usize,
    scale_dtype: Dtype,
    row_stride: usize,
}

const PLAIN: Way =
    Way { layout: Layout::OutIn, block_rows: 1, scale_dtype: Dtype::F32, row_stride: INPUTS };

impl Way {
    fn scale(&self, part: usize, output: usize) -> f32 {
        scale(part, output / self.block_rows)
    }

    fn bytes(&self, parts: &[usize]) -> Vec<u8> {
        let outputs: Vec<(usize, usize)> =
            parts.iter().flat_map(|&part| (0..OUTPUTS).map(move |output| (part, output))).collect();
        let (far, near) = match self.layout {
            Layout::OutIn => (outputs.len(), INPUTS),
            Layout::InOut => (INPUTS, outputs.len()),
        };
        let mut bytes = vec![0x55; far * self.row_stride];
        for (far, near) in (0..far).flat_map(|far| (0..near).map(move |near| (far, near))) {
            let (at, k) = if self.layout == Layout::OutIn { (far, near) } else { (near, far) };
            let (part, output) = outputs[at];
            bytes[far * self.row_stride + near] = integer(part, output, k) as u8;
        }
        bytes
    }

    fn put(&self, projection: &Projection) -> Result<(), Error> {
        let mut update = projection.begin();
        for (number, part) in Part::ALL.into_iter().enumerate() {
            let blocks = (0..OUTPUTS).step_by(self.block_rows);
            let scales: Vec<f32> = blocks.map(|output| self.scale(number, output)).collect();
            let scales = Elements::rounded(&scales, self.scale_dtype);
            let (bytes, block_rows) = (self.bytes(&[number]), self.block_rows as i64);
            let integers = Integers { scales: &scales.bytes, dtype: self.scale_dtype, block_rows };
            let source = self.source(&bytes, OUTPUTS, integers);
            update.put(0, &[part], Kind::Weight, &source)?;
        }
        projection.commit(&update).map(|_| ())
    }

    fn source<'a>(&self, bytes: &'a [u8], rows: usize, integers: Integers<'a>) -> Source<'a> {
        Source {
            numbers: Numbers::Scaled(integers),
            data: Data::Copied(bytes),
            rows: rows as i64,
            columns: INPUTS as i64,
            row_stride: self.row_stride as i64,
            layout: self.layout,
            order: FusedOrder::Concatenated,
            extent: Extent::Whole,
            convert: false,
        }
    }
}

fn projection(backend: &Arc<dyn Backend>, split: Split) -> Projection {
    let shard = Shard::cut(&spec(), split, Range::default()).unwrap();
    let membership = Membership::default();
    Projection::new(backend.clone(), spec(), shard, Numerics::default(), membership).unwrap()
}

fn loaded(backend: &Arc<dyn Backend>, way: &Way) -> Projection {
    let whole = projection(backend, Split::Even { rank: 0, rank_count: 1 });
    way.put(&whole).unwrap();
    whole
}

/// Rows whose largest magnitude is 127, so that they are their integers.
fn integer_rows(dtype: Dtype) -> (Vec<f32>, Elements) {
    let number = |row: usize, k: usize| match k {
        0 => [127.0, -127.0][row % 2],
        _ => ((row * 37 + k * 11) % 255) as f32 - 127.0,
    };
    let numbers: Vec<f32> =
        (0..ROWS).flat_map(|row| (0..INPUTS).map(move |k| number(row, k))).collect();
    let elements = Elements::rounded(&numbers, dtype);
    (numbers, elements)
}

/// row · integers · scale, exactly.
fn exact(row: &[f32], way: &Way, part: usize, output: usize) -> f64 {
    let product = |(k, &x): (usize, &f32)| f64::from(x) * f64::from(integer(part, output, k));
    let sum: f64 = row.iter().enumerate().map(product).sum();
    sum * f64::from(way.scale(part, output))
}

fn ensure_exact(outputs: &Outputs, rows: &[f32], way: &Way, told: &str) {
    for (number, part) in Part::ALL.into_iter().enumerate() {
        let found = outputs.0[part].numbers();
        for (row, found) in rows.chunks_exact(INPUTS).zip(found.chunks_exact(OUTPUTS)) {
            for (output, found) in found.iter().enumerate() {
                let exact = exact(row, way, number, output);
                assert_eq!(f64::from(*found), exact, "{told} {part:?} {output}");
            }
        }
    }
}

#[test]
fn rows_of_integers_are_multiplied_exactly() {
    for set in instruction_sets() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let (numbers, rows) = integer_rows(dtype);
            let whole = loaded(&host(2, Some(set)).unwrap(), &PLAIN);
            let outputs = prefill(&[whole], &rows, &rows, Dtype::F32).0;
            ensure_exact(&outputs, &numbers, &PLAIN, &format!("{set:?} {dtype:?}"));
        }
    }
}

#[test]
fn weights_come_in_any_layout_with_scales_of_any_dtype_and_blocks_of_rows() {
    let (numbers, rows) = integer_rows(Dtype::F32);
    let backend = host(1, None).unwrap();
    for layout in [Layout::OutIn, Layout::InOut] {
        for block_rows in [1, 7, OUTPUTS, 2 * OUTPUTS] {
            for scale_dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let near = if layout == Layout::OutIn { INPUTS } else { OUTPUTS };
                let way = Way { layout, block_rows, scale_dtype, row_stride: near + 3 };
                let outputs = prefill(&[loaded(&backend, &way)], &rows, &rows, Dtype::F32).0;
                ensure_exact(&outputs, &numbers, &way, &format!("{layout:?} {block_rows}"));
            }
        }
    }
}

#[test]
fn ranks_take_the_scales_of_their_own_rows() {
    let (numbers, rows) = integer_rows(Dtype::F32);
    let backend = host(2, None).unwrap();
    for ranks in 2..=5 {
        let rank = |rank| {
            let (query, key_value) = balanced(&spec(), rank, ranks).unwrap();
            let member = projection(&backend, Split::Explicit { query, key_value });
            PLAIN.put(&member).unwrap();
            member
        };
        let members: Vec<Projection> = (0..ranks).map(rank).collect();
        let outputs = prefill(&members, &rows, &rows, Dtype::F32).0;
        ensure_exact(&outputs, &numbers, &PLAIN, &format!("{ranks} ranks"));
    }
}

/// The bound that the header states, with what f32 rounds of sums and scales.
fn bound(row: &[f32], way: &Way, part: usize, output: usize) -> f64 {
    let most = row.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let scale = f64::from(way.scale(part, output));
    let weights: f64 = (0..INPUTS).map(|k| f64::from(integer(part, output, k)).abs() * scale).sum();
    f64::from(most) / 254.0 * weights * (1.0 + 1e-4)
}

#[test]
fn rows_of_any_numbers_are_within_the_bound() {
    let mut random = Random::new(5);
    for set in instruction_sets() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for magnitude in [1.0, 1e-3, 300.0] {
                let numbers = random.numbers(ROWS * INPUTS).into_iter().map(|x| x * magnitude);
                let rows = Elements::rounded(&numbers.collect::<Vec<_>>(), dtype);
                let whole = loaded(&host(2, Some(set)).unwrap(), &PLAIN);
                let found = prefill(&[whole], &rows, &rows, Dtype::F32).0.0.query.numbers();
                for (row, found) in rows.numbers().chunks_exact(INPUTS).zip(found.chunks(OUTPUTS)) {
                    for (output, found) in found.iter().enumerate() {
                        let error = (f64::from(*found) - exact(row, &PLAIN, 0, output)).abs();
                        assert!(
                            error <= bound(row, &PLAIN, 0, output),
                            "{set:?} {dtype:?} {error}"
                        );
                    }
                }
            }
        }
    }
}

/// Weights that become integers are off by half a scale each at most.
#[test]
fn weights_that_are_converted_are_within_the_bound() {
    let numbers = Random::new(6).numbers(ROWS * INPUTS);
    let rows = Elements::rounded(&numbers, Dtype::F32);
    let case = Case::new(square(INPUTS as i64, HEADS, 9, WeightDtype::Int8), 7);
    let found = prefill(&[case.whole(&host(2, None).unwrap())], &rows, &rows, Dtype::F32).0;
    for part in Part::ALL {
        let exact = case.exact(part, &rows);
        let found = found.0[part].numbers();
        for (row, x) in numbers.chunks_exact(INPUTS).enumerate() {
            let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let inputs: f64 = x.iter().map(|x| f64::from(x.abs())).sum();
            for output in 0..OUTPUTS {
                let at = row * OUTPUTS + output;
                // Weights are of at most 1, and their integers' magnitudes as well.
                let bound = inputs / 254.0 + f64::from(most) / 254.0 * INPUTS as f64;
                let error = (f64::from(found[at]) - exact.values[at]).abs();
                assert!(error <= bound * (1.0 + 1e-4), "{part:?} {row} {output}: {error} {bound}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nan_and_others_are_as_without_it() {
    for set in instruction_sets() {
        let whole = [loaded(&host(1, Some(set)).unwrap(), &PLAIN)];
        let (mut numbers, rows) = integer_rows(Dtype::F32);
        let before = prefill(&whole, &rows, &rows, Dtype::F32).0.0.query.numbers();
        for (row, bad) in [(1, f32::NAN), (2, f32::INFINITY), (4, f32::from_bits(0x7fc0_1234))] {
            numbers[row * INPUTS + 50] = bad;
        }
        numbers[3 * INPUTS..4 * INPUTS].fill(0.0);
        numbers[5 * INPUTS..6 * INPUTS].fill(f32::from_bits(3));
        let rows = Elements::rounded(&numbers, Dtype::F32);
        let after = prefill(&whole, &rows, &rows, Dtype::F32).0.0.query.numbers();
        let rows = before.chunks_exact(OUTPUTS).zip(after.chunks_exact(OUTPUTS)).enumerate();
        for (row, (before, after)) in rows {
            match row {
                1 | 2 | 4 => assert!(after.iter().all(|y| y.is_nan()), "{set:?} {row}"),
                3 | 5 => assert!(after.iter().all(|y| *y == 0.0), "{set:?} {row}"),
                _ => assert_eq!(before, after, "{set:?} {row}"),
            }
        }
    }
}

fn refused(spec: &Spec) -> Error {
    spec.check().unwrap_err()
}

#[test]
fn sizes_that_sums_do_not_hold_are_refused() {
    let wide = Spec { decoder_width: 1 << 17, ..spec() };
    wide.check().unwrap();
    let error = refused(&Spec { decoder_width: (1 << 17) + 1, ..spec() });
    assert_eq!(error.status, Status::NotSupported);
    assert!(error.message.contains("131072"), "{error}");
}

#[test]
fn the_widest_sums_do_not_overflow() {
    let inner = 1 << 17;
    let wide = Spec { bias: spec().bias, ..square(inner, 1, 1, WeightDtype::Int8) };
    for set in instruction_sets() {
        let backend = host(1, Some(set)).unwrap();
        let shard = Shard::cut(&wide, Split::Even { rank: 0, rank_count: 1 }, Range::default());
        let membership = Membership::default();
        let numerics = Numerics::default();
        let one =
            Projection::new(backend, wide.clone(), shard.unwrap(), numerics, membership).unwrap();
        let (bytes, scales) = (vec![0x80; inner as usize], 1.0_f32.to_ne_bytes());
        let integers = Integers { scales: &scales, dtype: Dtype::F32, block_rows: 1 };
        let source = PLAIN.source(&bytes, 1, integers);
        let source = Source { columns: inner, row_stride: inner, ..source };
        let mut update = one.begin();
        for part in Part::ALL {
            update.put(0, &[part], Kind::Weight, &source).unwrap();
        }
        one.commit(&update).unwrap();
        let rows = Elements::rounded(&vec![127.0; inner as usize], Dtype::F32);
        let found = prefill(&[one], &rows, &rows, Dtype::F32).0.0.query.numbers();
        assert_eq!(found, [-127.0 * 128.0 * inner as f32], "{set:?}");
    }
}
