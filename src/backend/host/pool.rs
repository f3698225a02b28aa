//! A few threads that share one job at a time with the thread that brought it.
//!
//! The caller posts a job, wakes the workers, and takes tasks itself until none is left; then it
//! closes the job and waits only for workers that had entered. A worker that never woke is never
//! waited for, so the child of a fork, where no worker exists, just does all of it alone. A second
//! job at the same time runs on its own caller.

use crate::error::Error;
use crate::log::caught;
use crate::thread;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The threads of one context.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    process: u32,
}

struct Shared {
    state: Mutex<State>,
    posted: Condvar,
    left: Condvar,
    busy: AtomicBool,
    // The two below change under the lock, which orders them already. They are atomics because
    // what orders a task after its job and a result after its task is then in code of ours, where
    // the thread sanitizer sees it; std's Condvar comes compiled without.
    /// Counts jobs, so that a worker enters each only once.
    number: AtomicU64,
    /// Workers inside the job.
    inside: AtomicUsize,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// The message of a task's panic.
    panic: Option<String>,
    stopping: bool,
}

/// Work that lives on its caller's stack.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    next: *const AtomicUsize,
    count: usize,
}

// SAFETY: the caller keeps what both point to alive until the job is closed and all have left.
unsafe impl Send for Job {}

impl Job {
    /// Takes tasks until none is left.
    fn take_part(&self) {
        // SAFETY: see Send.
        let (task, next) = unsafe { (&*self.task, &*self.next) };
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            task(index);
        }
    }
}

impl Pool {
    /// Starts one thread fewer than asked for: the caller is the other.
    pub(super) fn start(thread_count: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            posted: Condvar::new(),
            left: Condvar::new(),
            busy: AtomicBool::new(false),
            number: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
        });
        let mut pool = Pool { shared, workers: Vec::new(), process: std::process::id() };
        for number in 1..thread_count {
            pool.workers.push(worker(number, pool.shared.clone())?);
        }
        Ok(pool)
    }

    /// Threads that work on a job, its caller included.
    pub(super) fn thread_count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task` once for each index below `count`, on all threads that are free. Panics if a
    /// task does, once every thread has let go of it.
    pub(super) fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = self.workers.is_empty() || count < 2;
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..count).for_each(task);
            return;
        }
        let next = AtomicUsize::new(0);
        // SAFETY: only the lifetime changes; `close` returns after the last use.
        let task = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
        };
        let job = Job { task, next: &next, count };
        self.shared.post(job);
        let own = caught(|| job.take_part()).err();
        let others = self.shared.close();
        self.shared.busy.store(false, Ordering::Release);
        if let Some(message) = own.or(others) {
            panic!("{message}");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            return;
        }
        self.shared.lock().stopping = true;
        self.shared.posted.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so it has none of its own to tell of.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, job: Job) {
        let mut state = self.lock();
        state.job = Some(job);
        self.number.fetch_add(1, Ordering::Release);
        drop(state);
        self.posted.notify_all();
    }

    /// Lets no more workers in, waits for those inside, and gives the message of their panic.
    fn close(&self) -> Option<String> {
        let mut state = self.lock();
        state.job = None;
        while self.inside.load(Ordering::Acquire) > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }

    /// Waits for a job that this worker has not seen, or for the end.
    fn enter(&self, seen: &mut u64) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            let number = self.number.load(Ordering::Acquire);
            if let Some(job) = state.job.filter(|_| number != *seen) {
                *seen = number;
                self.inside.fetch_add(1, Ordering::Relaxed);
                return Some(job);
            }
            state = self.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leave(&self, panic: Option<String>) {
        let mut state = self.lock();
        state.panic = state.panic.take().or(panic);
        if self.inside.fetch_sub(1, Ordering::Release) == 1 {
            self.left.notify_all();
        }
    }
}

fn worker(number: usize, shared: Arc<Shared>) -> Result<JoinHandle<()>, Error> {
    thread::start(&number.to_string(), move || {
        let mut seen = 0;
        while let Some(job) = shared.enter(&mut seen) {
            shared.leave(caught(|| job.take_part()).err());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pool: &Pool, count: usize) {
        let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        pool.run(count, &|index| {
            runs[index].fetch_add(1, Ordering::Relaxed);
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_task_runs_once_from_any_number_of_callers() {
        let pool = Pool::start(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|round| counted(&pool, round % 17)));
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::start(2).unwrap();
        let message = caught(|| pool.run(100, &|index| assert!(index != 57, "planted")));
        assert!(message.unwrap_err().contains("planted"));
        counted(&pool, 100);
    }
}
