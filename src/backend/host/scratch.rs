//! Memory that a thread works in during a job: the rows that it multiplies, brought to the form of
//! the kernels, and the sums of a task. It is taken before the job begins, so that nothing is
//! written where there is none, and kept for the next job, so that a steady call allocates nothing.

use super::aligned::AlignedBytes;
use super::inputs::DEPTH;
use super::kernel::{MOST_LANES, Quantum};
use super::rows::Row;
use crate::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Rows of a task: sums and inputs of so many stay in the second cache.
pub(super) const TASK_ROWS: usize = 96;
/// Sums of a task, with those of padding.
pub(super) const TASK_SUMS: usize = TASK_ROWS * 256;

/// One thread's.
pub(super) struct Scratch {
    /// The inputs of some rows.
    pub(super) inputs: AlignedBytes,
    pub(super) sums: AlignedBytes,
    /// Widened weights of a panel.
    pub(super) panel: AlignedBytes,
    /// Where the rows are.
    pub(super) rows: [Row; TASK_ROWS],
    /// What the rows count, where they are integers.
    pub(super) quanta: [Quantum; TASK_ROWS],
    next: Option<Box<Scratch>>,
}

/// Some, one behind the other.
#[derive(Default)]
pub(super) struct Scratches {
    first: Mutex<Option<Box<Scratch>>>,
    /// Changes with each turn at the lock, which orders those already: so the order is in code of
    /// ours, where the thread sanitizer sees it; std's Mutex comes compiled without.
    turns: AtomicUsize,
}

impl Scratch {
    fn new() -> Result<Box<Self>, Error> {
        let (inputs, sums) =
            (AlignedBytes::zeroed(0)?, AlignedBytes::zeroed(TASK_SUMS * size_of::<f32>())?);
        let panel = AlignedBytes::zeroed(DEPTH * MOST_LANES * size_of::<f32>())?;
        let (rows, quanta) = ([Row::default(); TASK_ROWS], [Quantum::default(); TASK_ROWS]);
        Ok(Box::new(Scratch { inputs, sums, panel, rows, quanta, next: None }))
    }

    fn ensure_inputs(&mut self, bytes: usize) -> Result<(), Error> {
        if self.inputs.len() < bytes {
            self.inputs = AlignedBytes::zeroed(bytes)?;
        }
        Ok(())
    }
}

impl Scratches {
    /// Takes as many out, or makes them, with room for so many bytes of inputs in each.
    pub(super) fn take(&self, count: usize, input_bytes: usize) -> Result<Scratches, Error> {
        let taken = Scratches::default();
        for _ in 0..count {
            let mut scratch = self.pop().map_or_else(Scratch::new, Ok)?;
            let ready = scratch.ensure_inputs(input_bytes);
            taken.push(scratch);
            if let Err(error) = ready {
                self.put_back(taken);
                return Err(error);
            }
        }
        Ok(taken)
    }

    /// Takes back what was taken out.
    pub(super) fn put_back(&self, taken: Scratches) {
        while let Some(scratch) = taken.pop() {
            self.push(scratch);
        }
    }

    pub(super) fn pop(&self) -> Option<Box<Scratch>> {
        self.with_first(|first| {
            let mut scratch = first.take()?;
            *first = scratch.next.take();
            Some(scratch)
        })
    }

    pub(super) fn push(&self, mut scratch: Box<Scratch>) {
        self.with_first(|first| {
            scratch.next = first.take();
            *first = Some(scratch);
        });
    }

    fn with_first<T>(&self, body: impl FnOnce(&mut Option<Box<Scratch>>) -> T) -> T {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        self.turns.load(Ordering::Acquire);
        let result = body(&mut first);
        self.turns.fetch_add(1, Ordering::Release);
        result
    }
}
