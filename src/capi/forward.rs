//! `xqkv_forward`: one call.

use super::boundary;
use super::input::xqkv_input;
use super::plain::{self, Plain};
use super::plan::xqkv_plan;
use super::view::xqkv_view;
use crate::backend::{Info, Lane, WORKSPACE_ALIGNMENT};
use crate::error::{Error, Status, ensure, named_enum};
use crate::projection::{Call, DecoderSide, EncoderSide, Projection};
use crate::spec::Part;
use crate::view::{Rows, Shape, View};
use std::ffi::c_void;

/// One call: what to project, and where to. Three calls fall out of the two inputs.
///
///     decode step            decoder rows, no encoder       runs Q
///     prefill, mixed batch   decoder rows, encoder rows     runs Q, and K and V
///     cache fill             no decoder, encoder rows       runs K and V, of one or many layers
///
/// Rows of the two sides are independent: many decode rows and a few new encoder sequences may
/// come in one call, and with beams Q has more rows than K and V need. An input that is absent
/// needs no view. Nothing is kept: inputs, outputs and the struct itself are the caller's, and
/// must stay until the call returns (host) or its work on the stream is done (CUDA).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_forward {
    /// Set by xqkv_forward_init.
    pub struct_size: u32,
    /// Values of xqkv_forward_flag, added up.
    pub flags: u32,
    /// The first layer, numbered as in xqkv_spec, of the uncut model also under a pipeline split.
    pub layer: i64,
    /// Layers to run on the same encoder rows; 0 is 1. More than 1 only without decoder rows,
    /// since each layer's decoder rows are its own.
    pub layer_count: i64,
    /// The decoder's hidden states, [rows, decoder_width].
    pub decoder: xqkv_input,
    /// The encoder's hidden states, [rows, encoder_width]. Absent on a decode step.
    pub encoder: xqkv_input,
    /// Where Q goes: [decoder rows, this rank's query heads, head_width].
    pub query: xqkv_view,
    /// Where K goes: [layers, encoder rows, this rank's key/value heads, head_width].
    pub key: xqkv_view,
    /// Where V goes: [layers, encoder rows, this rank's key/value heads, value_head_width].
    pub value: xqkv_view,
    /// CUDA: the CUstream to run on; NULL is the default stream. Host: must be NULL, since the
    /// call is done when it returns.
    pub stream: *mut c_void,
    /// Scratch memory of the context's device, at a multiple of 256 bytes, one for each concurrent
    /// call. xqkv_plan_get_workspace tells how much is needed and how much is of use; NULL is none.
    pub workspace: *mut c_void,
    /// Bytes at `workspace`.
    pub workspace_bytes: i64,
    /// A plan made for this shape of call, or NULL: then one is looked up or made, which may lock
    /// and allocate, and on CUDA pointers and the stream are checked as well.
    pub plan: *const xqkv_plan,
    /// CUDA: a CUevent to wait for first. Host: must be NULL.
    pub wait_event: *mut c_void,
    /// CUDA: a CUevent to record last. Host: must be NULL.
    pub signal_event: *mut c_void,
    /// How many encoder rows each rank has, one number for each rank of the projection's
    /// communicator, or NULL: then every rank has all of them. With it, `encoder` has this rank's
    /// rows only (none is legal, with `data` NULL), and K and V are of all ranks' rows in the order
    /// of ranks: key and value have as many rows as the sum. The same on all ranks.
    pub encoder_rank_rows: *const i64,
    /// With encoder_rank_rows: most rows that are sent in one transfer, so that products of earlier
    /// ones run beside it; 0 leaves it to the library. The same on all ranks.
    pub chunk_rows: i64,
}

/// What a call does with other ranks. Each needs a communicator, the same on all ranks; a call
/// without them, without encoder_rank_rows and without shared replicas has no transfers.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardFlag {
    /// Every rank gets Q of all query heads: query is [decoder rows, the spec's query heads,
    /// head_width], in the uncut layer's order.
    GatherQuery = 1,
    /// Every rank gets K and V of all key/value heads: key and value have the spec's key/value
    /// heads, in the uncut layer's order. A head that several ranks hold is projected by one.
    GatherKeyValue = 2,
    /// CUDA, for engines of which one thread drives several devices: within its own ncclGroupStart
    /// and ncclGroupEnd it makes each rank's call with this flag, which runs the products whose
    /// results are moved and asks for the transfers; and behind the group's end the same call again
    /// with FINISH. Ranks are not held against each other. A call that both gathers encoder rows
    /// and moves results cannot be halved.
    Start = 4,
    /// The rest of a call that was begun with START, with the same inputs, views and workspace.
    Finish = 8,
}

named_enum!(ForwardFlag {
    GatherQuery => c"XQKV_FORWARD_FLAG_GATHER_QUERY",
    GatherKeyValue => c"XQKV_FORWARD_FLAG_GATHER_KEY_VALUE",
    Start => c"XQKV_FORWARD_FLAG_START",
    Finish => c"XQKV_FORWARD_FLAG_FINISH",
});

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_forward {
    const NAME: &'static str = "xqkv_forward";
}

/// Fills the call with zeros: both inputs absent. `size` is sizeof(xqkv_forward).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_forward_init(forward: *mut xqkv_forward, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(forward, size) })
}

impl xqkv_forward {
    /// The checked call. Here, once, a NULL encoder becomes None.
    ///
    /// # Safety
    /// Where a view's `layer_data` is not NULL, it points to a pointer for each layer of the call.
    #[inline(always)]
    pub(super) unsafe fn resolve<'a>(&'a self, projection: &Projection) -> Result<Call<'a>, Error> {
        if self.is_collective(projection) {
            // SAFETY: passed on.
            return unsafe { self.resolve_collective(projection) };
        }
        self.ensure_lane(projection.backend().info())?;
        let spec = projection.spec();
        let decoder = self.decoder.rows("decoder", spec.decoder_width)?;
        let encoder = self.encoder.rows("encoder", spec.encoder_width)?;
        self.ensure_sides(projection, decoder.is_some(), encoder.is_some())?;
        projection.ensure_layers(self.layer, self.layer_count())?;
        Ok(Call {
            layer: self.layer,
            layer_count: self.layer_count(),
            decoder: match decoder {
                // SAFETY: passed on.
                Some(rows) => unsafe { self.decoder_side(projection, rows) }?,
                None => None,
            },
            encoder: match encoder {
                // SAFETY: passed on.
                Some(rows) => unsafe { self.encoder_side(projection, rows) }?,
                None => None,
            },
            lane: self.lane(),
            collective: None,
        })
    }

    pub(super) fn layer_count(&self) -> i64 {
        if self.layer_count == 0 { 1 } else { self.layer_count }
    }

    /// # Safety
    /// As for `resolve`.
    #[inline(always)]
    unsafe fn decoder_side<'a>(
        &'a self,
        projection: &Projection,
        rows: Rows,
    ) -> Result<Option<DecoderSide<'a>>, Error> {
        if projection.shard().query_heads.count == 0 {
            return Ok(None);
        }
        // SAFETY: passed on.
        let query = unsafe { self.view(projection, Part::Query, rows.count()) }?;
        Ok(Some(DecoderSide { rows, query }))
    }

    /// # Safety
    /// As for `resolve`.
    #[inline(always)]
    unsafe fn encoder_side<'a>(
        &'a self,
        projection: &Projection,
        rows: Rows,
    ) -> Result<Option<EncoderSide<'a>>, Error> {
        if projection.shard().key_value_heads.count == 0 {
            return Ok(None);
        }
        // SAFETY: passed on.
        let key = unsafe { self.view(projection, Part::Key, rows.count()) }?;
        // SAFETY: passed on.
        let value = unsafe { self.view(projection, Part::Value, rows.count()) }?;
        Ok(Some(EncoderSide { rows, key, value }))
    }

    /// # Safety
    /// As for `resolve`.
    #[inline(always)]
    unsafe fn view<'a>(
        &'a self,
        projection: &Projection,
        part: Part,
        rows: i64,
    ) -> Result<View<'a>, Error> {
        let heads = projection.shard().heads(part).count;
        let shape =
            Shape { layers: self.layer_count(), rows, heads, width: projection.spec().width(part) };
        // SAFETY: passed on.
        unsafe { self.target(part).resolve(part.name(), shape) }
    }

    /// Where a part goes, in the caller's words.
    #[inline(always)]
    pub(super) fn target(&self, part: Part) -> &xqkv_view {
        match part {
            Part::Query => &self.query,
            Part::Key => &self.key,
            Part::Value => &self.value,
        }
    }

    /// Refuses inputs that are both absent, or that the spec has no projection for.
    pub(super) fn ensure_sides(
        &self,
        projection: &Projection,
        decoder: bool,
        encoder: bool,
    ) -> Result<(), Error> {
        let spec = projection.spec();
        ensure!(
            decoder || encoder,
            InvalidArgument,
            "decoder and encoder are both absent (data NULL, or 0 rows); give one of them"
        );
        ensure!(
            !decoder || spec.query_heads > 0,
            InvalidArgument,
            "decoder rows were given, but the spec has no query heads; leave the decoder absent"
        );
        ensure!(
            !encoder || spec.key_value_heads > 0,
            InvalidArgument,
            "encoder rows were given, but the spec has no key/value heads; leave the encoder absent"
        );
        ensure!(
            !decoder || self.layer_count() == 1,
            InvalidArgument,
            "layer_count is {} with decoder rows, which belong to one layer; use 1",
            self.layer_count()
        );
        Ok(())
    }

    pub(super) fn lane(&self) -> Lane {
        Lane {
            stream: self.stream as usize,
            wait_event: self.wait_event as usize,
            signal_event: self.signal_event as usize,
            workspace: self.workspace as usize,
            workspace_bytes: if self.workspace.is_null() {
                0
            } else {
                self.workspace_bytes as usize
            },
        }
    }

    /// Refuses what the backend has no use for.
    pub(super) fn ensure_lane(&self, info: Info) -> Result<(), Error> {
        let is_host = matches!(info, Info::Host { .. });
        for (given, name) in [
            (!self.stream.is_null(), "stream"),
            (!self.wait_event.is_null(), "wait_event"),
            (!self.signal_event.is_null(), "signal_event"),
        ] {
            ensure!(
                !given || !is_host,
                NotSupported,
                "{name} is not NULL; the host backend has none, pass NULL"
            );
        }
        let known: u32 = ForwardFlag::ALL.iter().map(|&flag| flag as u32).sum();
        ensure!(
            self.flags & !known == 0,
            InvalidArgument,
            "flags is {}; use 0, or add up values of xqkv_forward_flag (at most {known})",
            self.flags
        );
        ensure!(
            self.chunk_rows >= 0,
            InvalidArgument,
            "chunk_rows is {}; use rows, or 0 to leave it to the library",
            self.chunk_rows
        );
        ensure!(
            self.workspace_bytes >= 0,
            InvalidArgument,
            "workspace_bytes is {}; it must not be negative",
            self.workspace_bytes
        );
        ensure!(
            (self.workspace as usize).is_multiple_of(WORKSPACE_ALIGNMENT),
            Misaligned,
            "workspace is {:p}, not a multiple of {WORKSPACE_ALIGNMENT}",
            self.workspace
        );
        Ok(())
    }
}
