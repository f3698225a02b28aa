//! Where in the lent workspace a call with transfers keeps what is on its way: encoder rows from
//! all ranks, and results before they are where the engine wants them.

use crate::backend::{Block, WORKSPACE_ALIGNMENT};
use crate::dtype::Dtype;
use crate::shard::{Piece, Range};

/// Results of one part, piece behind piece in the order of their owners.
pub(super) struct Staging {
    pub(super) places: Vec<Place>,
    /// Bytes of all pieces of each rank.
    pub(super) rank_bytes: Vec<usize>,
    pub(super) begin: usize,
}

/// Where one piece is staged.
pub(super) struct Place {
    pub(super) piece: Piece,
    pub(super) address: usize,
    /// As transfers move them: to the end of the alignment.
    pub(super) bytes: usize,
}

/// Hands out a workspace from its beginning to its end.
pub(super) struct Cursor {
    begin: usize,
    at: usize,
}

impl Cursor {
    /// From this address on.
    pub(super) fn new(begin: usize) -> Self {
        Self { begin, at: begin }
    }

    /// So many bytes, aligned.
    pub(super) fn take(&mut self, bytes: usize) -> usize {
        let address = self.at;
        self.at += bytes.next_multiple_of(WORKSPACE_ALIGNMENT);
        address
    }

    /// What was taken so far.
    pub(super) fn taken(&self) -> usize {
        self.at - self.begin
    }
}

impl Staging {
    /// Places for those pieces that this rank has to do with.
    pub(super) fn new(
        cursor: &mut Cursor,
        pieces: Vec<Piece>,
        rank_count: usize,
        layers: i64,
        row: (i64, Dtype),
    ) -> Self {
        let (width, dtype) = row;
        let (begin, mut rank_bytes) = (cursor.at, vec![0; rank_count]);
        let place = |piece: Piece| {
            let elements = piece.rows.count * layers * piece.heads.count * width;
            let bytes = (elements as usize * dtype.bytes()).next_multiple_of(WORKSPACE_ALIGNMENT);
            rank_bytes[piece.owner] += bytes;
            Place { address: cursor.take(bytes), piece, bytes }
        };
        let places = pieces.into_iter().map(place).collect();
        Self { places, rank_bytes, begin }
    }
}

impl Place {
    /// The piece as it goes into a view whose first head is this one of the uncut layer's.
    pub(super) fn block(&self, layers: i64, width: i64, first_head: i64) -> Block {
        let Piece { heads, rows, .. } = &self.piece;
        let layer_stride = (heads.count * width) as usize;
        let range = |range: Range, first: i64| {
            (range.begin - first) as usize..(range.end() - first) as usize
        };
        Block {
            address: self.address,
            row_stride: layer_stride * layers as usize,
            layer_stride,
            rows: range(*rows, 0),
            heads: range(*heads, first_head),
        }
    }
}
