//! Lists of numbers in the engine's memory: which rows to take, or which places to write. What
//! they hold only a backend can see.

use super::footprint::Footprint;
use crate::error::{Error, ensure};
use std::ops::Range;

/// A list of 64-bit integers, each below a bound.
#[derive(Clone, Debug)]
pub struct Indices {
    bound: i64,
    address: usize,
    count: i64,
}

impl Indices {
    /// A list of `count` integers, the field `field` of `owner`, bounded by another field.
    pub fn new(
        owner: &str,
        field: &str,
        address: usize,
        count: i64,
        (bound_name, bound): (&str, i64),
    ) -> Result<Self, Error> {
        ensure!(
            address.is_multiple_of(size_of::<i64>()),
            Misaligned,
            "{owner}.{field} is {address:#x}, not a multiple of the 8 bytes of its integers"
        );
        ensure!(
            bound > 0,
            InvalidArgument,
            "{owner}.{bound_name} is {bound} with {owner}.{field}; it must be positive"
        );
        Footprint::integers(owner, address, count)?;
        Ok(Self { bound, address, count })
    }

    /// The integers of some rows.
    pub(super) fn part(&self, rows: Range<usize>) -> Self {
        let address = self.address + rows.start * size_of::<i64>();
        Self { address, count: rows.len() as i64, ..*self }
    }

    /// Where the first integer is.
    pub fn address(&self) -> usize {
        self.address
    }

    /// What each integer is below.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// The memory that is read.
    pub fn footprint(&self) -> Footprint {
        Footprint::integers("", self.address, self.count).expect("checked when it was made")
    }

    /// From its first byte to behind its last.
    pub fn range(&self) -> Range<usize> {
        self.address..self.address + self.count as usize * size_of::<i64>()
    }
}
