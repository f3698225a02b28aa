//! A transfer in NCCL's own calls, all in place and of bytes, on one stream.

use super::super::medium::{Message, Transfer};
use super::library::{BYTE, Functions, Handle, IN_PROGRESS, SUCCESS, Stream};
use std::ffi::c_int;

/// A function's name and its result.
pub(super) type Answer = (&'static str, c_int);

/// Where a transfer is put.
pub(super) struct Launch<'a> {
    pub(super) functions: &'a Functions,
    pub(super) comm: Handle,
    pub(super) rank: usize,
    pub(super) stream: Stream,
}

impl Launch<'_> {
    /// Starts a transfer that has something to move.
    ///
    /// # Safety
    /// As for [`super::super::Medium::start`].
    pub(super) unsafe fn run(&self, transfer: &Transfer<'_>) -> Answer {
        match *transfer {
            Transfer::AllGather { buffer, bytes } if is_even(bytes) => {
                self.all_gather(buffer, bytes[0])
            }
            Transfer::AllGather { buffer, bytes } => self.gather_uneven(buffer, bytes),
            Transfer::Broadcast { buffer, bytes, root } => self.broadcast(buffer, bytes, root),
            Transfer::Exchange { messages } => {
                let moving = messages.iter().filter(|message| message.bytes > 0);
                self.group(moving.map(|message| self.message(message)))
            }
        }
    }

    fn all_gather(&self, buffer: usize, bytes: usize) -> Answer {
        let own = buffer + self.rank * bytes;
        // SAFETY: the caller's memory and stream, and a communicator that is alive.
        let result = unsafe {
            (self.functions.all_gather)(
                own as *const _,
                buffer as *mut _,
                bytes,
                BYTE,
                self.comm,
                self.stream,
            )
        };
        ("ncclAllGather", result)
    }

    /// NCCL gathers equal counts only; so each rank sends its own, all in one launch.
    fn gather_uneven(&self, buffer: usize, bytes: &[usize]) -> Answer {
        let mut address = buffer;
        self.group(bytes.iter().enumerate().filter(|(_, bytes)| **bytes > 0).map(
            |(root, &bytes)| {
                let answer = self.broadcast(address, bytes, root);
                address += bytes;
                answer
            },
        ))
    }

    fn broadcast(&self, buffer: usize, bytes: usize, root: usize) -> Answer {
        // SAFETY: as above.
        let result = unsafe {
            (self.functions.broadcast)(
                buffer as *const _,
                buffer as *mut _,
                bytes,
                BYTE,
                root as c_int,
                self.comm,
                self.stream,
            )
        };
        ("ncclBroadcast", result)
    }

    fn message(&self, message: &Message) -> Answer {
        let Message { address, bytes, .. } = *message;
        let (peer, comm, stream) = (message.peer as c_int, self.comm, self.stream);
        if message.is_sent {
            let send = self.functions.send;
            // SAFETY: as above.
            return ("ncclSend", unsafe {
                send(address as *const _, bytes, BYTE, peer, comm, stream)
            });
        }
        let receive = self.functions.receive;
        // SAFETY: as above.
        ("ncclRecv", unsafe { receive(address as *mut _, bytes, BYTE, peer, comm, stream) })
    }

    /// Makes the calls as one launch. A group that was begun is ended, whatever happens in it.
    fn group(&self, mut calls: impl Iterator<Item = Answer>) -> Answer {
        // SAFETY: groups are this thread's own.
        let started = unsafe { (self.functions.group_start)() };
        if started != SUCCESS {
            return ("ncclGroupStart", started);
        }
        let failed = calls.find(|(_, result)| ![SUCCESS, IN_PROGRESS].contains(result));
        // SAFETY: as above.
        let ended = unsafe { (self.functions.group_end)() };
        failed.unwrap_or(("ncclGroupEnd", ended))
    }
}

fn is_even(bytes: &[usize]) -> bool {
    bytes.iter().all(|count| *count == bytes[0])
}
