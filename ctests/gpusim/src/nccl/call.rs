//! One call of a communicator: what it touches, and what goes over the wire.

use super::status::{INVALID_ARGUMENT, Outcome};
use crate::op::Access;
use crate::race::overlap;
use crate::violation::violate;
use std::ffi::c_int;

/// The numbers are those that ranks tell one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AllGather = 1,
    Broadcast = 2,
    Send = 3,
    Receive = 4,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::AllGather => "ncclAllGather",
            Kind::Broadcast => "ncclBroadcast",
            Kind::Send => "ncclSend",
            Kind::Receive => "ncclRecv",
        }
    }
}

/// One call's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub kind: Kind,
    pub send: u64,
    pub receive: u64,
    pub count: u64,
    pub dtype: c_int,
    pub element_bytes: u64,
    /// The root, or the other side of a send or receive.
    pub peer: usize,
}

impl Call {
    pub fn bytes(&self) -> u64 {
        self.count * self.element_bytes
    }

    pub fn accesses(&self, rank: usize, ranks: usize) -> Vec<Access> {
        let (read, bytes) = (Access::read(self.send, self.bytes()), self.bytes());
        match self.kind {
            Kind::AllGather => vec![read, Access::write(self.receive, bytes * ranks as u64)],
            // In place the root's bytes stay what they are.
            Kind::Broadcast if rank == self.peer && self.send == self.receive => vec![read],
            Kind::Broadcast if rank == self.peer => vec![read, Access::write(self.receive, bytes)],
            Kind::Broadcast | Kind::Receive => vec![Access::write(self.receive, bytes)],
            Kind::Send => vec![read],
        }
    }

    fn in_place(&self, rank: usize) -> bool {
        match self.kind {
            Kind::AllGather => self.send == self.receive + rank as u64 * self.bytes(),
            Kind::Broadcast => self.send == self.receive,
            Kind::Send | Kind::Receive => false,
        }
    }

    /// The bytes that come from other ranks.
    pub fn received(&self, rank: usize, ranks: usize) -> u64 {
        match self.kind {
            Kind::AllGather => self.bytes() * (ranks as u64 - 1),
            Kind::Broadcast | Kind::Receive if self.peer != rank => self.bytes(),
            Kind::Broadcast | Kind::Receive | Kind::Send => 0,
        }
    }

    /// The bytes that go to other ranks, along whatever links.
    pub fn sent(&self, rank: usize, ranks: usize) -> u64 {
        match self.kind {
            Kind::AllGather => self.bytes() * (ranks as u64 - 1),
            Kind::Broadcast if self.peer == rank && ranks > 1 => self.bytes(),
            Kind::Send if self.peer != rank => self.bytes(),
            Kind::Broadcast | Kind::Send | Kind::Receive => 0,
        }
    }

    /// Refuses what no device has memory for, where sums of bytes could overflow.
    pub fn check_size(&self, ranks: usize) -> Outcome {
        let all = u128::from(self.count) * u128::from(self.element_bytes) * ranks as u128;
        if all < 1 << 48 { Ok(()) } else { Err(INVALID_ARGUMENT) }
    }
}

/// Notes what no order protects: a call's result over what it reads, save in place, and results
/// of one group over one another.
pub fn note_overlap(calls: &[Call], rank: usize, ranks: usize) {
    let all: Vec<(usize, Access)> = calls
        .iter()
        .enumerate()
        .flat_map(|(index, call)| call.accesses(rank, ranks).into_iter().map(move |a| (index, a)))
        .collect();
    for (at, (left, one)) in all.iter().enumerate() {
        for (right, other) in &all[at + 1..] {
            let in_place = left == right && calls[*left].in_place(rank);
            if (one.write || other.write) && !in_place && overlap(one, other) {
                let name = calls[*left].kind.name();
                violate(format!("{name}: memory of one launch overlaps, and not in place"));
            }
        }
    }
}
