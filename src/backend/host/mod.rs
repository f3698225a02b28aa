//! The host backend: weights packed once, multiplied on a small pool of threads.

mod gemm;
mod kernel;
mod pack;
mod pool;
mod rounding;
mod store;

pub use kernel::InstructionSet;

use super::{Backend, Info, Matrix, Product, Weights};
use crate::error::{Error, Status, ensure};
use crate::stats::Counts;
use pack::PackedMatrix;
use pool::Pool;
use std::sync::Arc;

/// Some threads and the instructions they use.
pub(super) struct Host {
    pool: Pool,
    instruction_set: InstructionSet,
}

impl Host {
    /// Starts the threads. No instruction set stands for the best there is.
    pub(super) fn open(
        thread_count: usize,
        instruction_set: Option<InstructionSet>,
    ) -> Result<Self, Error> {
        let instruction_set = instruction_set.unwrap_or(InstructionSet::best());
        ensure!(
            instruction_set.is_available(),
            NotSupported,
            "this CPU does not have {instruction_set:?}; the best it has is {:?}",
            InstructionSet::best()
        );
        let thread_count = match thread_count {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get().min(1024)),
            given => given,
        };
        Ok(Self { pool: Pool::start(thread_count)?, instruction_set })
    }
}

impl Backend for Host {
    fn info(&self) -> Info {
        let thread_count = self.pool.thread_count();
        Info::Host { thread_count, instruction_set: self.instruction_set }
    }

    fn load(&self, matrix: &Matrix<'_>) -> Result<Weights, Error> {
        Ok(Weights(Arc::new(PackedMatrix::pack(matrix)?)))
    }

    unsafe fn run(&self, products: &[Product<'_>]) -> Result<Counts, Error> {
        let packed = |product: &Product<'_>| {
            let matrix = product.weights.0.clone().downcast::<PackedMatrix>();
            matrix.map_err(|_| Error::new(Status::Panic, "weights of another backend"))
        };
        let matrices = products.iter().map(packed).collect::<Result<Vec<_>, _>>()?;
        let jobs = products
            .iter()
            .zip(&matrices)
            .map(|(product, matrix)| gemm::Gemm::new(product, matrix, self.instruction_set));
        // SAFETY: passed on.
        Ok(unsafe { gemm::run(&self.pool, &jobs.collect::<Vec<_>>()) })
    }
}
