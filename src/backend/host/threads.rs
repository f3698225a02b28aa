//! Whose threads a context works with: some of its own, or the engine's.

use super::engine::Engine;
use super::pool::Pool;
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

    /// Runs `task` once for each index below `count`. Panics if a task does.
    pub(super) fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), Error> {
        match self {
            Threads::Own(pool) => {
                pool.run(count, task);
                Ok(())
            }
            Threads::Engines(engine) => engine.run(count, task),
        }
    }
}
