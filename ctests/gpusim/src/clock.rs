//! Vector clocks: for each stream, how much of its work is known to come before.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Clock(BTreeMap<u64, u64>);

impl Clock {
    pub fn new() -> Clock {
        Clock::default()
    }

    /// Whatever either of the two knew.
    pub fn join(&mut self, other: &Clock) {
        for (stream, sequence) in &other.0 {
            self.advance(*stream, *sequence);
        }
    }

    pub fn advance(&mut self, stream: u64, sequence: u64) {
        let known = self.0.entry(stream).or_default();
        *known = sequence.max(*known);
    }

    /// Whether the stream's work up to this number comes before.
    pub fn covers(&self, stream: u64, sequence: u64) -> bool {
        self.0.get(&stream).is_some_and(|known| *known >= sequence)
    }
}

/// A point in a stream that others can wait for: all work up to `sequence`.
#[derive(Clone, Debug)]
pub struct Point {
    pub stream: u64,
    pub sequence: u64,
    pub clock: Clock,
    /// When the work ends, on the made-up clock that events read.
    pub finish_ns: u64,
}
