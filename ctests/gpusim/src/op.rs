//! What a launch is: the memory that it touches, the function that does it, and what it counts as.
//! Whether two accesses touch a common byte is answered exactly, also for interleaved rows.

use crate::memory::Memory;
use std::sync::Arc;

/// Runs of `bytes` bytes, repeated along up to three dimensions of (count, stride in bytes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    pub address: u64,
    /// The length of one run.
    pub bytes: u64,
    /// An unused dimension is (1, 0).
    pub dims: [(u64, i64); 3],
    pub write: bool,
}

impl Access {
    pub fn read(address: u64, bytes: u64) -> Access {
        Access { address, bytes, dims: [(1, 0); 3], write: false }
    }

    pub fn write(address: u64, bytes: u64) -> Access {
        Access { write: true, ..Access::read(address, bytes) }
    }

    /// The first byte touched and the first one behind.
    pub fn span(&self) -> (u64, u64) {
        let (mut low, mut high) = (self.address as i128, self.address as i128);
        if self.is_empty() {
            return (self.address, self.address);
        }
        for (count, stride) in self.dims {
            let reach = (count as i128 - 1) * stride as i128;
            low += reach.min(0);
            high += reach.max(0);
        }
        (low as u64, (high + self.bytes as i128) as u64)
    }

    /// The access of each element of the second dimension, which is a product's batch: matrices of
    /// one batch may lie in memory that was allocated apart.
    pub fn batch(&self) -> impl Iterator<Item = Access> {
        let (count, stride) = self.dims[1];
        let dims = [self.dims[0], (1, 0), self.dims[2]];
        let address = move |at: u64| self.address.wrapping_add_signed(at as i64 * stride);
        (0..count).map(move |at| Access { address: address(at), dims, ..self.clone() })
    }

    /// The first byte of each run and the first one behind it.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (address, bytes) = (self.address as i64, self.bytes as i64);
        let along = |(count, stride): (u64, i64)| (0..count as i64).map(move |at| at * stride);
        let [first, second, third] = self.dims.map(along);
        let offsets = first.flat_map(move |offset| {
            let third = third.clone();
            second.clone().flat_map(move |more| third.clone().map(move |rest| offset + more + rest))
        });
        offsets.map(move |offset| ((address + offset) as u64, (address + offset + bytes) as u64))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0 || self.dims.iter().any(|(count, _)| *count == 0)
    }
}

/// How the driver treats a launch: it looks at a copy's addresses itself and refuses, whereas a
/// kernel's bad address is found while the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Transfer,
    Kernel,
}

/// The work of a launch. Shared, since a graph runs it again and again.
pub type Run = Arc<dyn Fn(&Memory) + Send + Sync>;

/// What memory tells about what a launch touches.
pub type Lookup = Arc<dyn Fn(&Memory) -> Vec<Access> + Send + Sync>;

/// A list in memory, and what a launch touches for its sake.
#[derive(Clone)]
pub struct Listed {
    pub list: Access,
    /// Asked once the list holds what the launch will find there.
    pub accesses: Lookup,
}

/// One launch.
#[derive(Clone)]
pub struct Op {
    pub name: String,
    pub kind: Kind,
    pub accesses: Vec<Access>,
    /// More of them, which only memory can tell.
    pub listed: Option<Listed>,
    pub run: Run,
    /// Added to the machine's counts at every launch, also by a graph.
    pub matmuls: u64,
    pub multiply_adds: u64,
    /// What events measure: a made-up duration.
    pub cost_ns: u64,
}

impl Op {
    pub fn kernel(name: impl Into<String>, accesses: Vec<Access>, run: Run) -> Op {
        let (name, kind) = (name.into(), Kind::Kernel);
        let listed = None;
        Op { name, kind, accesses, listed, run, matmuls: 0, multiply_adds: 0, cost_ns: 1000 }
    }

    pub fn transfer(name: impl Into<String>, accesses: Vec<Access>, run: Run) -> Op {
        Op { kind: Kind::Transfer, ..Op::kernel(name, accesses, run) }
    }
}
