//! What all ranks of a group hold together, and which of them does which work: a head that several
//! ranks hold is projected once, by one of them or by each for a part of the rows.

use super::{Range, Shard};
use crate::error::{Error, ensure};
use crate::spec::{Part, Spec};

/// The shards of all ranks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    shards: Vec<Shard>,
}

/// Some heads of a part that the same ranks hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The heads, of the uncut layer.
    pub heads: Range,
    /// Who holds them, in order.
    pub holders: Vec<usize>,
}

/// Work that one rank does for all who need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Who does it.
    pub owner: usize,
    /// Who needs it, in order; the owner is among them.
    pub readers: Vec<usize>,
    /// Which heads, of the uncut layer.
    pub heads: Range,
    /// Which rows.
    pub rows: Range,
}

/// How far results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the ranks that hold their heads, each of which projects its own.
    Holders,
    /// To the ranks that hold their heads, which share the work.
    Sharers,
    /// To all ranks, and one of those that hold a head projects it.
    All,
    /// To all ranks, and those that hold a head share the work.
    AllShared,
}

impl Reach {
    /// Whether ranks that hold the same head share its work.
    pub fn is_shared(self) -> bool {
        matches!(self, Reach::Sharers | Reach::AllShared)
    }

    /// Whether every rank gets all heads.
    pub fn is_all(self) -> bool {
        matches!(self, Reach::All | Reach::AllShared)
    }
}

impl Ranks {
    /// A group of these shards.
    pub fn new(shards: Vec<Shard>) -> Self {
        Self { shards }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Refuses to gather heads that no rank holds.
    pub fn ensure_covered(&self, spec: &Spec, part: Part) -> Result<(), Error> {
        let whole = spec.heads(part);
        let held = self.segments(part).iter().map(|segment| segment.heads.count).sum::<i64>();
        ensure!(
            held == whole,
            InvalidArgument,
            "the ranks hold {held} of {whole} heads of {}; to gather them, each must be on a rank",
            part.name()
        );
        Ok(())
    }

    /// The heads of a part, cut where other ranks begin to hold them; those that no rank holds are
    /// left out.
    pub fn segments(&self, part: Part) -> Vec<Segment> {
        let held = || self.shards.iter().map(|shard| shard.heads(part));
        let held = || held().filter(|heads| heads.count > 0);
        let mut cuts: Vec<i64> = held().flat_map(|heads| [heads.begin, heads.end()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let segments = cuts.windows(2).map(|cut| {
            let heads = Range { begin: cut[0], count: cut[1] - cut[0] };
            Segment { heads, holders: self.holders(part, heads) }
        });
        segments.filter(|segment| !segment.holders.is_empty()).collect()
    }

    fn holders(&self, part: Part, heads: Range) -> Vec<usize> {
        let holds = |rank: &usize| self.shards[*rank].heads(part).holds(heads);
        (0..self.count()).filter(holds).collect()
    }

    /// The work of a part for so many rows, in the order of its owners. Each row of each head that
    /// some rank holds is in one piece of every reader.
    pub fn pieces(&self, part: Part, rows: i64, reach: Reach) -> Vec<Piece> {
        let all = Range { begin: 0, count: rows };
        let mut pieces = Vec::new();
        for Segment { heads, holders } in self.segments(part) {
            let readers =
                if reach.is_all() { (0..self.count()).collect() } else { holders.clone() };
            match reach {
                Reach::All => pieces.push(Piece { owner: holders[0], readers, heads, rows: all }),
                Reach::Holders => pieces.extend(holders.iter().map(|&owner| Piece {
                    owner,
                    readers: vec![owner],
                    heads,
                    rows: all,
                })),
                Reach::Sharers | Reach::AllShared => {
                    pieces.extend(shared(&holders, &readers, heads, rows));
                }
            }
        }
        pieces.sort_by_key(|piece| (piece.owner, piece.heads.begin));
        merged(pieces)
    }

    /// Whether any head of a part is on several ranks.
    pub fn has_replicas(&self, part: Part) -> bool {
        self.segments(part).iter().any(|segment| segment.holders.len() > 1)
    }
}

/// One segment's rows, spread over its holders; a holder without rows has no piece.
fn shared(holders: &[usize], readers: &[usize], heads: Range, rows: i64) -> Vec<Piece> {
    let count = holders.len() as i64;
    let pieces = holders.iter().enumerate().map(|(at, &owner)| {
        let rows = super::share(rows, at as i64, count);
        Piece { owner, readers: readers.to_vec(), heads, rows }
    });
    pieces.filter(|piece| piece.rows.count > 0).collect()
}

/// Pieces of one owner whose heads follow each other for the same rows and readers are one.
fn merged(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces {
        match merged.last_mut() {
            Some(last)
                if last.owner == piece.owner
                    && (last.rows, &last.readers) == (piece.rows, &piece.readers)
                    && last.heads.end() == piece.heads.begin =>
            {
                last.heads.count += piece.heads.count;
            }
            _ => merged.push(piece),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::balanced;
    use crate::spec::tests::whisper_tiny;

    const ROWS: i64 = 7;
    const REACHES: [Reach; 4] = [Reach::Holders, Reach::Sharers, Reach::All, Reach::AllShared];

    fn ranks(query_heads: i64, key_value_heads: i64, count: i64) -> (Spec, Ranks) {
        let spec = Spec { query_heads, key_value_heads, ..whisper_tiny() };
        let layers = Range { begin: 0, count: spec.layer_count };
        let shard = |rank| {
            let (query_heads, key_value_heads) = balanced(&spec, rank, count).unwrap();
            Shard { query_heads, key_value_heads, layers }
        };
        let ranks = Ranks::new((0..count).map(shard).collect());
        (spec, ranks)
    }

    /// How often each (head, row) is done, and is needed by each rank.
    fn counts(pieces: &[Piece], heads: i64, reader: Option<usize>) -> Vec<u32> {
        let mut counts = vec![0; (heads * ROWS) as usize];
        let wanted = |piece: &&Piece| reader.is_none_or(|reader| piece.readers.contains(&reader));
        for piece in pieces.iter().filter(wanted) {
            for head in piece.heads.begin..piece.heads.end() {
                for row in piece.rows.begin..piece.rows.end() {
                    counts[(head * ROWS + row) as usize] += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn every_reader_gets_each_row_of_each_of_its_heads_once() {
        for (query, key_value) in [(6, 6), (8, 2), (8, 4), (32, 8), (4, 1)] {
            for count in 1..12 {
                let (_, ranks) = ranks(query, key_value, count);
                for reach in REACHES {
                    let pieces = ranks.pieces(Part::Key, ROWS, reach);
                    for reader in 0..ranks.count() {
                        let own = ranks.shards[reader].key_value_heads;
                        for (at, times) in
                            counts(&pieces, key_value, Some(reader)).into_iter().enumerate()
                        {
                            let head = at as i64 / ROWS;
                            let is_own = own.begin <= head && head < own.end();
                            let expected = u32::from(reach.is_all() || is_own);
                            assert_eq!(times, expected, "{query} {key_value} {count} {reach:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_heads_that_are_neither_shared_nor_gathered_are_done_more_than_once() {
        for count in 1..12 {
            let (spec, ranks) = ranks(8, 2, count);
            for reach in REACHES {
                let pieces = ranks.pieces(Part::Value, ROWS, reach);
                let done = counts(&pieces, spec.key_value_heads, None);
                let most = done.iter().copied().max().unwrap();
                assert_eq!(most > 1, reach == Reach::Holders && count > 2, "{count} {reach:?}");
            }
        }
    }

    #[test]
    fn pieces_come_in_the_order_of_their_owners_and_are_never_empty() {
        for count in 1..12 {
            let (_, ranks) = ranks(8, 4, count);
            for reach in REACHES {
                let pieces = ranks.pieces(Part::Key, 2, reach);
                assert!(pieces.is_sorted_by_key(|piece| piece.owner));
                let is_something = |piece: &Piece| piece.heads.count > 0 && piece.rows.count > 0;
                assert!(pieces.iter().all(is_something));
                assert!(pieces.iter().all(|piece| piece.readers.contains(&piece.owner)));
            }
        }
    }

    #[test]
    fn heads_that_no_rank_holds_cannot_be_gathered() {
        let (spec, ranks) = ranks(6, 6, 3);
        ranks.ensure_covered(&spec, Part::Query).unwrap();
        let fewer = Ranks::new(ranks.shards[1..].to_vec());
        let error = fewer.ensure_covered(&spec, Part::Query).unwrap_err();
        assert!(error.message.contains("4 of 6 heads of query"), "{error}");
    }
}
