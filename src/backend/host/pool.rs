//! A few threads that share one job at a time with the thread that brought it.
//!
//! The caller posts a job, wakes the workers, and takes tasks itself until none is left; then it
//! closes the job and waits only for workers that had entered. A worker that never woke is never
//! waited for, so the child of a fork, where no worker exists, just does all of it alone. A second
//! job at the same time runs on its own caller.
//!
//! Who waits looks for a short while before it sleeps: the next job of a decode step comes sooner
//! than the kernel would wake a thread.

use super::tasks::Tasks;
use crate::error::Error;
use crate::log::caught;
use crate::thread;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks before it sleeps: about what waking one takes.
const LOOKING: Duration = Duration::from_micros(20);

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
    /// Workers that look no more and have to be woken.
    sleeping: usize,
}

/// What the threads of a job do with its tasks.
pub(super) type Work<'a> = dyn Fn(&mut Tasks<'_>) + Sync + 'a;

/// Work that lives on its caller's stack.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    next: *const AtomicUsize,
    count: usize,
}

// SAFETY: the caller keeps what both point to alive until the job is closed and all have left.
unsafe impl Send for Job {}

impl Job {
    fn take_part(&self) {
        // SAFETY: see Send.
        let (work, next) = unsafe { (&*self.work, &*self.next) };
        work(&mut Tasks::new(next, self.count));
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

    /// Brings all threads that are free to the tasks below `count`. Panics if one of them does,
    /// once every thread has let go of the job.
    pub(super) fn run(&self, count: usize, work: &Work<'_>) {
        let alone = self.workers.is_empty() || count < 2;
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            Tasks::all(count, work);
            return;
        }
        let next = AtomicUsize::new(0);
        // SAFETY: only the lifetime changes; `close` returns after the last use.
        let work = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let job = Job { work, next: &next, count };
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
        let is_to_wake = state.sleeping > 0;
        drop(state);
        if is_to_wake {
            self.posted.notify_all();
        }
    }

    /// Lets no more workers in, waits for those inside, and gives the message of their panic.
    fn close(&self) -> Option<String> {
        self.lock().job = None;
        look_for(|| self.inside.load(Ordering::Acquire) == 0);
        let mut state = self.lock();
        while self.inside.load(Ordering::Acquire) > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }

    /// Waits for a job that this worker has not seen, or for the end.
    fn enter(&self, seen: &mut u64) -> Option<Job> {
        look_for(|| self.number.load(Ordering::Acquire) != *seen);
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
            state.sleeping += 1;
            state = self.posted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
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

/// Looks until it is so, or until it is time to sleep.
fn look_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() && begun.elapsed() < LOOKING {
        (0..16).for_each(|_| std::hint::spin_loop());
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
        pool.run(count, &|tasks: &mut Tasks<'_>| {
            tasks.for_each(|index| _ = runs[index].fetch_add(1, Ordering::Relaxed));
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
        let message = caught(|| {
            pool.run(100, &|tasks: &mut Tasks<'_>| {
                tasks.for_each(|index| assert!(index != 57, "planted"));
            });
        });
        assert!(message.unwrap_err().contains("planted"));
        counted(&pool, 100);
    }
}
