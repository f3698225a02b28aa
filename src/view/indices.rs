//! Lists of numbers in the engine's memory: which rows to take, or which places to write. What
//! they hold only a backend can see.

use super::footprint::Footprint;
use crate::error::{Error, ensure};

/// A list of 64-bit integers, each below a bound.
#[derive(Clone, Debug)]
pub struct Indices {
    bound: i64,
    memory: Footprint,
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
        Ok(Self { bound, memory: Footprint::integers(owner, address, count)? })
    }

    /// Where the first integer is.
    pub fn address(&self) -> usize {
        self.memory.address()
    }

    /// What each integer is below.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// The memory that is read.
    pub fn footprint(&self) -> &Footprint {
        &self.memory
    }
}
