//! Finalising, destroying, aborting.

use super::comm::{Comm, Life};
use super::init::wait;
use super::room::Presence;
use super::status::{IN_PROGRESS, INVALID_USAGE, Outcome};
use super::{admit, group, outcome};
use crate::clock::{Clock, Point};
use crate::machine::{Machine, lock};
use crate::schedule::{finish, progressed};
use crate::violation::violate;
use std::ffi::{CString, c_int};

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommFinalize(comm: u64) -> c_int {
    outcome(end("ncclCommFinalize", comm, finalize))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommDestroy(comm: u64) -> c_int {
    outcome(end("ncclCommDestroy", comm, destroy))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommAbort(comm: u64) -> c_int {
    outcome(end("ncclCommAbort", comm, abort))
}

/// A communicator that is NULL has its end behind it.
fn end(function: &'static str, comm: u64, body: impl FnOnce(u64) -> Outcome) -> Outcome {
    admit(function, comm)?;
    if comm == 0 {
        return Ok(());
    }
    let _hold = group::hold(comm, function, false)?;
    body(comm)
}

fn finalize(comm: u64) -> Outcome {
    {
        let mut machine = lock();
        machine.ready_comm(comm, "ncclCommFinalize")?.life = Life::Finalizing;
        machine.settle(comm);
    }
    wait(comm)?;
    match lock().comm(comm)?.state() {
        IN_PROGRESS => Err(IN_PROGRESS),
        _ => Ok(()),
    }
}

/// Waits for the rank's own work, and not for other ranks.
fn destroy(comm: u64) -> Outcome {
    let mut machine = lock();
    let found = machine.comm(comm)?;
    if found.life == Life::Joining || found.deferred.is_some() {
        violate("ncclCommDestroy: the communicator is in progress".to_owned());
    }
    if found.error != 0 {
        violate("ncclCommDestroy: the communicator failed, and has to be aborted".to_owned());
        machine.forget(comm, Presence::Aborted);
        return Err(INVALID_USAGE);
    }
    let last = machine.last_point(comm);
    drop(machine);
    finish(&last);
    lock().forget(comm, Presence::Destroyed);
    Ok(())
}

/// Ends the communicator at once; whatever was launched on it stops as it is.
fn abort(comm: u64) -> Outcome {
    let mut machine = lock();
    machine.report_hang(comm);
    machine.forget(comm, Presence::Aborted);
    progressed();
    Ok(())
}

impl Machine {
    /// The last launch on the communicator.
    fn last_point(&self, handle: u64) -> Vec<Point> {
        let last = self.comms.get(&handle).and_then(|comm| comm.last_launch);
        last.into_iter().map(bare_point).collect()
    }

    /// Lets the work of a communicator that is at its end go on a little.
    pub fn nudge(&mut self, handle: u64) {
        let finalizing = |comm: &Comm| comm.life == Life::Finalizing;
        if self.comms.get(&handle).is_some_and(finalizing) {
            let last = self.last_point(handle);
            self.step(&last);
        }
    }

    /// Ends a communicator's life.
    pub fn forget(&mut self, handle: u64, presence: Presence) {
        let Some(comm) = self.comms.remove(&handle) else { return };
        // A room that will not be complete is closed, unless only this one could not come in.
        let joined = comm.life != Life::Grouped;
        if !comm.room.everybody(Presence::Joined) && (joined || comm.room.is_empty()) {
            comm.room.unlink();
        }
        if joined {
            comm.room.set_presence(comm.rank, presence);
        }
    }

    /// Says for whom the rank was waiting, if it was.
    fn report_hang(&mut self, handle: u64) {
        let Some(comm) = self.comms.get(&handle) else { return };
        let (waits, own) = (comm.waits_for(), comm.rank);
        let texts = waits.into_iter().map(|text| format!("rank {own} waited: {text}"));
        self.hangs.extend(texts.map(|text| CString::new(text).unwrap_or_default()));
    }
}

/// A point that only says what has to have run.
pub fn bare_point((stream, sequence): (u64, u64)) -> Point {
    Point { stream, sequence, clock: Clock::new(), finish_ns: 0 }
}

impl Comm {
    /// The ranks that the current launch, or the beginning, lacks.
    fn waits_for(&self) -> Vec<String> {
        let lacking = |rank: &usize| match self.life {
            Life::Joining => self.room.presence(*rank) == Presence::Absent,
            _ => self.missing().contains(rank) || self.lacks(*rank),
        };
        (0..self.ranks()).filter(lacking).map(|rank| self.describe(rank)).collect()
    }

    /// Whether the current launch still needs a post of the rank.
    fn lacks(&self, rank: usize) -> bool {
        let Some((launch, numbers)) = &self.current else { return false };
        let mut calls = launch.calls.iter().zip(numbers);
        calls.any(|(call, number)| {
            let mut partners = self.partners(call).into_iter().filter(|(of, _)| *of == rank);
            partners.any(|(of, board)| self.room.posted(of, board) <= *number)
        })
    }

    fn describe(&self, rank: usize) -> String {
        let process = self.room.process(rank);
        let presence = self.room.presence(rank);
        let state = std::fs::read_to_string(format!("/proc/{process}/stat"));
        let letter = state.ok().and_then(|text| text.rsplit(") ").next()?.chars().next());
        match (presence, letter) {
            (Presence::Absent, _) => format!("rank {rank} never joined"),
            (_, None | Some('Z' | 'X')) => format!("rank {rank}'s process {process} is dead"),
            (_, Some('T' | 't')) => format!("rank {rank}'s process {process} is stopped"),
            (Presence::Aborted, _) => format!("rank {rank} aborted"),
            _ => format!("rank {rank} has not come to it"),
        }
    }
}
