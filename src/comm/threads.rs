//! Ranks that are threads of one process: each says on a board where its bytes are, and the others
//! copy them from there.
//!
//! ```text
//! rank 0   start: post 7    finish: copy from the posts 7 of ranks 1, 2; wait until both took ours
//! ```
//!
//! A post stays until every rank has taken it, its own included. A rank that gives up takes its
//! posts back, and waits for those that are copying from them at that moment, so that memory is
//! never read after its rank's call has returned.

use super::medium::{Deadline, Failure, Kind, Medium, Message, Seat, Transfer};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// One rank's seat at the board.
pub(super) struct Threads {
    seat: Seat,
    board: Arc<Board>,
}

struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ranks: Vec<Rank>,
    end: Option<End>,
}

/// The rank that ended all transfers, and why.
struct End {
    rank: usize,
    why: Failure,
}

#[derive(Default)]
struct Rank {
    posts: VecDeque<Post>,
    /// The number of the first post, counted from the board's beginning.
    first: u64,
    /// How many of its posts this rank has finished.
    finished: u64,
    /// Others that are copying from its posts at this moment.
    readers: usize,
    is_gone: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Post {
    what: Posted,
    takers: usize,
}

/// A transfer as the others have to see it.
#[derive(Clone, Debug, PartialEq)]
enum Posted {
    AllGather { buffer: usize, bytes: Vec<usize> },
    Broadcast { buffer: usize, bytes: usize, root: usize },
    Exchange { messages: Vec<Message> },
}

/// Some bytes to copy from another rank.
struct Copy {
    from: usize,
    to: usize,
    bytes: usize,
}

/// A seat for each rank.
pub(super) fn seats(rank_count: usize) -> Vec<Threads> {
    let ranks = (0..rank_count).map(|_| Rank::default()).collect();
    let state = Mutex::new(State { ranks, end: None });
    let board = Arc::new(Board { state, changed: Condvar::new() });
    let seat = |rank| Threads { seat: Seat { rank, rank_count }, board: board.clone() };
    (0..rank_count).map(seat).collect()
}

impl Medium for Threads {
    fn kind(&self) -> Kind {
        Kind::Threads
    }

    fn seat(&self) -> Seat {
        self.seat
    }

    unsafe fn start(&self, transfer: &Transfer<'_>, _: usize, _: Deadline) -> Result<(), Failure> {
        let mut state = self.board.lock();
        state.ensure_going(self.seat.rank)?;
        let post = Post { what: Posted::of(transfer), takers: self.seat.rank_count };
        state.ranks[self.seat.rank].posts.push_back(post);
        self.board.changed.notify_all();
        Ok(())
    }

    fn finish(&self, until: Deadline) -> Result<(), Failure> {
        let done = self.take_all(until).and_then(|()| self.wait_until_taken(until));
        if let Err(why) = &done {
            self.withdraw(why);
        }
        done
    }

    fn poll(&self) -> Result<(), Failure> {
        self.board.lock().ensure_going(self.seat.rank)
    }

    fn abort(&self) {
        self.withdraw(&Failure::Aborted);
    }

    fn leave(&self) {
        if self.board.lock().ranks[self.seat.rank].is_exposed() {
            self.withdraw(&Failure::Aborted);
        }
    }
}

impl Threads {
    /// Copies from the others' posts all that is this rank's.
    fn take_all(&self, until: Deadline) -> Result<(), Failure> {
        let mut state = self.board.lock();
        loop {
            let mine = &state.ranks[self.seat.rank];
            let number = mine.finished;
            let Some(post) = mine.posts.get((number - mine.first) as usize) else { return Ok(()) };
            let own = post.what.clone();
            for peer in (0..self.seat.rank_count).filter(|&peer| peer != self.seat.rank) {
                state = self.take(state, peer, number, &own, until)?;
            }
            let mine = &mut state.ranks[self.seat.rank];
            mine.finished += 1;
            mine.taken(number);
            self.board.changed.notify_all();
        }
    }

    /// Copies from one post of another rank's, without the board's lock.
    fn take<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        peer: usize,
        number: u64,
        own: &Posted,
        until: Deadline,
    ) -> Result<MutexGuard<'a, State>, Failure> {
        let is_there = |state: &State| state.ranks[peer].post(number).is_some();
        let is_late = |state: &State| state.without_post(number);
        let mut state = self.board.wait(state, self.seat.rank, until, is_there, is_late)?;
        let post = state.ranks[peer].post(number).map(|post| post.what.clone());
        let post = post.ok_or(Failure::Aborted)?;
        let copies = own.copies(&post, self.seat.rank, peer);
        let copies = copies.map_err(|words| Failure::Mismatched(vec![peer], words))?;
        state.ranks[peer].readers += 1;
        drop(state);
        // SAFETY: the peer's call waits until there are no readers, and the copies lie in what both
        // ranks said is there.
        copies.iter().for_each(|copy| unsafe { copy.run() });
        let mut state = self.board.lock();
        state.ranks[peer].readers -= 1;
        state.ranks[peer].taken(number);
        self.board.changed.notify_all();
        Ok(state)
    }

    /// Waits until nobody needs this rank's posts.
    fn wait_until_taken(&self, until: Deadline) -> Result<(), Failure> {
        let rank = self.seat.rank;
        let is_empty = |state: &State| state.ranks[rank].posts.is_empty();
        let is_late = |state: &State| state.behind(rank);
        self.board.wait(self.board.lock(), rank, until, is_empty, is_late).map(drop)
    }

    /// Takes back what this rank posted, once nobody is reading it any more.
    fn withdraw(&self, why: &Failure) {
        let mut state = self.board.lock();
        state.end.get_or_insert_with(|| End { rank: self.seat.rank, why: why.clone() });
        state.ranks[self.seat.rank].posts.clear();
        self.board.changed.notify_all();
        while state.ranks[self.seat.rank].readers > 0 {
            state = self.board.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.board.lock().ranks[self.seat.rank].is_gone = true;
        self.board.changed.notify_all();
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is so; else tells who was late, or that somebody ended all.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        rank: usize,
        until: Deadline,
        is_so: impl Fn(&State) -> bool,
        who_is_late: impl Fn(&State) -> Vec<usize>,
    ) -> Result<MutexGuard<'a, State>, Failure> {
        while !is_so(&state) {
            state.ensure_going(rank)?;
            let late = who_is_late(&state);
            let gone: Vec<usize> =
                late.iter().copied().filter(|&late| state.ranks[late].is_gone).collect();
            if !gone.is_empty() {
                return Err(Failure::Lost(gone, "its communicator was destroyed".into()));
            }
            if until.is_over() {
                return Err(Failure::Late(late));
            }
            let waited = self.changed.wait_timeout(state, until.left());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }
}

impl State {
    fn ensure_going(&self, rank: usize) -> Result<(), Failure> {
        self.end.as_ref().map_or(Ok(()), |end| Err(end.to(rank)))
    }

    /// Who has not come as far as the post of this number.
    fn without_post(&self, number: u64) -> Vec<usize> {
        let has_not = |rank: &usize| self.ranks[*rank].count() <= number;
        (0..self.ranks.len()).filter(has_not).collect()
    }

    /// Who has not taken all that this rank posted.
    fn behind(&self, rank: usize) -> Vec<usize> {
        let count = self.ranks[rank].count();
        let is_behind = |other: &usize| *other != rank && self.ranks[*other].finished < count;
        (0..self.ranks.len()).filter(is_behind).collect()
    }
}

impl End {
    /// What another rank, or the same, is told: who was late or is gone, unless that is itself.
    fn to(&self, rank: usize) -> Failure {
        let gave_up = |words: &str| Failure::Lost(vec![self.rank], words.to_string());
        match &self.why {
            Failure::Late(ranks) | Failure::Lost(ranks, _) | Failure::Mismatched(ranks, _)
                if !ranks.contains(&rank) =>
            {
                self.why.clone()
            }
            Failure::Late(_) => gave_up("it gave up waiting for this rank"),
            Failure::Mismatched(_, words) => gave_up(&format!("it found that {words}")),
            Failure::Aborted if self.rank == rank => Failure::Aborted,
            _ => gave_up("it gave up or aborted"),
        }
    }
}

impl Rank {
    /// Whether others may be reading this rank's memory, or begin to.
    fn is_exposed(&self) -> bool {
        !self.posts.is_empty() || self.readers > 0
    }

    /// Posts that it ever made.
    fn count(&self) -> u64 {
        self.first + self.posts.len() as u64
    }

    fn post(&self, number: u64) -> Option<&Post> {
        self.posts.get(number.checked_sub(self.first)? as usize)
    }

    /// Drops posts that everybody has taken.
    fn taken(&mut self, number: u64) {
        let at = number.wrapping_sub(self.first) as usize;
        if let Some(post) = self.posts.get_mut(at) {
            post.takers -= 1;
        }
        while self.posts.front().is_some_and(|post| post.takers == 0) {
            self.posts.pop_front();
            self.first += 1;
        }
    }
}

impl Posted {
    fn of(transfer: &Transfer<'_>) -> Self {
        match *transfer {
            Transfer::AllGather { buffer, bytes } => {
                Posted::AllGather { buffer, bytes: bytes.to_vec() }
            }
            Transfer::Broadcast { buffer, bytes, root } => {
                Posted::Broadcast { buffer, bytes, root }
            }
            Transfer::Exchange { messages } => Posted::Exchange { messages: messages.to_vec() },
        }
    }

    /// What `rank`, whose post this is, copies from the peer's; or how the two differ.
    fn copies(&self, theirs: &Posted, rank: usize, peer: usize) -> Result<Vec<Copy>, String> {
        match (self, theirs) {
            (
                Posted::AllGather { buffer, bytes },
                Posted::AllGather { buffer: from, bytes: their_bytes },
            ) if bytes == their_bytes => {
                let before: usize = bytes[..peer].iter().sum();
                Ok(vec![Copy { from: from + before, to: buffer + before, bytes: bytes[peer] }])
            }
            (
                &Posted::Broadcast { buffer, bytes, root },
                &Posted::Broadcast { buffer: from, bytes: their_bytes, root: their_root },
            ) if (bytes, root) == (their_bytes, their_root) => {
                let is_ours = root == peer;
                Ok(is_ours.then_some(Copy { from, to: buffer, bytes }).into_iter().collect())
            }
            (Posted::Exchange { messages }, Posted::Exchange { messages: theirs }) => {
                exchanged(messages, theirs, rank, peer)
            }
            _ => {
                Err(format!("rank {rank} starts {}, rank {peer} {}", self.words(), theirs.words()))
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Posted::AllGather { bytes, .. } => format!("an all-gather of {bytes:?} bytes"),
            Posted::Broadcast { bytes, root, .. } => {
                format!("a broadcast of {bytes} bytes from rank {root}")
            }
            Posted::Exchange { messages } => format!("an exchange of {} messages", messages.len()),
        }
    }
}

/// What this rank receives from the peer, message by message.
fn exchanged(
    messages: &[Message],
    theirs: &[Message],
    rank: usize,
    peer: usize,
) -> Result<Vec<Copy>, String> {
    let received: Vec<_> =
        messages.iter().filter(|message| message.peer == peer && !message.is_sent).collect();
    let sent: Vec<_> =
        theirs.iter().filter(|message| message.peer == rank && message.is_sent).collect();
    let bytes = |messages: &[&Message]| messages.iter().map(|m| m.bytes).collect::<Vec<_>>();
    if bytes(&received) != bytes(&sent) {
        let (expected, given) = (bytes(&received), bytes(&sent));
        return Err(format!(
            "rank {rank} expects messages of {expected:?} bytes, rank {peer} sends {given:?}"
        ));
    }
    let pairs = received.iter().zip(&sent);
    let copy = |(to, from): (&&Message, &&Message)| Copy {
        from: from.address,
        to: to.address,
        bytes: to.bytes,
    };
    Ok(pairs.map(copy).collect())
}

impl Copy {
    /// # Safety
    /// Both places have so many bytes, and nobody writes the one or touches the other.
    unsafe fn run(&self) {
        if self.bytes == 0 {
            return; // the addresses of nothing may be 0
        }
        let (from, to) = (self.from as *const u8, self.to as *mut u8);
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, self.bytes) };
    }
}
