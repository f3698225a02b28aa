//! `xqkv_collectives`: the engine's own way to move bytes between ranks.

use super::boundary;
use super::plain::{self, Plain};
use crate::comm::{Collectives, Failure, Message, Progress};
use crate::error::{Error, Status, ensure};
use std::ffi::c_void;

/// Some bytes from this rank to another, or the reverse.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_message {
    /// Read if this rank sends, else written. Of the memory that the context's backend works in.
    pub data: *mut c_void,
    /// How many.
    pub bytes: i64,
    /// The other rank.
    pub peer: i64,
    /// 1 if this rank sends, 0 if it receives.
    pub is_sent: i32,
    /// 0.
    pub reserved: i32,
}

/// Everybody's bytes to everybody, in place: rank r's bytes, as many as `bytes[r]`, lie in
/// `buffer` behind those of the ranks before it on rank r, and must come to the same place of every
/// other rank's buffer. Counts differ between ranks and may be 0; they are the same on all ranks.
/// MPI: MPI_Iallgatherv with MPI_IN_PLACE.
pub type xqkv_all_gather_callback = Option<
    unsafe extern "C" fn(
        buffer: *mut c_void,
        bytes: *const i64,
        rank_count: i64,
        stream: *mut c_void,
        user: *mut c_void,
    ) -> i32,
>;

/// The bytes of rank `root` to everybody. MPI: MPI_Ibcast.
pub type xqkv_broadcast_callback = Option<
    unsafe extern "C" fn(
        buffer: *mut c_void,
        bytes: i64,
        root: i64,
        stream: *mut c_void,
        user: *mut c_void,
    ) -> i32,
>;

/// Bytes from rank to rank: the n-th message that one rank sends to another is the n-th that the
/// other receives from it, and as long. A rank without messages is called with a count of 0.
/// MPI: MPI_Isend and MPI_Irecv for each. `messages` is good only during the call.
pub type xqkv_exchange_callback = Option<
    unsafe extern "C" fn(
        messages: *const xqkv_message,
        count: i64,
        stream: *mut c_void,
        user: *mut c_void,
    ) -> i32,
>;

/// How far all transfers are that were started: sets `*is_done` to 1 or 0. May set `*rank` to the
/// rank that it waits for, or that is lost; it is -1 before. MPI: MPI_Testall.
pub type xqkv_poll_callback =
    Option<unsafe extern "C" fn(is_done: *mut i32, rank: *mut i64, user: *mut c_void) -> i32>;

/// Ends all transfers, so that nobody touches their memory any more when it returns. No other
/// function of this communicator is called after it.
pub type xqkv_abort_callback = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The engine's own collectives. Each starts a transfer and returns XQKV_STATUS_OK; or
/// XQKV_STATUS_PEER_LOST, XQKV_STATUS_TIMED_OUT or another status if it cannot, which poisons the
/// communicator.
///
/// Host backend: memory is the process's, `stream` is NULL, and a transfer is done when `poll` says
/// so; with `poll` NULL it is done when its function returns, and then the deadline is the engine's
/// to keep. CUDA backend: memory is the device's, and a transfer is put on `stream` (a CUstream)
/// and done in its order; `poll` then only tells of failures.
///
/// All functions are called by the thread that is in a call with transfers, one at a time, and in
/// the same order on all ranks; `poll` and `abort` also by callers of xqkv_comm_poll and
/// xqkv_comm_abort. None may unwind, or call this library with the same communicator.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_collectives {
    /// Set by xqkv_collectives_init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Everybody's bytes to everybody. Must be there.
    pub all_gather: xqkv_all_gather_callback,
    /// One rank's bytes to everybody. Must be there.
    pub broadcast: xqkv_broadcast_callback,
    /// Bytes from rank to rank. NULL: ranks cannot share the work of replicated heads without
    /// gathering.
    pub exchange: xqkv_exchange_callback,
    /// How far the transfers are. NULL: they are done when their function returns.
    pub poll: xqkv_poll_callback,
    /// Ends all transfers. NULL: nothing ends them.
    pub abort: xqkv_abort_callback,
    /// Passed to each.
    pub user: *mut c_void,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_collectives {
    const NAME: &'static str = "xqkv_collectives";
}

/// Fills the struct with zeros. `size` is sizeof(xqkv_collectives).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_collectives_init(
    collectives: *mut xqkv_collectives,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(collectives, size) })
}

impl xqkv_collectives {
    /// The engine's functions as a communicator calls them.
    pub(super) fn to_comm(self) -> Result<Collectives, Error> {
        let required = |is_there: bool, name: &str| {
            ensure!(is_there, NullArgument, "collectives.{name} is NULL; it must be there");
            Ok(())
        };
        required(self.all_gather.is_some(), "all_gather")?;
        required(self.broadcast.is_some(), "broadcast")?;
        ensure!(self.reserved == 0, InvalidArgument, "reserved is {}; use 0", self.reserved);
        let engine = Engine(self);
        Ok(Collectives {
            all_gather: Box::new(move |buffer, bytes, stream| {
                engine.all_gather(buffer, bytes, stream)
            }),
            broadcast: Box::new(move |buffer, bytes, root, stream| {
                engine.broadcast(buffer, bytes, root, stream)
            }),
            exchange: self.exchange.map(|_| {
                Box::new(move |messages: &[Message], stream| engine.exchange(messages, stream)) as _
            }),
            poll: self.poll.map(|_| Box::new(move || engine.poll()) as _),
            abort: self.abort.map(|_| Box::new(move || engine.abort()) as _),
        })
    }
}

/// The engine's functions, which it promises may be called from any thread.
#[derive(Clone, Copy)]
struct Engine(xqkv_collectives);

// SAFETY: the engine's promise.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl Engine {
    fn all_gather(&self, buffer: usize, bytes: &[usize], stream: usize) -> Result<(), Failure> {
        let Some(all_gather) = self.0.all_gather else { return Ok(()) };
        let bytes: Vec<i64> = bytes.iter().map(|&bytes| bytes as i64).collect();
        let (buffer, stream) = (buffer as *mut c_void, stream as *mut c_void);
        // SAFETY: the engine's own function, called as it is documented.
        let status =
            unsafe { all_gather(buffer, bytes.as_ptr(), bytes.len() as i64, stream, self.0.user) };
        check(status, "all_gather", -1)
    }

    fn broadcast(
        &self,
        buffer: usize,
        bytes: usize,
        root: usize,
        stream: usize,
    ) -> Result<(), Failure> {
        let Some(broadcast) = self.0.broadcast else { return Ok(()) };
        let (buffer, stream) = (buffer as *mut c_void, stream as *mut c_void);
        // SAFETY: as above.
        let status = unsafe { broadcast(buffer, bytes as i64, root as i64, stream, self.0.user) };
        check(status, "broadcast", root as i64)
    }

    fn exchange(&self, messages: &[Message], stream: usize) -> Result<(), Failure> {
        let Some(exchange) = self.0.exchange else { return Ok(()) };
        let in_words = |message: &Message| xqkv_message {
            data: message.address as *mut c_void,
            bytes: message.bytes as i64,
            peer: message.peer as i64,
            is_sent: message.is_sent.into(),
            reserved: 0,
        };
        let messages: Vec<xqkv_message> = messages.iter().map(in_words).collect();
        let (count, stream) = (messages.len() as i64, stream as *mut c_void);
        // SAFETY: as above.
        check(unsafe { exchange(messages.as_ptr(), count, stream, self.0.user) }, "exchange", -1)
    }

    fn poll(&self) -> Result<Progress, Failure> {
        let Some(poll) = self.0.poll else { return Ok(Progress::Done) };
        let (mut is_done, mut rank) = (0, -1);
        // SAFETY: as above.
        check(unsafe { poll(&mut is_done, &mut rank, self.0.user) }, "poll", rank)?;
        let rank = usize::try_from(rank).ok();
        Ok(if is_done == 0 { Progress::Waiting(rank) } else { Progress::Done })
    }

    fn abort(&self) {
        if let Some(abort) = self.0.abort {
            // SAFETY: as above.
            unsafe { abort(self.0.user) }
        }
    }
}

fn check(status: i32, function: &str, rank: i64) -> Result<(), Failure> {
    if status == Status::Ok as i32 {
        return Ok(());
    }
    let ranks: Vec<usize> = usize::try_from(rank).into_iter().collect();
    let name = Status::ALL.iter().find(|known| **known as i32 == status);
    let name = name.map_or_else(|| status.to_string(), |name| name.name().to_string());
    let words = format!("the engine's {function} answered {name}");
    Err(match status {
        _ if status == Status::PeerLost as i32 => Failure::Lost(ranks, words),
        _ if status == Status::TimedOut as i32 => Failure::Late(ranks),
        _ => Failure::Broken(words),
    })
}
