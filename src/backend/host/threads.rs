//! Whose threads a context works with: some of its own, or the engine's.

use super::engine::Engine;
use super::pool::{Pool, Work};
use super::tasks::Tasks;
use crate::backend::ParallelFor;
use crate::error::Error;

/// What runs a job's tasks.
pub(super) enum Threads {
    Own(Pool),
    Engines(Engine),
}

impl Threads {
    /// Starts threads, unless the engine lends its own. 0 is one for each CPU.
    pub(super) fn start(
        thread_count: usize,
        parallel_for: Option<ParallelFor>,
    ) -> Result<Self, Error> {
        let thread_count = match thread_count {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get().min(1024)),
            given => given,
        };
        match parallel_for {
            Some(parallel_for) => Ok(Threads::Engines(Engine { thread_count, parallel_for })),
            None => Ok(Threads::Own(Pool::start(thread_count)?)),
        }
    }

    /// Threads that work on a job, its caller included.
    pub(super) fn count(&self) -> usize {
        match self {
            Threads::Own(pool) => pool.thread_count(),
            Threads::Engines(engine) => engine.thread_count,
        }
    }

    /// Multiply-adds from which other threads bring more than they cost: ours look for work before
    /// they sleep, the engine's are woken.
    pub(super) fn worth(&self) -> usize {
        match self {
            Threads::Own(_) => 1 << 17,
            Threads::Engines(_) => 1 << 20,
        }
    }

    /// The same, but on none of the engine's threads: those are lent to calls that run products.
    pub(super) fn run_apart(&self, count: usize, work: &Work<'_>) {
        match self {
            Threads::Own(pool) => pool.run(count, work),
            Threads::Engines(_) => Tasks::all(count, work),
        }
    }

    /// Brings the threads to the tasks below `count`. Panics if one of them does.
    pub(super) fn run(&self, count: usize, work: &Work<'_>) -> Result<(), Error> {
        match self {
            Threads::Own(pool) => {
                pool.run(count, work);
                Ok(())
            }
            Threads::Engines(engine) => engine.run(count, work),
        }
    }
}
