//! Geometry as properties: whatever the spec and the ranks, shards tile the whole, and a query
//! head's key/value head is on its own rank.

#[path = "common/models.rs"]
mod models;

use proptest::prelude::*;
use xqkv::dtype::Dtype;
use xqkv::error::Status;
use xqkv::shard::{Range, Shard, Split, balanced};
use xqkv::spec::{Part, Parts, Spec};

const ALL_LAYERS: Range = Range { begin: 0, count: 0 };

/// Any checked spec: grouped heads, either side absent, widths that differ.
fn specs() -> impl Strategy<Value = Spec> {
    let heads = prop_oneof![
        (1i64..=20, 1i64..=8).prop_map(|(key_value, group)| (key_value * group, key_value)),
        (1i64..=40).prop_map(|query| (query, 0)),
        (1i64..=40).prop_map(|key_value| (0, key_value)),
    ];
    (heads, 1i64..300, 1i64..300, 1i64..9000, 1i64..9000, 1i64..50).prop_map(
        |(
            (query_heads, key_value_heads),
            head_width,
            value_head_width,
            decoder,
            encoder,
            layers,
        )| {
            Spec {
                layer_count: layers,
                decoder_width: decoder,
                encoder_width: encoder,
                query_heads,
                key_value_heads,
                head_width,
                value_head_width,
                weight_dtype: Dtype::F16.into(),
                bias: Parts { query: true, key: false, value: true },
                scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
                norm: None,
            }
        },
    )
}

/// How often each head is held by the ranks' ranges.
fn copies(heads: i64, ranges: &[Range]) -> Vec<usize> {
    let count =
        |head| ranges.iter().filter(|range| range.holds(Range { begin: head, count: 1 })).count();
    (0..heads).map(count).collect()
}

/// Each query head's key/value head is on the same rank.
fn keeps_groups(spec: &Spec, shard: &Shard) -> bool {
    if spec.key_value_heads == 0 {
        return true;
    }
    let group = spec.query_heads / spec.key_value_heads;
    let mut heads = shard.query_heads.begin..shard.query_heads.end();
    heads.all(|head| shard.key_value_heads.holds(Range { begin: head / group, count: 1 }))
}

/// Cuts every rank's shard, or gives the first refusal.
fn cut_all(spec: &Spec, ranks: i64, split: impl Fn(i64) -> Split) -> Result<Vec<Shard>, Status> {
    let cut = |rank| Shard::cut(spec, split(rank), ALL_LAYERS).map_err(|error| error.status);
    (0..ranks).map(cut).collect()
}

fn check_even(spec: &Spec, ranks: i64) {
    let shards = match cut_all(spec, ranks, |rank| Split::Even { rank, rank_count: ranks }) {
        Ok(shards) => shards,
        Err(status) => {
            assert_eq!(status, Status::IndivisibleHeads);
            return check_balanced(spec, ranks);
        }
    };
    let query: Vec<Range> = shards.iter().map(|shard| shard.query_heads).collect();
    let key_value: Vec<Range> = shards.iter().map(|shard| shard.key_value_heads).collect();
    let replicas = (ranks / spec.key_value_heads.max(1)).max(1) as usize;
    assert!(copies(spec.query_heads, &query).iter().all(|&copies| copies == 1));
    assert!(copies(spec.key_value_heads, &key_value).iter().all(|&copies| copies == replicas));
    assert!(shards.iter().all(|shard| keeps_groups(spec, shard)));
    if spec.key_value_heads == 0 || spec.key_value_heads % ranks == 0 {
        let whole = Shard::cut(spec, Split::Even { rank: 0, rank_count: 1 }, ALL_LAYERS).unwrap();
        let parts: i64 = shards.iter().map(|shard| shard.weight_bytes(spec)).sum();
        assert_eq!(parts, whole.weight_bytes(spec));
    }
    check_balanced(spec, ranks);
}

/// The balanced split is explicit, is accepted, tiles Q, covers K and V, and is even to one head.
fn check_balanced(spec: &Spec, ranks: i64) {
    let explicit = |rank| {
        let (query, key_value) = balanced(spec, rank, ranks).unwrap();
        Split::Explicit { query, key_value }
    };
    let shards = cut_all(spec, ranks, explicit).unwrap();
    let query: Vec<Range> = shards.iter().map(|shard| shard.query_heads).collect();
    let key_value: Vec<Range> = shards.iter().map(|shard| shard.key_value_heads).collect();
    assert!(copies(spec.query_heads, &query).iter().all(|&copies| copies == 1));
    let held = copies(spec.key_value_heads, &key_value);
    assert!(held.iter().all(|&copies| copies >= 1));
    assert!(spec.key_value_heads < ranks || held.iter().all(|&copies| copies == 1));
    assert!(shards.iter().all(|shard| keeps_groups(spec, shard)));
}

proptest! {
    #[test]
    fn shards_tile_the_whole(spec in specs(), ranks in 1i64..=64) {
        spec.check().unwrap();
        check_even(&spec, ranks);
    }

    #[test]
    fn a_query_split_shares_q_and_repeats_k_and_v(spec in specs(), ranks in 1i64..=16) {
        let query = |rank| Split::Query { rank, rank_count: ranks };
        if let Ok(shards) = cut_all(&spec, ranks, query) {
            let heads: Vec<Range> = shards.iter().map(|shard| shard.query_heads).collect();
            prop_assert!(copies(spec.query_heads, &heads).iter().all(|&copies| copies == 1));
            let whole = Range { begin: 0, count: spec.key_value_heads };
            prop_assert!(shards.iter().all(|shard| shard.key_value_heads == whole));
        } else {
            prop_assert!(spec.query_heads % ranks != 0);
        }
    }

    #[test]
    fn an_explicit_split_is_taken_exactly_when_it_keeps_its_groups(
        spec in specs(), query in (-2i64..45, -2i64..45), key_value in (-2i64..45, -2i64..45),
    ) {
        let range = |(begin, count)| Range { begin, count };
        let (query, key_value) = (range(query), range(key_value));
        let inside = |range: Range, heads: i64| {
            range.begin >= 0 && range.count >= 0 && range.begin <= heads && range.end() <= heads
        };
        let legal = inside(query, spec.query_heads) && inside(key_value, spec.key_value_heads);
        let shard = Shard { query_heads: query, key_value_heads: key_value, layers: ALL_LAYERS };
        let is_one_sided = query.count == 0 || key_value.count == 0;
        let expected = legal && (is_one_sided || keeps_groups(&spec, &shard));
        let cut = Shard::cut(&spec, Split::Explicit { query, key_value }, ALL_LAYERS);
        prop_assert_eq!(cut.is_ok(), expected);
    }

    #[test]
    fn no_numbers_make_the_arithmetic_overflow(
        sizes in prop::array::uniform7(prop_oneof![any::<i64>(), -3i64..70, Just(i64::MAX), Just(1 << 31)]),
        ranges in prop::array::uniform6(prop_oneof![any::<i64>(), -3i64..70, Just(i64::MIN)]),
    ) {
        let mut spec = models::spec(&models::MODELS[0]);
        [spec.layer_count, spec.decoder_width, spec.encoder_width, spec.query_heads,
         spec.key_value_heads, spec.head_width, spec.value_head_width] = sizes;
        if spec.check().is_ok() {
            let range = |at: usize| Range { begin: ranges[at], count: ranges[at + 1] };
            let (rank, rank_count) = (ranges[0], ranges[1]);
            for split in [
                Split::Even { rank, rank_count },
                Split::Query { rank, rank_count },
                Split::Explicit { query: range(0), key_value: range(2) },
            ] {
                if let Ok(shard) = Shard::cut(&spec, split, range(4)) {
                    prop_assert!(shard.weight_bytes(&spec) >= 0);
                    prop_assert!(Part::ALL.iter().all(|&part| shard.outputs(&spec, part).end() <= spec.outputs(part)));
                }
            }
        }
    }
}

#[test]
fn every_real_model_is_shared_by_any_number_of_ranks() {
    for model in models::MODELS {
        let spec = models::spec(model);
        spec.check().unwrap_or_else(|error| panic!("{}: {error}", model.0));
        for ranks in 1..=64 {
            check_even(&spec, ranks);
        }
    }
}

#[test]
fn llama_90b_on_sixteen_ranks_holds_each_key_value_head_twice() {
    let spec = models::spec(models::MODELS.iter().find(|model| model.0.contains("90b")).unwrap());
    for rank in 0..16 {
        let shard = Shard::cut(&spec, Split::Even { rank, rank_count: 16 }, ALL_LAYERS).unwrap();
        assert_eq!(shard.outputs(&spec, Part::Query), Range { begin: rank * 512, count: 512 });
        assert_eq!(shard.outputs(&spec, Part::Key), Range { begin: rank / 2 * 128, count: 128 });
    }
}
