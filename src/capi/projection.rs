//! `xqkv_projection`: this rank's shard of Wq, Wk and Wv of all layers.

use super::boundary;
use super::brief::Planned;
use super::comm::{self, xqkv_comm};
use super::context::{Context, xqkv_context};
use super::error::xqkv_error;
use super::forward::xqkv_forward;
use super::handle::{self, Borrowed};
use super::plain::{self, Plain, ensure_pointer};
use super::plan::borrow_plan;
use super::shard::xqkv_shard;
use super::spec::{read_spec, xqkv_spec};
use super::stats::xqkv_stats;
use crate::backend::Numerics;
use crate::comm::Comm;
use crate::error::{Error, Status, ensure, named_enum};
use crate::log::{Level, Log};
use crate::projection::{Done, Membership, Projection};
use crate::shard::{Range, Shard, Split, balanced};
use crate::spec::Spec;
use std::sync::Arc;

/// This rank's shard of Wq, Wk and Wv of all layers. An opaque handle, made by
/// xqkv_projection_create and unmade by xqkv_projection_destroy.
///
/// Any thread may use it, several at once: forwards run side by side, also while an update is
/// being committed, and each runs on exactly one version of the weights.
pub struct xqkv_projection {
    _private: (),
}

/// How heads are spread over the ranks. No head is ever cut.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitChoice {
    /// Equal shares, as vLLM and Megatron cut them: with more ranks than key/value heads, each
    /// such head is on rank_count / key_value_heads neighbouring ranks.
    Even = 0,
    /// The heads that the options name: uneven shares, or none of a side.
    Explicit = 1,
    /// Equal shares of Q; every rank holds all of K and V.
    Query = 2,
}

named_enum!(SplitChoice {
    Even => c"XQKV_SPLIT_EVEN",
    Explicit => c"XQKV_SPLIT_EXPLICIT",
    Query => c"XQKV_SPLIT_QUERY",
});

/// What a projection may or must do beyond its sums. Of no effect where a backend does so anyway.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectionFlag {
    /// CUDA: f32 products may round their inputs to 10 bits of fraction (TF32). Otherwise f32 is
    /// exact f32.
    TensorFloat = 1,
    /// CUDA: a row's bits must not depend on how many rows come with it: no split sums, and one
    /// algorithm for each matrix, chosen alike whatever the rows, for calls whose memory is laid
    /// out and aligned alike. Costs speed. Not yet confirmed on a real GPU.
    BatchInvariant = 2,
    /// Ranks that hold the same key/value head share its work: each projects its part of the
    /// encoder rows, and they exchange the results, so that no product is done twice. Calls with
    /// encoder rows then have transfers, and views of K and V may not accumulate. Needs a
    /// communicator. It pays where products take longer than moving their results:
    /// docs/ranks.md has the model.
    ShareReplicas = 4,
}

named_enum!(ProjectionFlag {
    TensorFloat => c"XQKV_PROJECTION_FLAG_TENSOR_FLOAT",
    BatchInvariant => c"XQKV_PROJECTION_FLAG_BATCH_INVARIANT",
    ShareReplicas => c"XQKV_PROJECTION_FLAG_SHARE_REPLICAS",
});

/// What a rank holds of a spec. All zeros is the whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_projection_options {
    /// Set by xqkv_projection_options_init.
    pub struct_size: u32,
    /// An xqkv_split.
    pub split: i32,
    /// EVEN and QUERY: this rank, from 0. EXPLICIT: must be 0.
    pub rank: i64,
    /// EVEN and QUERY: how many ranks there are; 0 is 1. EXPLICIT: must be 0.
    pub rank_count: i64,
    /// EXPLICIT: the first head of Q.
    pub query_head_begin: i64,
    /// EXPLICIT: heads of Q; 0 is legal, and makes calls with decoder rows do nothing.
    pub query_head_count: i64,
    /// EXPLICIT: the first head of K and V.
    pub key_value_head_begin: i64,
    /// EXPLICIT: heads of K and V; 0 is legal, and makes calls with encoder rows do nothing.
    /// Unless one side has none, they include the head that each query head attends to.
    pub key_value_head_count: i64,
    /// The first layer of this rank, for ranks of a pipeline.
    pub layer_begin: i64,
    /// Layers of this rank; 0 is all from layer_begin on.
    pub layer_count: i64,
    /// The ranks' communicator, or NULL. With it, xqkv_projection_create and xqkv_update_commit are
    /// calls that all ranks make, and end on all of them alike; EVEN and QUERY must name the
    /// communicator's rank and rank_count, or leave both 0 to take them from it. The projection
    /// keeps what is behind the handle. Outputs sharded by head need none.
    pub comm: *const xqkv_comm,
    /// Values of xqkv_projection_flag, added up.
    pub flags: u64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_projection_options {
    const NAME: &'static str = "xqkv_projection_options";
}

/// What a projection handle stands for.
pub(super) struct Held {
    pub(super) projection: Projection,
    pub(super) log: Log,
}

/// Fills the options with zeros. `size` is sizeof(xqkv_projection_options).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_options_init(
    options: *mut xqkv_projection_options,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(options, size) })
}

/// Fills in an EXPLICIT split for a rank of any number of ranks: shares of heads that differ by at
/// most one, no head where ranks outnumber them, key/value heads replicated only then. Other
/// fields stay as they are. Where EVEN is possible the heads are the same as EVEN's. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
/// MISALIGNED, NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_options_balance(
    options: *mut xqkv_projection_options,
    spec: *const xqkv_spec,
    rank: i64,
    rank_count: i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or structs that begin with their size.
        let (spec, ()) = unsafe { (read_spec(spec)?, plain::check(options, "options")?) };
        let (query, key_value) = balanced(&spec, rank, rank_count)?;
        // SAFETY: checked above.
        let options = unsafe { &mut *options };
        options.split = SplitChoice::Explicit as i32;
        (options.rank, options.rank_count) = (0, 0);
        (options.query_head_begin, options.query_head_count) = (query.begin, query.count);
        options.key_value_head_begin = key_value.begin;
        options.key_value_head_count = key_value.count;
        Ok(())
    })
}

/// Makes a projection without weights; xqkv_update_begin loads them. `options` may be NULL for
/// the whole. `*projection` is written only on success, and is the caller's to destroy; context,
/// spec and options may go at once. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ENUM, INVALID_ARGUMENT,
/// SIZE_OVERFLOW, MISALIGNED, INDIVISIBLE_HEADS (the message names an explicit split that works),
/// LAYER_OUT_OF_RANGE, NOT_SUPPORTED, OUT_OF_MEMORY, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_create(
    context: *const xqkv_context,
    spec: *const xqkv_spec,
    options: *const xqkv_projection_options,
    projection: *mut *mut xqkv_projection,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let context = handle::get(context)?;
        boundary::report_to(&context.log);
        // SAFETY: NULL or structs that begin with their size.
        let (spec, options) = unsafe { (read_spec(spec), read_options(options)?) };
        ensure_pointer(projection, "projection")?;
        let made = make(&context, spec, options)?;
        let held = Held { projection: made, log: context.log.clone() };
        // SAFETY: not NULL and aligned.
        unsafe { *projection = handle::insert(Arc::new(held))? };
        Ok(())
    })
}

/// Gives a projection another communicator, or none for NULL: after one has failed, a new one makes
/// calls with transfers possible again. All ranks call it, with communicators of the same ranks as
/// before, and it ends on all of them alike. Weights, plans and their version stay; other calls may
/// run meanwhile, and those with transfers run to their end on the communicator that they began on.
/// Any thread.
///
/// Returns, with nothing changed: NULL_ARGUMENT, INVALID_HANDLE, INVALID_ARGUMENT, NOT_SUPPORTED,
/// MISMATCH, PEER_LOST, TIMED_OUT, COMM_POISONED, DEVICE_REFUSED, OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_set_comm(
    projection: *mut xqkv_projection,
    comm: *const xqkv_comm,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let (held, comm) = (handle::get(projection)?, comm::find(comm)?);
        held.projection.set_comm(comm)
    })
}

/// Unmakes a projection: the handle is invalid from here on. Never waits; a forward that runs on
/// another thread ends as if nothing had happened, and the weights go with the last one. NULL does
/// nothing. Any thread.
///
/// Returns: INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_destroy(
    projection: *mut xqkv_projection,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || handle::remove(projection))
}

/// Tells what this rank holds. `shard` must have been initialised. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_get_shard(
    projection: *const xqkv_projection,
    shard: *mut xqkv_shard,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(projection)?;
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { xqkv_shard::write(shard, held.projection.shard(), held.projection.spec()) }
    })
}

/// Tells which commit the weights come from: 0 before the first, then 1, 2, 3 and so on. Any
/// thread.
///
/// Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_get_weights_version(
    projection: *const xqkv_projection,
    weights_version: *mut i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(projection)?;
        ensure_pointer(weights_version, "weights_version")?;
        // SAFETY: not NULL and aligned.
        unsafe { *weights_version = held.projection.weights_version() as i64 };
        Ok(())
    })
}

/// Projects: Q from decoder rows if there are any, K and V from encoder rows if there are any, and
/// nothing else. See xqkv_forward for shapes. `stats` may be NULL; it is written only on success.
///
/// On the host the call is done when it returns; it uses the context's threads if they are free
/// and else the caller's own. A row's bits depend on that row, the weights and the instruction set
/// only: not on the batch it came in, the threads, the ranks or the layout. NaN and infinity
/// propagate as in f32 arithmetic. An output differs from the exact result by at most
///
///     g * (sum |x||w| + |b|) * |scale|, and half a unit in the last place of its dtype
///     g = n * 2^-24 / (1 - n * 2^-24), n = inner width + 2
///
/// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Adding to what is there
/// is one rounding of the sum to f32 more. Through a norm, let e[j] be that difference of a head's
/// lane y[j] before its scale, r its root mean square with norm_epsilon, and R the root mean square
/// of e: a result differs by at most
///
///     |scale * weight[j]| * (d + g(head_width + 8) * (|y[j]| / r + d)), and half a unit as above
///     d = (e[j] + |y[j]| * R / r) / max(r - R, sqrt(norm_epsilon))
///
/// and by |scale * weight[j]| half units in the last place of y[j] / r with norm_rounds_first.
///
/// On CUDA the call puts its work on `stream` and returns; rows and views must stay until that work
/// is done, and results are good behind it on the stream. Rows are of the weights' dtype, results
/// of that dtype or f32; sums are in f32. A bias is scaled and rounded to the results' dtype when
/// it is loaded, and each of these roundings adds half a unit in the last place of the bias to the
/// bound. With a plan the call makes one call of cublasLtMatmul for each product and one launch for
/// each kernel (docs/matmuls.md), two driver calls to have the context current, and one more for
/// each of wait_event and signal_event; it allocates, asks, waits for and locks nothing, so it may
/// be captured in a graph. Then pointers are not checked: a wrong one fails as any kernel's would.
/// Any thread.
///
/// Returns, with nothing written: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
/// INVALID_ENUM, INVALID_ARGUMENT (also indices out of range, on the host), SIZE_OVERFLOW,
/// INVALID_STRIDE, MISALIGNED, OVERLAP (also two rows in one place, on the host),
/// LAYER_OUT_OF_RANGE, NOT_READY (the message names the weights), WORKSPACE_TOO_SMALL (the message
/// names both sizes), NOT_SUPPORTED, PLAN_MISMATCH, PLAN_NEEDED, WRONG_MEMORY, DEVICE_REFUSED. With
/// the outputs undefined: DEVICE_FAILED, CALLBACK_FAILED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_projection_forward(
    projection: *const xqkv_projection,
    forward: *const xqkv_forward,
    stats: *mut xqkv_stats,
    error: *mut xqkv_error,
) -> Status {
    boundary::forward(error, |place| {
        let held: &Held = place.insert(handle::borrow(projection)?);
        // SAFETY: NULL or a struct that begins with its size, which the caller keeps as it is until
        // the call returns.
        let forward = unsafe { plain::borrow(forward, "forward") }?;
        if !stats.is_null() {
            // SAFETY: not NULL, and begins with its size.
            unsafe { plain::check(stats, "stats") }?;
        }
        let plan = borrow_plan(forward.plan)?;
        let briefly = match plan.as_deref() {
            // SAFETY: passed on.
            Some(plan) => unsafe { plan.forward(forward, held) }?,
            None => None,
        };
        let done = match briefly {
            Some(done) => done,
            // SAFETY: passed on.
            None => unsafe { forward_fully(forward, held, plan.as_deref()) }?,
        };
        if !stats.is_null() {
            // SAFETY: checked above.
            unsafe { *stats = xqkv_stats::new(&done) };
        }
        Ok(())
    })
}

/// Projects after all checks of the call, of which any may refuse it.
///
/// # Safety
/// As for xqkv_projection_forward.
#[inline(never)]
unsafe fn forward_fully(
    forward: &xqkv_forward,
    held: &Held,
    plan: Option<&Planned>,
) -> Result<Done, Error> {
    // Used where it lies, since moving it takes as long as half of its checks.
    // SAFETY: the caller promises that layer_data is as long as the call has layers.
    let call = unsafe { forward.resolve(&held.projection) };
    let call = call.as_ref().map_err(|error| forward.refused(&held.projection, error))?;
    // SAFETY: the caller promises that inputs and views are memory as described, and that nobody
    // else writes the inputs or touches the outputs meanwhile.
    unsafe { held.projection.forward(call, plan.map(|planned| &planned.plan)) }
}

/// A projection, or what is wrong with its spec and shard; ranks that wait for it are told.
fn make(
    context: &Context,
    spec: Result<Spec, Error>,
    options: Options,
) -> Result<Projection, Error> {
    let Options { split, layers, numerics, membership } = options;
    let backend = context.backend.clone();
    let cut = spec.and_then(|spec| {
        backend.ensure_weights(spec.weight_dtype)?;
        Shard::cut(&spec, split, layers).map(|shard| (spec, shard))
    });
    let (spec, shard) = cut.inspect_err(|error| {
        if let Some(comm) = &membership.comm {
            Projection::refuse(comm.clone(), &*backend, error);
        }
    })?;
    Projection::new(backend, spec, shard, numerics, membership)
}

/// The options in our own terms.
pub(super) struct Options {
    pub(super) split: Split,
    pub(super) layers: Range,
    pub(super) numerics: Numerics,
    pub(super) membership: Membership,
}

/// The caller's options, or the whole for NULL.
///
/// # Safety
/// `options` is NULL or points to a struct that begins with its size.
pub(super) unsafe fn read_options(
    options: *const xqkv_projection_options,
) -> Result<Options, Error> {
    if options.is_null() {
        let split = Split::Even { rank: 0, rank_count: 1 };
        let (layers, numerics, membership) = Default::default();
        return Ok(Options { split, layers, numerics, membership });
    }
    // SAFETY: passed on.
    let options = unsafe { plain::read(options, "options") }?;
    let (numerics, shares_replicas) = numerics(options.flags)?;
    let layers = Range { begin: options.layer_begin, count: options.layer_count };
    let membership = Membership { comm: comm::find(options.comm)?, shares_replicas };
    let split = seated(options.split()?, membership.comm.as_deref())?;
    ensure!(
        membership.comm.is_some() || !shares_replicas,
        InvalidArgument,
        "XQKV_PROJECTION_FLAG_SHARE_REPLICAS is set, and comm is NULL; ranks share by a \
         communicator"
    );
    Ok(Options { split, layers, numerics, membership })
}

/// A split that names no rank goes by the communicator's; one that does must name the same.
fn seated(split: Split, comm: Option<&Comm>) -> Result<Split, Error> {
    let Some(seat) = comm.map(Comm::seat) else { return Ok(split) };
    let (own, count) = (seat.rank as i64, seat.rank_count as i64);
    let check = |rank: i64, rank_count: i64| {
        ensure!(
            (rank, rank_count) == (own, count) || (rank, rank_count) == (0, 1),
            InvalidArgument,
            "rank is {rank} of {rank_count}, and the communicator's is {own} of {count}; name the \
             same, or leave both 0"
        );
        Ok(())
    };
    match split {
        Split::Even { rank, rank_count } => {
            check(rank, rank_count).map(|()| Split::Even { rank: own, rank_count: count })
        }
        Split::Query { rank, rank_count } => {
            check(rank, rank_count).map(|()| Split::Query { rank: own, rank_count: count })
        }
        Split::Explicit { .. } => Ok(split),
    }
}

fn numerics(flags: u64) -> Result<(Numerics, bool), Error> {
    let known: u64 = ProjectionFlag::ALL.iter().map(|&flag| flag as u64).sum();
    ensure!(
        flags & !known == 0,
        InvalidArgument,
        "flags is {flags}; use 0, or add up values of xqkv_projection_flag (at most {known})"
    );
    let has = |flag: ProjectionFlag| flags & flag as u64 != 0;
    let numerics = Numerics {
        tensor_float: has(ProjectionFlag::TensorFloat),
        batch_invariant: has(ProjectionFlag::BatchInvariant),
    };
    Ok((numerics, has(ProjectionFlag::ShareReplicas)))
}

impl xqkv_projection_options {
    fn split(&self) -> Result<Split, Error> {
        let choice = SplitChoice::from_integer(self.split, "split")?;
        let query = Range { begin: self.query_head_begin, count: self.query_head_count };
        let key_value =
            Range { begin: self.key_value_head_begin, count: self.key_value_head_count };
        let (rank, rank_count) =
            (self.rank, if self.rank_count == 0 { 1 } else { self.rank_count });
        let is_explicit = choice == SplitChoice::Explicit;
        ensure!(
            is_explicit || (query, key_value) == Default::default(),
            InvalidArgument,
            "heads are named, but split is {}; use XQKV_SPLIT_EXPLICIT, or leave them 0",
            choice.name()
        );
        ensure!(
            !is_explicit || (self.rank, self.rank_count) == (0, 0),
            InvalidArgument,
            "rank {} and rank_count {} are set, but XQKV_SPLIT_EXPLICIT goes by heads; leave \
             them 0",
            self.rank,
            self.rank_count
        );
        Ok(match choice {
            SplitChoice::Even => Split::Even { rank, rank_count },
            SplitChoice::Explicit => Split::Explicit { query, key_value },
            SplitChoice::Query => Split::Query { rank, rank_count },
        })
    }
}

impl AsRef<Log> for Borrowed<xqkv_projection> {
    fn as_ref(&self) -> &Log {
        &self.log
    }
}

impl Held {
    /// Tells the log of a new version of the weights.
    pub(super) fn log_commit(&self, version: u64) {
        self.log.write(Level::Info, &format!("projection: weights version {version} committed"));
    }
}
