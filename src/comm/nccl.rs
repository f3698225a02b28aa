//! Ranks that NCCL joins, each with a CUDA device of its own: transfers are put on streams, and
//! whoever looks ends those that do not come to their end.

mod join;
mod launch;
mod launches;
mod library;
mod marks;
mod rank;
mod watchdog;

pub use library::{UniqueId, unique_id};

use super::Options;
use super::medium::{Deadline, Failure, Kind, Medium, Seat, Transfer};
use crate::device::Device;
use crate::error::Error;
use launch::Launch;
use marks::Title;
use rank::Rank;
use std::sync::Arc;
use watchdog::Watchdog;

/// One rank of a communicator of NCCL's.
pub(super) struct Nccl {
    /// Ends before what it watches.
    _watchdog: Option<Watchdog>,
    rank: Arc<Rank>,
    seat: Seat,
}

impl Nccl {
    /// Joins the ranks that have the same id.
    pub(super) fn create(
        device: Arc<dyn Device>,
        id: &UniqueId,
        seat: Seat,
        options: Options,
    ) -> Result<Self, Error> {
        Self::watched(join::create(device, id, seat, options.deadline)?, seat, options)
    }

    /// Takes part in what the engine made.
    ///
    /// # Safety
    /// An ncclComm_t that outlives this.
    pub(super) unsafe fn adopt(
        device: Arc<dyn Device>,
        handle: usize,
        options: Options,
    ) -> Result<Self, Error> {
        // SAFETY: passed on.
        let (rank, seat) = unsafe { join::adopt(device, handle, options.deadline)? };
        Self::watched(rank, seat, options)
    }

    fn watched(rank: Rank, seat: Seat, options: Options) -> Result<Self, Error> {
        let rank = Arc::new(rank);
        let start = || Watchdog::start(&rank, options.deadline);
        let watchdog = options.has_watchdog.then(start).transpose()?;
        Ok(Self { _watchdog: watchdog, rank, seat })
    }
}

impl Medium for Nccl {
    fn kind(&self) -> Kind {
        Kind::Nccl
    }

    fn seat(&self) -> Seat {
        self.seat
    }

    fn device(&self) -> Option<i32> {
        Some(self.rank.device.number())
    }

    fn library_version(&self) -> i32 {
        self.rank.nccl.version
    }

    unsafe fn start(
        &self,
        transfer: &Transfer<'_>,
        stream: usize,
        until: Deadline,
    ) -> Result<(), Failure> {
        let title = title(transfer);
        if title.bytes == 0 {
            return Ok(());
        }
        let _turn = self.rank.turn();
        self.rank.call(until, |functions, comm| {
            let stream = stream as *mut _;
            let launch = Launch { functions, comm, rank: self.seat.rank, stream };
            // SAFETY: passed on.
            unsafe { launch.run(transfer) }
        })?;
        let marked = self.rank.marks.put(title, stream, until);
        marked.map_err(|error| Failure::Broken(error.message))
    }

    fn finish(&self, until: Deadline) -> Result<(), Failure> {
        match self.rank.is_idle() {
            true => self.rank.look(),
            false => self.rank.look().and(Err(Failure::Stuck(format!(
                "transfers were still on their streams after {} ms",
                until.elapsed().as_millis()
            )))),
        }
    }

    fn settle(&self, until: Deadline) -> Result<(), Failure> {
        self.rank.settle("ncclGroupEnd", until)
    }

    fn poll(&self) -> Result<(), Failure> {
        self.rank.look()
    }

    fn abort(&self) {
        self.rank.end(&Failure::Aborted);
    }
}

/// What a transfer is called, and the bytes that all calls of it move.
fn title(transfer: &Transfer<'_>) -> Title {
    match transfer {
        Transfer::AllGather { bytes, .. } => {
            Title { kind: "an all-gather", bytes: bytes.iter().sum() }
        }
        Transfer::Broadcast { bytes, .. } => Title { kind: "a broadcast", bytes: *bytes },
        Transfer::Exchange { messages } => {
            let bytes = messages.iter().map(|message| message.bytes).sum();
            Title { kind: "an exchange", bytes }
        }
    }
}
