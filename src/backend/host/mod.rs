//! The host backend: weights packed once, multiplied on a small pool of threads.

mod aligned;
mod cut;
mod engine;
mod gemm;
mod indices;
mod inputs;
mod kernel;
mod norm;
mod pack;
mod place;
mod pool;
mod products;
mod region;
mod rounding;
mod rows;
mod scatter;
mod scratch;
mod store;
mod tasks;
mod threads;
mod wire;

pub use engine::run_part;
pub use kernel::{Arithmetic, InstructionSet};

use super::{
    Backend, Block, Info, Job, Lane, MatrixForm, Memory, ParallelFor, Plan, PlanOptions, Stock,
    VectorSource, WeightSource, Weights, Wire,
};
use crate::device::Device;
use crate::dtype::{Dtype, WeightDtype};
use crate::error::{Error, Status, ensure};
use crate::stats::Counts;
use crate::view::{Rows, View};
use kernel::Kernels;
use norm::Norm;
use pack::PackedMatrix;
use products::Products;
use region::{Part, Region};
use scratch::Scratches;
use std::sync::Arc;
use threads::Threads;
use wire::HostWire;

/// Some threads and the instructions they use.
pub(super) struct Host {
    threads: Threads,
    instruction_set: InstructionSet,
    kernels: &'static Kernels,
    scratches: Scratches,
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
    /// Starts the threads, unless the engine lends its own. No instruction set stands for the
    /// one of the environment, or the best there is.
    pub(super) fn open(
        thread_count: usize,
        instruction_set: Option<InstructionSet>,
        parallel_for: Option<ParallelFor>,
    ) -> Result<Self, Error> {
        let instruction_set = instruction_set.map_or_else(InstructionSet::by_default, Ok)?;
        let kernels = instruction_set.kernels().ok_or_else(|| no_instructions(instruction_set))?;
        let plan = Plan { minimum_bytes: 0, workspace_bytes: 0, inner: Arc::new(()) };
        let threads = Threads::start(thread_count, parallel_for)?;
        Ok(Self { threads, instruction_set, kernels, scratches: Scratches::default(), plan })
    }

    /// What a load takes for each place's matrix, whole cache lines.
    fn matrix_bytes(&self, stock: &Stock<'_>) -> impl Iterator<Item = usize> {
        let dtype = stock.form.dtype;
        let places = stock.contents.iter().zip(stock.form.matrices.iter().cycle());
        places.map(move |(content, form)| match content.weight {
            WeightSource::Copied(_) => PackedMatrix::bytes_of(form, dtype, self.kernels)
                .and_then(|bytes| bytes.checked_next_multiple_of(64))
                .unwrap_or(usize::MAX),
            _ => 0,
        })
    }

    fn slot(&self, stock: &Stock<'_>, place: usize, kept: Slot, part: Part) -> Result<Slot, Error> {
        let (content, dtype) = (&stock.contents[place], stock.form.dtype);
        let form = &stock.form.matrices[place % stock.form.matrices.len()];
        let matrix = match content.weight {
            WeightSource::Absent => None,
            WeightSource::Kept => kept.matrix,
            WeightSource::Copied(_) if form.outputs == 0 => None,
            WeightSource::Copied(bytes) => {
                let (kernels, threads) = (self.kernels, &self.threads);
                let packed = PackedMatrix::pack(form, dtype, kernels, part, bytes, threads);
                Some(Arc::new(packed))
            }
            WeightSource::Borrowed(_) => {
                let message = "the host backend packs weights; XQKV_OWNERSHIP_BORROW needs CUDA";
                return Err(Error::new(Status::NotSupported, message));
            }
        };
        let (bias, norm) = (vector(content.bias, kept.bias), vector(content.norm, kept.norm));
        Ok(Slot { matrix, bias, norm })
    }
}

impl Backend for Host {
    fn info(&self) -> Info {
        let thread_count = self.threads.count();
        Info::Host { thread_count, instruction_set: self.instruction_set }
    }

    fn ensure_weights(&self, _: WeightDtype) -> Result<(), Error> {
        Ok(())
    }

    fn weight_bytes(&self, stock: &Stock<'_>, _: Option<&Weights>) -> Result<usize, Error> {
        let vectors = stock.contents.iter().flat_map(|content| [content.bias, content.norm]);
        let vector_bytes: usize = vectors.map(copied_bytes).sum();
        Ok(self.matrix_bytes(stock).fold(vector_bytes, usize::saturating_add))
    }

    fn load(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<Weights, Error> {
        let before = before.map(packed).transpose()?;
        let region = Region::new(self.matrix_bytes(stock).fold(0, usize::saturating_add))?;
        region.touch(&self.threads);
        let mut begin = 0;
        let mut slots = Vec::with_capacity(stock.contents.len());
        for (place, bytes) in self.matrix_bytes(stock).enumerate() {
            let kept = before.map(|before| before.slots[place].clone()).unwrap_or_default();
            let part = Part::new(&region, begin..begin + bytes);
            slots.push(self.slot(stock, place, kept, part)?);
            begin += bytes;
        }
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
        let products = Products::new(job, packed, self.kernels, self.threads.count())?;
        // SAFETY: passed on.
        unsafe { products.run(&self.threads, &self.scratches) }
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

fn vector(source: VectorSource<'_>, kept: Option<Arc<[f32]>>) -> Option<Arc<[f32]>> {
    match source {
        VectorSource::Absent => None,
        VectorSource::Kept => kept,
        VectorSource::Copied(elements) => Some(elements.into()),
    }
}

/// What a load takes for a vector.
fn copied_bytes(vector: VectorSource<'_>) -> usize {
    match vector {
        VectorSource::Copied(elements) => size_of_val(elements),
        VectorSource::Absent | VectorSource::Kept => 0,
    }
}

fn no_instructions(set: InstructionSet) -> Error {
    let best = InstructionSet::best();
    let message = format!("this CPU does not have {set:?}; the best it has is {best:?}");
    Error::new(Status::NotSupported, message)
}
