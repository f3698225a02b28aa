//! `xqkv_plan`: everything slow done up front for one shape of call.

use super::boundary;
use super::brief::Planned;
use super::error::xqkv_error;
use super::forward::xqkv_forward;
use super::handle::{self, Borrowed};
use super::plain::{self, Plain, ensure_pointer};
use super::projection::xqkv_projection;
use crate::backend::{PlanOptions, WORKSPACE_ALIGNMENT};
use crate::error::{Error, Status, ensure, named_enum};
use std::sync::Arc;

/// Everything slow done up front for one shape of call: on CUDA algorithms chosen and descriptors
/// made; on the host nothing slow is left, and a plan only holds calls to its shape. An opaque
/// handle, made by xqkv_plan_create and unmade by xqkv_plan_destroy.
///
/// Immutable: any number of threads and streams may use it at once. It serves its projection's
/// calls with the same layer_count, dtypes, strides and sides (or one of its sides), any layer, and
/// at most as many rows of each side. Weights may be committed meanwhile; only borrowing them from
/// elsewhere makes it unusable (PLAN_MISMATCH).
pub struct xqkv_plan {
    _private: (),
}

/// How a plan chooses.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanFlag {
    /// CUDA: run the algorithms that cuBLASLt offers, each a few times, and take the fastest
    /// instead of its first choice. Takes scratch memory from the context's allocator for inputs,
    /// results and workspace, launches on a stream of the library's own and waits for it; not while
    /// a capture is going on in the calling thread.
    Timed = 1,
}

named_enum!(PlanFlag {
    Timed => c"XQKV_PLAN_FLAG_TIMED",
});

/// How a plan is made. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_plan_options {
    /// Set by xqkv_plan_options_init.
    pub struct_size: u32,
    /// Values of xqkv_plan_flag.
    pub flags: u32,
    /// Bytes that every `data` pointer of every call will be a multiple of: a power of two up to
    /// 256; 0 is 16, which is all that vector loads ask for. A smaller one is for rows that begin
    /// anywhere; a call that breaks the promise is PLAN_MISMATCH.
    pub alignment_bytes: i64,
    /// CUDA: most workspace that calls will lend; 0 is what NVIDIA recommends for the device (32
    /// MiB on Hopper, 4 MiB before), -1 is none.
    pub workspace_limit: i64,
}

/// The workspace of a plan's calls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_workspace {
    /// Set by xqkv_workspace_init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Bytes without which a call is WORKSPACE_TOO_SMALL. On the host 0 without slots; on CUDA 0
    /// where matmuls write the views and read the rows (docs/matmuls.md).
    pub minimum_bytes: i64,
    /// Bytes with which calls are fastest; less is used as far as it goes. Never less for a plan of
    /// more rows.
    pub recommended_bytes: i64,
    /// What its address must be a multiple of.
    pub alignment_bytes: i64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_plan_options {
    const NAME: &'static str = "xqkv_plan_options";
}

// SAFETY: as above.
unsafe impl Plain for xqkv_workspace {
    const NAME: &'static str = "xqkv_workspace";
}

/// Fills the options with zeros. `size` is sizeof(xqkv_plan_options).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_plan_options_init(
    options: *mut xqkv_plan_options,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(options, size) })
}

/// Prepares the workspace's sizes to be filled in. `size` is sizeof(xqkv_workspace).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_workspace_init(
    workspace: *mut xqkv_workspace,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(workspace, size) })
}

/// Makes a plan for calls like `example`: its layer_count, the dtypes and strides of its inputs and
/// views, and its row counts, which become the most that a call may have. Data pointers only tell
/// which sides there are and how key and value lie to each other: both in one buffer, or value
/// somewhere behind key, or before it. They are not read, and nothing is written. `options` may be
/// NULL. Needs the weights of the example's layer to be loaded. `*plan` is written only on success,
/// and is the caller's to destroy. Allocates and asks the device's libraries; not for a thread that
/// must not wait. Launches nothing, unless timed. Any thread.
///
/// Returns: what xqkv_projection_forward refuses, and NULL_ARGUMENT, INVALID_ARGUMENT (options),
/// MISALIGNED, NOT_SUPPORTED (no algorithm for such a call), DEVICE_REFUSED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_plan_create(
    projection: *const xqkv_projection,
    example: *const xqkv_forward,
    options: *const xqkv_plan_options,
    plan: *mut *mut xqkv_plan,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(projection)?;
        boundary::report_to(&held.log);
        // SAFETY: NULL or structs that begin with their size.
        let (example, options) =
            unsafe { (plain::read(example, "example")?, read_options(options)?) };
        ensure_pointer(plan, "plan")?;
        // SAFETY: the caller promises that layer_data is as long as the call has layers.
        let call = unsafe { example.resolve(&held.projection) }?;
        let made = held.projection.plan(&call, &options)?;
        let made = Planned::new(made, &example, &held.projection);
        // SAFETY: not NULL and aligned.
        unsafe { *plan = handle::insert(Arc::new(made))? };
        Ok(())
    })
}

/// Unmakes a plan: the handle is invalid from here on. Never waits; calls that run by it end as if
/// nothing had happened, and graphs that captured them stay good. NULL does nothing. Any thread.
///
/// Returns: INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_plan_destroy(plan: *mut xqkv_plan, error: *mut xqkv_error) -> Status {
    boundary::call(error, || handle::remove(plan))
}

/// Tells what workspace the plan's calls take. `workspace` must have been initialised. Lend each
/// call memory of the device's in `xqkv_forward.workspace`: one for each stream that runs at the
/// same time, for as long as graphs live that captured it. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED, INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_plan_get_workspace(
    plan: *const xqkv_plan,
    workspace: *mut xqkv_workspace,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let plan = &handle::get(plan)?.plan;
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { plain::check(workspace, "workspace") }?;
        // SAFETY: just checked.
        let workspace = unsafe { &mut *workspace };
        workspace.minimum_bytes = plan.minimum_bytes() as i64;
        workspace.recommended_bytes = plan.workspace_bytes() as i64;
        workspace.alignment_bytes = WORKSPACE_ALIGNMENT as i64;
        Ok(())
    })
}

/// The caller's options, or the defaults for NULL.
///
/// # Safety
/// `options` is NULL or points to a struct that begins with its size.
unsafe fn read_options(options: *const xqkv_plan_options) -> Result<PlanOptions, Error> {
    if options.is_null() {
        let (workspace_limit, alignment, is_timed) = (None, DEFAULT_ALIGNMENT, false);
        return Ok(PlanOptions { workspace_limit, alignment, is_timed });
    }
    // SAFETY: passed on.
    let options = unsafe { plain::read(options, "options") }?;
    let known = PlanFlag::Timed as u32;
    ensure!(
        options.flags & !known == 0,
        InvalidArgument,
        "flags is {}; use 0, or values of xqkv_plan_flag (at most {known})",
        options.flags
    );
    ensure!(
        options.workspace_limit >= -1,
        InvalidArgument,
        "workspace_limit is {}; use bytes, 0 for the default, or -1 for none",
        options.workspace_limit
    );
    let workspace_limit = match options.workspace_limit {
        0 => None,
        limit => Some(limit.max(0) as usize),
    };
    let is_timed = options.flags & PlanFlag::Timed as u32 != 0;
    Ok(PlanOptions { workspace_limit, alignment: alignment(options.alignment_bytes)?, is_timed })
}

const DEFAULT_ALIGNMENT: usize = 16;

fn alignment(bytes: i64) -> Result<usize, Error> {
    ensure!(
        (0..=256).contains(&bytes) && (bytes == 0 || (bytes as usize).is_power_of_two()),
        InvalidArgument,
        "alignment_bytes is {bytes}; use a power of two up to 256, or 0 for {DEFAULT_ALIGNMENT}"
    );
    Ok(if bytes == 0 { DEFAULT_ALIGNMENT } else { bytes as usize })
}

/// A plan of the caller's, or None for NULL.
pub(super) fn borrow_plan(plan: *const xqkv_plan) -> Result<Option<Borrowed<xqkv_plan>>, Error> {
    if plan.is_null() { Ok(None) } else { handle::borrow(plan).map(Some) }
}
