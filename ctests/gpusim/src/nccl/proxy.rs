//! Work that another process waits for. A device runs on without its host; here work runs when
//! somebody waits for it, and a rank of another process does so without a call in this one.

use super::comm::Comm;
use super::end::bare_point;
use super::room::Board;
use crate::machine::{Machine, lock};
use crate::schedule::{Step, progressed};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static RUNS: AtomicBool = AtomicBool::new(false);

/// Starts the thread, if it does not run. It ends with the last communicator.
pub fn arrange() {
    if !RUNS.swap(true, Ordering::Relaxed) {
        std::thread::spawn(run);
    }
}

fn run() {
    loop {
        std::thread::sleep(Duration::from_millis(1));
        let mut machine = lock();
        if machine.comms.is_empty() {
            RUNS.store(false, Ordering::Relaxed);
            return;
        }
        if machine.serve() {
            progressed();
        }
    }
}

impl Machine {
    /// Runs what other processes' ranks wait for; returns whether there was any.
    fn serve(&mut self) -> bool {
        let wanted = self.comms.values().filter(|comm| comm.is_wanted());
        let fronts: Vec<(u64, u64)> = wanted.filter_map(|c| c.unposted.front().copied()).collect();
        let points: Vec<_> = fronts.into_iter().map(bare_point).collect();
        let mut ran = false;
        while let Step::Ran = self.step(&points) {
            ran = true;
        }
        ran
    }
}

impl Comm {
    /// Whether a rank of another process has posted what this one has not come to.
    fn is_wanted(&self) -> bool {
        let (own, us) = (u64::from(std::process::id()), self.rank);
        let ahead =
            |rank: usize, theirs, ours| self.room.posted(rank, theirs) > self.room.posted(us, ours);
        let others = (0..self.ranks()).filter(|rank| self.room.process(*rank) != own);
        others.into_iter().any(|rank| {
            ahead(rank, Board::Collective, Board::Collective)
                || ahead(rank, Board::SendTo(us), Board::ReceiveFrom(rank))
                || ahead(rank, Board::ReceiveFrom(us), Board::SendTo(rank))
        })
    }
}
