//! What is left of a job's tasks, for each thread that works on it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Takes the next task that no thread has taken.
pub(super) struct Tasks<'a> {
    next: &'a AtomicUsize,
    count: usize,
}

impl<'a> Tasks<'a> {
    pub(super) fn new(next: &'a AtomicUsize, count: usize) -> Self {
        Tasks { next, count }
    }

    /// All of them on this thread.
    pub(super) fn all(count: usize, work: impl Fn(&mut Tasks<'_>)) {
        work(&mut Tasks::new(&AtomicUsize::new(0), count));
    }
}

impl Iterator for Tasks<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.count).then_some(index)
    }
}
