//! Making communicators.

use super::comm::{Comm, Life};
use super::config::{Config, blocking};
use super::group;
use super::room::{Presence, Room};
use super::status::*;
use super::{admit, call, outcome, put};
use crate::context::top;
use crate::driver::device::gpu_of;
use crate::handle::Noun;
use crate::machine::{Machine, lock};
use crate::violation::violate;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

/// How long a call that blocks sleeps between two looks.
pub const NAP: Duration = Duration::from_micros(500);
/// Ranks of one communicator; a real one has no such bound.
const MOST_RANKS: c_int = 64;

/// `ncclUniqueId`, which is passed by value. Ours says whose it is and is random otherwise.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId([u8; 128]);

const MARK: &[u8; 8] = b"gpusim\0\0";

impl UniqueId {
    fn new() -> Outcome<UniqueId> {
        let mut id = UniqueId([0; 128]);
        id.0[..8].copy_from_slice(MARK);
        let random = &mut id.0[8..24];
        // SAFETY: the buffer has that many bytes.
        let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
        if got == random.len() as isize { Ok(id) } else { Err(SYSTEM_ERROR) }
    }

    /// What the room's shared memory is called.
    fn room(&self) -> Outcome<String> {
        if &self.0[..8] != MARK {
            violate("nccl: an id that ncclGetUniqueId did not make".to_owned());
            return Err(INVALID_ARGUMENT);
        }
        let digits: String = self.0[8..24].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("/gpusim-{digits}"))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    call("ncclGetUniqueId", 0, |_| unsafe { put(id, UniqueId::new()?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(
    comm: *mut u64,
    ranks: c_int,
    id: UniqueId,
    rank: c_int,
) -> c_int {
    // SAFETY: the caller's output, as nccl.h asks.
    outcome(unsafe { init("ncclCommInitRank", comm, Seat { ranks, id, rank }, std::ptr::null()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRankConfig(
    comm: *mut u64,
    ranks: c_int,
    id: UniqueId,
    rank: c_int,
    config: *const Config,
) -> c_int {
    let seat = Seat { ranks, id, rank };
    // SAFETY: the caller's output and configuration, as nccl.h asks.
    outcome(unsafe { init("ncclCommInitRankConfig", comm, seat, config) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitAll(
    comms: *mut u64,
    count: c_int,
    devices: *const c_int,
) -> c_int {
    // SAFETY: arrays of that length, as nccl.h asks.
    outcome(admit("ncclCommInitAll", 0).and_then(|()| unsafe { init_all(comms, count, devices) }))
}

/// Which rank of which communicator.
#[derive(Clone, Copy)]
struct Seat {
    ranks: c_int,
    id: UniqueId,
    rank: c_int,
}

/// # Safety
/// `comm` is NULL or can be written, `config` is NULL or a configuration.
unsafe fn init(
    function: &'static str,
    comm: *mut u64,
    seat: Seat,
    config: *const Config,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { put(comm, 0) }?;
    let admitted = admit(function, 0);
    // SAFETY: the caller's promise.
    let blocks = unsafe { blocking(config) }.map_err(|text| {
        violate(format!("{function}: {text}"));
        INVALID_ARGUMENT
    })?;
    // A communicator that does not block is always in progress at first.
    admitted.or_else(|result| match result {
        IN_PROGRESS if !blocks => Ok(()),
        other => Err(other),
    })?;
    let context = top().ok_or(UNHANDLED_CUDA_ERROR)?;
    let handle = lock().seat(seat, context, blocks)?;
    // SAFETY: the caller's promise.
    unsafe { put(comm, handle) }?;
    let joined = match group::is_open() {
        true => group::add_join(handle).and(if blocks { Ok(()) } else { Err(IN_PROGRESS) }),
        false => join_all(&[handle]),
    };
    joined.inspect_err(|result| {
        group::remember(*result);
        // SAFETY: the caller's promise.
        unsafe { withdraw(comm, *result) }
    })
}

/// A communicator that could not be made is none.
///
/// # Safety
/// `comm` can be written.
unsafe fn withdraw(comm: *mut u64, result: c_int) {
    if fatal(result) {
        // SAFETY: the caller's promise.
        let handle = unsafe { comm.replace(0) };
        lock().forget(handle, Presence::Aborted);
    }
}

impl Machine {
    fn seat(&mut self, seat: Seat, context: u64, blocks: bool) -> Outcome<u64> {
        let fits = (1..=MOST_RANKS).contains(&seat.ranks) && (0..seat.ranks).contains(&seat.rank);
        if !fits {
            return Err(INVALID_ARGUMENT);
        }
        self.usable(context).map_err(|_| UNHANDLED_CUDA_ERROR)?;
        let device = self.device_of(context).map_err(|_| UNHANDLED_CUDA_ERROR)?;
        let room = Arc::new(Room::open(&seat.id.room()?, seat.ranks as usize)?);
        let mut comm = Comm::new(room, seat.rank as usize, device, context);
        comm.blocking = blocks;
        let handle = self.new_handle(Noun::Comm);
        self.comms.insert(handle, comm);
        Ok(handle)
    }
}

/// Has all of them join, and waits for those that block; the others tell later what came of it.
pub fn join_all(comms: &[u64]) -> Outcome {
    let mut result = Ok(());
    for comm in comms {
        result = result.and(lock().join_room(*comm));
    }
    for comm in comms.iter().filter(|comm| blocks(**comm)) {
        result = result.and_then(|()| wait(*comm));
    }
    match result {
        Ok(()) if comms.iter().any(|comm| !blocks(*comm)) => Err(IN_PROGRESS),
        other => other,
    }
}

fn blocks(comm: u64) -> bool {
    lock().comms.get(&comm).is_none_or(|comm| comm.blocking)
}

impl Machine {
    fn join_room(&mut self, handle: u64) -> Outcome {
        let comm = self.comm_mut(handle)?;
        comm.room.join(comm.rank, gpu_of(comm.device))?;
        comm.life = Life::Joining;
        Ok(())
    }
}

/// Blocks until the communicator is no longer in progress, if it may block.
pub fn wait(handle: u64) -> Outcome {
    loop {
        let mut machine = lock();
        machine.nudge(handle);
        machine.settle(handle);
        let comm = machine.comm(handle)?;
        match comm.state() {
            IN_PROGRESS if comm.blocking => {}
            IN_PROGRESS | SUCCESS => return Ok(()),
            error => return Err(error),
        }
        drop(machine);
        std::thread::sleep(NAP);
    }
}

/// # Safety
/// `comms` and `devices` are NULL or arrays of `count`.
unsafe fn init_all(comms: *mut u64, count: c_int, devices: *const c_int) -> Outcome {
    if comms.is_null() || count < 1 {
        return Err(INVALID_ARGUMENT);
    }
    let chosen: Vec<c_int> = match devices.is_null() {
        true => (0..count).collect(),
        // SAFETY: the caller's promise.
        false => unsafe { std::slice::from_raw_parts(devices, count as usize) }.to_vec(),
    };
    let handles = lock().seat_all(&chosen)?;
    join_all(&handles).inspect_err(|_| {
        let mut machine = lock();
        handles.iter().for_each(|handle| machine.forget(*handle, Presence::Aborted));
    })?;
    // SAFETY: the caller's promise.
    unsafe { comms.copy_from_nonoverlapping(handles.as_ptr(), handles.len()) };
    Ok(())
}

impl Machine {
    /// One rank on the primary context of each device, which lives from then on as the runtime's
    /// does.
    fn seat_all(&mut self, devices: &[c_int]) -> Outcome<Vec<u64>> {
        let (id, ranks) = (UniqueId::new()?, devices.len() as c_int);
        for (index, device) in devices.iter().enumerate() {
            self.device(*device).map_err(|_| INVALID_ARGUMENT)?;
            if devices[..index].contains(device) {
                return Err(INVALID_USAGE);
            }
        }
        let seats = devices.iter().zip(0..).map(|(device, rank)| {
            let context = self.runtime_context(*device as usize);
            self.seat(Seat { ranks, id, rank }, context, true)
        });
        seats.collect()
    }

    fn runtime_context(&mut self, device: usize) -> u64 {
        let primary = self.devices[device].primary;
        if !self.contexts.contains_key(&primary) {
            self.create_context(primary, device, 0);
            self.devices[device].retains += 1;
        }
        primary
    }
}
