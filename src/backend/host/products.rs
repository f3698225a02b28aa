//! All products of a job, run as one. Each is resolved anew for each of its tasks, which costs less
//! than a kernel's call: a list of them would have to be allocated.

use super::gemm::{Gemm, Product, Tally};
use super::kernel::InstructionSet;
use super::rounding::in_default_mode;
use super::threads::Threads;
use super::{Packed, no_weights};
use crate::backend::{Job, Output, Side};
use crate::error::Error;
use crate::stats::Counts;
use std::sync::atomic::{AtomicU64, Ordering};

/// Below this many multiply-adds waking a thread costs more than it brings.
const WORTH_THREADS: usize = 1 << 20;

/// The products of a job, all of which can be resolved.
pub(super) struct Products<'a> {
    job: &'a Job<'a>,
    packed: &'a Packed,
    instruction_set: InstructionSet,
    count: usize,
    multiply_adds: usize,
    /// Tasks of one layer of each side; all layers have as many.
    layer_tasks: [usize; 2],
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
        instruction_set: InstructionSet,
    ) -> Result<Self, Error> {
        let (count, multiply_adds, layer_tasks) = (0, 0, [0; 2]);
        let mut products =
            Products { job, packed, instruction_set, count, multiply_adds, layer_tasks };
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
            norm: slot.norm(form, self.job.form.dtype)?,
            scale: form.scale,
            output,
            at,
        };
        Ok(Gemm::new(&product, matrix, self.instruction_set))
    }

    /// Runs all of them.
    ///
    /// # Safety
    /// As for [`crate::backend::Backend::run`].
    pub(super) unsafe fn run(&self, threads: &Threads) -> Result<Counts, Error> {
        let total = Total::default();
        // SAFETY: the caller's promise, for each task of each product.
        let task = |index: usize| in_default_mode(|| total.add(unsafe { self.run_task(index) }));
        let tasks = self.layer_tasks.iter().sum::<usize>() * self.job.layer_count;
        match self.multiply_adds < WORTH_THREADS {
            true => (0..tasks).for_each(task),
            false => threads.run(tasks, &task)?,
        }
        Ok(Counts {
            multiply_adds: total.multiply_adds.into_inner(),
            padding_multiply_adds: total.padding_multiply_adds.into_inner(),
            matmuls: self.count as u64,
        })
    }

    /// Finds the side and the layer that a task belongs to, and runs it. Layer by layer, so that
    /// the products of the same rows are neighbours.
    unsafe fn run_task(&self, mut index: usize) -> Tally {
        for (side, layer_tasks) in self.job.sides().zip(self.layer_tasks) {
            let side_tasks = layer_tasks * self.job.layer_count;
            if index < side_tasks {
                let at = index / layer_tasks;
                // SAFETY: passed on.
                return unsafe { self.run_in_layer(&side, at, index % layer_tasks) };
            }
            index -= side_tasks;
        }
        Tally::default()
    }

    unsafe fn run_in_layer(&self, side: &Side<'a>, at: usize, mut index: usize) -> Tally {
        for output in side.outputs() {
            let gemm = self.gemm(side, output, at).expect("resolved before");
            match index.checked_sub(gemm.task_count()) {
                Some(later) => index = later,
                // SAFETY: passed on.
                None => return unsafe { gemm.run_task(index) },
            }
        }
        Tally::default()
    }
}

impl Total {
    fn add(&self, tally: Tally) {
        self.multiply_adds.fetch_add(tally.multiply_adds as u64, Ordering::Relaxed);
        let padding = tally.padding_multiply_adds as u64;
        self.padding_multiply_adds.fetch_add(padding, Ordering::Relaxed);
    }
}
