//! Which heads and layers this rank holds. Pure integer arithmetic, column-parallel over heads: no
//! head is ever cut, and the K/V head that a query head attends to stays on the query head's rank.

mod ranks;

pub use ranks::{Piece, Ranks, Reach, Segment};

use crate::error::{Error, Status, ensure};
use crate::spec::{Part, Spec, bytes_of};

/// Some consecutive heads or layers of the uncut whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub begin: i64,
    /// How many.
    pub count: i64,
}

impl Range {
    /// The first after the last.
    pub fn end(self) -> i64 {
        self.begin + self.count
    }

    /// Whether all of `inner` lies in this range.
    pub fn holds(self, inner: Range) -> bool {
        self.begin <= inner.begin && inner.end() <= self.end()
    }

    /// What lies in both ranges.
    pub fn overlap(self, other: Range) -> Range {
        let begin = self.begin.max(other.begin);
        Range { begin, count: (self.end().min(other.end()) - begin).max(0) }
    }

    fn check(self, name: &str, whole: i64) -> Result<(), Error> {
        let Range { begin, count } = self;
        ensure!(
            begin >= 0 && count >= 0 && begin <= whole && count <= whole - begin,
            InvalidArgument,
            "{name}_begin {begin} and {name}_count {count} leave the {whole} there are; \
             begin + count must be <= {whole}"
        );
        Ok(())
    }
}

/// How the heads are spread over the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// As vLLM and Megatron cut: equal shares, K/V heads replicated when there are more ranks.
    Even {
        /// This rank.
        rank: i64,
        /// All of them.
        rank_count: i64,
    },
    /// These heads, in the caller's words.
    Explicit {
        /// Heads of Q.
        query: Range,
        /// Heads of K and V.
        key_value: Range,
    },
    /// Equal shares of Q; every rank holds all of K and V.
    Query {
        /// This rank.
        rank: i64,
        /// All of them.
        rank_count: i64,
    },
}

/// What one rank holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Heads of Q.
    pub query_heads: Range,
    /// Heads of K and V.
    pub key_value_heads: Range,
    /// Layers, for ranks of a pipeline.
    pub layers: Range,
}

impl Shard {
    /// Cuts a checked spec. `layers` with count 0 stands for all of them.
    pub fn cut(spec: &Spec, split: Split, layers: Range) -> Result<Shard, Error> {
        let (query_heads, key_value_heads) = match split {
            Split::Even { rank, rank_count } => even(spec, rank, rank_count)?,
            Split::Explicit { query, key_value } => explicit(spec, query, key_value)?,
            Split::Query { rank, rank_count } => query_only(spec, rank, rank_count)?,
        };
        Ok(Shard { query_heads, key_value_heads, layers: layers_of(spec, layers)? })
    }

    /// This rank's heads of a part.
    pub fn heads(&self, part: Part) -> Range {
        match part {
            Part::Query => self.query_heads,
            Part::Key | Part::Value => self.key_value_heads,
        }
    }

    /// This rank's rows of a part's uncut weight.
    pub fn outputs(&self, spec: &Spec, part: Part) -> Range {
        let (heads, width) = (self.heads(part), spec.width(part));
        Range { begin: heads.begin * width, count: heads.count * width }
    }

    /// Bytes of this rank's weights, biases and norms, before a backend's padding.
    pub fn weight_bytes(&self, spec: &Spec) -> i64 {
        let bytes = bytes_of(spec, |part| self.heads(part).count, self.layers.count);
        bytes.expect("a shard is never larger than its spec, which was checked")
    }
}

fn even(spec: &Spec, rank: i64, rank_count: i64) -> Result<(Range, Range), Error> {
    check_rank(rank, rank_count)?;
    let (query, key_value) = (spec.query_heads, spec.key_value_heads);
    let replicated = key_value < rank_count && key_value > 0 && rank_count % key_value == 0;
    ensure_divides(spec, "query", query, rank, rank_count)?;
    if !replicated {
        ensure_divides(spec, "key/value", key_value, rank, rank_count)?;
    }
    Ok((share(query, rank, rank_count), covering_share(key_value, rank, rank_count)))
}

fn query_only(spec: &Spec, rank: i64, rank_count: i64) -> Result<(Range, Range), Error> {
    check_rank(rank, rank_count)?;
    ensure_divides(spec, "query", spec.query_heads, rank, rank_count)?;
    let whole = Range { begin: 0, count: spec.key_value_heads };
    Ok((share(spec.query_heads, rank, rank_count), whole))
}

fn explicit(spec: &Spec, query: Range, key_value: Range) -> Result<(Range, Range), Error> {
    query.check("query_head", spec.query_heads)?;
    key_value.check("key_value_head", spec.key_value_heads)?;
    let needed = key_value_heads_of(spec, query);
    ensure!(
        query.count == 0 || key_value.count == 0 || key_value.holds(needed),
        InvalidArgument,
        "query heads {}..{} attend to key/value heads {}..{}, but this rank would hold {}..{}; \
         widen key_value_head_begin and _count, or give one side no heads at all",
        query.begin,
        query.end(),
        needed.begin,
        needed.end(),
        key_value.begin,
        key_value.end()
    );
    Ok((query, key_value))
}

fn layers_of(spec: &Spec, layers: Range) -> Result<Range, Error> {
    let layers = match layers.count {
        0 => Range { begin: layers.begin, count: spec.layer_count.saturating_sub(layers.begin) },
        _ => layers,
    };
    let Range { begin, count } = layers;
    ensure!(
        begin >= 0 && count > 0 && begin < spec.layer_count && count <= spec.layer_count - begin,
        LayerOutOfRange,
        "layer_begin {begin} and layer_count {count} leave the spec's {} layers",
        spec.layer_count
    );
    Ok(layers)
}

fn check_rank(rank: i64, rank_count: i64) -> Result<(), Error> {
    ensure!(
        rank_count >= 1 && (0..rank_count).contains(&rank),
        InvalidArgument,
        "rank {rank} of rank_count {rank_count} does not exist; ranks are 0 to rank_count - 1"
    );
    Ok(())
}

fn ensure_divides(
    spec: &Spec,
    side: &str,
    heads: i64,
    rank: i64,
    rank_count: i64,
) -> Result<(), Error> {
    if heads % rank_count == 0 {
        return Ok(());
    }
    let (query, key_value) = balanced(spec, rank, rank_count)?;
    let message = format!(
        "{heads} {side} heads do not divide over {rank_count} ranks; use XQKV_SPLIT_EXPLICIT, for \
         example on rank {rank} query_head_begin {}, query_head_count {}, key_value_head_begin {}, \
         key_value_head_count {}",
        query.begin, query.count, key_value.begin, key_value.count
    );
    Err(Error::new(Status::IndivisibleHeads, message))
}

/// The uneven split that differs by at most one head between ranks; K/V heads are replicated only
/// where ranks outnumber them.
pub fn balanced(spec: &Spec, rank: i64, rank_count: i64) -> Result<(Range, Range), Error> {
    check_rank(rank, rank_count)?;
    let (query, key_value) = (spec.query_heads, spec.key_value_heads);
    if query == 0 {
        return Ok((Range::default(), share(key_value, rank, rank_count)));
    }
    if key_value >= rank_count {
        let owned = share(key_value, rank, rank_count);
        let group = query / key_value;
        return Ok((Range { begin: owned.begin * group, count: owned.count * group }, owned));
    }
    let owned = share(query, rank, rank_count);
    Ok((owned, key_value_heads_of(spec, owned)))
}

/// The K/V heads that these query heads attend to.
fn key_value_heads_of(spec: &Spec, query: Range) -> Range {
    if query.count == 0 || spec.key_value_heads == 0 {
        return Range::default();
    }
    let group = spec.query_heads / spec.key_value_heads;
    let begin = query.begin / group;
    Range { begin, count: (query.end() - 1) / group + 1 - begin }
}

/// The rank's share of so many heads; shares tile the whole.
fn share(heads: i64, rank: i64, rank_count: i64) -> Range {
    let (begin, end) =
        (proportion(heads, rank, rank_count), proportion(heads, rank + 1, rank_count));
    Range { begin, count: end - begin }
}

/// The rank's share, or the head that it must have a copy of where its share is less than one.
fn covering_share(heads: i64, rank: i64, rank_count: i64) -> Range {
    match share(heads, rank, rank_count) {
        Range { count: 0, .. } if heads > 0 => {
            Range { begin: proportion(heads, rank, rank_count), count: 1 }
        }
        owned => owned,
    }
}

/// heads · rank / rank_count, rounded down; 128 bits, so that no product overflows.
fn proportion(heads: i64, rank: i64, rank_count: i64) -> i64 {
    (i128::from(heads) * i128::from(rank) / i128::from(rank_count)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::whisper_tiny;

    const ALL_LAYERS: Range = Range { begin: 0, count: 0 };

    fn heads(query_heads: i64, key_value_heads: i64) -> Spec {
        Spec { query_heads, key_value_heads, ..whisper_tiny() }
    }

    #[test]
    fn key_value_heads_are_replicated_when_ranks_outnumber_them() {
        let spec = heads(32, 8);
        for rank in 0..16 {
            let shard =
                Shard::cut(&spec, Split::Even { rank, rank_count: 16 }, ALL_LAYERS).unwrap();
            assert_eq!(shard.query_heads, Range { begin: rank * 2, count: 2 });
            assert_eq!(shard.key_value_heads, Range { begin: rank / 2, count: 1 });
        }
    }

    #[test]
    fn indivisible_heads_name_an_explicit_split_that_works() {
        let spec = heads(6, 6);
        let split = Split::Even { rank: 1, rank_count: 4 };
        let error = Shard::cut(&spec, split, ALL_LAYERS).unwrap_err();
        assert_eq!(error.status, Status::IndivisibleHeads);
        assert!(error.message.contains("query_head_begin 1, query_head_count 2"), "{error}");
        let (query, key_value) = balanced(&spec, 1, 4).unwrap();
        Shard::cut(&spec, Split::Explicit { query, key_value }, ALL_LAYERS).unwrap();
    }

    #[test]
    fn an_explicit_split_may_not_part_a_query_head_from_its_key() {
        let spec = heads(8, 2);
        let range = |begin, count| Range { begin, count };
        let split = |query, key_value| Split::Explicit { query, key_value };
        let cut = |split| Shard::cut(&spec, split, ALL_LAYERS);
        assert!(cut(split(range(2, 4), range(0, 1))).is_err());
        assert!(cut(split(range(2, 4), range(0, 2))).is_ok());
        assert!(cut(split(range(2, 4), range(0, 0))).is_ok());
        assert!(cut(split(range(0, 0), range(1, 1))).is_ok());
        assert!(cut(split(range(5, i64::MAX), range(0, 2))).is_err());
    }

    #[test]
    fn layer_ranges_stay_inside_the_spec() {
        let spec = whisper_tiny();
        let split = Split::Even { rank: 0, rank_count: 1 };
        let layers = |begin, count| Shard::cut(&spec, split, Range { begin, count });
        assert_eq!(layers(1, 0).unwrap().layers, Range { begin: 1, count: 3 });
        assert_eq!(layers(2, 2).unwrap().layers, Range { begin: 2, count: 2 });
        for (begin, count) in [(4, 0), (-1, 2), (3, 2), (1, i64::MAX), (i64::MIN, 0)] {
            assert_eq!(layers(begin, count).unwrap_err().status, Status::LayerOutOfRange);
        }
    }
}
