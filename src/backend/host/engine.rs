//! The engine's threads in place of our own. One call of its `parallel_for` brings some of them to
//! a job, and each takes tasks of the job until none is left, so that nothing is lost where fewer
//! come than were asked for. What the engine holds of a job is a ticket, a number.
//!
//! Engines err: every part notes that it was begun, so a part that is run twice does nothing, and
//! one that is not run, or still runs when `parallel_for` returns, is found.

use super::place::{Opened, Place, Visit};
use super::pool::Work;
use super::tasks::Tasks;
use crate::backend::ParallelFor;
use crate::error::{Error, Status};
use crate::log::caught_without_mark;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Parts that a job can have; a context has no more threads.
const MOST_PARTS: usize = 1024;

/// Jobs of all contexts that engines can be brought to at the same time; more run on their callers.
static PLACES: [Place<Job<'static>>; 64] = [const { Place::new() }; 64];

/// The engine's way to run something on its threads.
pub(super) struct Engine {
    /// Threads that are said to work on a job.
    pub(super) thread_count: usize,
    pub(super) parallel_for: ParallelFor,
}

/// Tasks, and how they are shared out. Lives on its caller's stack.
struct Job<'a> {
    work: &'a Work<'a>,
    task_count: usize,
    next: AtomicUsize,
    part_count: usize,
    /// A bit for each part.
    begun: [AtomicU64; MOST_PARTS / 64],
    /// Calls for a part that was begun before.
    repeated: AtomicUsize,
    /// Calls for a part that there is none of.
    foreign: AtomicUsize,
    /// The message of a task's panic.
    panic: Mutex<Option<String>>,
}

impl Engine {
    /// Brings the engine's threads to the tasks below `count`. Panics if one of those does; refuses
    /// what the engine did wrong.
    pub(super) fn run(&self, count: usize, work: &Work<'_>) -> Result<(), Error> {
        let job = Job::new(work, count, self.thread_count.min(count).min(MOST_PARTS));
        let place = if job.part_count < 2 { None } else { open(&job) };
        let Some((ticket, place)) = place else {
            Tasks::all(count, work);
            return Ok(());
        };
        let called = caught_without_mark(|| (self.parallel_for)(job.part_count, ticket)).err();
        let unfinished = place.close();
        let own = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(message) = called.or(own) {
            panic!("{message}");
        }
        job.ensure_done(unfinished)
    }
}

/// Runs one part of the job that the ticket is for; nothing if that job is over.
pub fn run_part(ticket: usize, part: i64) {
    if let Some(job) = visit(ticket) {
        job.run_part(part);
    }
}

/// Opens a place for a job and gives the ticket to it, unless all are taken.
fn open<'a>(job: &'a Job<'a>) -> Option<(usize, Opened<'a, Job<'static>>)> {
    // SAFETY: only the lifetime changes; a job is visited no longer than its place is open.
    let job = unsafe { std::mem::transmute::<&'a Job<'a>, &'a Job<'static>>(job) };
    PLACES.iter().enumerate().find_map(|(at, place)| {
        let opened = place.open(job)?;
        Some((opened.number as usize * PLACES.len() + at, opened))
    })
}

fn visit(ticket: usize) -> Option<Visit<'static, Job<'static>>> {
    PLACES[ticket % PLACES.len()].visit((ticket / PLACES.len()) as u64)
}

impl<'a> Job<'a> {
    fn new(work: &'a Work<'a>, task_count: usize, part_count: usize) -> Self {
        Job {
            work,
            task_count,
            next: AtomicUsize::new(0),
            part_count,
            begun: [const { AtomicU64::new(0) }; MOST_PARTS / 64],
            repeated: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
            panic: Mutex::new(None),
        }
    }

    fn run_part(&self, part: i64) {
        let Some(part) = usize::try_from(part).ok().filter(|part| *part < self.part_count) else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let bit = 1 << (part % 64);
        if self.begun[part / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Err(message) = caught_without_mark(|| self.take_tasks()) {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(message);
        }
    }

    fn take_tasks(&self) {
        (self.work)(&mut Tasks::new(&self.next, self.task_count));
    }

    fn ensure_done(&self, unfinished: u64) -> Result<(), Error> {
        let count = self.part_count;
        let begun: u32 =
            self.begun.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones()).sum();
        let skipped = count - begun as usize;
        let repeated = self.repeated.load(Ordering::Relaxed);
        let foreign = self.foreign.load(Ordering::Relaxed);
        if skipped == 0 && repeated == 0 && foreign == 0 && unfinished == 0 {
            return Ok(());
        }
        let message = format!(
            "parallel_for was given a count of {count}; it skipped {skipped}, repeated {repeated}, \
             ran {foreign} of another index and returned before {unfinished} had ended; it must \
             run task(index, task_user) once for each index from 0 to {} and return when all are \
             done",
            count - 1
        );
        Err(Error::new(Status::CallbackFailed, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log;

    fn engine(parallel_for: impl Fn(usize, usize) + Send + Sync + 'static) -> Engine {
        Engine { thread_count: 4, parallel_for: Box::new(parallel_for) }
    }

    fn in_order(count: usize, ticket: usize) {
        (0..count).for_each(|part| run_part(ticket, part as i64));
    }

    /// Runs many tasks and tells how often each was run.
    fn runs(engine: &Engine) -> Result<Vec<usize>, Error> {
        let runs: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        engine.run(runs.len(), &|tasks: &mut Tasks<'_>| {
            tasks.for_each(|index| _ = runs[index].fetch_add(1, Ordering::Relaxed));
        })?;
        Ok(runs.into_iter().map(AtomicUsize::into_inner).collect())
    }

    #[test]
    fn every_task_runs_once_on_the_engines_threads() {
        let threads = engine(|count, ticket| {
            std::thread::scope(|scope| {
                (0..count).for_each(|part| drop(scope.spawn(move || run_part(ticket, part as i64))))
            })
        });
        (0..100).for_each(|_| assert_eq!(runs(&threads).unwrap(), [1; 100]));
    }

    #[test]
    fn a_repeated_part_runs_no_task_again() {
        let repeated = engine(|count, ticket| {
            in_order(count, ticket);
            in_order(count, ticket);
        });
        let error = runs(&repeated).unwrap_err();
        assert!(error.status == Status::CallbackFailed && error.message.contains("repeated 4"));
    }

    #[test]
    fn a_panic_does_not_reach_the_engine_and_its_tickets_are_void() {
        static KEPT: AtomicUsize = AtomicUsize::new(0);
        static RETURNED: AtomicUsize = AtomicUsize::new(0);
        let threads = engine(|count, ticket| {
            KEPT.store(ticket, Ordering::Relaxed);
            in_order(count, ticket);
            RETURNED.fetch_add(1, Ordering::Relaxed);
        });
        let message = log::caught(|| {
            threads.run(100, &|tasks: &mut Tasks<'_>| {
                tasks.for_each(|index| assert!(index != 57, "planted"));
            })
        });
        assert!(message.unwrap_err().contains("planted"));
        assert_eq!(RETURNED.load(Ordering::Relaxed), 1);
        in_order(4, KEPT.load(Ordering::Relaxed));
        assert_eq!(runs(&threads).unwrap(), [1; 100]);
    }

    #[test]
    fn jobs_beyond_the_places_run_on_their_callers() {
        static DEPTH: AtomicUsize = AtomicUsize::new(0);
        fn nested(count: usize, ticket: usize) {
            if DEPTH.fetch_add(1, Ordering::Relaxed) < 100 {
                assert_eq!(runs(&engine(nested)).unwrap(), [1; 100]);
            }
            in_order(count, ticket);
        }
        assert_eq!(runs(&engine(nested)).unwrap(), [1; 100]);
        assert!(DEPTH.load(Ordering::Relaxed) <= PLACES.len());
    }
}
