//! The room where a communicator's ranks meet: POSIX shared memory, named after the unique id.
//! Each word has one rank that writes it, so a rank that is killed or stopped at any moment leaves
//! the others waiting, but never with a lock held.

use super::status::{INVALID_USAGE, Outcome, SYSTEM_ERROR};
use crate::violation::violate;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Posts of a board that are there at once.
pub const RING: u64 = 256;
const POST_WORDS: usize = 8;
const SLOT_WORDS: usize = 4;
/// The part of the file for what one rank sends; most of it is a hole.
const REGION_BYTES: u64 = 1 << 40;
pub const PAGE_BYTES: u64 = 4096;

/// What has become of a rank; the order is that of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    Absent = 0,
    Joined = 1,
    Finalized = 2,
    Destroyed = 3,
    Aborted = 4,
}

/// What a rank says of an operation that it has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Post {
    pub kind: u64,
    pub dtype: u64,
    /// The root; nothing for other kinds.
    pub root: u64,
    pub count: u64,
    pub captured: u64,
    /// When the rank came to it, on the made-up clock.
    pub ready_ns: u64,
    /// Where in the rank's region of the file its bytes are.
    pub offset: u64,
    pub bytes: u64,
}

/// A rank's list of posts: all collectives, or what it sends to or receives from one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    Collective,
    SendTo(usize),
    ReceiveFrom(usize),
}

pub struct Room {
    file: File,
    words: *const AtomicU64,
    word_count: usize,
    name: CString,
    pub ranks: usize,
}

// SAFETY: the mapping is of the process and lives as long as the room; all its words are atomic.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    pub fn open(name: &str, ranks: usize) -> Outcome<Room> {
        let name = CString::new(name).map_err(|_| SYSTEM_ERROR)?;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: the name ends with a NUL.
        let descriptor = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
        if descriptor < 0 {
            return Err(SYSTEM_ERROR);
        }
        // SAFETY: the descriptor was just opened and is nobody else's.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let word_count = 1 + ranks * SLOT_WORDS + ranks * (1 + 2 * ranks) * board_words(ranks);
        let words = map(&file, word_count * 8)?;
        let room = Room { file, words, word_count, name, ranks };
        room.agree_on_ranks().map(|()| room)
    }

    fn agree_on_ranks(&self) -> Outcome {
        let (ours, word) = (self.ranks as u64, self.word(0));
        match word.compare_exchange(0, ours, Ordering::AcqRel, Ordering::Acquire) {
            Err(theirs) if theirs != ours => {
                violate(format!("nccl: one id with {theirs} ranks and with {ours}"));
                Err(INVALID_USAGE)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.word_count);
        // SAFETY: within the mapping, which is aligned to a page.
        unsafe { &*self.words.add(index) }
    }

    fn slot(&self, rank: usize, field: usize) -> &AtomicU64 {
        self.word(1 + rank * SLOT_WORDS + field)
    }

    /// Takes the rank's seat for this process, on that GPU of the machine.
    pub fn join(&self, rank: usize, gpu: u64) -> Outcome {
        let own = u64::from(std::process::id());
        let taken =
            self.slot(rank, 1).compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_err() {
            violate(format!("nccl: rank {rank} joins one id twice"));
            return Err(INVALID_USAGE);
        }
        self.slot(rank, 2).store(gpu, Ordering::Relaxed);
        self.set_presence(rank, Presence::Joined);
        Ok(())
    }

    pub fn presence(&self, rank: usize) -> Presence {
        match self.slot(rank, 0).load(Ordering::Acquire) {
            0 => Presence::Absent,
            1 => Presence::Joined,
            2 => Presence::Finalized,
            3 => Presence::Destroyed,
            _ => Presence::Aborted,
        }
    }

    pub fn set_presence(&self, rank: usize, presence: Presence) {
        self.slot(rank, 0).store(presence as u64, Ordering::Release);
    }

    pub fn everybody(&self, at_least: Presence) -> bool {
        (0..self.ranks).all(|rank| self.presence(rank) >= at_least)
    }

    /// Says that the rank has called for something on the communicator.
    pub fn set_called(&self, rank: usize) {
        self.slot(rank, 3).store(1, Ordering::Release);
    }

    pub fn has_called(&self, rank: usize) -> bool {
        self.slot(rank, 3).load(Ordering::Acquire) != 0
    }

    pub fn is_empty(&self) -> bool {
        (0..self.ranks).all(|rank| self.presence(rank) == Presence::Absent)
    }

    pub fn process(&self, rank: usize) -> u64 {
        self.slot(rank, 1).load(Ordering::Acquire)
    }

    pub fn gpu(&self, rank: usize) -> u64 {
        self.slot(rank, 2).load(Ordering::Relaxed)
    }

    pub fn name(&self) -> &CString {
        &self.name
    }

    /// Takes the name away; who is in the room stays there.
    pub fn unlink(&self) {
        // SAFETY: the name ends with a NUL. That it is gone already is as good.
        unsafe { libc::shm_unlink(self.name.as_ptr()) };
    }

    fn board(&self, rank: usize, board: Board) -> usize {
        let index = match board {
            Board::Collective => 0,
            Board::SendTo(peer) => 1 + peer,
            Board::ReceiveFrom(peer) => 1 + self.ranks + peer,
        };
        let before = rank * (1 + 2 * self.ranks) + index;
        1 + self.ranks * SLOT_WORDS + before * board_words(self.ranks)
    }

    /// How many posts the board had so far.
    pub fn posted(&self, rank: usize, board: Board) -> u64 {
        self.word(self.board(rank, board)).load(Ordering::Acquire)
    }

    /// How many of the board's posts the reader is done with.
    pub fn taken(&self, rank: usize, board: Board, reader: usize) -> u64 {
        self.word(self.board(rank, board) + 1 + reader).load(Ordering::Acquire)
    }

    pub fn take(&self, rank: usize, board: Board, reader: usize, number: u64) {
        let word = self.word(self.board(rank, board) + 1 + reader);
        word.store(number + 1, Ordering::Release);
    }

    fn post_words(&self, rank: usize, board: Board, number: u64) -> usize {
        let ring = self.board(rank, board) + 1 + self.ranks;
        ring + (number % RING) as usize * POST_WORDS
    }

    /// Adds a post to a board of the caller's own rank, and returns its number.
    pub fn post(&self, rank: usize, board: Board, post: Post) -> u64 {
        let number = self.posted(rank, board);
        let first = self.post_words(rank, board, number);
        let Post { kind, dtype, root, count, captured, ready_ns, offset, bytes } = post;
        let values = [kind, dtype, root, count, captured, ready_ns, offset, bytes];
        for (index, value) in values.into_iter().enumerate() {
            self.word(first + index).store(value, Ordering::Relaxed);
        }
        self.word(self.board(rank, board)).store(number + 1, Ordering::Release);
        number
    }

    /// A post that was made and that this reader has not taken.
    pub fn read(&self, rank: usize, board: Board, number: u64) -> Post {
        let first = self.post_words(rank, board, number);
        let values = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|index: usize| self.word(first + index).load(Ordering::Relaxed));
        let [kind, dtype, root, count, captured, ready_ns, offset, bytes] = values;
        Post { kind, dtype, root, count, captured, ready_ns, offset, bytes }
    }

    fn region(&self, rank: usize) -> u64 {
        ((self.word_count * 8) as u64).next_multiple_of(PAGE_BYTES) + rank as u64 * REGION_BYTES
    }

    /// Whether the bytes could be left in the rank's region.
    pub fn write_bytes(&self, rank: usize, offset: u64, bytes: &[u8]) -> bool {
        self.file.write_all_at(bytes, self.region(rank) + offset).is_ok()
    }

    pub fn read_bytes(&self, rank: usize, offset: u64, bytes: &mut [u8]) -> bool {
        self.file.read_exact_at(bytes, self.region(rank) + offset).is_ok()
    }

    /// Gives the memory of bytes back that everybody has read.
    pub fn forget_bytes(&self, rank: usize, offset: u64, bytes: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (start, length) = ((self.region(rank) + offset) as i64, bytes as i64);
        // SAFETY: a hole in a file of ours. Where there can be none, the bytes stay.
        unsafe { libc::fallocate(self.file.as_raw_fd(), mode, start, length) };
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and ends with the room.
        unsafe { libc::munmap(self.words.cast_mut().cast(), self.word_count * 8) };
    }
}

fn board_words(ranks: usize) -> usize {
    1 + ranks + RING as usize * POST_WORDS
}

/// Maps the file, which others may have made longer already.
fn map(file: &File, bytes: usize) -> Outcome<*const AtomicU64> {
    let length = file.metadata().map_err(|_| SYSTEM_ERROR)?.len();
    if length < bytes as u64 {
        file.set_len(bytes as u64).map_err(|_| SYSTEM_ERROR)?;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let descriptor = file.as_raw_fd();
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, descriptor, 0) };
    if address == libc::MAP_FAILED { Err(SYSTEM_ERROR) } else { Ok(address.cast_const().cast()) }
}
