//! Plans: for each matmul its descriptors, and for each number of rows the algorithm that cuBLASLt
//! chooses. Everything is bytes of our own, so a plan holds nothing of the driver's.

use super::cublaslt::{Algorithm, Candidate, CublasLt, Layout, Operation, Preference};
use super::kernels::Kernels;
use super::memory::Heap;
use super::planner::{Matmul, Relation, SideShape, matmuls};
use super::scratch::Scratch;
use super::shape::{relation, side_shape};
use super::timing::Timer;
use super::weights::{Arrangement, DeviceWeights};
use crate::backend::{Columns, Info, Job, Output, PlanOptions, Side, WORKSPACE_ALIGNMENT};
use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use cudarc::cublaslt::sys;
use std::ops::Range;
use std::sync::Arc;

/// Everything that a forward needs beside addresses and rows.
pub(super) struct DevicePlan {
    pub(super) sides: [Option<SidePlan>; 2],
    /// How the weights lay, if they were all ours.
    pub(super) arrangement: Option<Arrangement>,
    pub(super) scratch: Scratch,
    /// If any side takes them.
    pub(super) kernels: Option<Kernels>,
}

/// One side's matmuls.
pub(super) struct SidePlan {
    pub(super) shape: SideShape,
    pub(super) outputs: [Option<PlannedOutput>; 2],
    pub(super) matmuls: Vec<Prepared>,
}

/// A matrix of the form, and which of its outputs.
type PlannedOutput = (usize, Columns);

/// One matmul with its descriptors; columns of B and D and a pair's distance where they are not
/// these, and the bias's address are set on copies of them for each call.
pub(super) struct Prepared {
    pub(super) matmul: Matmul,
    pub(super) operation: Operation,
    pub(super) weights: Layout,
    pub(super) rows: Layout,
    pub(super) view: Layout,
    /// What the layouts have as their columns.
    pub(super) most_rows: usize,
    /// As `bucket_bounds` has them.
    buckets: Vec<Bucket>,
}

/// What serves calls of up to so many rows.
struct Bucket {
    /// The best with the workspace that it wants.
    fast: Choice,
    /// The best without any.
    bare: Choice,
}

/// An algorithm and the workspace it needs.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) algorithm: Algorithm,
    pub(super) workspace_bytes: usize,
}

/// Candidates that cuBLASLt is asked for.
const CANDIDATES: usize = 8;

/// Rows that an algorithm is chosen for where bits must not depend on the rows: always the same, so
/// that plans for different numbers of rows choose alike.
const INVARIANT_ROWS: usize = 64;

/// What plans of a context are made with.
pub(super) struct Planner<'a> {
    pub(super) heap: &'a Arc<Heap>,
    pub(super) options: &'a PlanOptions,
    pub(super) weights: &'a DeviceWeights,
}

impl DevicePlan {
    /// Refuses a job whose weights or views lie otherwise than the plan's.
    pub(super) fn ensure_suits(
        &self,
        number: usize,
        job: &Job<'_>,
        weights: &DeviceWeights,
    ) -> Result<(), Error> {
        let (Some(side), planned) = (&job.sides[number], self.sides[number].as_ref()) else {
            return Ok(());
        };
        let planned = planned.ok_or_else(|| mismatch("the side"))?;
        ensure!(
            outputs(side) == planned.outputs,
            PlanMismatch,
            "{}'s heads are not those that the plan was made for; make a plan for these",
            side.name
        );
        let given = relation(side);
        ensure!(
            self.lies_alike(planned, job, side, weights)?,
            PlanMismatch,
            "the weights lie otherwise than when the plan was made, since others were borrowed; \
             make the plan anew"
        );
        ensure!(
            planned.suits(given),
            PlanMismatch,
            "key and value lie otherwise to each other ({:?}) than when the plan was made ({:?}); \
             make a plan for this",
            given,
            planned.shape.relation
        );
        Ok(())
    }

    /// Whether the weights lie as planned. Those that are all ours and arranged in the same way lie
    /// alike in every layer, so nothing is left to compare: rows and views are known to be alike.
    fn lies_alike(
        &self,
        planned: &SidePlan,
        job: &Job<'_>,
        side: &Side<'_>,
        weights: &DeviceWeights,
    ) -> Result<bool, Error> {
        let compared = || Ok(side_shape(job, side, weights)?.same_layout(&planned.shape));
        let is_arranged = self.arrangement.as_ref().is_some_and(|known| weights.has(known));
        debug_assert!(!is_arranged || compared() == Ok(true), "{}", side.name);
        if is_arranged { Ok(true) } else { compared() }
    }
}

impl SidePlan {
    /// Whether its matmuls write views that lie like this to each other.
    pub(super) fn suits(&self, given: Relation) -> bool {
        self.matmuls.iter().all(|prepared| prepared.matmul.needs.suit(given))
    }

    fn takes_kernels(&self) -> bool {
        self.shape.has_list || self.matmuls.iter().any(|prepared| prepared.matmul.is_staged)
    }
}

fn outputs(side: &Side<'_>) -> [Option<PlannedOutput>; 2] {
    let planned = |output: Output<'_>| (output.matrix, output.columns);
    side.outputs.map(|output| output.map(planned))
}

fn mismatch(what: &str) -> Error {
    Error::new(Status::PlanMismatch, format!("{what} was not planned; make a plan for this call"))
}

impl Planner<'_> {
    /// What the sides take beside their matmuls.
    pub(super) fn joined(
        &self,
        job: &Job<'_>,
        sides: [Option<SidePlan>; 2],
    ) -> Result<DevicePlan, Error> {
        let takes_kernels = sides.iter().flatten().any(SidePlan::takes_kernels);
        let kernels = takes_kernels.then(|| self.heap.context.kernels()).transpose()?;
        let (scratch, arrangement) = (Scratch::of(job, &sides)?, self.weights.arrangement());
        Ok(DevicePlan { sides, arrangement, scratch, kernels })
    }

    /// Plans one side for at most the rows it has.
    pub(super) fn side(
        &self,
        job: &Job<'_>,
        side: &Side<'_>,
        shape: SideShape,
    ) -> Result<SidePlan, Error> {
        let rows = side.rows.count() as usize;
        let prepare = |matmul| self.prepare((job, side, &shape), matmul, rows);
        let matmuls = matmuls(&shape).into_iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(SidePlan { shape, outputs: outputs(side), matmuls })
    }

    /// Most scratch memory: NVIDIA's recommendation, unless the options say otherwise. Split sums
    /// are what it is for, and a batch-invariant plan has none.
    pub(super) fn workspace_limit(&self, job: &Job<'_>) -> usize {
        const HOPPER: usize = 32 << 20;
        const OTHERS: usize = 4 << 20;
        let recommended = match self.heap.context.info {
            Info::Cuda { compute_capability: 90.., .. } => HOPPER,
            Info::Cuda { .. } | Info::Host { .. } => OTHERS,
        };
        match job.form.numerics.batch_invariant {
            true => 0,
            false => self.options.workspace_limit.unwrap_or(recommended),
        }
    }

    fn prepare(
        &self,
        (job, side, shape): (&Job<'_>, &Side<'_>, &SideShape),
        matmul: Matmul,
        rows: usize,
    ) -> Result<Prepared, Error> {
        let cublaslt = self.heap.context.cublaslt;
        let mut prepared = Prepared {
            operation: operation(cublaslt, &matmul, job)?,
            weights: weight_layout(cublaslt, &matmul, job.form.element(), shape.inputs)?,
            rows: row_layout(cublaslt, &matmul, job.form.element(), shape, rows)?,
            view: view_layout(cublaslt, &matmul, rows)?,
            most_rows: rows,
            buckets: Vec::new(),
            matmul,
        };
        let limit = self.workspace_limit(job);
        let timer = match self.options.is_timed {
            true => {
                let timed = (job, side, shape);
                Some(Timer::new(self.heap, timed, &prepared, self.weights, limit)?)
            }
            false => None,
        };
        let mut fewest = 1;
        for most in bucket_bounds(rows, job.form.numerics.batch_invariant) {
            let bucket = self.bucket(job, &prepared, fewest..most + 1, timer.as_ref())?;
            prepared.buckets.push(bucket);
            fewest = most + 1;
        }
        Ok(prepared)
    }

    fn bucket(
        &self,
        job: &Job<'_>,
        prepared: &Prepared,
        rows: Range<usize>,
        timer: Option<&Timer<'_>>,
    ) -> Result<Bucket, Error> {
        let most = rows.end - 1;
        let choose = |workspace_limit| {
            let candidates = self.candidates(job, prepared, rows.clone(), workspace_limit)?;
            match timer {
                Some(timer) => timer.fastest(prepared, most, &candidates),
                None => Ok(candidates[0]),
            }
        };
        let fast = choose(self.workspace_limit(job))?;
        let bare = if fast.workspace_bytes == 0 { fast } else { choose(0)? };
        Ok(Bucket { fast, bare })
    }

    /// What cuBLASLt offers for the most of these rows and is able to run with the fewest as well,
    /// best first and at least one.
    fn candidates(
        &self,
        job: &Job<'_>,
        prepared: &Prepared,
        row_counts: Range<usize>,
        workspace_limit: usize,
    ) -> Result<Vec<Choice>, Error> {
        let (fewest, most) = (row_counts.start, row_counts.end - 1);
        let asked = if job.form.numerics.batch_invariant { INVARIANT_ROWS } else { most };
        let (cublaslt, handle) = (self.heap.context.cublaslt, self.heap.context.cublaslt_handle);
        let preference = self.preference(job, &prepared.matmul, workspace_limit)?;
        let (rows, view) = prepared.sized(cublaslt, asked)?;
        let (mut found, mut count) = ([Candidate::NONE; CANDIDATES], 0);
        let Prepared { operation, weights, .. } = prepared;
        // SAFETY: initialised descriptors, and room for as many candidates as are asked for.
        let status = unsafe {
            (cublaslt.functions.heuristic)(
                handle,
                operation,
                weights,
                &rows,
                &view,
                &view,
                &preference,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        let not_supported = sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED as i32;
        if status != not_supported {
            cublaslt.check("cublasLtMatmulAlgoGetHeuristic", status)?;
        }
        let offered = &found[..count.clamp(0, CANDIDATES as i32) as usize];
        let fits = |candidate: &&Candidate| {
            candidate.status == 0
                && candidate.workspace_bytes <= workspace_limit
                && [fewest, most].iter().all(|&rows| self.runs_with(prepared, rows, candidate))
        };
        let choices: Vec<Choice> = offered.iter().filter(fits).map(Choice::of).collect();
        if choices.is_empty() { Err(nothing_found(prepared, job, most)) } else { Ok(choices) }
    }

    fn runs_with(&self, prepared: &Prepared, rows: usize, candidate: &Candidate) -> bool {
        let (cublaslt, handle) = (self.heap.context.cublaslt, self.heap.context.cublaslt_handle);
        let Ok((few, view)) = prepared.sized(cublaslt, rows) else {
            return false;
        };
        let mut answer = Candidate::NONE;
        // SAFETY: initialised descriptors and an algorithm of the heuristic's.
        let status = unsafe {
            (cublaslt.functions.check)(
                handle,
                &prepared.operation,
                &prepared.weights,
                &few,
                &view,
                &view,
                &candidate.algorithm,
                &mut answer,
            )
        };
        status == 0 && answer.workspace_bytes <= candidate.workspace_bytes
    }

    fn preference(
        &self,
        job: &Job<'_>,
        matmul: &Matmul,
        workspace_limit: usize,
    ) -> Result<Preference, Error> {
        use sys::cublasLtMatmulPreferenceAttributes_t as preference;
        let cublaslt = self.heap.context.cublaslt;
        let mut made = cublaslt.preference()?;
        let limit = preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        cublaslt.set_preference(&mut made, limit, workspace_limit as u64)?;
        if job.form.numerics.batch_invariant {
            let mask = preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
            let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
            cublaslt.set_preference(&mut made, mask, none)?;
        }
        let (weights, rows) =
            (matmul.weight_alignment_with(job.form.element()), self.options.alignment);
        let results = if matmul.is_staged { WORKSPACE_ALIGNMENT } else { self.options.alignment };
        let view = matmul.view_alignment_with(results);
        for (attribute, alignment) in [
            (preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, weights),
            (preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, rows),
            (preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, view),
            (preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, view),
        ] {
            cublaslt.set_preference(&mut made, attribute, alignment as u32)?;
        }
        Ok(made)
    }
}

impl Choice {
    fn of(candidate: &Candidate) -> Choice {
        Choice { algorithm: candidate.algorithm, workspace_bytes: candidate.workspace_bytes }
    }
}

impl Prepared {
    /// The algorithm for so many rows with so much workspace.
    pub(super) fn choice(&self, rows: usize, workspace_bytes: usize) -> &Choice {
        let bucket = &self.buckets[bucket_of(rows).min(self.buckets.len() - 1)];
        match bucket.fast.workspace_bytes <= workspace_bytes {
            true => &bucket.fast,
            false => &bucket.bare,
        }
    }

    /// Copies of B's and D's layouts for so many rows.
    #[inline(always)]
    pub(super) fn sized(
        &self,
        cublaslt: &CublasLt,
        row_count: usize,
    ) -> Result<(Layout, Layout), Error> {
        let columns = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
        let (mut rows, mut view) = (self.rows, self.view);
        cublaslt.set_layout(&mut rows, columns, row_count as u64)?;
        cublaslt.set_layout(&mut view, columns, row_count as u64)?;
        Ok((rows, view))
    }
}

/// Powers of two below the most, and the most; where bits must not depend on the rows, one
/// algorithm serves all.
fn bucket_bounds(most: usize, batch_invariant: bool) -> Vec<usize> {
    let powers = (0..).map(|power| 1 << power).take_while(|&bound| bound < most);
    let mut bounds: Vec<usize> = if batch_invariant { Vec::new() } else { powers.collect() };
    bounds.push(most);
    bounds
}

/// Where the first bound is that is not less than the rows, if there are so many bounds; the last
/// one serves all others.
fn bucket_of(rows: usize) -> usize {
    rows.next_power_of_two().trailing_zeros() as usize
}

fn nothing_found(prepared: &Prepared, job: &Job<'_>, rows: usize) -> Error {
    let message = format!(
        "cuBLASLt has no algorithm for {} outputs of {rows} rows, {} weights and {} results, \
         batches of {}; try another dtype or layout of the view",
        prepared.matmul.outputs,
        job.form.element().name(),
        prepared.matmul.dtype.name(),
        prepared.matmul.batch_count()
    );
    Error::new(Status::NotSupported, message)
}

fn operation(cublaslt: &CublasLt, matmul: &Matmul, job: &Job<'_>) -> Result<Operation, Error> {
    use sys::cublasLtMatmulDescAttributes_t as attribute;
    let allows_tensor_float = job.form.numerics.tensor_float && job.form.element() == Dtype::F32;
    let mut made = cublaslt.operation(allows_tensor_float)?;
    // CUBLAS_OP_T, which cudarc has only beside the whole of cuBLAS.
    let transposed: i32 = 1;
    cublaslt.set_operation(&mut made, attribute::CUBLASLT_MATMUL_DESC_TRANSA, transposed)?;
    if matmul.has_bias {
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
        cublaslt.set_operation(&mut made, attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
        let step = matmul.batch.map_or(0, |axis| axis.bias);
        let stride = attribute::CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE;
        cublaslt.set_operation(&mut made, stride, step)?;
        // The heuristic goes by the address's alignment; every bias of ours has at least this.
        let address = attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        cublaslt.set_operation(&mut made, address, matmul.bias_alignment())?;
    }
    Ok(made)
}

fn weight_layout(
    cublaslt: &CublasLt,
    matmul: &Matmul,
    dtype: Dtype,
    inputs: usize,
) -> Result<Layout, Error> {
    let layout = cublaslt.layout(dtype, inputs, matmul.outputs, matmul.weight_row_stride)?;
    batched(cublaslt, layout, matmul, matmul.batch.map_or(0, |axis| axis.weight))
}

fn row_layout(
    cublaslt: &CublasLt,
    matmul: &Matmul,
    dtype: Dtype,
    shape: &SideShape,
    rows: usize,
) -> Result<Layout, Error> {
    // Of a single row the stride may be anything, and a leading dimension may not.
    let stride = shape.row_stride.max(shape.inputs as i64);
    batched(cublaslt, cublaslt.layout(dtype, shape.inputs, rows, stride)?, matmul, 0)
}

fn view_layout(cublaslt: &CublasLt, matmul: &Matmul, rows: usize) -> Result<Layout, Error> {
    let stride = matmul.view_row_stride.max(matmul.outputs as i64);
    let layout = cublaslt.layout(matmul.dtype, matmul.outputs, rows, stride)?;
    batched(cublaslt, layout, matmul, matmul.batch.map_or(0, |axis| axis.view))
}

fn batched(
    cublaslt: &CublasLt,
    mut layout: Layout,
    matmul: &Matmul,
    step: i64,
) -> Result<Layout, Error> {
    use sys::cublasLtMatrixLayoutAttribute_t as attribute;
    if matmul.batch.is_some() {
        let count = matmul.batch_count() as i32;
        cublaslt.set_layout(&mut layout, attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count)?;
        let offset = attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        cublaslt.set_layout(&mut layout, offset, step)?;
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_first_bucket_that_serves_them() {
        for (most, batch_invariant) in (1..200).flat_map(|most| [(most, false), (most, true)]) {
            let bounds = bucket_bounds(most, batch_invariant);
            for rows in 1..=most {
                let found = bucket_of(rows).min(bounds.len() - 1);
                assert_eq!(found, bounds.partition_point(|&bound| bound < rows));
            }
        }
    }
}
