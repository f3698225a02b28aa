//! All products of a job, run as one. A thread resolves a product when it comes to a task of it:
//! a list of them would have to be allocated.

use super::gemm::{Gemm, Product, Tally};
use super::inputs::Held;
use super::kernel::Kernels;
use super::rounding::in_default_mode;
use super::scratch::{Scratch, Scratches};
use super::tasks::Tasks;
use super::threads::Threads;
use super::{Packed, no_weights};
use crate::backend::{Job, Output, Side};
use crate::error::Error;
use crate::stats::Counts;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The products of a job, all of which can be resolved.
pub(super) struct Products<'a> {
    job: &'a Job<'a>,
    packed: &'a Packed,
    kernels: &'static Kernels,
    /// That work on it at most.
    thread_count: usize,
    count: usize,
    multiply_adds: usize,
    /// Bytes of the inputs of a task at most.
    input_bytes: usize,
    /// Tasks of one layer of each side; all layers have as many.
    layer_tasks: [usize; 2],
}

/// What one thread keeps from task to task.
struct Worker<'a> {
    scratch: Box<Scratch>,
    held: Held,
    /// The product of the last task, and which tasks are its.
    current: Option<(Range<usize>, Gemm<'a>)>,
    tally: Tally,
}

/// What all tasks counted.
#[derive(Default)]
struct Total {
    multiply_adds: AtomicU64,
    padding_multiply_adds: AtomicU64,
}

impl<'a> Products<'a> {
    /// Refuses a job that lacks weights.
    pub(super) fn new(
        job: &'a Job<'a>,
        packed: &'a Packed,
        kernels: &'static Kernels,
        thread_count: usize,
    ) -> Result<Self, Error> {
        let (count, multiply_adds, input_bytes, layer_tasks) = (0, 0, 0, [0; 2]);
        let mut products = Products {
            job,
            packed,
            kernels,
            thread_count,
            count,
            multiply_adds,
            input_bytes,
            layer_tasks,
        };
        for (number, side) in job.sides().enumerate() {
            for at in 0..job.layer_count {
                products.layer_tasks[number] = products.add_layer(&side, at)?;
            }
        }
        Ok(products)
    }

    /// Counts one layer of a side, and gives its tasks.
    fn add_layer(&mut self, side: &Side<'a>, at: usize) -> Result<usize, Error> {
        let mut tasks = 0;
        for output in side.outputs() {
            let gemm = self.gemm(side, output, at)?;
            self.count += 1;
            self.multiply_adds = self.multiply_adds.saturating_add(gemm.multiply_adds());
            self.input_bytes = self.input_bytes.max(gemm.input_bytes());
            tasks += gemm.task_count();
        }
        Ok(tasks)
    }

    /// Resolves one product.
    fn gemm(&self, side: &Side<'a>, output: Output<'a>, at: usize) -> Result<Gemm<'a>, Error> {
        let place = (self.job.layer + at) * self.packed.matrix_count + output.matrix;
        let slot = &self.packed.slots[place];
        let matrix = slot.matrix.as_deref().ok_or_else(no_weights)?;
        let form = &self.job.form.matrices[output.matrix];
        let product = Product {
            rows: side.rows,
            bias: slot.bias.as_deref().filter(|_| form.has_bias),
            norm: slot.norm(form, self.job.form.element())?,
            scale: form.scale,
            output,
            at,
        };
        Ok(Gemm::new(&product, matrix, self.kernels, self.thread_count))
    }

    /// Runs all of them.
    ///
    /// # Safety
    /// As for [`crate::backend::Backend::run`].
    pub(super) unsafe fn run(
        &self,
        threads: &Threads,
        scratches: &Scratches,
    ) -> Result<Counts, Error> {
        let tasks = self.layer_tasks.iter().sum::<usize>() * self.job.layer_count;
        let alone = self.multiply_adds < threads.worth();
        let thread_count = if alone { 1 } else { threads.count().min(tasks) };
        let taken = scratches.take(thread_count, self.input_bytes)?;
        let total = Total::default();
        let work = |tasks: &mut Tasks<'_>| {
            if let Some(scratch) = taken.pop() {
                // SAFETY: the caller's promise, for each task of each product.
                taken.push(in_default_mode(|| unsafe { self.work(tasks, scratch, &total) }));
            }
        };
        let mut done = Ok(());
        match alone {
            true => Tasks::all(tasks, work),
            false => done = threads.run(tasks, &work),
        }
        scratches.put_back(taken);
        done?;
        Ok(total.counts(self.count))
    }

    /// Takes tasks until none is left, and gives the scratch back.
    unsafe fn work(
        &self,
        tasks: &mut Tasks<'_>,
        scratch: Box<Scratch>,
        total: &Total,
    ) -> Box<Scratch> {
        let (held, current, tally) = (Held::default(), None, Tally::default());
        let mut worker = Worker { scratch, held, current, tally };
        for index in tasks {
            // SAFETY: passed on.
            unsafe { self.run_task(index, &mut worker) };
        }
        total.add(&worker.tally);
        worker.scratch
    }

    unsafe fn run_task(&self, index: usize, worker: &mut Worker<'a>) {
        if !worker.current.as_ref().is_some_and(|(tasks, _)| tasks.contains(&index)) {
            worker.current = self.resolve(index);
        }
        let Some((tasks, gemm)) = &worker.current else { return };
        let Worker { scratch, held, tally, .. } = worker;
        // SAFETY: passed on.
        unsafe { gemm.run_task(index - tasks.start, scratch, held, tally) };
    }

    /// The product that a task belongs to, and its tasks. Layer by layer, so that the products of
    /// the same rows are neighbours.
    fn resolve(&self, index: usize) -> Option<(Range<usize>, Gemm<'a>)> {
        let mut begin = 0;
        for (side, layer_tasks) in self.job.sides().zip(self.layer_tasks) {
            let side_tasks = layer_tasks * self.job.layer_count;
            if index < begin + side_tasks {
                let at = (index - begin) / layer_tasks;
                return self.resolve_in_layer(&side, at, begin + at * layer_tasks, index);
            }
            begin += side_tasks;
        }
        None
    }

    fn resolve_in_layer(
        &self,
        side: &Side<'a>,
        at: usize,
        mut begin: usize,
        index: usize,
    ) -> Option<(Range<usize>, Gemm<'a>)> {
        for output in side.outputs() {
            let gemm = self.gemm(side, output, at).expect("resolved before");
            let tasks = begin..begin + gemm.task_count();
            if tasks.contains(&index) {
                return Some((tasks, gemm));
            }
            begin = tasks.end;
        }
        None
    }
}

impl Total {
    fn add(&self, tally: &Tally) {
        self.multiply_adds.fetch_add(tally.multiply_adds as u64, Ordering::Relaxed);
        let padding = tally.padding_multiply_adds as u64;
        self.padding_multiply_adds.fetch_add(padding, Ordering::Relaxed);
    }

    fn counts(self, matmuls: usize) -> Counts {
        Counts {
            multiply_adds: self.multiply_adds.into_inner(),
            padding_multiply_adds: self.padding_multiply_adds.into_inner(),
            matmuls: matmuls as u64,
        }
    }
}
