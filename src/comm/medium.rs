//! The seam to what carries bytes between ranks: a small trait, and the words it is spoken to in.
//!
//! A medium moves memory and knows nothing of heads, weights or rows. What it is given was checked:
//! every rank starts the same transfers in the same order, or the ranks' disagreement is found by
//! whoever waits.

use std::time::{Duration, Instant};

/// Which rank this is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// From 0.
    pub rank: usize,
    /// All of them.
    pub rank_count: usize,
}

/// One movement of memory among the ranks. Addresses are of this rank's memory.
#[derive(Clone, Copy, Debug)]
pub enum Transfer<'a> {
    /// Everybody's bytes to everybody: those of rank r, as many as `bytes[r]`, lie behind those of
    /// the ranks before it, and come to the same place of all other ranks' buffers.
    AllGather {
        /// Room for the sum of `bytes`.
        buffer: usize,
        /// Of each rank.
        bytes: &'a [usize],
    },
    /// The root's bytes to everybody.
    Broadcast {
        /// Read on the root, written on the others.
        buffer: usize,
        /// The same on all ranks.
        bytes: usize,
        /// Who has them.
        root: usize,
    },
    /// Bytes from rank to rank: the n-th message that one sends to another is the n-th that the
    /// other receives from the one. Empty on a rank that has no part in it.
    Exchange {
        /// What this rank sends and receives.
        messages: &'a [Message],
    },
}

/// Bytes from this rank to another or the reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The other rank.
    pub peer: usize,
    /// Read if it is sent, else written.
    pub address: usize,
    /// How many.
    pub bytes: usize,
    /// Whether this rank sends.
    pub is_sent: bool,
}

impl Transfer<'_> {
    /// Bytes that come to this rank from others.
    pub fn received_bytes(&self, seat: Seat) -> usize {
        match self {
            Transfer::AllGather { bytes, .. } => bytes.iter().sum::<usize>() - bytes[seat.rank],
            Transfer::Broadcast { root, .. } if *root == seat.rank => 0,
            Transfer::Broadcast { bytes, .. } => *bytes,
            Transfer::Exchange { messages } => messages
                .iter()
                .filter(|message| !message.is_sent)
                .map(|message| message.bytes)
                .sum(),
        }
    }
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: there is one rank.
    Alone,
    /// Threads of one process, in host memory.
    Threads,
    /// NVIDIA's library, in the memory of devices.
    Nccl,
    /// The engine's own functions.
    Collectives,
}

/// A way for ranks to reach each other.
pub trait Medium: Send + Sync {
    /// What it is.
    fn kind(&self) -> Kind;

    /// This rank's seat.
    fn seat(&self) -> Seat;

    /// The device whose memory it carries, if there is one.
    fn device(&self) -> Option<i32> {
        None
    }

    /// The version of the library that carries the bytes; 0 if there is none.
    fn library_version(&self) -> i32 {
        0
    }

    /// Whether it has [`Transfer::Exchange`].
    fn can_exchange(&self) -> bool {
        true
    }

    /// Starts a transfer. Without a stream it is done when `finish` returns; on a stream it is done
    /// in the stream's order. Nobody else starts or finishes meanwhile.
    ///
    /// # Safety
    /// The memory is there, is read by nobody else where it is written and written by nobody else
    /// where it is read, until the transfer is done.
    unsafe fn start(
        &self,
        transfer: &Transfer<'_>,
        stream: usize,
        until: Deadline,
    ) -> Result<(), Failure>;

    /// Waits until this rank's part of all that was started is done, and the others do not need
    /// its memory any more. Not for transfers on a stream.
    fn finish(&self, until: Deadline) -> Result<(), Failure>;

    /// The call that started transfers returns: what it started and did not finish is taken back,
    /// and others touch its memory no more.
    fn leave(&self) {}

    /// Looks whether something failed, without waiting.
    fn poll(&self) -> Result<(), Failure>;

    /// Ends all that is under way, so that the other ranks and this one's device wait no longer
    /// than they must. No other call but `poll` comes after it. May come from any thread.
    fn abort(&self);
}

/// When to give up waiting.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// What the engine allowed.
    pub allowed: Duration,
    end: Instant,
}

impl Deadline {
    /// So long from now.
    pub fn after(allowed: Duration) -> Self {
        Self { allowed, end: Instant::now() + allowed }
    }

    /// What is left of it; zero when it is over.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time since it was set.
    pub fn elapsed(&self) -> Duration {
        let over = Instant::now().saturating_duration_since(self.end);
        self.allowed.saturating_sub(self.left()) + over
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// Why a transfer did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// These ranks are gone; none if it is not known which.
    Lost(Vec<usize>, String),
    /// These ranks did not come in time; none if it is not known which.
    Late(Vec<usize>),
    /// What was started does not come to its end in time, in the medium's own words.
    Stuck(String),
    /// These ranks started something else than this one.
    Mismatched(Vec<usize>, String),
    /// The medium refused or broke, in its own words.
    Broken(String),
    /// Somebody ended it.
    Aborted,
}
