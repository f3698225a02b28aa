//! The host backend: weights packed once, multiplied on a small pool of threads.

mod engine;
mod gemm;
mod indices;
mod kernel;
mod norm;
mod pack;
mod place;
mod pool;
mod products;
mod rounding;
mod rows;
mod scatter;
mod store;
mod threads;
mod wire;

pub use engine::run_part;
pub use kernel::InstructionSet;

use super::{
    Backend, Block, Content, Info, Job, Lane, MatrixForm, Memory, ParallelFor, Plan, PlanOptions,
    Stock, VectorSource, WeightSource, Weights, Wire,
};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use crate::stats::Counts;
use crate::view::{Rows, View};
use norm::Norm;
use pack::PackedMatrix;
use products::Products;
use std::sync::Arc;
use threads::Threads;
use wire::HostWire;

/// Some threads and the instructions they use.
pub(super) struct Host {
    threads: Threads,
    instruction_set: InstructionSet,
    /// Says nothing, since nothing of a call is slow.
    plan: Plan,
}

/// Matrices and vectors, layer by layer as the stock has them; versions share what they keep.
struct Packed {
    matrix_count: usize,
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    matrix: Option<Arc<PackedMatrix>>,
    bias: Option<Arc<[f32]>>,
    /// The norm's weight.
    norm: Option<Arc<[f32]>>,
}

impl Slot {
    fn norm(&self, form: &MatrixForm, dtype: Dtype) -> Result<Option<Norm<'_>>, Error> {
        let Some(norm) = &form.norm else { return Ok(None) };
        let weight = self.norm.as_deref().ok_or_else(no_weights)?;
        Ok(Some(Norm::new(norm, dtype, weight)))
    }
}

impl Host {
    /// Starts the threads, unless the engine lends its own. No instruction set stands for the best
    /// there is.
    pub(super) fn open(
        thread_count: usize,
        instruction_set: Option<InstructionSet>,
        parallel_for: Option<ParallelFor>,
    ) -> Result<Self, Error> {
        let instruction_set = instruction_set.unwrap_or(InstructionSet::best());
        ensure!(
            instruction_set.is_available(),
            NotSupported,
            "this CPU does not have {instruction_set:?}; the best it has is {:?}",
            InstructionSet::best()
        );
        let plan = Plan { minimum_bytes: 0, workspace_bytes: 0, inner: Arc::new(()) };
        Ok(Self { threads: Threads::start(thread_count, parallel_for)?, instruction_set, plan })
    }
}

impl Backend for Host {
    fn info(&self) -> Info {
        let thread_count = self.threads.count();
        Info::Host { thread_count, instruction_set: self.instruction_set }
    }

    fn weight_bytes(&self, stock: &Stock<'_>, _: Option<&Weights>) -> Result<usize, Error> {
        let places = stock.contents.iter().zip(stock.form.matrices.iter().cycle());
        Ok(places.map(|(content, form)| copied_bytes(content, form, stock.form.dtype)).sum())
    }

    fn load(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<Weights, Error> {
        let before = before.map(packed).transpose()?;
        let places = stock.contents.iter().zip(stock.form.matrices.iter().cycle());
        let slots = places.enumerate().map(|(place, (content, form))| {
            let kept = before.map(|before| before.slots[place].clone()).unwrap_or_default();
            slot(content, form, stock.form.dtype, kept)
        });
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Weights(Arc::new(Packed { matrix_count: stock.form.matrices.len(), slots })))
    }

    fn standing_plan(&self) -> Option<&Plan> {
        Some(&self.plan)
    }

    fn plan(&self, job: &Job<'_>, _: &PlanOptions) -> Result<Plan, Error> {
        let scratch = indices::scratch_bytes(job);
        Ok(Plan { minimum_bytes: scratch, workspace_bytes: scratch, ..self.plan.clone() })
    }

    fn ensure_suits(&self, _: &Plan, _: &Job<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn ensure_runnable(&self, _: &Job<'_>, _: bool) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn run(&self, _: &Plan, job: &Job<'_>) -> Result<Counts, Error> {
        let packed = packed(job.weights)?;
        // SAFETY: passed on.
        unsafe { indices::ensure_indices(job) }?;
        let products = Products::new(job, packed, self.instruction_set)?;
        // SAFETY: passed on.
        unsafe { products.run(&self.threads) }
    }

    fn wire(&self, board_bytes: usize) -> Result<Arc<dyn Wire>, Error> {
        Ok(Arc::new(HostWire::new(board_bytes)))
    }

    fn device(&self) -> Result<Arc<dyn Device>, Error> {
        let message = "context is of the host, and NCCL moves the memory of CUDA devices; pass a \
                       context of XQKV_BACKEND_CUDA, or use xqkv_comm_create_threads or \
                       xqkv_comm_create_collectives";
        Err(Error::new(Status::InvalidArgument, message))
    }

    unsafe fn ensure_listed(&self, rows: &Rows, name: &str) -> Result<(), Error> {
        // SAFETY: passed on.
        unsafe { indices::ensure_listed(rows, name) }
    }

    unsafe fn scatter(
        &self,
        blocks: &[Block],
        view: &View<'_>,
        name: &str,
        lane: &Lane,
    ) -> Result<(), Error> {
        // SAFETY: passed on.
        unsafe { indices::ensure_view_slots(name, view, lane) }?;
        // SAFETY: passed on; the slots were just checked.
        blocks.iter().for_each(|block| unsafe { scatter::scatter(block, view) });
        Ok(())
    }

    fn ensure_memory(&self, memory: Memory, _: usize, name: &str) -> Result<(), Error> {
        ensure!(
            memory == Memory::Host,
            NotSupported,
            "{name} is in a device's memory, and the host backend has none; use XQKV_MEMORY_HOST"
        );
        Ok(())
    }

    fn fetch(&self, _: usize, _: usize) -> Result<Vec<u8>, Error> {
        Err(Error::new(Status::NotSupported, "the host backend has no device memory"))
    }

    fn reclaim(&self, _: &[usize]) -> Result<usize, Error> {
        Ok(0)
    }
}

fn packed(weights: &Weights) -> Result<&Packed, Error> {
    let packed = weights.0.downcast_ref::<Packed>();
    packed.ok_or_else(|| Error::new(Status::Panic, "weights of another backend"))
}

fn no_weights() -> Error {
    Error::new(Status::Panic, "a job without its weights")
}

fn slot(content: &Content<'_>, form: &MatrixForm, dtype: Dtype, kept: Slot) -> Result<Slot, Error> {
    let matrix = match content.weight {
        WeightSource::Absent => None,
        WeightSource::Kept => kept.matrix,
        WeightSource::Copied(_) if form.outputs == 0 => None,
        WeightSource::Copied(bytes) => Some(Arc::new(PackedMatrix::pack(form, dtype, bytes)?)),
        WeightSource::Borrowed(_) => {
            let message = "the host backend packs weights; XQKV_OWNERSHIP_BORROW needs CUDA";
            return Err(Error::new(Status::NotSupported, message));
        }
    };
    let (bias, norm) = (vector(content.bias, kept.bias), vector(content.norm, kept.norm));
    Ok(Slot { matrix, bias, norm })
}

fn vector(source: VectorSource<'_>, kept: Option<Arc<[f32]>>) -> Option<Arc<[f32]>> {
    match source {
        VectorSource::Absent => None,
        VectorSource::Kept => kept,
        VectorSource::Copied(elements) => Some(elements.into()),
    }
}

/// What a load takes for one place.
fn copied_bytes(content: &Content<'_>, form: &MatrixForm, dtype: Dtype) -> usize {
    let matrix = match content.weight {
        WeightSource::Copied(_) => PackedMatrix::bytes_of(form, dtype).unwrap_or(usize::MAX),
        _ => 0,
    };
    let vectors = [content.bias, content.norm].into_iter().map(|vector| match vector {
        VectorSource::Copied(elements) => size_of_val(elements),
        VectorSource::Absent | VectorSource::Kept => 0,
    });
    matrix.saturating_add(vectors.sum())
}
