//! A launch whose turn in its stream has come. First the rank posts what it brings; once all whom
//! it concerns have posted the same, it takes what they brought. Until then its stream stands.

use super::call::{Call, Kind};
use super::comm::Comm;
use super::launch::Launch;
use super::room::{Board, PAGE_BYTES, Post, RING};
use super::status::SYSTEM_ERROR;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::violation::violate;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes that a rank brought and others may still read.
pub struct Sent {
    board: Board,
    number: u64,
    offset: u64,
    bytes: u64,
}

impl Machine {
    /// Whether the launch at the head of a stream can go on.
    pub fn may_fly(&self, launch: &Launch) -> bool {
        let Some(comm) = self.comms.get(&launch.comm) else { return true };
        if self.contexts.get(&comm.context).is_none_or(|context| context.error != 0) {
            return true;
        }
        match &comm.current {
            _ if comm.error != 0 => false,
            None => comm.boards_have_room(launch),
            Some((_, numbers)) => comm.is_met(launch, numbers),
        }
    }

    /// Posts the launch, or finishes it; returns whether it is over. `item` is its place.
    pub fn fly(&mut self, launch: &Arc<Launch>, item: (u64, u64), now: u64) -> bool {
        let Some(comm) = self.comms.get_mut(&launch.comm) else {
            launch.spoil(&self.memory);
            return true;
        };
        let works = self.contexts.get(&comm.context).is_some_and(|context| context.error == 0);
        if let Some((_, numbers)) = comm.current.take() {
            if works {
                comm.finish(launch, &numbers, &self.memory);
            }
            return true;
        }
        comm.unposted.retain(|waiting| *waiting != item);
        if works {
            comm.post(launch, now, &self.memory);
        }
        !works
    }

    /// What other ranks of this process have to come to before the launch can be over.
    pub fn demands(&self, launch: &Launch) -> Vec<(u64, u64)> {
        let Some(comm) = self.comms.get(&launch.comm) else { return Vec::new() };
        let beside = self
            .comms
            .iter()
            .filter(|(handle, other)| **handle != launch.comm && other.beside(comm));
        beside.filter_map(|(_, other)| other.unposted.front().copied()).collect()
    }
}

impl Launch {
    /// Of an aborted launch's results nothing can be said.
    fn spoil(&self, memory: &Memory) {
        for access in self.op.accesses.iter().filter(|access| access.write) {
            if let Some(bytes) = memory.bytes(access.address, access.bytes) {
                // SAFETY: the memory said that all these bytes are there.
                unsafe { bytes.write_bytes(0xFF, access.bytes as usize) };
            }
        }
    }
}

impl Comm {
    fn own_board(&self, call: &Call) -> Board {
        match call.kind {
            Kind::AllGather | Kind::Broadcast => Board::Collective,
            Kind::Send => Board::SendTo(call.peer),
            Kind::Receive => Board::ReceiveFrom(call.peer),
        }
    }

    /// Who else has to post, and where.
    pub fn partners(&self, call: &Call) -> Vec<(usize, Board)> {
        match call.kind {
            Kind::AllGather | Kind::Broadcast => {
                (0..self.ranks()).map(|rank| (rank, Board::Collective)).collect()
            }
            Kind::Send => vec![(call.peer, Board::ReceiveFrom(self.rank))],
            Kind::Receive => vec![(call.peer, Board::SendTo(self.rank))],
        }
    }

    /// The first number of the own board that somebody may still read.
    fn least_taken(&self, board: Board) -> u64 {
        let taken = |reader| self.room.taken(self.rank, board, reader);
        match board {
            Board::Collective => (0..self.ranks()).map(taken).min().unwrap_or(0),
            Board::SendTo(peer) | Board::ReceiveFrom(peer) => taken(peer),
        }
    }

    fn boards_have_room(&self, launch: &Launch) -> bool {
        launch.calls.iter().all(|call| {
            let board = self.own_board(call);
            let more = launch.calls.iter().filter(|other| self.own_board(other) == board).count();
            let open = self.room.posted(self.rank, board) - self.least_taken(board);
            open + more as u64 <= RING
        })
    }

    fn post(&mut self, launch: &Arc<Launch>, now: u64, memory: &Memory) {
        self.forget_sent();
        let posts = launch.calls.iter().map(|call| self.post_call(launch, call, now, memory));
        let numbers = posts.collect();
        self.current = Some((launch.clone(), numbers));
        self.mismatched.store(false, Ordering::Relaxed);
    }

    fn post_call(&mut self, launch: &Launch, call: &Call, now: u64, memory: &Memory) -> u64 {
        let bytes = if self.brings(call) { call.bytes() } else { 0 };
        let offset = self.next_offset;
        if !self.bring(call.send, bytes, memory) {
            self.fail(SYSTEM_ERROR, "no shared memory for what is sent".to_owned());
        }
        let board = self.own_board(call);
        let number = self.room.post(
            self.rank,
            board,
            Post { ready_ns: now, offset, bytes, ..expected(call, launch) },
        );
        if bytes > 0 {
            self.sent.push(Sent { board, number, offset, bytes });
        }
        number
    }

    fn brings(&self, call: &Call) -> bool {
        match call.kind {
            Kind::AllGather | Kind::Send => true,
            Kind::Broadcast => call.peer == self.rank,
            Kind::Receive => false,
        }
    }

    fn bring(&mut self, address: u64, bytes: u64, memory: &Memory) -> bool {
        let Some(contents) = memory.bytes(address, bytes).filter(|_| bytes > 0) else {
            return true;
        };
        // SAFETY: the memory said that all these bytes are there, and nothing runs beside this.
        let contents = unsafe { std::slice::from_raw_parts(contents, bytes as usize) };
        let offset = self.next_offset;
        self.next_offset += bytes.next_multiple_of(PAGE_BYTES);
        self.room.write_bytes(self.rank, offset, contents)
    }

    /// Gives back the shared memory of what all have read.
    fn forget_sent(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        for old in sent {
            if self.least_taken(old.board) > old.number {
                self.room.forget_bytes(self.rank, old.offset, old.bytes);
            } else {
                self.sent.push(old);
            }
        }
    }

    /// Whether all partners of all calls have posted, and the same.
    fn is_met(&self, launch: &Launch, numbers: &[u64]) -> bool {
        let mut calls = launch.calls.iter().zip(numbers);
        calls.all(|(call, number)| {
            let mut partners = self.partners(call).into_iter();
            partners.all(|(rank, board)| {
                self.room.posted(rank, board) > *number
                    && self.agrees(launch, call, rank, self.room.read(rank, board, *number))
            })
        })
    }

    /// Whether the partner posted what matches; notes once that it did not, and then all hang.
    fn agrees(&self, launch: &Launch, call: &Call, rank: usize, post: Post) -> bool {
        let mut ours = expected(call, launch);
        ours.kind = match call.kind {
            Kind::AllGather | Kind::Broadcast => ours.kind,
            Kind::Send => Kind::Receive as u64,
            Kind::Receive => Kind::Send as u64,
        };
        let theirs = Post { ready_ns: 0, offset: 0, bytes: 0, ..post };
        if ours != theirs && !self.mismatched.swap(true, Ordering::Relaxed) {
            let (own, name) = (self.rank, call.kind.name());
            violate(format!(
                "{name}: rank {own} has {ours:?} and rank {rank} {theirs:?}, mismatched"
            ));
        }
        ours == theirs
    }

    /// When the last partner of the current launch came to it, if all have.
    pub fn met_ns(&self) -> u64 {
        let Some((launch, numbers)) = &self.current else { return 0 };
        let calls = launch.calls.iter().zip(numbers);
        let posts = calls.flat_map(|(call, number)| {
            let partners = self.partners(call).into_iter();
            partners.map(|(rank, board)| self.room.read(rank, board, *number).ready_ns)
        });
        posts.max().unwrap_or(0)
    }

    fn finish(&mut self, launch: &Launch, numbers: &[u64], memory: &Memory) {
        for (call, number) in launch.calls.iter().zip(numbers) {
            for (rank, board) in self.partners(call) {
                let from = rank as u64 * call.bytes();
                let post = self.room.read(rank, board, *number);
                match call.kind {
                    Kind::AllGather => self.collect(rank, post, call.receive + from, memory),
                    Kind::Broadcast if rank == call.peer => {
                        self.collect(rank, post, call.receive, memory);
                    }
                    Kind::Receive => self.collect(rank, post, call.receive, memory),
                    Kind::Broadcast | Kind::Send => {}
                }
                self.room.take(rank, board, self.rank, *number);
            }
        }
    }

    /// Reads what the rank brought into our memory.
    fn collect(&mut self, rank: usize, post: Post, address: u64, memory: &Memory) {
        let Some(target) = memory.bytes(address, post.bytes).filter(|_| post.bytes > 0) else {
            return;
        };
        // SAFETY: the memory said that all these bytes are there, and nothing runs beside this.
        let target = unsafe { std::slice::from_raw_parts_mut(target, post.bytes as usize) };
        if !self.room.read_bytes(rank, post.offset, target) {
            self.fail(SYSTEM_ERROR, format!("what rank {rank} sent cannot be read"));
        }
    }
}

/// What a call's post says to all who have part in it.
fn expected(call: &Call, launch: &Launch) -> Post {
    Post {
        kind: call.kind as u64,
        dtype: call.dtype as u64,
        root: if call.kind == Kind::Broadcast { call.peer as u64 } else { 0 },
        count: call.count,
        captured: u64::from(launch.captured),
        ..Post::default()
    }
}
