//! Which rows of a tensor are this rank's. Pure integer arithmetic.
//!
//! A tensor is a row of groups, each with the heads of its parts one part after the other. In
//! concatenated order there is one group with all heads; per head there is one for each key/value
//! head, with the query heads that attend to it.

use super::Extent;
use crate::shard::{Range, Shard};
use crate::spec::{Part, Spec};

/// How the parts of a fused tensor follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedOrder {
    /// All rows of a part, then all of the next.
    Concatenated,
    /// For each key/value head the rows of its query heads, its key's and its value's.
    PerHead,
}

/// The rows of a tensor of one part or of several.
pub(super) struct Rows<'a> {
    pub(super) spec: &'a Spec,
    pub(super) shard: &'a Shard,
    pub(super) parts: &'a [Part],
    pub(super) extent: Extent,
    pub(super) order: FusedOrder,
}

impl Rows<'_> {
    /// How many there are.
    pub(super) fn count(&self) -> i64 {
        self.parts.iter().map(|&part| self.heads(part).count * self.spec.width(part)).sum()
    }

    /// This rank's rows of one part, in order; rows that follow each other are one range.
    pub(super) fn of(&self, part: Part) -> Vec<Range> {
        let mut runs: Vec<Range> = Vec::new();
        let mut begin = 0;
        for group in self.groups() {
            for &member in self.parts {
                let (heads, width) = (self.heads_in(group, member), self.spec.width(member));
                if member == part {
                    let owned = heads.overlap(self.shard.heads(part));
                    let before = owned.begin - heads.begin;
                    let run = Range { begin: begin + before * width, count: owned.count * width };
                    append(&mut runs, run);
                }
                begin += heads.count * width;
            }
        }
        runs
    }

    /// The heads of a part that the tensor has.
    fn heads(&self, part: Part) -> Range {
        match self.extent {
            Extent::Whole => Range { begin: 0, count: self.spec.heads(part) },
            Extent::Shard => self.shard.heads(part),
        }
    }

    /// The heads of a part that the tensor has in a group.
    fn heads_in(&self, group: i64, part: Part) -> Range {
        let count = self.spec.heads(part) / self.group_count();
        Range { begin: group * count, count }.overlap(self.heads(part))
    }

    /// The groups that the tensor has heads of, which may be few of a spec's many.
    fn groups(&self) -> std::ops::Range<i64> {
        let groups = self.parts.iter().filter_map(|&part| {
            let (heads, size) = (self.heads(part), self.spec.heads(part) / self.group_count());
            (heads.count > 0).then(|| (heads.begin / size, (heads.end() - 1) / size + 1))
        });
        let union = |a: (i64, i64), b: (i64, i64)| (a.0.min(b.0), a.1.max(b.1));
        groups.reduce(union).map_or(0..0, |(begin, end)| begin..end)
    }

    fn group_count(&self) -> i64 {
        match self.order {
            FusedOrder::Concatenated => 1,
            // Without key/value heads, query heads have nothing between them.
            FusedOrder::PerHead => self.spec.key_value_heads.max(1),
        }
    }
}

fn append(runs: &mut Vec<Range>, run: Range) {
    match runs.last_mut() {
        _ if run.count == 0 => {}
        Some(last) if last.end() == run.begin => last.count += run.count,
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Split, balanced};
    use crate::spec::tests::whisper_tiny;

    const QKV: [Part; 3] = Part::ALL;
    const KV: [Part; 2] = [Part::Key, Part::Value];
    const ORDERS: [FusedOrder; 2] = [FusedOrder::Concatenated, FusedOrder::PerHead];
    const EXTENTS: [Extent; 2] = [Extent::Whole, Extent::Shard];

    /// Rows of two lanes for Q and K, and of one lane for V.
    fn spec(query_heads: i64, key_value_heads: i64) -> Spec {
        let (head_width, value_head_width) = (2, 1);
        Spec { query_heads, key_value_heads, head_width, value_head_width, ..whisper_tiny() }
    }

    fn range(begin: i64, count: i64) -> Range {
        Range { begin, count }
    }

    fn shard(spec: &Spec, query: Range, key_value: Range) -> Shard {
        Shard::cut(spec, Split::Explicit { query, key_value }, range(0, 0)).unwrap()
    }

    /// The tensor's rows by name, written down in the order in which an engine would stack them.
    fn named(rows: &Rows<'_>) -> Vec<(Part, i64)> {
        let heads = |part: Part| {
            let heads = rows.heads(part);
            heads.begin..heads.end()
        };
        let of_head = |part: Part, head: i64| {
            let width = rows.spec.width(part);
            (head * width..(head + 1) * width).map(move |row| (part, row))
        };
        let group_of = |part: Part, head: i64| match part {
            Part::Query => head * rows.spec.key_value_heads.max(1) / rows.spec.query_heads,
            Part::Key | Part::Value => head,
        };
        let mut all: Vec<(i64, usize, i64, Part)> = Vec::new();
        for (position, &part) in rows.parts.iter().enumerate() {
            all.extend(heads(part).map(|head| match rows.order {
                FusedOrder::Concatenated => (0, position, head, part),
                FusedOrder::PerHead => (group_of(part, head), position, head, part),
            }));
        }
        all.sort_by_key(|&(group, position, head, _)| (group, position, head));
        all.into_iter().flat_map(|(_, _, head, part)| of_head(part, head)).collect()
    }

    fn ensure_cut_is_right(rows: &Rows<'_>) {
        let named = named(rows);
        assert_eq!(rows.count(), named.len() as i64);
        for &part in rows.parts {
            let owned = rows.shard.outputs(rows.spec, part);
            let expected: Vec<_> = (owned.begin..owned.end()).map(|row| (part, row)).collect();
            let runs = rows.of(part);
            let cut: Vec<_> = runs
                .iter()
                .flat_map(|run| &named[run.begin as usize..run.end() as usize])
                .copied()
                .collect();
            assert_eq!(cut, expected, "{part:?} {:?} {:?}", rows.extent, rows.order);
        }
    }

    fn ensure_every_cut_is_right(spec: &Spec, shard: &Shard) {
        for (extent, order) in EXTENTS.into_iter().flat_map(|e| ORDERS.map(|order| (e, order))) {
            for parts in [&QKV[..], &KV, &QKV[..1], &KV[..1], &KV[1..]] {
                ensure_cut_is_right(&Rows { spec, shard, parts, extent, order });
            }
        }
    }

    #[test]
    fn every_rank_finds_its_rows_in_every_order_and_extent() {
        for (query_heads, key_value_heads) in [(6, 6), (8, 2), (12, 3), (5, 1), (4, 0), (0, 4)] {
            let spec = spec(query_heads, key_value_heads);
            for rank_count in 1..8 {
                for rank in 0..rank_count {
                    let (query, key_value) = balanced(&spec, rank, rank_count).unwrap();
                    ensure_every_cut_is_right(&spec, &shard(&spec, query, key_value));
                }
            }
        }
    }

    #[test]
    fn a_side_without_heads_and_one_that_is_whole_are_cut_right() {
        let spec = spec(8, 4);
        for (query, key_value) in [
            (range(0, 0), range(1, 2)),
            (range(3, 4), range(0, 0)),
            (range(0, 0), range(0, 0)),
            (range(3, 1), range(0, 4)),
            (range(8, 0), range(4, 0)),
        ] {
            ensure_every_cut_is_right(&spec, &shard(&spec, query, key_value));
        }
    }

    #[test]
    fn a_shard_of_a_few_heads_is_cut_at_once_whatever_the_spec_has() {
        let spec = spec(1 << 40, 1 << 40);
        let heads = range((1 << 40) - 2, 2);
        let (shard, parts) = (&shard(&spec, heads, heads), &QKV);
        let (extent, order) = (Extent::Shard, FusedOrder::PerHead);
        let rows = Rows { spec: &spec, shard, parts, extent, order };
        assert_eq!(rows.of(Part::Key), [range(2, 2), range(7, 2)]);
    }

    #[test]
    fn rows_that_follow_each_other_are_one_range() {
        let spec = spec(4, 2);
        let shard = shard(&spec, range(2, 2), range(1, 1));
        let rows = |order, extent| Rows { spec: &spec, shard: &shard, parts: &QKV, extent, order };
        let whole = rows(FusedOrder::PerHead, Extent::Whole);
        assert_eq!(QKV.map(|part| whole.of(part)), [[range(7, 4)], [range(11, 2)], [range(13, 1)]]);
        let own = rows(FusedOrder::PerHead, Extent::Shard);
        assert_eq!(QKV.map(|part| own.of(part)), [[range(0, 4)], [range(4, 2)], [range(6, 1)]]);
        let stacked = rows(FusedOrder::Concatenated, Extent::Whole);
        assert_eq!(stacked.of(Part::Key), [range(10, 2)]);
    }
}
