//! The engine's own collectives: calls that start a transfer, and one that tells how far they are.

use super::medium::{Deadline, Failure, Kind, Medium, Message, Seat, Transfer};
use std::thread;
use std::time::Duration;

/// The engine's functions. Addresses and streams are numbers here.
pub struct Collectives {
    /// Everybody's bytes to everybody, in place; gets buffer, each rank's bytes, stream.
    pub all_gather: Box<AllGather>,
    /// The root's bytes to everybody; gets buffer, bytes, root, stream.
    pub broadcast: Box<Broadcast>,
    /// Bytes from rank to rank; without it ranks cannot share the work of replicas.
    pub exchange: Option<Box<Exchange>>,
    /// How far the transfers are; without it they are done when their call returns.
    pub poll: Option<Box<Poll>>,
    /// Ends all transfers.
    pub abort: Option<Box<dyn Fn() + Send + Sync>>,
}

type AllGather = dyn Fn(usize, &[usize], usize) -> Result<(), Failure> + Send + Sync;
type Broadcast = dyn Fn(usize, usize, usize, usize) -> Result<(), Failure> + Send + Sync;
type Exchange = dyn Fn(&[Message], usize) -> Result<(), Failure> + Send + Sync;
type Poll = dyn Fn() -> Result<Progress, Failure> + Send + Sync;

/// How far all transfers are that were started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// They are done.
    Done,
    /// They are not; waiting for this rank, if it is known.
    Waiting(Option<usize>),
}

/// A rank of a group that the engine made.
pub(super) struct Engine {
    seat: Seat,
    collectives: Collectives,
}

impl Engine {
    pub(super) fn new(seat: Seat, collectives: Collectives) -> Self {
        Self { seat, collectives }
    }
}

/// Polls before a waiting rank begins to sleep, and the shortest and longest of its sleeps.
const EAGER_POLLS: u32 = 200;
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(1);

impl Medium for Engine {
    fn kind(&self) -> Kind {
        Kind::Collectives
    }

    fn seat(&self) -> Seat {
        self.seat
    }

    fn can_exchange(&self) -> bool {
        self.collectives.exchange.is_some()
    }

    unsafe fn start(
        &self,
        transfer: &Transfer<'_>,
        stream: usize,
        _: Deadline,
    ) -> Result<(), Failure> {
        match *transfer {
            Transfer::AllGather { buffer, bytes } => {
                (self.collectives.all_gather)(buffer, bytes, stream)
            }
            Transfer::Broadcast { buffer, bytes, root } => {
                (self.collectives.broadcast)(buffer, bytes, root, stream)
            }
            Transfer::Exchange { messages } => match &self.collectives.exchange {
                Some(exchange) => exchange(messages, stream),
                None => Err(Failure::Broken("the communicator has no exchange".into())),
            },
        }
    }

    fn finish(&self, until: Deadline) -> Result<(), Failure> {
        let Some(poll) = &self.collectives.poll else { return Ok(()) };
        for turn in 0_u32.. {
            let Progress::Waiting(rank) = poll()? else { break };
            if until.is_over() {
                return Err(Failure::Late(rank.into_iter().collect()));
            }
            match turn.checked_sub(EAGER_POLLS) {
                None => thread::yield_now(),
                Some(turn) => thread::sleep((SHORTEST * (turn + 1)).min(LONGEST)),
            }
        }
        Ok(())
    }

    fn poll(&self) -> Result<(), Failure> {
        self.collectives.poll.as_ref().map_or(Ok(()), |poll| poll().map(drop))
    }

    fn abort(&self) {
        if let Some(abort) = &self.collectives.abort {
            abort();
        }
    }
}
