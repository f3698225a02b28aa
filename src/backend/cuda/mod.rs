//! The CUDA backend: cuBLASLt on the engine's stream. Weights lie on the device, plans hold what
//! is slow, and a forward by a plan is one library call for each matmul.

mod brief;
mod context;
mod cublaslt;
mod device;
mod driver;
mod kernels;
mod launch;
mod memory;
mod order;
mod plan;
mod planner;
mod pointer;
mod scatter;
mod scratch;
mod shape;
mod timing;
mod weights;
mod wire;

use super::{
    Allocator, Backend, Block, Brief, Info, Job, Lane, Memory, Plan, PlanOptions, Side, Stock,
    Weights, Wire,
};
use crate::device::Device;
use crate::dtype::WeightDtype;
use crate::error::{Error, Status, ensure};
use crate::log::Log;
use crate::stats::Counts;
use crate::view::{Indices, Rows, View};
use context::Context;
use cudarc::driver::sys;
use device::CudaDevice;
use driver::Handle;
use launch::{Launch, Operands};
use memory::Heap;
use plan::{DevicePlan, Planner};
use shape::side_shape;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;
use weights::DeviceWeights;
use wire::CudaWire;

/// One CUDA device.
pub(super) struct Cuda {
    heap: Arc<Heap>,
}

/// Whether a device answers, and all that is needed to run on it is there.
pub fn answers() -> Result<(), Error> {
    let count = context::device_count()?;
    ensure!(count > 0, NoDevice, "the CUDA driver knows no device");
    Ok(())
}

impl Cuda {
    pub(super) fn open(
        device: i32,
        context: usize,
        cublaslt: usize,
        allocator: Option<Allocator>,
        log: Log,
    ) -> Result<Self, Error> {
        let context = Context::open(device, context, cublaslt)?;
        Ok(Self { heap: Arc::new(Heap::new(context, allocator, log)) })
    }

    fn context(&self) -> &Context {
        &self.heap.context
    }

    /// Refuses a stream of another context, and one that is capturing if nothing was planned.
    fn ensure_stream(&self, job: &Job<'_>, has_plan: bool) -> Result<(), Error> {
        let driver = self.context().driver;
        let stream = job.lane.stream as Handle;
        let (mut capture, mut owner) = (0, null_mut());
        // SAFETY: the engine's own stream, and places for the answers.
        let capturing = unsafe { (driver.functions.stream_is_capturing)(stream, &mut capture) };
        driver.check("cuStreamIsCapturing", capturing)?;
        let none = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE as c_int;
        ensure!(
            has_plan || capture == none,
            PlanNeeded,
            "the stream is capturing, and this call has no plan; make one with xqkv_plan_create, \
             or make the same call once before the capture"
        );
        // SAFETY: as above.
        let status = unsafe { (driver.functions.stream_get_context)(stream, &mut owner) };
        driver.check("cuStreamGetCtx", status)?;
        ensure!(
            owner as usize == self.context().address(),
            InvalidArgument,
            "stream is of CUDA context {owner:p}, but the xqkv_context is of {:#x}; pass \
             cuda_context when you create it, or a stream of that context",
            self.context().address()
        );
        Ok(())
    }

    fn ensure_addresses(&self, job: &Job<'_>) -> Result<(), Error> {
        for side in job.sides() {
            self.ensure_device(side.name, "data", side.rows.address())?;
            self.ensure_indices(side.name, "row_list", side.rows.list())?;
            for output in side.outputs() {
                for layer in 0..job.layer_count {
                    self.ensure_device(output.name, "data", output.view.address(layer))?;
                }
                self.ensure_indices(output.name, "slots", output.view.slots())?;
            }
        }
        match job.lane.workspace {
            0 => Ok(()),
            address => self.ensure_memory(Memory::Device, address, "workspace"),
        }
    }

    fn ensure_indices(
        &self,
        name: &str,
        field: &str,
        indices: Option<&Indices>,
    ) -> Result<(), Error> {
        indices.map_or(Ok(()), |indices| self.ensure_device(name, field, indices.address()))
    }

    fn ensure_device(&self, name: &str, field: &str, address: usize) -> Result<(), Error> {
        self.ensure_memory(Memory::Device, address, &format!("{name}.{field}"))
    }
}

impl Backend for Cuda {
    fn info(&self) -> Info {
        self.context().info
    }

    fn weight_bytes(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<usize, Error> {
        weights::bytes_of(stock, before.map(on_device).transpose()?)
    }

    fn ensure_weights(&self, dtype: WeightDtype) -> Result<(), Error> {
        ensure!(
            dtype.element().is_some(),
            NotSupported,
            "weight_dtype is {}, which only the host multiplies; on CUDA use f32, f16 or bf16",
            dtype.name()
        );
        Ok(())
    }

    fn load(&self, stock: &Stock<'_>, before: Option<&Weights>) -> Result<Weights, Error> {
        let before = before.map(on_device).transpose()?;
        let _entered = self.context().enter()?;
        let load = || DeviceWeights::load(&self.heap, stock, before);
        let loaded = self.context().beside_captures(load)?;
        Ok(Weights(Arc::new(loaded)))
    }

    fn standing_plan(&self) -> Option<&Plan> {
        None
    }

    fn plan(&self, job: &Job<'_>, options: &PlanOptions) -> Result<Plan, Error> {
        let weights = on_device(job.weights)?;
        let _entered = self.context().enter()?;
        let planner = Planner { heap: &self.heap, options, weights };
        let plan_side = |side: &Option<Side<'_>>| {
            let plan = |side| planner.side(job, side, side_shape(job, side, weights)?);
            side.as_ref().map(plan).transpose()
        };
        let [first, second] = &job.sides;
        let plan = || planner.joined(job, [plan_side(first)?, plan_side(second)?]);
        let plan = self.context().beside_captures(plan)?;
        let minimum_bytes = plan.scratch.minimum;
        let workspace_bytes = minimum_bytes.saturating_add(planner.workspace_limit(job));
        Ok(Plan { minimum_bytes, workspace_bytes, inner: Arc::new(plan) })
    }

    fn ensure_suits(&self, plan: &Plan, job: &Job<'_>) -> Result<(), Error> {
        let (plan, weights) = (device_plan(plan)?, on_device(job.weights)?);
        (0..job.sides.len()).try_for_each(|number| plan.ensure_suits(number, job, weights))?;
        Ok(())
    }

    fn ensure_runnable(&self, job: &Job<'_>, has_plan: bool) -> Result<(), Error> {
        let _entered = self.context().enter()?;
        self.ensure_stream(job, has_plan)?;
        self.ensure_addresses(job)
    }

    unsafe fn run(&self, plan: &Plan, job: &Job<'_>) -> Result<Counts, Error> {
        let (plan, weights) = (device_plan(plan)?, on_device(job.weights)?);
        job.lane.ensure_workspace(plan.scratch.minimum)?;
        let _entered = self.context().enter()?;
        let (context, form, layer, lane) = (self.context(), job.form, job.layer, job.lane);
        let launch = Launch { context, plan, weights, form, layer, lane };
        let operands = job.sides.each_ref().map(|side| side.as_ref().map(Operands::of));
        // SAFETY: passed on.
        unsafe { launch.run(&operands) }
    }

    unsafe fn run_briefly(&self, plan: &Plan, brief: &Brief<'_>) -> Result<Option<Counts>, Error> {
        let (plan, weights) = (device_plan(plan)?, on_device(brief.weights)?);
        let Some(operands) = plan.operands(brief, weights) else { return Ok(None) };
        let Brief { form, layer, lane, .. } = *brief;
        let _entered = self.context().enter()?;
        let launch = Launch { context: self.context(), plan, weights, form, layer, lane };
        // SAFETY: passed on.
        unsafe { launch.run(&operands) }.map(Some)
    }

    fn wire(&self, board_bytes: usize) -> Result<Arc<dyn Wire>, Error> {
        let _entered = self.context().enter()?;
        let open = || CudaWire::open(&self.heap, board_bytes);
        let wire = self.context().beside_captures(open)?;
        Ok(Arc::new(wire))
    }

    fn device(&self) -> Result<Arc<dyn Device>, Error> {
        Ok(Arc::new(CudaDevice::new(&self.heap)?))
    }

    unsafe fn ensure_listed(&self, _: &Rows, _: &str) -> Result<(), Error> {
        // What a list has is on the device; rows that are not there become NaN.
        Ok(())
    }

    unsafe fn scatter(
        &self,
        blocks: &[Block],
        view: &View<'_>,
        _name: &str,
        lane: &Lane,
    ) -> Result<(), Error> {
        let _entered = self.context().enter()?;
        let stream = lane.stream as Handle;
        // SAFETY: passed on. The kernel leaves out slots that the view does not have.
        let scatter = |block| unsafe { scatter::scatter(self.context(), block, view, stream) };
        blocks.iter().try_for_each(scatter)
    }

    fn ensure_memory(&self, memory: Memory, address: usize, name: &str) -> Result<(), Error> {
        pointer::ensure_memory(self.context(), memory, address, name)
    }

    fn fetch(&self, address: usize, bytes: usize) -> Result<Vec<u8>, Error> {
        let context = self.context();
        let _entered = context.enter()?;
        let mut fetched = vec![0u8; bytes];
        context.beside_captures(|| {
            let target = fetched.as_mut_ptr().cast();
            // SAFETY: as many writable bytes, and the caller's promise for the device's.
            let status = unsafe {
                (context.driver.functions.copy_to_host)(
                    target,
                    address as u64,
                    bytes,
                    context.stream,
                )
            };
            context.driver.check("cuMemcpyDtoHAsync", status)?;
            context.synchronize()
        })?;
        Ok(fetched)
    }

    fn reclaim(&self, streams: &[usize]) -> Result<usize, Error> {
        self.heap.reclaim(streams)
    }
}

fn on_device(weights: &Weights) -> Result<&DeviceWeights, Error> {
    let found = weights.0.downcast_ref::<DeviceWeights>();
    found.ok_or_else(|| Error::new(Status::Panic, "weights of another backend"))
}

fn device_plan(plan: &Plan) -> Result<&DevicePlan, Error> {
    let found = plan.inner.downcast_ref::<DevicePlan>();
    found.ok_or_else(|| Error::new(Status::Panic, "a plan of another backend"))
}
