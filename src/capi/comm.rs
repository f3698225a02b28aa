//! `xqkv_comm`: this rank's seat among the ranks.

use super::boundary;
use super::collectives::xqkv_collectives;
use super::error::xqkv_error;
use super::handle;
use super::plain::{self, Plain, ensure_pointer};
use crate::comm::{Comm, Kind, Options, Seat};
use crate::error::{Error, Status, ensure, named_enum};
use std::sync::Arc;
use std::time::Duration;

/// A communicator: this rank's seat among the ranks of one projection. Optional, since outputs
/// sharded by head need no transfer. An opaque handle, made by xqkv_comm_create_alone, _threads,
/// _collectives or _nccl or by xqkv_comm_adopt_nccl, and unmade by xqkv_comm_destroy.
///
/// It carries what ranks tell each other: whether they agree, encoder rows that each has a part of,
/// and results that each needs the others' of. A rank that waits for another gives up at the
/// deadline; from then on, and after an abort, the communicator answers COMM_POISONED, while
/// weights, plans and calls without transfers stay as they were. Make it anew on every rank then,
/// and hand it to xqkv_projection_set_comm.
///
/// Several projections may use one. Calls with transfers take turns, in the same order on all
/// ranks: that is the engine's to see to. xqkv_comm_poll, _abort and _get_info may come from any
/// thread at any time.
pub struct xqkv_comm {
    _private: (),
}

/// What carries a communicator's bytes.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommKind {
    /// Nothing: there is one rank.
    Alone = 1,
    /// Threads of one process, in host memory.
    Threads = 2,
    /// NCCL, in the memory of CUDA devices.
    Nccl = 3,
    /// The engine's own functions.
    Collectives = 4,
}

named_enum!(CommKind {
    Alone => c"XQKV_COMM_ALONE",
    Threads => c"XQKV_COMM_THREADS",
    Nccl => c"XQKV_COMM_NCCL",
    Collectives => c"XQKV_COMM_COLLECTIVES",
});

/// What a communicator does beyond its transfers.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommFlag {
    /// NCCL: hold each collective call against the other ranks' before it runs, at the price of one
    /// small transfer and of waiting for it, so not in a capture. Others always do so.
    CheckCalls = 1,
    /// NCCL: a thread that polls, so that ranks whose streams wait for one that is lost are freed
    /// also where nobody calls xqkv_comm_poll. It ends with the communicator.
    Watchdog = 2,
}

named_enum!(CommFlag {
    CheckCalls => c"XQKV_COMM_FLAG_CHECK_CALLS",
    Watchdog => c"XQKV_COMM_FLAG_WATCHDOG",
});

/// How a communicator behaves. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_comm_options {
    /// Set by xqkv_comm_options_init.
    pub struct_size: u32,
    /// Values of xqkv_comm_flag, added up.
    pub flags: u32,
    /// Milliseconds that a rank waits for the others before it gives up; 0 is 60,000. Each wait has
    /// its own: for all ranks to be there when a communicator or a projection is made or weights
    /// are committed, and for each transfer of a forward.
    pub deadline_ms: i64,
}

/// What a communicator is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_comm_info {
    /// Set by xqkv_comm_info_init.
    pub struct_size: u32,
    /// An xqkv_comm_kind.
    pub kind: i32,
    /// This rank, from 0.
    pub rank: i64,
    /// How many ranks there are.
    pub rank_count: i64,
    /// Transfers that were started, also those by which ranks agree.
    pub transfers: i64,
    /// 1 if it answers COMM_POISONED, else 0.
    pub is_poisoned: i32,
    /// NCCL: its version as ncclGetVersion tells it, such as 22705. Else 0.
    pub nccl_version: i32,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_comm_options {
    const NAME: &'static str = "xqkv_comm_options";
}

// SAFETY: as above.
unsafe impl Plain for xqkv_comm_info {
    const NAME: &'static str = "xqkv_comm_info";
}

/// Fills the options with zeros. `size` is sizeof(xqkv_comm_options).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_options_init(
    options: *mut xqkv_comm_options,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(options, size) })
}

/// Prepares the info to be filled in. `size` is sizeof(xqkv_comm_info).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_info_init(info: *mut xqkv_comm_info, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(info, size) })
}

/// Makes the communicator of a single rank, for engines that have one code path for any number.
/// `options` may be NULL. `*comm` is written only on success, and is the caller's to destroy. Any
/// thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_create_alone(
    options: *const xqkv_comm_options,
    comm: *mut *mut xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or a struct that begins with its size.
        let options = unsafe { read_options(options)? };
        // SAFETY: the caller's place for a handle.
        unsafe { hand_out(Comm::alone(options), comm) }
    })
}

/// Makes the communicators of ranks that are threads of this process and have their rows and
/// results in host memory: `comms[rank]` for each of `rank_count` ranks, 1 to 4,096. Each is then
/// used by its rank's own thread; transfers are copies, and no thread is started. Threads that
/// drive CUDA devices use NCCL. `options` may be NULL. `comms` is written only on success, and its
/// communicators are the caller's to destroy, one by one. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_create_threads(
    options: *const xqkv_comm_options,
    rank_count: i64,
    comms: *mut *mut xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or a struct that begins with its size.
        let options = unsafe { read_options(options)? };
        ensure_pointer(comms, "comms")?;
        let count = ensure_rank_count(rank_count)?;
        let made = Comm::threads(count, options).into_iter().map(Arc::new);
        let handles = handle::insert_all::<xqkv_comm>(made)?;
        // SAFETY: the caller promises room for that many.
        let places = unsafe { std::slice::from_raw_parts_mut(comms, count) };
        places.copy_from_slice(&handles);
        Ok(())
    })
}

/// Makes this rank's communicator over the engine's own collectives, such as MPI's or
/// torch.distributed's; see xqkv_collectives. The struct is copied; what its `user` points to must
/// stay until the communicator is destroyed and no call runs on it. Tells the other ranks nothing.
/// `options` may be NULL. `*comm` is written only on success, and is the caller's to destroy. Any
/// thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_create_collectives(
    options: *const xqkv_comm_options,
    collectives: *const xqkv_collectives,
    rank: i64,
    rank_count: i64,
    comm: *mut *mut xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or structs that begin with their size.
        let (options, collectives) =
            unsafe { (read_options(options)?, plain::read(collectives, "collectives")?) };
        let seat = seat(rank, rank_count)?;
        let made = Comm::collectives(seat, collectives.to_comm()?, options);
        // SAFETY: the caller's place for a handle.
        unsafe { hand_out(made, comm) }
    })
}

/// Tells what a communicator is. `info` must have been initialised. Any thread, at any time.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_get_info(
    comm: *const xqkv_comm,
    info: *mut xqkv_comm_info,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let comm = handle::get(comm)?;
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { plain::check(info, "info") }?;
        // SAFETY: just checked.
        unsafe { (*info).fill(&comm) };
        Ok(())
    })
}

/// Looks whether all is well, without waiting: OK, also while transfers are under way. An engine
/// whose streams may wait for a lost rank calls it now and then: past the deadline of the oldest
/// transfer under way it ends them all, so that the streams go on, and answers TIMED_OUT. Any
/// thread, at any time.
///
/// Returns: NULL_ARGUMENT, INVALID_HANDLE, PEER_LOST, TIMED_OUT, COMM_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_poll(comm: *const xqkv_comm, error: *mut xqkv_error) -> Status {
    boundary::call(error, || handle::get(comm)?.poll())
}

/// Ends all transfers, here and on the other ranks, which are told PEER_LOST as soon as what
/// carries the bytes can tell them. A call of this rank that waits for one returns PEER_LOST. For
/// an engine that gives up. Does nothing to a communicator that has failed already. Any thread, at
/// any time.
///
/// Returns: NULL_ARGUMENT, INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_abort(comm: *mut xqkv_comm, error: *mut xqkv_error) -> Status {
    boundary::call(error, || {
        handle::get(comm)?.abort();
        Ok(())
    })
}

/// Unmakes a communicator: the handle is invalid from here on. Projections that were given it keep
/// what is behind it until they are destroyed or given another. Waits for nobody, except as
/// xqkv_comm_create_nccl tells; what the engine lent (an ncclComm_t, collectives) is not destroyed.
/// NULL does nothing. Any thread.
///
/// Returns: INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_destroy(comm: *mut xqkv_comm, error: *mut xqkv_error) -> Status {
    boundary::call(error, || handle::remove(comm))
}

/// Puts a communicator behind a handle of the caller's.
///
/// # Safety
/// `place` is NULL or a place for a handle.
pub(super) unsafe fn hand_out(comm: Comm, place: *mut *mut xqkv_comm) -> Result<(), Error> {
    ensure_pointer(place, "comm")?;
    // SAFETY: not NULL and aligned.
    unsafe { *place = handle::insert(Arc::new(comm))? };
    Ok(())
}

/// A communicator of the caller's, or None for NULL.
pub(super) fn find(comm: *const xqkv_comm) -> Result<Option<Arc<Comm>>, Error> {
    if comm.is_null() { Ok(None) } else { handle::get(comm).map(Some) }
}

/// The caller's options, or the defaults for NULL.
///
/// # Safety
/// `options` is NULL or points to a struct that begins with its size.
pub(super) unsafe fn read_options(options: *const xqkv_comm_options) -> Result<Options, Error> {
    const DEFAULT_DEADLINE_MS: i64 = 60_000;
    const MOST_DEADLINE_MS: i64 = 1 << 40;
    if options.is_null() {
        let deadline = Duration::from_millis(DEFAULT_DEADLINE_MS as u64);
        return Ok(Options { deadline, checks_calls: false, has_watchdog: false });
    }
    // SAFETY: passed on.
    let options = unsafe { plain::read(options, "options") }?;
    let known: u32 = CommFlag::ALL.iter().map(|&flag| flag as u32).sum();
    ensure!(
        options.flags & !known == 0,
        InvalidArgument,
        "flags is {}; use 0, or add up values of xqkv_comm_flag (at most {known})",
        options.flags
    );
    ensure!(
        (0..=MOST_DEADLINE_MS).contains(&options.deadline_ms),
        InvalidArgument,
        "deadline_ms is {}; use milliseconds, or 0 for {DEFAULT_DEADLINE_MS}",
        options.deadline_ms
    );
    let deadline = if options.deadline_ms == 0 { DEFAULT_DEADLINE_MS } else { options.deadline_ms };
    let has = |flag: CommFlag| options.flags & flag as u32 != 0;
    Ok(Options {
        deadline: Duration::from_millis(deadline as u64),
        checks_calls: has(CommFlag::CheckCalls),
        has_watchdog: has(CommFlag::Watchdog),
    })
}

fn ensure_rank_count(rank_count: i64) -> Result<usize, Error> {
    const MOST_RANKS: i64 = 4096;
    ensure!(
        (1..=MOST_RANKS).contains(&rank_count),
        InvalidArgument,
        "rank_count is {rank_count}; there are 1 to {MOST_RANKS} ranks"
    );
    Ok(rank_count as usize)
}

/// A seat in the caller's words, checked.
pub(super) fn seat(rank: i64, rank_count: i64) -> Result<Seat, Error> {
    let count = ensure_rank_count(rank_count)?;
    ensure!(
        (0..rank_count).contains(&rank),
        InvalidArgument,
        "rank is {rank} of rank_count {rank_count}; ranks are 0 to rank_count - 1"
    );
    Ok(Seat { rank: rank as usize, rank_count: count })
}

impl xqkv_comm_info {
    fn fill(&mut self, comm: &Comm) {
        let Seat { rank, rank_count } = comm.seat();
        self.kind = match comm.kind() {
            Kind::Alone => CommKind::Alone,
            Kind::Threads => CommKind::Threads,
            Kind::Nccl => CommKind::Nccl,
            Kind::Collectives => CommKind::Collectives,
        } as i32;
        (self.rank, self.rank_count) = (rank as i64, rank_count as i64);
        self.transfers = comm.transfer_count() as i64;
        self.is_poisoned = comm.is_poisoned().into();
        self.nccl_version = comm.library_version();
    }
}
