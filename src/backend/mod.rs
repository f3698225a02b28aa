//! The seam to a device: a small trait, and the one place that chooses who implements it.
//!
//! A backend knows matrices, rows and views; it knows nothing of queries and keys, ranks or files.
//! What it is given was checked: sizes are positive, addresses are right, and outputs are disjoint
//! from each other and from inputs.

mod brief;
mod cuda;
mod host;
mod lane;
mod stock;

pub use brief::{Brief, BriefSide};
pub use cuda::answers as cuda_answers;
pub use host::{Arithmetic, InstructionSet, run_part};
pub use lane::{Lane, WORKSPACE_ALIGNMENT};
pub use stock::{Borrowed, Content, Stock, VectorSource, WeightSource};

use crate::device::Device;
use crate::dtype::{Dtype, WeightDtype};
use crate::error::{Error, ensure};
use crate::log::Log;
use crate::stats::Counts;
use crate::view::{Rows, View};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One device that can keep matrices and multiply rows with them.
pub trait Backend: Send + Sync {
    /// What this backend turned out to be.
    fn info(&self) -> Info;

    /// Refuses weights that the device cannot multiply.
    fn ensure_weights(&self, dtype: WeightDtype) -> Result<(), Error>;

    /// Bytes of the device's memory that `load` would take for this stock.
    fn weight_bytes(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<usize, Error>;

    /// Makes weights of a stock, in the form that the device multiplies with. What the stock keeps
    /// is taken from the weights before.
    fn load(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<Weights, Error>;

    /// A plan that suits every job, where nothing is slow.
    fn standing_plan(&self) -> Option<&Plan>;

    /// Does all that is slow for jobs like this one, with at most as many rows.
    fn plan(&self, job: &Job<'_>, options: &PlanOptions) -> Result<Plan, Error>;

    /// Refuses a job that lies otherwise in memory than the one the plan was made for. Dtypes,
    /// strides and layers were compared: they are the plan's, and there are not more rows.
    fn ensure_suits(&self, plan: &Plan, job: &Job<'_>) -> Result<(), Error>;

    /// Refuses memory that the device cannot use, and a stream that no plan can be made on now.
    /// Asks the device's driver, so it is for jobs that come without a plan.
    fn ensure_runnable(&self, job: &Job<'_>, has_plan: bool) -> Result<(), Error>;

    /// Runs a job by a plan that suits it.
    ///
    /// # Safety
    /// The rows can be read and the views written for as long as the device works on them, and
    /// nobody else writes the rows or touches the views meanwhile.
    unsafe fn run(&self, plan: &Plan, job: &Job<'_>) -> Result<Counts, Error>;

    /// Runs a job by a plan, where the plan takes no more than this and it suits; None where that
    /// cannot be told, and nothing was done.
    ///
    /// # Safety
    /// As for `run`; everything but what the brief says is as in the job that was planned.
    unsafe fn run_briefly(&self, _: &Plan, _: &Brief<'_>) -> Result<Option<Counts>, Error> {
        Ok(None)
    }

    /// Refuses rows whose list breaks its promise, where the device's lists can be seen; so nothing
    /// is begun that cannot be ended.
    ///
    /// # Safety
    /// The list can be read.
    unsafe fn ensure_listed(&self, rows: &Rows, name: &str) -> Result<(), Error>;

    /// A way for transfers between ranks, with a board of so many bytes.
    fn wire(&self, board_bytes: usize) -> Result<Arc<dyn Wire>, Error>;

    /// The device as communicators see it.
    fn device(&self) -> Result<Arc<dyn Device>, Error>;

    /// Puts staged results where a view has them; slots are checked before anything is written.
    ///
    /// # Safety
    /// As for `run`; the blocks are there.
    unsafe fn scatter(
        &self,
        blocks: &[Block],
        view: &View<'_>,
        name: &str,
        lane: &Lane,
    ) -> Result<(), Error>;

    /// Refuses an address of memory that is not of this kind.
    fn ensure_memory(&self, memory: Memory, address: usize, name: &str) -> Result<(), Error>;

    /// A copy of bytes in the device's memory.
    fn fetch(&self, address: usize, bytes: usize) -> Result<Vec<u8>, Error>;

    /// Frees the memory of weights that nobody holds any more: after what is now on these streams,
    /// or at once if there are none. Tells how many bytes still wait for their stream.
    fn reclaim(&self, streams: &[usize]) -> Result<usize, Error>;
}

/// A device's side of transfers between ranks. On a device with streams they are put on a stream of
/// their own, so that they run beside products; on the host they are done when they are finished,
/// and all of this but the board is of no effect.
pub trait Wire: Send + Sync {
    /// Whether transfers are done in a stream's order.
    fn is_streamed(&self) -> bool;

    /// The stream that transfers are put on; 0 on the host.
    fn stream(&self) -> usize;

    /// Begins a call: its lane waits for its event, and transfers wait for what is on the lane.
    fn begin(&self, lane: &Lane) -> Result<(), Error>;

    /// Transfers that come from here on wait for what is on the lane.
    fn fork(&self, lane: &Lane) -> Result<(), Error>;

    /// Marks what is on the transfers' stream by a number below [`WIRE_MARKS`].
    fn mark(&self, number: usize) -> Result<(), Error>;

    /// What comes from here on on the lane waits for the mark.
    fn join(&self, lane: &Lane, number: usize) -> Result<(), Error>;

    /// Ends a call: its event is recorded on the lane.
    fn end(&self, lane: &Lane) -> Result<(), Error>;

    /// Whether all transfers that were put on the stream are done.
    fn is_done(&self) -> Result<bool, Error>;

    /// Memory of the device's for words that ranks tell each other.
    fn board(&self) -> usize;

    /// Writes to the board, before a transfer.
    fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Reads the board's first bytes, after a transfer that is done.
    fn read(&self, bytes: usize) -> Result<Vec<u8>, Error>;
}

/// Marks of a wire; a mark may be used again once it was joined.
pub const WIRE_MARKS: usize = 16;

/// Staged results that belong into a view: [rows, layers, heads, width] of its dtype, so that no
/// stride depends on how many rows there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first element.
    pub address: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one layer to the next.
    pub layer_stride: usize,
    /// Which of the view's rows.
    pub rows: Range<usize>,
    /// Which of the view's heads.
    pub heads: Range<usize>,
}

/// What every layer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// How many layers there are.
    pub layer_count: usize,
    /// What the matrices are kept in.
    pub dtype: WeightDtype,
    /// The matrices of a layer.
    pub matrices: Vec<MatrixForm>,
    /// How results may be computed.
    pub numerics: Numerics,
}

impl Form {
    /// What the matrices' numbers are; f32 where integers and scales stand for them.
    pub fn element(&self) -> Dtype {
        self.dtype.element().unwrap_or(Dtype::F32)
    }
}

/// One matrix of a layer, and what becomes of its product.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixForm {
    /// Rows; 0 if this rank has none.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// Multiplies the sum and its bias.
    pub scale: f32,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// What is done to the sum and its bias before the scale.
    pub norm: Option<NormForm>,
    /// Outputs of a head where a job may run some heads of the matrix, else 0: a backend may lay
    /// heads out apart from each other then.
    pub cut_width: usize,
    /// Neighbours with the same number multiply the same rows, so a device may stack them.
    pub stack: usize,
}

/// Root mean square norm of each `width` neighbouring outputs of a row:
/// x · weight[lane] / sqrt(mean(x²) + epsilon), the squares summed in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormForm {
    /// Outputs that are normed together, and elements of the norm's weight.
    pub width: usize,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Whether the quotient is rounded to the form's dtype before the weight is multiplied.
    pub rounds_first: bool,
}

/// Widest head that backends norm.
pub const MOST_NORM_WIDTH: usize = 1024;

/// What a device may do that changes bits. Of no effect where it would not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numerics {
    /// f32 products may round their inputs to 10 bits of fraction.
    pub tensor_float: bool,
    /// A row's bits must not depend on how many rows come along.
    pub batch_invariant: bool,
}

/// Weights as their backend keeps them; cheap to share. Only the backend that loaded them can look
/// in.
#[derive(Clone)]
pub struct Weights(Arc<dyn Any + Send + Sync>);

/// Products to run together: for each side and each of its outputs, and each layer,
/// view[layer] = scale · (rows · weightsᵀ + bias), rounded once.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What the weights hold.
    pub form: &'a Form,
    /// Of this same backend.
    pub weights: &'a Weights,
    /// The first layer, counted in the form.
    pub layer: usize,
    /// How many layers share the rows.
    pub layer_count: usize,
    /// At most two different inputs.
    pub sides: [Option<Side<'a>>; 2],
    /// Where a device's work is put.
    pub lane: &'a Lane,
}

/// Rows, and what they are multiplied with.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// For messages.
    pub name: &'static str,
    /// Read: [rows, inputs].
    pub rows: &'a Rows,
    /// The products.
    pub outputs: [Option<Output<'a>>; 2],
}

/// Some neighbouring outputs of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The first.
    pub begin: usize,
    /// How many.
    pub count: usize,
}

/// One product of a side.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// For messages.
    pub name: &'static str,
    /// Which of the form's matrices.
    pub matrix: usize,
    /// Which of the matrix's outputs: all, or those of some heads if it can be cut.
    pub columns: Columns,
    /// Written: [layers, rows, heads, width], with heads · width as many as outputs.
    pub view: &'a View<'a>,
}

impl<'a> Job<'a> {
    /// Refuses to add to results of a norm: what is there was normed without what is added.
    pub fn ensure_addable(&self) -> Result<(), Error> {
        for side in self.sides.iter().flatten() {
            for output in side.outputs.iter().flatten() {
                ensure!(
                    !output.view.accumulates() || self.form.matrices[output.matrix].norm.is_none(),
                    InvalidArgument,
                    "{}.accumulate is 1, and its heads are normed, so that a sum of results is no \
                     result; use 0, or a spec whose norm is XQKV_NORM_NONE",
                    output.name
                );
            }
        }
        Ok(())
    }

    /// The sides that are there.
    pub fn sides(&self) -> impl Iterator<Item = Side<'a>> {
        self.sides.into_iter().flatten()
    }
}

impl<'a> Side<'a> {
    /// The products that are there.
    pub fn outputs(&self) -> impl Iterator<Item = Output<'a>> {
        self.outputs.into_iter().flatten()
    }
}

/// How a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Most scratch memory that calls will lend.
    pub workspace_limit: Option<usize>,
    /// Every address of every call will be a multiple of so many bytes.
    pub alignment: usize,
    /// Run what the device's library offers and take the fastest, instead of its first choice.
    pub is_timed: bool,
}

/// All that is slow about a kind of job, done. Immutable, and cheap to share.
#[derive(Clone)]
pub struct Plan {
    /// Scratch memory without which the plan does not run.
    pub minimum_bytes: usize,
    /// Scratch memory with which the plan runs best.
    pub workspace_bytes: usize,
    inner: Arc<dyn Any + Send + Sync>,
}

impl Plan {
    /// Of a call that has a plan for each of its products, and these needs all together.
    pub fn of_products(minimum_bytes: usize, workspace_bytes: usize) -> Self {
        Self { minimum_bytes, workspace_bytes, inner: Arc::new(()) }
    }
}

/// Whose memory an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The process's.
    Host,
    /// The backend's device's.
    Device,
}

/// The engine's way to give device memory. Addresses and streams are numbers here.
pub struct Allocator {
    /// Bytes, alignment and stream to an address, or 0.
    pub allocate: Box<Allocate>,
    /// Takes address, bytes and stream.
    pub free: Box<Free>,
}

type Allocate = dyn Fn(usize, usize, usize) -> usize + Send + Sync;
type Free = dyn Fn(usize, usize, usize) + Send + Sync;

/// The engine's way to run something on its threads. Gets a count and a ticket, calls
/// [`run_part`] with the ticket and each number below the count, and returns when all have ended.
pub type ParallelFor = Box<dyn Fn(usize, usize) + Send + Sync>;

/// Which backend to open.
pub enum Choice {
    /// The host's threads; 0 threads is one for each CPU, no instruction set is the best there is.
    Host {
        /// Threads that work on a call, the caller's included.
        thread_count: usize,
        /// The instruction set to use.
        instruction_set: Option<InstructionSet>,
        /// The engine's threads, if they are to do the work.
        parallel_for: Option<ParallelFor>,
    },
    /// One CUDA device.
    Cuda {
        /// Its ordinal.
        device: i32,
        /// The engine's context, or 0 for the device's primary one.
        context: usize,
        /// A cuBLASLt handle that the engine lends, or 0.
        cublaslt: usize,
        /// Where memory for weights comes from; the driver if there is none.
        allocator: Option<Allocator>,
        /// Hears of what goes wrong where no status can tell.
        log: Log,
    },
}

/// What a backend turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// The host's threads.
    Host {
        /// Threads that work on a call, the caller's included.
        thread_count: usize,
        /// The instruction set in use.
        instruction_set: InstructionSet,
    },
    /// One CUDA device.
    Cuda {
        /// Its ordinal.
        device: i32,
        /// Ten times the major number and the minor one, such as 90.
        compute_capability: i32,
        /// How many multiprocessors it has.
        multiprocessor_count: i32,
        /// As cuDriverGetVersion tells it, such as 13000.
        driver_version: i32,
        /// As cublasLtGetVersion tells it, such as 130401.
        cublaslt_version: i64,
    },
}

impl fmt::Display for Info {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Info::Host { thread_count, instruction_set } => {
                write!(formatter, "host backend, {thread_count} threads, {instruction_set:?}")
            }
            Info::Cuda {
                device,
                compute_capability,
                multiprocessor_count,
                driver_version,
                cublaslt_version,
            } => write!(
                formatter,
                "CUDA device {device}, compute capability {compute_capability}, \
                 {multiprocessor_count} multiprocessors, driver {driver_version}, cuBLASLt \
                 {cublaslt_version}"
            ),
        }
    }
}

/// Opens the chosen backend.
pub fn open(choice: Choice) -> Result<Arc<dyn Backend>, Error> {
    match choice {
        Choice::Host { thread_count, instruction_set, parallel_for } => {
            Ok(Arc::new(host::Host::open(thread_count, instruction_set, parallel_for)?))
        }
        Choice::Cuda { device, context, cublaslt, allocator, log } => {
            Ok(Arc::new(cuda::Cuda::open(device, context, cublaslt, allocator, log)?))
        }
    }
}
