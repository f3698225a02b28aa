//! What a call does with other ranks: encoder rows that each has a part of, results that each needs
//! the others' of, and work that ranks with the same heads share.
//!
//! ```text
//! transfers   rows of rank 1    rows of rank 2 ...             Q          K and V
//! products    Q, then K and V of rank 0's rows,  of rank 1's, ...
//! ```
//!
//! A transfer is started before the products that run beside it, and waited for by those that need
//! it: at most one transfer is ever waited for with nothing to do.

use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use crate::shard::Range;
use crate::view::Rows;

/// What a call asks of the other ranks.
#[derive(Clone, Debug)]
pub struct Collective<'a> {
    /// Whether Q of all heads goes to all ranks.
    pub gathers_query: bool,
    /// Whether K and V of all heads go to all ranks.
    pub gathers_key_value: bool,
    /// Decoder rows, also where this rank has no heads for them.
    pub decoder_rows: i64,
    /// Encoder rows of all ranks together, also where this rank has no heads for them.
    pub encoder_rows: i64,
    /// Encoder rows that each rank has a part of.
    pub sequence: Option<Sequence<'a>>,
    /// How much of the call is to be done now.
    pub phase: Phase,
}

/// How much of a call is done at a time. Between the halves the engine ends its own group of NCCL
/// calls, before which no transfer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All of it.
    Whole,
    /// What is done until the transfers are asked for.
    Start,
    /// What needs them to be done.
    Finish,
}

/// Encoder rows that each rank has a part of, in the order of ranks.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// How many each rank has.
    pub rank_rows: &'a [i64],
    /// This rank's, if it has any.
    pub own: Option<Rows>,
    /// What all ranks' rows are.
    pub dtype: Dtype,
    /// Bytes of a row, which are packed.
    pub row_bytes: usize,
    /// Most rows of one transfer; 0 leaves it to the library.
    pub chunk_rows: i64,
}

/// Some rows of one rank, which are sent in one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) root: usize,
    /// Which of all ranks' rows.
    pub(super) rows: Range,
}

/// What chunks are chosen by: few enough that each is worth its transfer, and so many that the
/// first one, which nothing hides, is a small part.
const CHUNKS: i64 = 8;
const FEWEST_ROWS: i64 = 128;

impl Collective<'_> {
    /// Refuses halves of a call whose transfers depend on each other, or that has no streams.
    pub(super) fn ensure_halves(
        &self,
        is_streamed: bool,
        moves_results: bool,
    ) -> Result<(), Error> {
        ensure!(
            self.phase == Phase::Whole || is_streamed,
            NotSupported,
            "XQKV_FORWARD_FLAG_START and _FINISH are for NCCL and other collectives on streams; on \
             the host make the whole call"
        );
        ensure!(
            self.phase == Phase::Whole || self.sequence.is_none() || !moves_results,
            NotSupported,
            "a call that both gathers encoder rows and moves results has two rounds of transfers, \
             and cannot be halved; make it whole, outside of a group"
        );
        Ok(())
    }
}

impl Sequence<'_> {
    /// The first of a rank's rows among all.
    pub(super) fn first_row(&self, rank: usize) -> i64 {
        self.rank_rows[..rank].iter().sum()
    }

    /// Rows of all ranks together.
    pub fn row_count(&self) -> i64 {
        self.rank_rows.iter().sum()
    }

    /// Most rows of one transfer.
    fn most_rows(&self) -> i64 {
        match self.chunk_rows {
            0 => FEWEST_ROWS.max(self.row_count() / CHUNKS),
            most => most,
        }
    }

    /// The transfers, in the order of rows: the same on all ranks.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        let most = self.most_rows();
        let mut chunks = Vec::new();
        let mut begin = 0;
        for (root, &rows) in self.rank_rows.iter().enumerate() {
            let end = begin + rows;
            while begin < end {
                let count = most.min(end - begin);
                chunks.push(Chunk { root, rows: Range { begin, count } });
                begin += count;
            }
        }
        chunks
    }

    /// A number that differs, all but surely, where any rank's rows do.
    pub(super) fn checksum(&self) -> i64 {
        let mix = |sum: u64, rows: &i64| (sum ^ *rows as u64).wrapping_mul(0x100000001b3);
        self.rank_rows.iter().fold(0xcbf29ce484222325, mix) as i64
    }

    /// Refuses rows that cannot be sent as they lie.
    pub fn check(&self, rank: usize, width: i64) -> Result<(), Error> {
        ensure!(
            self.rank_rows.iter().all(|&rows| rows >= 0),
            InvalidArgument,
            "encoder_rank_rows has {:?}; a rank has 0 or more rows",
            self.rank_rows
        );
        let total = self.rank_rows.iter().try_fold(0_i64, |sum, rows| sum.checked_add(*rows));
        ensure!(total.is_some(), SizeOverflow, "the sum of encoder_rank_rows leaves 63 bits");
        let own = self.own.as_ref().map_or(0, Rows::count);
        ensure!(
            own == self.rank_rows[rank],
            InvalidArgument,
            "encoder.rows is {own}, and encoder_rank_rows has {} for this rank, {rank}; they are \
             the same",
            self.rank_rows[rank]
        );
        let Some(rows) = &self.own else { return Ok(()) };
        ensure!(
            rows.list().is_none() && rows.row_stride() == width,
            NotSupported,
            "encoder rows that are sent to other ranks must be packed, without a row list; \
             row_stride is {}, use 0 or {width}",
            rows.row_stride()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(rank_rows: &[i64], chunk_rows: i64) -> Vec<(usize, i64, i64)> {
        let chunks =
            Sequence { rank_rows, own: None, dtype: Dtype::F32, row_bytes: 4, chunk_rows }.chunks();
        chunks.iter().map(|chunk| (chunk.root, chunk.rows.begin, chunk.rows.count)).collect()
    }

    #[test]
    fn chunks_are_all_rows_in_order_and_none_is_of_two_ranks() {
        assert_eq!(chunks(&[3, 0, 5], 2), [(0, 0, 2), (0, 2, 1), (2, 3, 2), (2, 5, 2), (2, 7, 1)]);
        assert_eq!(chunks(&[3, 4], 0), [(0, 0, 3), (1, 3, 4)]);
        assert_eq!(chunks(&[0, 0], 0), []);
        let rows: i64 = chunks(&[6404, 1, 3000], 0).iter().map(|chunk| chunk.2).sum();
        assert_eq!(rows, 9405);
    }
}
