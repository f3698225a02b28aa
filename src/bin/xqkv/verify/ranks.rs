//! The ranks that share the heads, each with its projection.

use crate::library::{Outcome, Projection};
use xqkv::capi::shard::xqkv_shard;

/// One rank: its projection and what it holds.
pub struct Rank {
    pub number: usize,
    pub projection: Projection,
    shard: xqkv_shard,
}

impl Rank {
    pub fn new(number: usize, projection: Projection) -> Outcome<Self> {
        let shard = projection.shard()?;
        Ok(Self { number, projection, shard })
    }

    /// Its first head of Q, K and V.
    pub fn first_heads(&self) -> [usize; 3] {
        let shard = &self.shard;
        let first =
            [shard.query_head_begin, shard.key_value_head_begin, shard.key_value_head_begin];
        first.map(|head| head as usize)
    }

    /// How many heads of Q, K and V.
    pub fn heads(&self) -> [usize; 3] {
        let shard = &self.shard;
        let count =
            [shard.query_head_count, shard.key_value_head_count, shard.key_value_head_count];
        count.map(|heads| heads as usize)
    }

    /// Columns of Q, K and V.
    pub fn columns(&self) -> [i64; 3] {
        [self.shard.query_columns, self.shard.key_columns, self.shard.value_columns]
    }
}
