//! Who is inside a place: one atomic word that counts its users and shuts it to new ones, so that
//! looking at an object takes one step in and one step out, and whoever leaves a shut place last
//! empties it. Nobody waits for anybody.
//!
//! ```text
//! generation 32 | shut 1 | full 1 | users 30
//!                  1        0        0        empty; may be filled
//!                  0        1        any      open
//!                  1        1        any      shut; its last user empties it
//! ```

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The word of one place. Every filling of the place has a generation of its own.
#[derive(Debug)]
pub struct Gate(AtomicU64);

const GENERATION: u64 = !0 << 32;

const SHUT: u64 = 1 << 31;
const FULL: u64 = 1 << 30;
const USERS: u64 = FULL - 1;
const STEP: u64 = 1 << 32;

impl Gate {
    /// Of an empty place.
    pub const fn new(generation: u64) -> Self {
        Self(AtomicU64::new(generation & GENERATION | SHUT))
    }

    /// The generation of what is in the place, or of what will be if it is empty.
    pub fn generation(&self) -> u64 {
        self.0.load(Acquire) & GENERATION
    }

    /// Whether whoever emptied the place is done.
    pub fn is_empty(&self) -> bool {
        self.0.load(Acquire) & FULL == 0
    }

    /// Lets users in; for whoever has just filled the empty place.
    pub fn open(&self) {
        self.0.store(self.0.load(Relaxed) & GENERATION | FULL, Release);
    }

    /// Counts a user in, unless the place is shut.
    pub fn enter(&self) -> bool {
        self.enter_if(|state| state & SHUT == 0)
    }

    /// Counts a user in, unless the place is shut or the generation is over: the one in the upper
    /// half of a word, such as a handle.
    pub fn enter_generation(&self, word: u64) -> bool {
        let generation = word & GENERATION;
        self.enter_if(|state| state & (GENERATION | SHUT) == generation)
    }

    /// Counts a user out, and tells whether it is the one to empty the place.
    #[must_use]
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) & (SHUT | USERS) == SHUT | 1
    }

    /// Shuts the place, and tells whether it was open. For a user, who is inside, so that one of
    /// them is the last to leave.
    #[must_use]
    pub fn shut(&self) -> bool {
        self.0.fetch_or(SHUT, AcqRel) & SHUT == 0
    }

    /// Moves a place that was emptied to its next generation; from here on it may be filled.
    pub fn emptied(&self) {
        let next = (self.0.load(Relaxed) & GENERATION).wrapping_add(STEP).max(STEP);
        self.0.store(next | SHUT, Release);
    }

    fn enter_if(&self, may: impl Fn(u64) -> bool) -> bool {
        let add_user = |state: u64| may(state).then_some(state + 1);
        self.0.fetch_update(Acquire, Acquire, add_user).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shut_gate_lets_nobody_in_and_its_last_user_empties() {
        let gate = Gate::new(STEP);
        assert!(gate.is_empty() && !gate.enter());
        gate.open();
        assert!(gate.enter() && gate.enter_generation(STEP));
        assert!(gate.shut() && !gate.shut());
        assert!(!gate.enter() && !gate.enter_generation(STEP));
        assert!(!gate.leave() && gate.leave());
        assert!(!gate.is_empty());
        gate.emptied();
        assert!(gate.is_empty());
    }

    #[test]
    fn a_generation_that_is_over_stays_shut() {
        let gate = Gate::new(GENERATION);
        gate.open();
        assert!(gate.enter() && gate.shut() && gate.leave());
        gate.emptied();
        assert_eq!(gate.generation(), STEP, "0 is no generation");
        gate.open();
        assert!(!gate.enter_generation(GENERATION) && gate.enter_generation(STEP));
    }

    #[test]
    fn users_may_come_and_go_while_the_gate_is_open() {
        let gate = Gate::new(STEP);
        gate.open();
        assert!(gate.enter() && !gate.leave());
        assert!(gate.enter() && !gate.leave());
    }
}
