//! Whose turn it is to start transfers on a device: that of one communicator, since NCCL wants one
//! thread at a time for all communicators of a device. Ranks of the same communicator take it
//! together where they share a device (NCCL 2.30, NCCL_MULTI_RANK_GPU_ENABLE): the start of one is
//! in progress until the others' has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// One device's.
#[derive(Default)]
pub(super) struct Launches {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// The communicator whose turn it is, if any of its ranks has it.
    communicator: u64,
    ranks: usize,
}

/// The right to start transfers, until dropped.
pub(super) struct Launching<'a>(&'a Launches);

impl Launches {
    /// Those of a device.
    pub(super) fn of(device: i32) -> Arc<Self> {
        static ALL: Mutex<BTreeMap<i32, Arc<Launches>>> = Mutex::new(BTreeMap::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(device).or_default().clone()
    }

    /// Waits until no other communicator has it.
    pub(super) fn turn(&self, communicator: u64) -> Launching<'_> {
        let is_anothers = |state: &mut State| state.ranks > 0 && state.communicator != communicator;
        let waited = self.left.wait_while(self.lock(), is_anothers);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        (state.communicator, state.ranks) = (communicator, state.ranks + 1);
        Launching(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        self.0.lock().ranks -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread::scope;
    use std::time::Duration;

    #[test]
    fn ranks_of_one_communicator_have_it_together_and_another_waits() {
        let launches = Launches::default();
        let (first, second) = (launches.turn(1), launches.turn(1));
        let (had, comes) = channel();
        scope(|scope| {
            scope.spawn(|| {
                let _turn = launches.turn(2);
                had.send(()).unwrap();
            });
            drop(first);
            assert!(comes.recv_timeout(Duration::from_millis(50)).is_err());
            drop(second);
            comes.recv().unwrap();
        });
    }
}
