//! `xqkv_unique_id`, and communicators over NCCL.

use super::boundary;
use super::comm::{hand_out, read_options, seat, xqkv_comm, xqkv_comm_options};
use super::context::xqkv_context;
use super::error::xqkv_error;
use super::handle;
use super::plain::ensure_pointer;
use crate::comm::{self, Comm, Seat, UniqueId};
use crate::error::{Status, ensure};
use crate::log::Level;
use std::ffi::c_void;

/// By which the ranks of an NCCL communicator find each other: the bytes of an ncclUniqueId. One
/// rank makes it and gives it to the others.
///
/// It is a secret. It holds the address where that rank listens, whoever has it can join in a
/// rank's place and read what ranks tell each other, and NCCL asks for nothing else and encrypts
/// nothing: hand it over by a channel that is authenticated and private, take none from anybody
/// who is not trusted, since a rank connects to the address in it, and do not log it. The library
/// never does.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_unique_id {
    /// To be copied as they are.
    pub bytes: [u8; 128],
}

/// Makes an id for one communicator, on one rank. Loads NCCL, which listens from then on until all
/// ranks have come. No device is needed. `unique_id` is written only on success. Any thread.
///
/// Returns: NULL_ARGUMENT, MISALIGNED, LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_unique_id_create(
    unique_id: *mut xqkv_unique_id,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        ensure_pointer(unique_id, "unique_id")?;
        let UniqueId(bytes) = comm::unique_id()?;
        // SAFETY: not NULL and aligned.
        unsafe { *unique_id = xqkv_unique_id { bytes } };
        Ok(())
    })
}

/// Makes this rank's communicator over NCCL, on the device of a CUDA `context`, and waits until
/// all `rank_count` ranks do the same with one `unique_id`, each in a thread or process of its own
/// and on a device of its own; TIMED_OUT if they do not by the deadline. `options` may be NULL.
/// `*comm` is written only on success, and is the caller's to destroy. Any thread.
///
/// Transfers are put on streams, in whose order they are done, and a forward does not wait for
/// them. They may be captured, on all ranks alike; a graph must go before the communicator does.
/// NCCL keeps memory of its own on the device, some hundred megabytes with many ranks.
///
/// NCCL wants one thread at a time for all communicators of a device: the library's take turns. An
/// engine that has communicators of its own there must start their transfers and calls with
/// transfers in the same order on all ranks, and not from two threads at a time.
///
/// A device cannot tell that a rank is lost: xqkv_comm_poll and XQKV_COMM_FLAG_WATCHDOG look for
/// transfers that are past their deadline, and then abort NCCL's communicator, which frees the
/// streams. Transfers in a graph are not looked for.
///
/// The last to let go of it, xqkv_comm_destroy or a projection's end, waits for this rank's
/// transfers, at most to their deadlines, and ends NCCL's communicator.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ARGUMENT, MISALIGNED,
/// LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED, OUT_OF_MEMORY, THREAD_FAILED,
/// TOO_MANY_HANDLES, PEER_LOST, TIMED_OUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_create_nccl(
    context: *const xqkv_context,
    options: *const xqkv_comm_options,
    unique_id: *const xqkv_unique_id,
    rank: i64,
    rank_count: i64,
    comm: *mut *mut xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or a struct that begins with its size.
        let options = unsafe { read_options(options)? };
        ensure_pointer(unique_id, "unique_id")?;
        ensure_pointer(comm, "comm")?;
        // SAFETY: not NULL, and bytes.
        let id = UniqueId(unsafe { *unique_id }.bytes);
        ensure!(
            id.0 != [0; 128],
            InvalidArgument,
            "unique_id is all zeros; make it with xqkv_unique_id_create on one rank, and copy it \
             to the others"
        );
        let (context, seat) = (handle::get(context)?, seat(rank, rank_count)?);
        let made = Comm::nccl(context.backend.device()?, &id, seat, options)?;
        context.log.write(Level::Info, &describe("made", &made));
        // SAFETY: the caller's place for a handle.
        unsafe { hand_out(made, comm) }
    })
}

/// Makes a communicator of one of the engine's own: `nccl_comm` is this rank's ncclComm_t on the
/// device of a CUDA `context`, of the NCCL that the process has loaded as libnccl.so.2 or that
/// XQKV_NCCL_LIBRARY names. Tells the other ranks nothing. It stays the engine's: it is never
/// destroyed and never aborted, must outlive what is made here and the projections that were given
/// it, and the engine uses it for nothing else while a call with transfers runs. After a loss the
/// engine aborts it. One that blocks (config.blocking = 1) makes calls wait without a deadline
/// where NCCL does. `options` may be NULL. `*comm` is written only on success, and is the caller's
/// to destroy. All else is as for xqkv_comm_create_nccl. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ARGUMENT, MISALIGNED,
/// LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED, OUT_OF_MEMORY, THREAD_FAILED,
/// TOO_MANY_HANDLES, PEER_LOST, TIMED_OUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_comm_adopt_nccl(
    context: *const xqkv_context,
    options: *const xqkv_comm_options,
    nccl_comm: *mut c_void,
    comm: *mut *mut xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or a struct that begins with its size.
        let options = unsafe { read_options(options)? };
        ensure!(!nccl_comm.is_null(), NullArgument, "nccl_comm is NULL; pass an ncclComm_t");
        ensure_pointer(comm, "comm")?;
        let context = handle::get(context)?;
        let device = context.backend.device()?;
        // SAFETY: the caller's promise.
        let made = unsafe { Comm::adopt_nccl(device, nccl_comm as usize, options)? };
        context.log.write(Level::Info, &describe("adopted", &made));
        // SAFETY: the caller's place for a handle.
        unsafe { hand_out(made, comm) }
    })
}

fn describe(verb: &str, made: &Comm) -> String {
    let Seat { rank, rank_count } = made.seat();
    let version = made.library_version();
    format!("communicator {verb}: rank {rank} of {rank_count}, NCCL {version}")
}
