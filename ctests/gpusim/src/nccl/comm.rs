//! A rank's communicator: its seat in the room, what it has launched, and which calls it stands.

use super::launch::{Deferred, Launch};
use super::room::{Presence, Room};
use super::status::{IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, Outcome, SUCCESS};
use super::version;
use crate::handle::Noun;
use crate::machine::{Machine, thread};
use crate::violation::violate;
use std::collections::VecDeque;
use std::ffi::{CString, c_int};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::ThreadId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// In a group that has not ended: not in the room yet.
    Grouped,
    /// Waits for the others to come.
    Joining,
    Ready,
    /// Waits for its own work, and for the others to finalise.
    Finalizing,
    Finalized,
}

pub struct Comm {
    pub room: Arc<Room>,
    pub rank: usize,
    pub device: usize,
    pub context: u64,
    pub blocking: bool,
    pub life: Life,
    /// The result that ended it, or 0.
    pub error: c_int,
    pub last_error: CString,
    /// What a call left to be enqueued later.
    pub deferred: Option<Deferred>,
    /// Whether the next call is to take longer.
    pub slow: bool,
    /// Launches that have not come to their turn, as streams and sequences, in order.
    pub unposted: VecDeque<(u64, u64)>,
    pub last_launch: Option<(u64, u64)>,
    /// The launch whose turn it is, and the numbers of its posts.
    pub current: Option<(Arc<Launch>, Vec<u64>)>,
    /// Whether it was said that the current launch matches nobody's.
    pub mismatched: AtomicBool,
    /// What it sent and others may still read: (number, where, how long), by board.
    pub sent: Vec<super::flight::Sent>,
    pub next_offset: u64,
    /// The thread that is in a call on it.
    pub busy: Option<ThreadId>,
    /// Whether that call launches.
    pub launches: bool,
    /// The thread whose open group has calls on it.
    pub group: Option<ThreadId>,
    /// The thread that launched on it last.
    pub launcher: Option<ThreadId>,
}

impl Comm {
    pub fn new(room: Arc<Room>, rank: usize, device: usize, context: u64) -> Comm {
        Comm {
            room,
            rank,
            device,
            context,
            blocking: true,
            life: Life::Grouped,
            error: 0,
            last_error: CString::default(),
            deferred: None,
            slow: false,
            unposted: VecDeque::new(),
            last_launch: None,
            current: None,
            mismatched: AtomicBool::new(false),
            sent: Vec::new(),
            next_offset: 0,
            busy: None,
            launches: false,
            group: None,
            launcher: None,
        }
    }

    pub fn fail(&mut self, result: c_int, text: String) {
        if self.error == 0 {
            self.error = result;
        }
        self.last_error = CString::new(text).unwrap_or_default();
    }

    pub fn ranks(&self) -> usize {
        self.room.ranks
    }

    /// Whether both are ranks of one communicator.
    pub fn beside(&self, other: &Comm) -> bool {
        self.room.name() == other.room.name()
    }

    /// Another rank that has the rank's GPU, where that is not allowed.
    fn rival(&self, rank: usize) -> Option<usize> {
        let allowed = std::env::var_os("NCCL_MULTI_RANK_GPU_ENABLE").is_some_and(|v| v == "1");
        if allowed && version() >= 23000 {
            return None;
        }
        let gpu = self.room.gpu(rank);
        (0..self.ranks()).find(|other| *other != rank && self.room.gpu(*other) == gpu)
    }
}

impl Machine {
    /// The communicator of the caller's handle.
    pub fn comm(&self, handle: u64) -> Outcome<&Comm> {
        self.comms.get(&handle).ok_or_else(|| stale(handle))
    }

    pub fn comm_mut(&mut self, handle: u64) -> Outcome<&mut Comm> {
        self.comms.get_mut(&handle).ok_or_else(|| stale(handle))
    }

    /// The communicator, if it is done with the last call.
    pub fn settled_comm(&self, handle: u64, function: &str) -> Outcome<&Comm> {
        let comm = self.comm(handle)?;
        match comm.state() {
            SUCCESS => Ok(comm),
            IN_PROGRESS => {
                violate(format!("{function}: the communicator is in progress"));
                Err(INVALID_ARGUMENT)
            }
            error => Err(error),
        }
    }

    /// Refuses calls on a communicator that failed, is at its end, or has not done the last one.
    pub fn ready_comm(&mut self, handle: u64, function: &str) -> Outcome<&mut Comm> {
        let comm = self.comm_mut(handle)?;
        let reason = match (comm.error, comm.life) {
            (error, _) if error != 0 => {
                violate(format!("{function}: the communicator failed with {error} before"));
                return Err(error);
            }
            (_, Life::Finalizing | Life::Finalized) => {
                violate(format!("{function}: the communicator was finalized"));
                return Err(INVALID_USAGE);
            }
            (_, Life::Grouped | Life::Joining) => "has not come to be",
            _ if comm.deferred.is_some() => "is in progress with the last call",
            (_, Life::Ready) => return Ok(comm),
        };
        violate(format!("{function}: the communicator {reason}, by ncclCommGetAsyncError"));
        comm.last_error = CString::new(format!("{function}: it {reason}")).unwrap_or_default();
        Err(INVALID_ARGUMENT)
    }

    /// Notes a call that comes while another thread is in one on the communicator, or that
    /// launches while one is on another of the same device.
    pub fn occupy(&mut self, handle: u64, function: &str, launches: bool) -> Outcome {
        let (own, device) = (thread(), self.comm(handle)?.device);
        let others = self.comms.iter().filter(|(other, comm)| {
            **other == handle || (launches && comm.launches && comm.device == device)
        });
        let mut busy = others.filter(|(_, comm)| comm.busy.is_some_and(|by| by != own));
        if let Some((_, other)) = busy.next() {
            let rank = other.rank;
            violate(format!(
                "{function}: two threads are in NCCL at once on device {device} (rank {rank})"
            ));
        }
        let comm = self.comm_mut(handle)?;
        if comm.group.is_some_and(|by| by != own) {
            violate(format!(
                "{function}: another thread's open group has calls on the communicator"
            ));
        }
        comm.busy = Some(own);
        comm.launches = launches;
        Ok(())
    }

    pub fn leave(&mut self, handle: u64) {
        if let Some(comm) = self.comms.get_mut(&handle) {
            comm.busy = None;
        }
    }

    /// Moves a communicator on, if what it waits for has come.
    pub fn settle(&mut self, handle: u64) {
        self.enqueue_deferred(handle);
        let finished = self.launches_are_over(handle);
        let Some(comm) = self.comms.get_mut(&handle) else { return };
        match comm.life {
            Life::Joining if comm.room.everybody(Presence::Joined) => comm.meet(),
            Life::Finalizing if finished => {
                if comm.room.presence(comm.rank) < Presence::Finalized {
                    comm.room.set_presence(comm.rank, Presence::Finalized);
                }
                if comm.room.everybody(Presence::Finalized) {
                    comm.life = Life::Finalized;
                }
            }
            Life::Grouped | Life::Joining | Life::Ready | Life::Finalizing | Life::Finalized => {}
        }
    }

    fn launches_are_over(&self, handle: u64) -> bool {
        let last = self.comms.get(&handle).and_then(|comm| comm.last_launch);
        last.is_none_or(|(stream, sequence)| self.has_run(stream, sequence))
    }
}

impl Comm {
    /// All ranks are in the room, which needs no name any more.
    fn meet(&mut self) {
        self.room.unlink();
        let twice = (0..self.ranks()).find(|rank| self.rival(*rank).is_some());
        if let Some(rank) = twice {
            // Before 2.30 a rank with a GPU of its own looked for no other pair, and waits for
            // them.
            if version() >= 23000 || self.rival(self.rank).is_some() {
                self.fail(INVALID_USAGE, format!("rank {rank} shares a GPU with another"));
            }
            return;
        }
        self.life = Life::Ready;
        let own = u64::from(std::process::id());
        if (0..self.ranks()).any(|rank| self.room.process(rank) != own) {
            super::proxy::arrange();
        }
    }

    /// What ncclCommGetAsyncError says.
    pub fn state(&self) -> c_int {
        if self.error != 0 {
            return self.error;
        }
        let waits = match self.life {
            Life::Grouped | Life::Joining | Life::Finalizing => true,
            Life::Ready | Life::Finalized => self.deferred.is_some(),
        };
        if waits { IN_PROGRESS } else { SUCCESS }
    }
}

fn stale(handle: u64) -> c_int {
    if Noun::Comm.names(handle) {
        violate(format!("communicator {handle:#x} is used after its end"));
    }
    INVALID_ARGUMENT
}
