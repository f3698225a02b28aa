//! How this rank comes to a communicator: it joins others that have the same id, or takes part in
//! one of the engine's.

use super::super::medium::{Deadline, Failure, Seat};
use super::library::{Config, Handle, IN_PROGRESS, SUCCESS, UniqueId, nccl};
use super::rank::Rank;
use crate::device::Device;
use crate::error::{Error, Status, ensure};
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

/// Joins the ranks that have the same id, and waits for them.
pub(super) fn create(
    device: Arc<dyn Device>,
    id: &UniqueId,
    seat: Seat,
    deadline: Duration,
) -> Result<Rank, Error> {
    const FUNCTION: &str = "ncclCommInitRankConfig";
    let (nccl, until) = (nccl()?, Deadline::after(deadline));
    let (count, number) = (seat.rank_count as c_int, seat.rank as c_int);
    let (mut handle, mut result) = (null_mut(), SUCCESS);
    device.within(&mut || {
        let (init, config) = (nccl.functions.init_rank, &Config::NON_BLOCKING);
        // SAFETY: a place for the handle, and the configuration that says its size.
        result = unsafe { init(&mut handle, count, *id, number, config) };
    })?;
    if ![SUCCESS, IN_PROGRESS].contains(&result) || handle.is_null() {
        return Err(nccl.refusal(FUNCTION, result, null_mut()));
    }
    // From here on dropping ends it.
    let rank = Rank::new(nccl, device, handle, Some(id));
    rank.settle(FUNCTION, until).map_err(|failure| refusal(failure, seat))?;
    Ok(rank)
}

/// Takes part in a communicator of the engine's, which says who this rank is.
///
/// # Safety
/// An ncclComm_t that outlives this.
pub(super) unsafe fn adopt(
    device: Arc<dyn Device>,
    handle: usize,
    deadline: Duration,
) -> Result<(Rank, Seat), Error> {
    let (nccl, until) = (nccl()?, Deadline::after(deadline));
    let rank = Rank::new(nccl, device, handle as Handle, None);
    let unknown = Seat { rank: 0, rank_count: 0 };
    let functions = &nccl.functions;
    rank.settle("its making", until).map_err(|failure| refusal(failure, unknown))?;
    let ask = |name, function| ask(&rank, name, function);
    let found = ask("ncclCommCuDevice", functions.device)?;
    ensure!(
        found == rank.device.number(),
        InvalidArgument,
        "nccl_comm is on CUDA device {found}, but the context on device {}; pass the context of \
         device {found}",
        rank.device.number()
    );
    let count = ask("ncclCommCount", functions.count)?;
    let number = ask("ncclCommUserRank", functions.rank)?;
    Ok((rank, Seat { rank: number as usize, rank_count: count as usize }))
}

/// A number that a communicator tells of itself.
fn ask(
    rank: &Rank,
    name: &'static str,
    function: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
) -> Result<c_int, Error> {
    let mut answer = 0;
    let asked = rank.with_handle(|handle| {
        // SAFETY: a communicator that is alive, and a place for the answer.
        Ok((unsafe { function(handle, &mut answer) }, handle))
    });
    match asked {
        Ok((SUCCESS, _)) if answer >= 0 => Ok(answer),
        Ok((result, handle)) => Err(rank.nccl.refusal(name, result, handle)),
        Err(_) => Err(Error::new(Status::Panic, "a communicator that ended while it was asked")),
    }
}

/// What a failure means before there is a communicator.
fn refusal(failure: Failure, seat: Seat) -> Error {
    let Seat { rank, rank_count } = seat;
    let (status, words) = match failure {
        Failure::Lost(_, words) => (Status::PeerLost, words),
        Failure::Stuck(words) => (
            Status::TimedOut,
            format!(
                "{words}: not all ranks are there; make the communicator on every rank, each in a \
                 thread or process of its own, with one unique_id and rank_count"
            ),
        ),
        Failure::Broken(words) | Failure::Mismatched(_, words) => (Status::DeviceRefused, words),
        Failure::Late(_) => (Status::TimedOut, "not all ranks are there".into()),
        Failure::Aborted => (Status::PeerLost, "the communicator was aborted".into()),
    };
    match rank_count {
        0 => Error::new(status, format!("nccl_comm: {words}")),
        _ => Error::new(status, format!("rank {rank} of {rank_count}: {words}")),
    }
}
