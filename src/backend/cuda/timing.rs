//! Timed candidates: the algorithms that cuBLASLt offers, run with the plan's own weights on
//! scratch memory for rows and results, and the fastest taken.

use super::driver::Handle;
use super::launch::{Filled, Places};
use super::memory::{Block, Heap};
use super::plan::{Choice, Prepared};
use super::planner::SideShape;
use super::shape::weight_place;
use super::weights::DeviceWeights;
use crate::backend::{Job, Side};
use crate::dtype::Dtype;
use crate::error::{Error, Status};
use cudarc::cublaslt::sys;
use std::ptr::null_mut;
use std::sync::Arc;

/// Runs of each candidate of which the median decides; one more goes before them.
const RUNS: usize = 5;

/// Scratch memory, two events and the addresses of one matmul.
pub(super) struct Timer<'a> {
    heap: &'a Heap,
    /// Given back when the timer is dropped.
    scratch: Vec<Block>,
    places: Places,
    /// Where this matmul's biases lie, if it has any.
    bias_address: usize,
    /// Elements from one view of a pair to the other in the scratch memory.
    pair_distance: i64,
    begin: Handle,
    end: Handle,
}

impl<'a> Timer<'a> {
    /// Takes the scratch memory; our context must be current.
    pub(super) fn new(
        heap: &'a Arc<Heap>,
        (job, side, shape): (&Job<'_>, &Side<'_>, &SideShape),
        prepared: &Prepared,
        weights: &DeviceWeights,
        workspace_bytes: usize,
    ) -> Result<Self, Error> {
        // A matmul of the second part alone must not read the first one's matrix, which may be
        // smaller.
        let part = prepared.matmul.starts.first().map_or(0, |start| start.part);
        let output = side.outputs[part].as_ref();
        let output = output.ok_or_else(|| Error::new(Status::Panic, "a start of no output"))?;
        let place = weight_place(job, output, weights, 0)?;
        let bias = weights.bias(job.form.matrices[output.matrix].stack, prepared.matmul.dtype);
        let mut timer = Timer {
            heap,
            scratch: Vec::new(),
            places: Places {
                weights: place.address,
                rows: 0,
                view: 0,
                workspace: 0,
                stream: heap.context.stream,
            },
            bias_address: bias.map_or(0, |bias| bias.address),
            pair_distance: 0,
            begin: null_mut(),
            end: null_mut(),
        };
        let row_count = side.rows.count() as usize;
        let row_stride = shape.row_stride.max(shape.inputs as i64) as usize;
        timer.places.rows = timer.take(heap, row_count * row_stride, job.form.element())?;
        let (elements, distance) = view_extent(prepared, row_count);
        timer.pair_distance = distance;
        timer.places.view = timer.take(heap, elements, prepared.matmul.dtype)?;
        timer.places.workspace = timer.take(heap, workspace_bytes.div_ceil(4), Dtype::F32)?;
        timer.begin = timer.event()?;
        timer.end = timer.event()?;
        Ok(timer)
    }

    /// The candidate with the least median time for so many rows.
    pub(super) fn fastest(
        &self,
        prepared: &Prepared,
        row_count: usize,
        candidates: &[Choice],
    ) -> Result<Choice, Error> {
        let mut best: Option<(f32, Choice)> = None;
        for candidate in candidates {
            let time = self.median(prepared, row_count, candidate)?;
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, *candidate));
            }
        }
        let best = best.map(|(_, candidate)| candidate);
        best.ok_or_else(|| Error::new(Status::Panic, "no candidates to time"))
    }

    fn median(&self, prepared: &Prepared, row_count: usize, choice: &Choice) -> Result<f32, Error> {
        let filled = self.fill(prepared, row_count)?;
        self.run(&filled, choice)?;
        let mut times = [0.0; RUNS];
        for time in &mut times {
            *time = self.run(&filled, choice)?;
        }
        times.sort_by(f32::total_cmp);
        Ok(times[RUNS / 2])
    }

    fn fill<'b>(&self, prepared: &'b Prepared, row_count: usize) -> Result<Filled<'b>, Error> {
        let cublaslt = self.heap.context.cublaslt;
        let (rows, mut view) = prepared.sized(cublaslt, row_count)?;
        let mut operation = prepared.matmul.has_bias.then_some(prepared.operation);
        if prepared.matmul.batches_pair() {
            let offset =
                sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
            cublaslt.set_layout(&mut view, offset, self.pair_distance)?;
        }
        if let Some(operation) = &mut operation {
            let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            cublaslt.set_operation(operation, pointer, self.bias_address)?;
        }
        let layouts = Some((rows, view));
        Ok(Filled { prepared, layouts, operation, row_count, bias: None })
    }

    /// Runs a candidate once and tells how many milliseconds it took.
    fn run(&self, filled: &Filled<'_>, choice: &Choice) -> Result<f32, Error> {
        let (driver, stream) = (self.heap.context.driver, self.heap.context.stream);
        let record = |event| {
            // SAFETY: our own event and stream.
            driver.check("cuEventRecord", unsafe { (driver.functions.event_record)(event, stream) })
        };
        record(self.begin)?;
        // SAFETY: scratch memory as large as the descriptors say, and weights that are alive.
        unsafe { filled.launch(&self.heap.context, choice, &self.places) }?;
        record(self.end)?;
        self.heap.context.synchronize()?;
        let mut milliseconds = 0.0;
        // SAFETY: a place for the answer, and two events that have happened.
        let status =
            unsafe { (driver.functions.event_elapsed)(&mut milliseconds, self.begin, self.end) };
        driver.check("cuEventElapsedTime", status).map(|()| milliseconds)
    }

    fn take(&mut self, heap: &Arc<Heap>, elements: usize, dtype: Dtype) -> Result<usize, Error> {
        let bytes = elements.checked_mul(dtype.bytes()).filter(|&bytes| bytes < 1 << 62);
        let too_large = || Error::new(Status::OutOfMemory, "a timed plan's scratch memory");
        let block = heap.allocate(bytes.ok_or_else(too_large)?.max(1))?;
        let address = block.address();
        self.scratch.push(block);
        Ok(address)
    }

    fn event(&self) -> Result<Handle, Error> {
        let (driver, mut event) = (self.heap.context.driver, null_mut());
        // SAFETY: a place for the event; our context is current.
        let status = unsafe { (driver.functions.event_create)(&mut event, 0) };
        driver.check("cuEventCreate", status).map(|()| event)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let driver = self.heap.context.driver;
        let _ = self.heap.context.synchronize();
        for event in [self.begin, self.end].into_iter().filter(|event| !event.is_null()) {
            // SAFETY: our own event, which nothing waits for.
            unsafe { (driver.functions.event_destroy)(event) };
        }
        self.scratch.drain(..).for_each(Block::discard);
    }
}

/// Elements that a matmul's first start writes over, and how far apart a pair is put there.
fn view_extent(prepared: &Prepared, row_count: usize) -> (usize, i64) {
    let matmul = &prepared.matmul;
    let stride = matmul.view_row_stride.max(matmul.outputs as i64) as usize;
    // A multiple of 256 elements, so that both of a pair are as aligned as the scratch memory is.
    let one = (row_count * stride).next_multiple_of(256);
    match matmul.batch {
        None => (one, 0),
        Some(_) if matmul.batches_pair() => (2 * one, one as i64),
        Some(axis) => (one.saturating_add((axis.count - 1).saturating_mul(axis.view as usize)), 0),
    }
}
