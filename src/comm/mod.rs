//! This rank's seat among the ranks: transfers in turn, each with a deadline, and an end to all of
//! them once one has failed.

mod alone;
mod collectives;
mod medium;
mod nccl;
#[cfg(test)]
mod tests;
mod threads;

pub use collectives::{Collectives, Progress};
pub use medium::{Deadline, Failure, Kind, Medium, Message, Seat, Transfer};
pub use nccl::{UniqueId, unique_id};

use crate::device::Device;
use crate::error::{Error, Status};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread;
use std::time::Duration;

/// How a communicator behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a rank waits for the others.
    pub deadline: Duration,
    /// Whether ranks hold each collective call against each other's before it runs, also where
    /// that costs a transfer of its own.
    pub checks_calls: bool,
    /// Whether a thread polls where transfers are done on streams.
    pub has_watchdog: bool,
}

/// A rank's way to the other ranks. Once a transfer has failed, every later one does.
pub struct Comm {
    medium: Box<dyn Medium>,
    options: Options,
    /// What failed first.
    cause: OnceLock<Error>,
    turn: Mutex<()>,
    transfers: AtomicU64,
}

/// What was done in one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Transfers that were started.
    pub transfers: u64,
    /// Bytes that came to this rank from others.
    pub received_bytes: u64,
}

/// The right to start transfers: one call of the library at a time.
pub struct Turn<'a> {
    comm: &'a Comm,
    moved: Moved,
    _guard: MutexGuard<'a, ()>,
}

impl Comm {
    /// A communicator over a medium.
    fn new(medium: Box<dyn Medium>, options: Options) -> Self {
        let (cause, turn, transfers) = (OnceLock::new(), Mutex::new(()), AtomicU64::new(0));
        Self { medium, options, cause, turn, transfers }
    }

    /// The one rank of a group of one.
    pub fn alone(options: Options) -> Self {
        Self::new(Box::new(alone::Alone), options)
    }

    /// The ranks of threads of this process, in order.
    pub fn threads(rank_count: usize, options: Options) -> Vec<Self> {
        let seats = threads::seats(rank_count).into_iter();
        seats.map(|seat| Self::new(Box::new(seat), options)).collect()
    }

    /// This rank of a group that the engine made.
    pub fn collectives(seat: Seat, collectives: Collectives, options: Options) -> Self {
        Self::new(Box::new(collectives::Engine::new(seat, collectives)), options)
    }

    /// This rank of a group that NCCL makes; all ranks have the id. Waits for them.
    pub fn nccl(
        device: Arc<dyn Device>,
        id: &UniqueId,
        seat: Seat,
        options: Options,
    ) -> Result<Self, Error> {
        Ok(Self::new(Box::new(nccl::Nccl::create(device, id, seat, options)?), options))
    }

    /// The rank that one of the engine's own communicators of NCCL is.
    ///
    /// # Safety
    /// An ncclComm_t that stays alive for as long as this does.
    pub unsafe fn adopt_nccl(
        device: Arc<dyn Device>,
        handle: usize,
        options: Options,
    ) -> Result<Self, Error> {
        // SAFETY: passed on.
        let medium = unsafe { nccl::Nccl::adopt(device, handle, options)? };
        Ok(Self::new(Box::new(medium), options))
    }

    /// This rank's seat.
    pub fn seat(&self) -> Seat {
        self.medium.seat()
    }

    /// What carries the bytes.
    pub fn kind(&self) -> Kind {
        self.medium.kind()
    }

    /// The device whose memory it carries, if it is of one.
    pub fn device(&self) -> Option<i32> {
        self.medium.device()
    }

    /// The version of the library that carries the bytes; 0 if there is none.
    pub fn library_version(&self) -> i32 {
        self.medium.library_version()
    }

    /// Whether it carries bytes from one rank to another without the rest.
    pub fn can_exchange(&self) -> bool {
        self.medium.can_exchange()
    }

    /// How it behaves.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Transfers that were started since it was made.
    pub fn transfer_count(&self) -> u64 {
        self.transfers.load(Relaxed)
    }

    /// Whether a transfer has failed or somebody ended it.
    pub fn is_poisoned(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Waits for other calls of this rank to end theirs.
    pub fn turn(&self) -> Result<Turn<'_>, Error> {
        let until = Deadline::after(self.options.deadline);
        loop {
            self.ensure_sound()?;
            match self.turn.try_lock() {
                Ok(guard) => return Ok(self.turn_of(guard)),
                Err(TryLockError::Poisoned(guard)) => return Ok(self.turn_of(guard.into_inner())),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(50)),
            }
            if until.is_over() {
                return Err(self.poison_with(self.occupied()));
            }
        }
    }

    /// Looks whether something failed, without waiting.
    pub fn poll(&self) -> Result<(), Error> {
        self.ensure_sound()?;
        self.medium.poll().map_err(|failure| self.poison("a transfer", &failure))
    }

    /// Ends all transfers, here and on the other ranks. Later ones fail. Any thread.
    pub fn abort(&self) {
        let failure = Failure::Aborted;
        self.poison("all transfers", &failure);
    }

    fn ensure_sound(&self) -> Result<(), Error> {
        let Some(cause) = self.cause.get() else { return Ok(()) };
        let message = format!(
            "the communicator is no longer usable since {}: {}; make a new one on every rank and \
             give it to xqkv_projection_set_comm",
            cause.status.name(),
            cause.message
        );
        Err(Error::new(Status::CommPoisoned, message))
    }

    /// Remembers the first failure and ends what is under way; gives the error for this one.
    fn poison(&self, operation: &str, failure: &Failure) -> Error {
        self.poison_with(self.error(operation, failure))
    }

    fn poison_with(&self, error: Error) -> Error {
        if self.cause.set(error.clone()).is_ok() {
            self.medium.abort();
        }
        error
    }

    fn occupied(&self) -> Error {
        let message = format!(
            "another call of this rank has used the communicator for {} ms; one thread of a rank \
             may be in a call with transfers at a time",
            self.options.deadline.as_millis()
        );
        Error::new(Status::TimedOut, message)
    }

    fn error(&self, operation: &str, failure: &Failure) -> Error {
        let Seat { rank, rank_count } = self.seat();
        let here = format!("{operation}, rank {rank} of {rank_count}");
        let milliseconds = self.options.deadline.as_millis();
        let (status, message) = match failure {
            Failure::Lost(ranks, words) => {
                (Status::PeerLost, format!("{here}: {} lost: {words}", named(ranks, "is", "are")))
            }
            Failure::Late(ranks) => (
                Status::TimedOut,
                format!(
                    "{here}: {} not there after {milliseconds} ms",
                    named(ranks, "was", "were")
                ),
            ),
            Failure::Mismatched(ranks, words) => (
                Status::PeerLost,
                format!("{here}: {} at something else: {words}", named(ranks, "is", "are")),
            ),
            Failure::Stuck(words) => (Status::TimedOut, format!("{here}: {words}")),
            Failure::Broken(words) => (Status::PeerLost, format!("{here}: {words}")),
            Failure::Aborted => (Status::PeerLost, format!("{here}: the communicator was aborted")),
        };
        Error::new(status, message)
    }

    fn turn_of<'a>(&'a self, guard: MutexGuard<'a, ()>) -> Turn<'a> {
        Turn { comm: self, moved: Moved::default(), _guard: guard }
    }
}

impl Turn<'_> {
    /// Whose turn it is.
    pub fn seat(&self) -> Seat {
        self.comm.seat()
    }

    /// What was done in it so far.
    pub fn moved(&self) -> Moved {
        self.moved
    }

    /// Starts a transfer, on a stream if there is one. `operation` is what messages call it.
    ///
    /// # Safety
    /// As for [`Medium::start`].
    pub unsafe fn start(
        &mut self,
        operation: &str,
        transfer: &Transfer<'_>,
        stream: usize,
    ) -> Result<(), Error> {
        self.comm.ensure_sound()?;
        // SAFETY: passed on.
        let started = unsafe { self.comm.medium.start(transfer, stream, self.deadline()) };
        started.map_err(|failure| self.fail(operation, &failure))?;
        self.comm.transfers.fetch_add(1, Relaxed);
        self.moved.transfers += 1;
        self.moved.received_bytes += transfer.received_bytes(self.seat()) as u64;
        Ok(())
    }

    /// Waits for all that was started, which was not on a stream.
    pub fn finish(&mut self, operation: &str) -> Result<(), Error> {
        let finished = self.comm.medium.finish(self.deadline());
        finished.map_err(|failure| self.fail(operation, &failure))
    }

    /// Looks whether what was started has failed, without waiting.
    pub fn poll(&self, operation: &str) -> Result<(), Error> {
        self.comm.medium.poll().map_err(|failure| self.fail(operation, &failure))
    }

    /// Ends all transfers for a reason that was found outside of the medium.
    pub fn fail(&self, operation: &str, failure: &Failure) -> Error {
        self.comm.poison(operation, failure)
    }

    /// When a wait that begins now must end.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.comm.options.deadline)
    }
}

impl Drop for Turn<'_> {
    /// Also when the call panics: the others learn of it, and no memory of the call's is read
    /// after.
    fn drop(&mut self) {
        if thread::panicking() {
            self.comm.abort();
        }
        self.comm.medium.leave();
    }
}

/// "rank 3 is" or "ranks 1, 3 are", or that it is not known which.
fn named(ranks: &[usize], one: &str, many: &str) -> String {
    let listed: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match ranks.len() {
        0 => format!("a rank that the medium cannot name {one}"),
        1 => format!("rank {} {one}", listed[0]),
        _ => format!("ranks {} {many}", crate::error::listed(&listed)),
    }
}
