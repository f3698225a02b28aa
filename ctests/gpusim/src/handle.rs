//! Handles: numbers that name their kind, are never used twice and cannot be read through.

use crate::machine::Machine;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    Context = 0xC1,
    Stream = 0xC2,
    Event = 0xC3,
    Graph = 0xC4,
    GraphExec = 0xC5,
    Module = 0xC6,
    Function = 0xC7,
    Capture = 0xC8,
    Comm = 0xC9,
}

impl Noun {
    /// Whether the handle was given out for such a thing, living or not.
    pub fn names(self, handle: u64) -> bool {
        handle >> 48 == self as u64
    }
}

impl Machine {
    pub fn new_handle(&mut self, noun: Noun) -> u64 {
        self.last_handle += 1;
        (noun as u64) << 48 | self.last_handle << 4
    }
}
