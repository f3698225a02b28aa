//! A thread that looks, now and then, whether a communicator has failed, for engines that do not.

use super::rank::Rank;
use crate::error::Error;
use crate::thread;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The thread; it ends when this is dropped.
pub(super) struct Watchdog {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    is_asked: Mutex<bool>,
    changed: Condvar,
}

impl Watchdog {
    /// Looks often enough to be late by a twentieth of the deadline.
    pub(super) fn start(rank: &Arc<Rank>, deadline: Duration) -> Result<Self, Error> {
        let interval = (deadline / 20).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let (stop, rank) = (Arc::new(Stop::default()), rank.clone());
        let asked = stop.clone();
        let thread = thread::start("comm", move || {
            while !asked.wait(interval) {
                // What failed is remembered for the next call, which tells it.
                let _ = rank.look();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Stop {
    /// Whether the thread is to end, as soon as it is or when the time is over.
    fn wait(&self, interval: Duration) -> bool {
        let asked = self.is_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, interval, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.is_asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread has no panic that anybody could do something about.
            let _ = thread.join();
        }
    }
}
