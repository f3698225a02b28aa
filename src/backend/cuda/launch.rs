//! Running a plan: one cuBLASLt call for each matmul, two driver calls to have our context current
//! meanwhile, and kernels where the plan has them. Nothing is allocated, asked, waited for or
//! locked.

use super::context::Context;
use super::cublaslt::{Layout, Operation};
use super::driver::Handle;
use super::kernels::{Gather, Kernels, Store};
use super::order;
use super::plan::{Choice, DevicePlan, Prepared};
use super::planner::{Matmul, Start};
use super::shape::column_place;
use super::weights::{Bias, DeviceWeights};
use crate::backend::{Form, Lane, MatrixForm, Output, Side};
use crate::dtype::Dtype;
use crate::error::{Error, Status};
use crate::stats::Counts;
use cudarc::cublaslt::sys;
use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};

/// What a call works on.
pub(super) struct Launch<'a> {
    pub(super) context: &'a Context,
    pub(super) plan: &'a DevicePlan,
    pub(super) weights: &'a DeviceWeights,
    pub(super) form: &'a Form,
    /// The first, counted in the form.
    pub(super) layer: usize,
    pub(super) lane: &'a Lane,
}

/// One side of a call.
pub(super) struct Operands<'a> {
    /// More of it than addresses: for lists, for views whose layers have each their own, and for
    /// what is staged.
    pub(super) side: Option<&'a Side<'a>>,
    pub(super) rows: usize,
    pub(super) row_count: usize,
    pub(super) outputs: [Option<Written>; 2],
}

/// Some neighbouring outputs of a matrix, and where those of the first layer go.
#[derive(Clone, Copy)]
pub(super) struct Written {
    pub(super) matrix: usize,
    pub(super) begin: usize,
    pub(super) view: usize,
}

impl<'a> Operands<'a> {
    pub(super) fn of(side: &'a Side<'a>) -> Self {
        let written = |output: Output<'_>| Written {
            matrix: output.matrix,
            begin: output.columns.begin,
            view: output.view.address(0),
        };
        Self {
            side: Some(side),
            rows: side.rows.address(),
            row_count: side.rows.count() as usize,
            outputs: side.outputs.map(|output| output.map(written)),
        }
    }

    fn view_address(&self, start: &Start, matmul: &Matmul) -> usize {
        let output = self.side.and_then(|side| side.outputs[start.part]);
        let first = match output {
            // Where layers are a stride apart it is part of the start.
            Some(output) if !output.view.has_layer_stride() => output.view.address(start.layer),
            _ => self.outputs[start.part].map_or(0, |written| written.view),
        };
        first + start.view as usize * matmul.dtype.bytes()
    }

    /// Elements from the first view to the second, where they are a batch and not as far apart as
    /// in the plan's descriptor.
    fn moved_pair(&self, matmul: &Matmul) -> Option<i64> {
        let (true, [Some(first), Some(second)]) = (matmul.batches_pair(), self.outputs) else {
            return None;
        };
        let bytes = second.view as i64 - first.view as i64;
        let element = matmul.dtype.bytes() as i64;
        let planned = matmul.batch.map(|axis| axis.view * element);
        (planned != Some(bytes)).then(|| bytes / element)
    }
}

/// The addresses of one matmul, and the stream that it is put on.
pub(super) struct Places {
    pub(super) weights: usize,
    pub(super) rows: usize,
    pub(super) view: usize,
    pub(super) workspace: usize,
    pub(super) stream: Handle,
}

/// One matmul with everything about this call filled in but its starts.
pub(super) struct Filled<'a> {
    pub(super) prepared: &'a Prepared,
    /// Copies of B's and D's, where this call's are not as planned.
    pub(super) layouts: Option<(Layout, Layout)>,
    /// A copy where this call's biases are set in it.
    pub(super) operation: Option<Operation>,
    pub(super) row_count: usize,
    pub(super) bias: Option<Bias>,
}

impl<'a> Launch<'a> {
    /// Puts all matmuls on the stream, behind the event to wait for and before the one to record.
    ///
    /// # Safety
    /// As for [`crate::backend::Backend::run`]; our context is current.
    pub(super) unsafe fn run(&self, sides: &[Option<Operands<'_>>; 2]) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        order::begin(self.context.driver, self.lane)?;
        for (number, side) in sides.iter().enumerate() {
            if let Some(side) = side {
                // SAFETY: passed on.
                let done = unsafe { self.side(number, side, &mut counts) };
                done.map_err(|error| after_launches(error, &counts))?;
            }
        }
        let ended = order::end(self.context.driver, self.lane);
        ended.map_err(|error| after_launches(error, &counts))?;
        Ok(counts)
    }

    unsafe fn side(
        &self,
        number: usize,
        side: &Operands<'_>,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        // SAFETY: passed on.
        let rows = unsafe { self.gathered(number, side) }?;
        for prepared in self.plan.sides[number].iter().flat_map(|plan| &plan.matmuls) {
            // SAFETY: passed on.
            unsafe { self.matmul(side, rows, prepared, counts) }?;
        }
        Ok(())
    }

    /// Where the side's rows are, once those of a list were put together.
    unsafe fn gathered(&self, number: usize, side: &Operands<'_>) -> Result<usize, Error> {
        let listed = side.side.and_then(|side| Some((side.rows, side.rows.list()?)));
        let Some((rows, list)) = listed else { return Ok(side.rows) };
        let staged = self.lane.workspace + self.plan.scratch.gathered[number];
        let call = Gather {
            source: rows.address() as u64,
            list: list.address() as u64,
            staged: staged as u64,
            rows: rows.count(),
            buffer_rows: list.bound(),
            width: self.matrix(side).inputs as i64,
            row_stride: rows.row_stride(),
            element_bytes: rows.dtype().bytes() as i64,
        };
        // SAFETY: passed on; the workspace was checked to have room.
        unsafe { self.kernels()?.gather(&call, self.lane.stream as Handle) }?;
        Ok(staged)
    }

    fn kernels(&self) -> Result<&Kernels, Error> {
        let kernels = self.plan.kernels.as_ref();
        kernels.ok_or_else(|| Error::new(Status::Panic, "a plan without its kernels"))
    }

    unsafe fn matmul(
        &self,
        side: &Operands<'_>,
        rows: usize,
        prepared: &Prepared,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        let mut filled = Filled::new(prepared, side.row_count);
        self.fill(side, &mut filled)?;
        let left = self.lane.workspace_bytes - self.plan.scratch.minimum;
        let choice = prepared.choice(filled.row_count, left);
        for start in &prepared.matmul.starts {
            filled.place_bias(self, start)?;
            let places = self.places(side, rows, &prepared.matmul, start)?;
            // SAFETY: the addresses are of memory that the job spans, which was checked.
            unsafe { filled.launch(self.context, choice, &places) }?;
            counts.matmuls += 1;
            counts.multiply_adds += filled.multiply_adds(self.matrix(side).inputs);
            if prepared.matmul.is_staged {
                // SAFETY: passed on.
                unsafe { self.store(side, start, places.view) }?;
            }
        }
        Ok(())
    }

    /// Sets this call's rows, distance of the pair, and biases: in place, since descriptors are
    /// large.
    #[inline(always)]
    fn fill(&self, side: &Operands<'_>, filled: &mut Filled<'_>) -> Result<(), Error> {
        use sys::cublasLtMatrixLayoutAttribute_t as attribute;
        let (cublaslt, prepared) = (self.context.cublaslt, filled.prepared);
        let matmul = &prepared.matmul;
        let distance = side.moved_pair(matmul);
        if filled.row_count != prepared.most_rows || distance.is_some() {
            let sized = prepared.sized(cublaslt, filled.row_count)?;
            let (_, view) = filled.layouts.insert(sized);
            if let Some(distance) = distance {
                let offset = attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                cublaslt.set_layout(view, offset, distance)?;
            }
        }
        let stack = self.matrix(side).stack;
        filled.bias = matmul.has_bias.then(|| self.weights.bias(stack, matmul.dtype)).flatten();
        if filled.bias.is_some() {
            filled.operation = Some(prepared.operation);
        }
        Ok(())
    }

    /// Writes staged results where they go.
    unsafe fn store(&self, side: &Operands<'_>, start: &Start, staged: usize) -> Result<(), Error> {
        let output = side.side.and_then(|side| side.outputs[start.part]);
        let output = output.ok_or_else(|| Error::new(Status::Panic, "a store of no output"))?;
        let form = &self.form.matrices[output.matrix];
        let norm = self.weights.norm(self.layer + start.layer, output.matrix, form);
        let rounds_first = form.norm.is_some_and(|norm| norm.rounds_first);
        let call = Store {
            staged: staged as u64,
            norm_weight: norm.unwrap_or(0) as u64,
            // Without a norm the matmul has scaled already.
            scale: if form.norm.is_some() { form.scale } else { 1.0 },
            epsilon: form.norm.map_or(0.0, |norm| norm.epsilon),
            staged_dtype: Dtype::F32 as i32,
            round_dtype: if rounds_first { self.form.element() as i32 } else { 0 },
            ..Store::whole(output.view, start.layer)
        };
        // SAFETY: passed on; what is staged is as large as the view's rows.
        unsafe { self.kernels()?.store(&call, self.lane.stream as Handle) }
    }

    fn places(
        &self,
        side: &Operands<'_>,
        rows: usize,
        matmul: &Matmul,
        start: &Start,
    ) -> Result<Places, Error> {
        let (workspace, scratch) = (self.lane.workspace, self.plan.scratch);
        Ok(Places {
            weights: self.weight_address(side, start)?,
            rows,
            view: match matmul.is_staged {
                true => workspace + scratch.staged,
                false => side.view_address(start, matmul),
            },
            workspace: workspace + scratch.minimum,
            stream: self.lane.stream as Handle,
        })
    }

    fn weight_address(&self, side: &Operands<'_>, start: &Start) -> Result<usize, Error> {
        let output = side.outputs[start.part];
        let output = output.ok_or_else(|| Error::new(Status::Panic, "a start of no output"))?;
        let (layer, columns) = (self.layer + start.layer, (output.matrix, output.begin));
        let place = column_place(self.form, self.weights, layer, columns)?;
        Ok(place.address + start.weight as usize * self.form.element().bytes())
    }

    /// What the side's matrices have in common: their stack and their inputs.
    fn matrix(&self, side: &Operands<'_>) -> &MatrixForm {
        let matrix = side.outputs.iter().flatten().next().map_or(0, |output| output.matrix);
        &self.form.matrices[matrix]
    }
}

impl<'a> Filled<'a> {
    /// As planned, for so many rows.
    #[inline(always)]
    fn new(prepared: &'a Prepared, row_count: usize) -> Self {
        Self { prepared, layouts: None, operation: None, row_count, bias: None }
    }

    /// Sets where the bias of one start lies.
    fn place_bias(&mut self, launch: &Launch<'_>, start: &Start) -> Result<(), Error> {
        let (Some(bias), Some(operation)) = (self.bias, &mut self.operation) else {
            return Ok(());
        };
        let elements = launch.layer as i64 * bias.layer_stride + start.bias;
        let address = bias.address + elements as usize * self.prepared.matmul.dtype.bytes();
        let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        launch.context.cublaslt.set_operation(operation, pointer, address)
    }

    /// Puts the matmul on a stream.
    ///
    /// # Safety
    /// The places have what the descriptors say, and as much workspace as the choice asks for; the
    /// context is current.
    pub(super) unsafe fn launch(
        &self,
        context: &Context,
        choice: &Choice,
        places: &Places,
    ) -> Result<(), Error> {
        let (cublaslt, prepared) = (context.cublaslt, self.prepared);
        let (alpha, beta) = (prepared.matmul.scale, f32::from(prepared.matmul.accumulates));
        let planned = (&prepared.rows, &prepared.view);
        let (row_layout, view_layout) = self.layouts.as_ref().map_or(planned, |(b, d)| (b, d));
        let view = places.view as *mut c_void;
        let workspace = match choice.workspace_bytes {
            0 => null_mut(),
            _ => places.workspace as *mut c_void,
        };
        // SAFETY: the caller's promise; the scalars are read before the call returns.
        let status = unsafe {
            (cublaslt.functions.matmul)(
                context.cublaslt_handle,
                self.operation.as_ref().unwrap_or(&prepared.operation),
                from_ref(&alpha).cast(),
                places.weights as *const c_void,
                &prepared.weights,
                places.rows as *const c_void,
                row_layout,
                from_ref(&beta).cast(),
                view,
                view_layout,
                view,
                view_layout,
                &choice.algorithm,
                workspace,
                choice.workspace_bytes,
                places.stream,
            )
        };
        cublaslt.check("cublasLtMatmul", status)
    }

    /// Of one call.
    fn multiply_adds(&self, inputs: usize) -> u64 {
        let matmul = &self.prepared.matmul;
        (matmul.outputs * matmul.batch_count() * self.row_count * inputs) as u64
    }
}

/// Once something runs on the stream the outputs may have been written.
fn after_launches(error: Error, counts: &Counts) -> Error {
    match counts.matmuls {
        0 => error,
        _ => Error::new(Status::DeviceFailed, error.message),
    }
}
