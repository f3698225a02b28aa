//! A row's bits depend on the row and the weights alone: not on the batch it came in, the threads
//! or the ranks.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;

use case::{Case, Elements, Random, host, instruction_sets, prefill, square};
use xqkv::backend::{Arithmetic, InstructionSet};
use xqkv::dtype::{Dtype, WeightDtype};
use xqkv::projection::Projection;
use xqkv::shard::{Split, balanced};
use xqkv::spec::Part;

/// Of weights and of rows.
const DTYPES: [(WeightDtype, Dtype); 5] = [
    (WeightDtype::F32, Dtype::F32),
    (WeightDtype::F16, Dtype::F16),
    (WeightDtype::Bf16, Dtype::Bf16),
    (WeightDtype::Int8, Dtype::F32),
    (WeightDtype::Int8, Dtype::Bf16),
];
const ROWS: usize = 257;

fn whisper(inner: i64, heads: i64, (weights, rows): (WeightDtype, Dtype)) -> (Case, Elements) {
    let case = Case::new(square(inner, heads, 64, weights), 20);
    let numbers = Random::new(21).numbers(ROWS * inner as usize);
    (case, Elements::rounded(&numbers, rows))
}

fn sets_and_dtypes() -> impl Iterator<Item = (InstructionSet, (WeightDtype, Dtype))> {
    instruction_sets().into_iter().flat_map(|set| DTYPES.map(|dtype| (set, dtype)))
}

/// The first rows of some.
fn first(rows: &Elements, inner: i64, begin: usize, count: usize) -> Elements {
    let row = inner as usize * rows.dtype.bytes();
    Elements { dtype: rows.dtype, bytes: rows.bytes[begin * row..(begin + count) * row].to_vec() }
}

/// All parts' bytes.
fn run(ranks: &[Projection], decoder: &Elements, encoder: &Elements) -> [Vec<u8>; 3] {
    let outputs = prefill(ranks, decoder, encoder, Dtype::F32).0;
    Part::ALL.map(|part| outputs.0[part].bytes.clone())
}

#[test]
fn a_row_alone_has_the_bits_it_has_in_any_batch() {
    for (set, dtype) in sets_and_dtypes() {
        let backend = host(2, Some(set)).unwrap();
        let (case, rows) = whisper(384, 6, dtype);
        let projection = [case.whole(&backend)];
        let all = run(&projection, &rows, &rows);
        let row_bytes = 384 * 4;
        for count in (1..=64).chain([100, 200]) {
            for begin in [0, 1, 56] {
                let some = first(&rows, 384, begin, count);
                for (some, all) in run(&projection, &some, &some).iter().zip(&all) {
                    assert!(
                        some[..] == all[begin * row_bytes..][..count * row_bytes],
                        "{set:?} {dtype:?} {count}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_do_not_matter() {
    for (set, dtype) in sets_and_dtypes() {
        let (case, rows) = whisper(640, 10, dtype);
        let run_on = |threads| run(&[case.whole(&host(threads, Some(set)).unwrap())], &rows, &rows);
        let alone = run_on(1);
        assert!((2..=4).all(|threads| run_on(threads) == alone), "{set:?} {dtype:?}");
    }
}

#[test]
fn ranks_do_not_matter() {
    let backend = host(2, None).unwrap();
    for dtype in DTYPES {
        let (case, rows) = whisper(384, 6, dtype);
        let decoder = first(&rows, 384, 0, 9);
        let alone = run(&[case.whole(&backend)], &decoder, &rows);
        for ranks in [2, 3, 4, 5, 8] {
            let rank = |rank| {
                let (query, key_value) = balanced(&case.spec, rank, ranks).unwrap();
                case.projection(&backend, Split::Explicit { query, key_value })
            };
            let ranked: Vec<Projection> = (0..ranks).map(rank).collect();
            assert!(run(&ranked, &decoder, &rows) == alone, "{dtype:?} {ranks}");
        }
    }
}

#[test]
fn instruction_sets_of_one_arithmetic_agree_to_the_bit() {
    for dtype in DTYPES {
        let (case, rows) = whisper(384, 6, dtype);
        let mut seen: Vec<(Arithmetic, [Vec<u8>; 3])> = Vec::new();
        for set in instruction_sets() {
            let outputs = run(&[case.whole(&host(2, Some(set)).unwrap())], &rows, &rows);
            // Sums of integers are exact.
            let is_exact = dtype.0 == WeightDtype::Int8;
            let agrees = |arithmetic: &Arithmetic| is_exact || *arithmetic == set.arithmetic();
            let same = seen.iter().find(|(arithmetic, _)| agrees(arithmetic));
            assert!(same.is_none_or(|(_, before)| *before == outputs), "{set:?} {dtype:?}");
            seen.push((set.arithmetic(), outputs));
        }
    }
}
