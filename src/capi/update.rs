//! `xqkv_update`: a weight transaction.

use super::boundary;
use super::checkpoint::xqkv_checkpoint;
use super::error::xqkv_error;
use super::handle;
use super::plain::{self, ensure_pointer};
use super::projection::{self, xqkv_projection};
use super::tensor::xqkv_tensor;
use crate::error::{Error, Status, named_enum};
use crate::log::Level;
use crate::spec::Part;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::{Kind, Update};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A weight transaction: begin, put tensors or read a checkpoint, then commit or abandon. First
/// load and hot swap are the same thing. An opaque handle, unmade by commit or abandon.
///
/// One thread at a time fills it; calls from several are put one after the other. Any number may
/// be open on one projection: each commit replaces what it was given and keeps the rest.
pub struct xqkv_update {
    _private: (),
}

/// Which of the three projections a tensor belongs to.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartChoice {
    /// Wq or bq.
    Query = 1,
    /// Wk or bk.
    Key = 2,
    /// Wv or bv.
    Value = 3,
    /// Fused: the rows of Wk and of Wv; or bk and bv.
    KeyValue = 4,
    /// Fused: the rows of Wq, Wk and Wv; or bq, bk, bv. Decoder and encoder are equally wide then.
    QueryKeyValue = 5,
}

named_enum!(PartChoice {
    Query => c"XQKV_PART_QUERY",
    Key => c"XQKV_PART_KEY",
    Value => c"XQKV_PART_VALUE",
    KeyValue => c"XQKV_PART_KEY_VALUE",
    QueryKeyValue => c"XQKV_PART_QUERY_KEY_VALUE",
});

/// What a tensor is to its part.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindChoice {
    /// The matrix, [outputs, inputs] or as its layout says.
    Weight = 1,
    /// The bias, [outputs].
    Bias = 2,
    /// The weight of the norm of each head of Q or of K, [head_width]. All heads share it, so it is
    /// whole on every rank.
    Norm = 3,
}

named_enum!(KindChoice {
    Weight => c"XQKV_KIND_WEIGHT",
    Bias => c"XQKV_KIND_BIAS",
    Norm => c"XQKV_KIND_NORM",
});

/// What an update handle stands for.
pub(super) struct Held {
    projection: Arc<projection::Held>,
    /// Poisoned by a panic while it was being filled.
    update: Mutex<Update>,
}

impl Held {
    fn lock(&self) -> Result<MutexGuard<'_, Update>, Error> {
        self.update.lock().map_err(|_| {
            let message = "an earlier call on this update panicked; abandon it and begin anew";
            Error::new(Status::HandlePoisoned, message)
        })
    }

    /// Commits, and takes the handle out while no other thread can commit it again.
    fn commit(&self, handle: *mut xqkv_update) -> Result<u64, Error> {
        let update = self.lock()?;
        handle::get(handle.cast_const())?;
        let version = self.projection.projection.commit(&update)?;
        handle::remove(handle)?;
        self.projection.log_commit(version);
        Ok(version)
    }
}

/// Begins an update of a projection's weights. Forwards go on undisturbed until it is committed.
/// `*update` is written only on success, and is the caller's to commit or abandon. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_begin(
    projection: *const xqkv_projection,
    update: *mut *mut xqkv_update,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let projection = handle::get(projection)?;
        ensure_pointer(update, "update")?;
        let begun = Mutex::new(projection.projection.begin());
        let held = Held { projection, update: begun };
        // SAFETY: not NULL and aligned.
        unsafe { *update = handle::insert(Arc::new(held))? };
        Ok(())
    })
}

/// Puts one tensor of one layer into the update: `part` is an xqkv_part, `kind` an xqkv_kind.
/// Only this rank's elements are read of host memory, and copied before the call returns. Shapes:
/// a weight has `rows` outputs and `columns` inputs, a bias as many outputs, which are heads times
/// head width of the part, of the uncut layer or of this rank as `tensor->extent` says; a fused
/// part has the sum of its parts' outputs. How they lie is `tensor->layout` and, of a fused part,
/// `tensor->fused_order`. A norm has head_width `rows`, whatever the extent. Any thread.
///
/// Returns, with the update as it was: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
/// INVALID_ENUM, INVALID_ARGUMENT (a bias or a norm that the spec does not have, scales that the
/// dtype does not have or lacks, an element that is not finite and is to become an integer),
/// SIZE_OVERFLOW, INVALID_STRIDE, MISALIGNED, INVALID_SHAPE, INVALID_DTYPE, LAYER_OUT_OF_RANGE,
/// DUPLICATE_PART, NOT_SUPPORTED, OUT_OF_MEMORY, HANDLE_POISONED, WRONG_MEMORY, DEVICE_REFUSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_put(
    update: *mut xqkv_update,
    layer: i64,
    part: i32,
    kind: i32,
    tensor: *const xqkv_tensor,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(update.cast_const())?;
        boundary::report_to(&held.projection.log);
        let (parts, kind) = (parts(part)?, kind_of(kind)?);
        // SAFETY: NULL or a struct that begins with its size.
        let tensor = unsafe { plain::read(tensor, "tensor") }?;
        let (backend, mut fetched) = (held.projection.projection.backend(), Vec::new());
        // SAFETY: the caller's promise about the tensor's memory.
        let source = unsafe { tensor.source(kind, backend, &mut fetched) }?;
        held.lock()?.put(layer, parts, kind, &source)
    })
}

/// Makes the commit remove a tensor of one layer, instead of keeping it as it was. A forward that
/// needs it answers NOT_READY from then on. Any thread.
///
/// Returns, with the update as it was: NULL_ARGUMENT, INVALID_HANDLE, INVALID_ENUM,
/// INVALID_ARGUMENT, LAYER_OUT_OF_RANGE, DUPLICATE_PART, HANDLE_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_clear(
    update: *mut xqkv_update,
    layer: i64,
    part: i32,
    kind: i32,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(update.cast_const())?;
        let (parts, kind) = (parts(part)?, kind_of(kind)?);
        held.lock()?.clear(layer, parts, kind)
    })
}

/// Puts all of this rank's layers from a checkpoint into the update, reading this rank's bytes
/// and the files' headers only. The checkpoint must have each weight, bias and norm that the spec
/// has, in the spec's shape, and no bias that the spec lacks. A norm that the spec lacks is left to
/// the caller. Any thread.
///
/// Returns, with the update as it was: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
/// INVALID_ARGUMENT, MISALIGNED, INVALID_SHAPE, INVALID_DTYPE, LAYER_OUT_OF_RANGE, DUPLICATE_PART,
/// OUT_OF_MEMORY, HANDLE_POISONED, CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT,
/// CHECKPOINT_UNKNOWN_FAMILY, CHECKPOINT_MISSING_TENSOR, CHECKPOINT_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_read_checkpoint(
    update: *mut xqkv_update,
    checkpoint: *const xqkv_checkpoint,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(update.cast_const())?;
        let log = &held.projection.log;
        boundary::report_to(log);
        // SAFETY: NULL or a struct that begins with its size, with a terminated path.
        let source = unsafe { xqkv_checkpoint::read(checkpoint) }?;
        let opened = Checkpoint::open(source.location)?;
        let mut update = held.lock()?;
        let bytes = opened.load(&mut update, source.convert)?;
        log.write(Level::Info, &format!("update: {bytes} bytes of weights read from {opened}"));
        Ok(())
    })
}

/// Tells how many bytes a commit of the update as it is would take from the backend's memory: on
/// CUDA exactly what the allocate callback, or the driver, will be asked for in one piece; on the
/// host the packed matrices, biases and norms that are new. Weights that are borrowed take none.
/// Takes nothing. Any thread.
///
/// Returns: NULL_ARGUMENT, MISALIGNED, INVALID_HANDLE, SIZE_OVERFLOW, HANDLE_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_get_commit_bytes(
    update: *const xqkv_update,
    commit_bytes: *mut i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(update)?;
        ensure_pointer(commit_bytes, "commit_bytes")?;
        let bytes = held.projection.projection.commit_bytes(&*held.lock()?)?;
        // SAFETY: not NULL and aligned.
        unsafe { *commit_bytes = bytes as i64 };
        Ok(())
    })
}

/// Makes the update the projection's weights, all at once: forwards that begin later run on them,
/// forwards that are running end on the old ones. Parts that it was not given stay as they are,
/// and it may leave parts missing. `weights_version` may be NULL; it gets the new version's number.
/// On success the handle is invalid; on failure the update is as it was, to be committed again or
/// abandoned. Packs or uploads the weights, so it takes a while; forwards go on meanwhile.
///
/// On CUDA a commit takes one new piece of device memory for all weights that are not borrowed, and
/// copies on the device what it was not given; it waits for its own copies, so the new weights are
/// good on any stream when it returns. The old piece is retired: see xqkv_context_reclaim. Any
/// thread.
///
/// Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED, OUT_OF_MEMORY, HANDLE_POISONED,
/// NOT_SUPPORTED, DEVICE_REFUSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_commit(
    update: *mut xqkv_update,
    weights_version: *mut i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let held = handle::get(update.cast_const())?;
        boundary::report_to(&held.projection.log);
        if !weights_version.is_null() {
            ensure_pointer(weights_version, "weights_version")?;
        }
        let version = held.commit(update)?;
        if !weights_version.is_null() {
            // SAFETY: not NULL and aligned.
            unsafe { *weights_version = version as i64 };
        }
        Ok(())
    })
}

/// Drops the update and all that was put into it; the projection stays as it is. NULL does
/// nothing. Waits for a call that fills or commits the update on another thread; behind a commit
/// it answers INVALID_HANDLE. Any thread.
///
/// Returns: INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_update_abandon(
    update: *mut xqkv_update,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        if update.is_null() {
            return Ok(());
        }
        let held = handle::get(update.cast_const())?;
        // So that a commit on another thread never finds its handle gone: its weights are live.
        let _update = held.update.lock().unwrap_or_else(PoisonError::into_inner);
        handle::remove(update)
    })
}

fn parts(part: i32) -> Result<&'static [Part], Error> {
    Ok(match PartChoice::from_integer(part, "part")? {
        PartChoice::Query => &[Part::Query],
        PartChoice::Key => &[Part::Key],
        PartChoice::Value => &[Part::Value],
        PartChoice::KeyValue => &[Part::Key, Part::Value],
        PartChoice::QueryKeyValue => &Part::ALL,
    })
}

fn kind_of(kind: i32) -> Result<Kind, Error> {
    match KindChoice::from_integer(kind, "kind")? {
        KindChoice::Weight => Ok(Kind::Weight),
        KindChoice::Bias => Ok(Kind::Bias),
        KindChoice::Norm => Ok(Kind::Norm),
    }
}
