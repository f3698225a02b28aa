//! Who is inside a place: one atomic word that counts its users and shuts it to new ones, so that
//! looking at an object takes one step in and one step out, and whoever leaves a shut place last
//! empties it. Nobody waits for anybody.
//!
//! ```text
//! generation 32 | shut 1 | users 31
//! ```

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The word of one place. Every filling of the place has a generation of its own.
#[derive(Debug)]
pub struct Gate(AtomicU64);

/// The half of the word that is the generation.
pub const GENERATION: u64 = !0 << 32;

const SHUT: u64 = 1 << 31;
const USERS: u64 = SHUT - 1;
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

    /// Lets users in; for whoever has just filled the empty place.
    pub fn open(&self) {
        self.0.store(self.0.load(Relaxed) & GENERATION, Release);
    }

    /// Counts a user in, unless the place is shut.
    pub fn enter(&self) -> bool {
        self.enter_if(|state| state & SHUT == 0)
    }

    /// Counts a user in, unless the place is shut or the generation is over.
    pub fn enter_generation(&self, generation: u64) -> bool {
        self.enter_if(|state| is_open(state, generation))
    }

    /// Counts a user out, and tells whether it is the one to empty the place.
    #[must_use]
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) & (SHUT | USERS) == SHUT | 1
    }

    /// Shuts the place; None if that was done before. Users stay until they leave.
    #[must_use]
    pub fn shut(&self, generation: u64) -> Option<()> {
        let shut = |state: u64| is_open(state, generation).then_some(state | SHUT);
        self.0.fetch_update(AcqRel, Acquire, shut).ok().map(|_| ())
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

fn is_open(state: u64, generation: u64) -> bool {
    state & (GENERATION | SHUT) == generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shut_gate_lets_nobody_in_and_its_last_user_empties() {
        let gate = Gate::new(STEP);
        assert!(!gate.enter());
        gate.open();
        assert!(gate.enter() && gate.enter_generation(STEP));
        assert_eq!((gate.shut(STEP), gate.shut(STEP)), (Some(()), None));
        assert!(!gate.enter() && !gate.enter_generation(STEP));
        assert!(!gate.leave() && gate.leave());
    }

    #[test]
    fn a_generation_that_is_over_stays_shut() {
        let gate = Gate::new(GENERATION);
        gate.open();
        assert!(gate.enter() && !gate.leave());
        assert_eq!(gate.shut(GENERATION), Some(()));
        gate.emptied();
        assert_eq!(gate.generation(), STEP, "0 is no generation");
        gate.open();
        assert!(!gate.enter_generation(GENERATION) && gate.enter_generation(STEP));
        assert_eq!(gate.shut(GENERATION), None);
    }
}
