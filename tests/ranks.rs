//! Ranks that are threads: what they gather has the bits of one rank's, every product is done once
//! where work is shared, and a call without transfers has none.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;

use case::{Case, Elements, Random, host, prefill, square, target};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use xqkv::backend::{Backend, Lane};
use xqkv::comm::{Comm, Options};
use xqkv::dtype::Dtype;
use xqkv::error::Error;
use xqkv::projection::{
    Call, Collective, DecoderSide, Done, EncoderSide, Membership, Phase, Projection, Sequence,
};
use xqkv::shard::{Split, balanced};
use xqkv::spec::{Part, Spec};
use xqkv::view::{Rows, Shape, Strides, View};

const INNER: i64 = 72;
const DECODER_ROWS: i64 = 5;
const ENCODER_ROWS: i64 = 41;
const OPTIONS: Options =
    Options { deadline: Duration::from_secs(20), checks_calls: false, has_watchdog: false };

/// What the ranks of a test do.
#[derive(Clone, Copy, Debug)]
struct Way {
    gathers: bool,
    shares: bool,
    /// Rows of each rank and most rows of a chunk; all ranks have all rows without.
    chunk_rows: Option<i64>,
}

#[repr(C, align(256))]
#[derive(Clone, Copy)]
struct Page([u8; 256]);

fn case(query_heads: i64, key_value_heads: i64, width: i64, dtype: Dtype) -> Case {
    let spec = Spec { query_heads, key_value_heads, ..square(INNER, query_heads, width, dtype) };
    Case::new(spec, 30)
}

/// Uneven, and none on rank 1 of three or more.
fn rank_rows(count: usize) -> Vec<i64> {
    let mut rows = vec![0; count];
    let mut left = ENCODER_ROWS;
    for (rank, place) in rows.iter_mut().enumerate() {
        let take = if rank + 1 == count {
            left
        } else if rank == 1 {
            0
        } else {
            left / 3
        };
        *place = take;
        left -= take;
    }
    rows
}

fn input(elements: &Elements, first: i64, count: i64) -> Option<Rows> {
    let offset = (first * INNER) as usize * elements.dtype.bytes();
    let address = elements.bytes.as_ptr().expose_provenance() + offset;
    (count > 0).then(|| Rows::new("rows", address, elements.dtype, count, INNER, 0, None).unwrap())
}

/// One rank's call, on its own thread.
fn forward(
    projection: &Projection,
    rank: usize,
    way: Way,
    rows: [&Elements; 2],
    rank_rows: &[i64],
) -> Result<(Done, [Elements; 3]), Error> {
    let spec = projection.spec();
    let held =
        |part| if way.gathers { spec.heads(part) } else { projection.shard().heads(part).count };
    let count = |part| if part == Part::Query { DECODER_ROWS } else { ENCODER_ROWS };
    let poisoned = |part: Part| {
        Elements::poisoned((count(part) * held(part) * spec.width(part)) as usize, Dtype::F32)
    };
    let mut results = Part::ALL.map(poisoned);
    let mut view = |part: Part| {
        let address = results[part as usize].bytes.as_mut_ptr().expose_provenance();
        let shape =
            Shape { layers: 1, rows: count(part), heads: held(part), width: spec.width(part) };
        View::new(part.name(), shape, target(address, Dtype::F32, Strides::default())).unwrap()
    };
    let mut workspace = vec![Page([0xff; 256]); 4096];
    let workspace_at = workspace.as_mut_ptr().expose_provenance();
    let sequence = way.chunk_rows.map(|chunk_rows| Sequence {
        rank_rows,
        own: input(rows[1], rank_rows[..rank].iter().sum(), rank_rows[rank]),
        dtype: rows[1].dtype,
        row_bytes: INNER as usize * rows[1].dtype.bytes(),
        chunk_rows,
    });
    let encoder = match &sequence {
        None => input(rows[1], 0, ENCODER_ROWS).unwrap(),
        Some(_) => {
            Rows::new("workspace", workspace_at, rows[1].dtype, ENCODER_ROWS, INNER, 0, None)
                .unwrap()
        }
    };
    let collective = Collective {
        gathers_query: way.gathers,
        gathers_key_value: way.gathers,
        decoder_rows: DECODER_ROWS,
        encoder_rows: ENCODER_ROWS,
        sequence,
        phase: Phase::Whole,
    };
    let has_transfers = projection.has_transfers(&collective).unwrap();
    let call = Call {
        layer: 0,
        layer_count: 1,
        decoder: (held(Part::Query) > 0).then(|| DecoderSide {
            rows: input(rows[0], 0, DECODER_ROWS).unwrap(),
            query: view(Part::Query),
        }),
        encoder: (held(Part::Key) > 0).then(|| EncoderSide {
            rows: encoder,
            key: view(Part::Key),
            value: view(Part::Value),
        }),
        lane: Lane {
            workspace: workspace_at,
            workspace_bytes: workspace.len() * 256,
            ..Lane::default()
        },
        collective: has_transfers.then_some(collective),
    };
    // SAFETY: inputs and outputs are as long as their shapes say, and this call's alone.
    unsafe { projection.forward(&call, None) }.map(|done| (done, results))
}

/// All ranks' calls at the same time.
fn together(
    case: &Case,
    backend: &Arc<dyn Backend>,
    count: usize,
    way: Way,
    rows: [&Elements; 2],
) -> Vec<(Done, [Elements; 3], Projection)> {
    let comms = Comm::threads(count, OPTIONS);
    let rank_rows = &rank_rows(count);
    thread::scope(|scope| {
        let run = |(rank, comm): (usize, Comm)| {
            scope.spawn(move || {
                let (query, key_value) = balanced(&case.spec, rank as i64, count as i64).unwrap();
                let split = Split::Explicit { query, key_value };
                let comm = Some(Arc::new(comm));
                let membership = Membership { comm, shares_replicas: way.shares };
                let projection = case.member(backend, split, membership);
                let (done, results) = forward(&projection, rank, way, rows, rank_rows).unwrap();
                (done, results, projection)
            })
        };
        let threads: Vec<_> = comms.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A rank's heads of whole results.
fn heads_of(whole: &Elements, spec: &Spec, part: Part, begin: i64, count: i64) -> Vec<u8> {
    let row_bytes = spec.outputs(part) as usize * 4;
    let (begin, count) = (begin * spec.width(part) * 4, count * spec.width(part) * 4);
    let rows = whole.bytes.chunks_exact(row_bytes);
    rows.flat_map(|row| &row[begin as usize..(begin + count) as usize]).copied().collect()
}

fn check(case: &Case, counts: &[usize], ways: &[Way]) {
    let backend = &host(1, None).unwrap();
    let mut random = Random::new(31);
    let dtype = case.spec.weight_dtype.element().unwrap_or(Dtype::F32);
    let decoder = Elements::rounded(&random.numbers((DECODER_ROWS * INNER) as usize), dtype);
    let encoder = Elements::rounded(&random.numbers((ENCODER_ROWS * INNER) as usize), dtype);
    let (whole, done) = prefill(&[case.whole(backend)], &decoder, &encoder, Dtype::F32);
    let necessary = done[0].multiply_adds;
    for &count in counts {
        for &way in ways {
            let ranks = together(case, backend, count, way, [&decoder, &encoder]);
            let executed: u64 = ranks.iter().map(|(done, ..)| done.counts.multiply_adds).sum();
            if way.gathers || way.shares {
                assert_eq!(executed, necessary, "{count} {way:?}");
            }
            for (rank, (_, results, projection)) in ranks.iter().enumerate() {
                for part in Part::ALL {
                    let held = projection.shard().heads(part);
                    let (begin, heads) = if way.gathers {
                        (0, case.spec.heads(part))
                    } else {
                        (held.begin, held.count)
                    };
                    let expected = heads_of(&whole.0[part], &case.spec, part, begin, heads);
                    assert!(
                        results[part as usize].bytes == expected,
                        "{count} {rank} {way:?} {part:?}"
                    );
                }
            }
        }
    }
}

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for chunk_rows in [None, Some(0), Some(7), Some(1)] {
        for (gathers, shares) in [(false, false), (true, false), (false, true), (true, true)] {
            ways.push(Way { gathers, shares, chunk_rows });
        }
    }
    ways
}

#[test]
fn results_have_the_bits_of_one_rank_s_and_shared_work_is_done_once() {
    check(&case(6, 6, 12, Dtype::F32), &[1, 2, 3, 4, 5, 8], &ways());
    check(&case(8, 2, 20, Dtype::Bf16), &[1, 2, 3, 4, 5, 6, 7, 8, 11], &ways());
    check(&case(8, 4, 16, Dtype::F16), &[3, 8], &ways());
}
