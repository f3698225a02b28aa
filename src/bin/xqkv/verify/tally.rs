//! What calls in a layout did on one rank: a line of the report.

use super::layouts::Layout;
use crate::numbers::{grouped, ratio};
use serde_json::{Value, json};

/// Work, and how far results are from what they should be.
#[derive(Default)]
pub struct Tally {
    calls: i64,
    /// Calls that did not execute exactly what they had to.
    inexact_calls: i64,
    executed: i64,
    necessary: i64,
    matmuls: i64,
    error_over_bound: f64,
    /// Bits in which results differ from the plain calls'.
    bits_differing: u64,
    /// Bytes that changed outside of the results.
    pub bytes_touched: usize,
}

/// All calls of one layout on one rank.
pub struct Line {
    pub layout: Layout,
    pub rank: usize,
    pub tally: Tally,
    /// Whether the backend promises the plain calls' bits.
    pub promises_bits: bool,
}

impl Tally {
    /// One call, its results not yet looked at.
    pub fn new(executed: i64, necessary: i64, matmuls: i64) -> Self {
        let inexact_calls = i64::from(executed != necessary);
        Self { calls: 1, inexact_calls, executed, necessary, matmuls, ..Self::default() }
    }

    /// Takes an element's error.
    pub fn hold(&mut self, error_over_bound: f64) {
        self.error_over_bound = self.error_over_bound.max(error_over_bound);
    }

    /// Counts the bits in which an element differs from the one that `plain` begins with.
    pub fn compare(&mut self, element: &[u8], plain: &[u8]) {
        let bits = element.iter().zip(plain).map(|(one, other)| (one ^ other).count_ones());
        self.bits_differing += u64::from(bits.sum::<u32>());
    }

    pub fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.inexact_calls += other.inexact_calls;
        self.executed += other.executed;
        self.necessary += other.necessary;
        self.matmuls += other.matmuls;
        self.hold(other.error_over_bound);
        self.bits_differing += other.bits_differing;
        self.bytes_touched += other.bytes_touched;
    }
}

impl Line {
    pub fn passes(&self) -> bool {
        let tally = &self.tally;
        tally.inexact_calls == 0
            && tally.error_over_bound <= 1.0
            && tally.bytes_touched == 0
            && (tally.bits_differing == 0 || !self.promises_bits)
    }

    pub fn print_head() {
        println!(
            "\n{:<11} rank calls matmuls {:>14} {:>14}  ratio error/bound {:>11} {:>13}",
            "layout", "executed", "necessary", "bits differ", "canaries"
        );
    }

    pub fn print(&self) {
        let tally = &self.tally;
        let bits = grouped(tally.bits_differing as i64);
        let canaries = match tally.bytes_touched {
            0 => "intact".to_owned(),
            bytes => format!("{bytes} TOUCHED"),
        };
        println!(
            "{:<11} {:>4} {:>5} {:>7} {:>14} {:>14}  {:.3} {:>11.3} {:>11} {:>13}",
            self.layout.name(),
            self.rank,
            tally.calls,
            tally.matmuls,
            grouped(tally.executed),
            grouped(tally.necessary),
            ratio(tally.necessary, tally.executed),
            tally.error_over_bound,
            if self.promises_bits { bits } else { format!("({bits})") },
            canaries
        );
    }

    pub fn to_json(&self) -> Value {
        let tally = &self.tally;
        json!({
            "layout": self.layout.name(),
            "rank": self.rank,
            "pass": self.passes(),
            "calls": tally.calls,
            "matmuls": tally.matmuls,
            "multiply_adds_executed": tally.executed,
            "multiply_adds_necessary": tally.necessary,
            "max_error_over_bound": tally.error_over_bound.min(f64::MAX),
            "bits_differing": tally.bits_differing,
            "bytes_touched": tally.bytes_touched,
        })
    }
}
