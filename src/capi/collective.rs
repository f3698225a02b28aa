//! The part of `xqkv_forward` that other ranks have to do with.

use super::forward::{ForwardFlag, xqkv_forward};
use crate::backend::WORKSPACE_ALIGNMENT;
use crate::comm::Seat;
use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use crate::projection::{Call, Collective, DecoderSide, EncoderSide, Phase, Projection, Sequence};
use crate::spec::Part;
use crate::view::{Rows, Shape, View};

impl xqkv_forward {
    /// Whether the call has transfers, or may have.
    #[inline(always)]
    pub(super) fn is_collective(&self, projection: &Projection) -> bool {
        self.flags != 0 || !self.encoder_rank_rows.is_null() || projection.shares_replicas()
    }

    /// The error of a call that is refused; ranks that wait for it are told.
    #[cold]
    pub(super) fn refused(&self, projection: &Projection, error: &Error) -> Error {
        if self.is_collective(projection) {
            projection.refuse_call(error);
        }
        error.clone()
    }

    /// The checked call, if it has transfers. A call that turns out to need none is as one without.
    ///
    /// # Safety
    /// As for `resolve`; `encoder_rank_rows` is NULL or has a number for each rank.
    pub(super) unsafe fn resolve_collective<'a>(
        &'a self,
        projection: &Projection,
    ) -> Result<Call<'a>, Error> {
        self.ensure_lane(projection.backend().info())?;
        let seat = projection.seat()?;
        projection.ensure_layers(self.layer, self.layer_count())?;
        // SAFETY: passed on.
        let sequence = unsafe { self.sequence(projection, seat) }?;
        let decoder = self.decoder.rows("decoder", projection.spec().decoder_width)?;
        let encoder = match &sequence {
            Some(sequence) => self.gathered(sequence, projection)?,
            None => self.encoder.rows("encoder", projection.spec().encoder_width)?,
        };
        self.ensure_sides(projection, decoder.is_some(), encoder.is_some())?;
        let count = |rows: &Option<Rows>| rows.as_ref().map_or(0, Rows::count);
        let has = |flag: ForwardFlag| self.flags & flag as u32 != 0;
        let collective = Collective {
            gathers_query: has(ForwardFlag::GatherQuery),
            gathers_key_value: has(ForwardFlag::GatherKeyValue),
            decoder_rows: count(&decoder),
            encoder_rows: count(&encoder),
            sequence,
            phase: self.phase()?,
        };
        let (layer, layer_count) = (self.layer, self.layer_count());
        // SAFETY: passed on.
        let (decoder, encoder) = unsafe {
            (
                self.decoder_views(projection, &collective, decoder)?,
                self.encoder_views(projection, &collective, encoder)?,
            )
        };
        let lane = self.lane();
        let is_collective = projection.has_transfers(&collective)?;
        let collective = is_collective.then_some(collective);
        Ok(Call { layer, layer_count, decoder, encoder, lane, collective })
    }

    fn phase(&self) -> Result<Phase, Error> {
        let has = |flag: ForwardFlag| self.flags & flag as u32 != 0;
        match (has(ForwardFlag::Start), has(ForwardFlag::Finish)) {
            (false, false) => Ok(Phase::Whole),
            (true, false) => Ok(Phase::Start),
            (false, true) => Ok(Phase::Finish),
            (true, true) => Err(Error::new(
                Status::InvalidArgument,
                "flags has XQKV_FORWARD_FLAG_START and _FINISH; make one call with each, or one \
                 with neither",
            )),
        }
    }

    /// Encoder rows that each rank has a part of.
    ///
    /// # Safety
    /// As for `resolve_collective`.
    unsafe fn sequence(
        &self,
        projection: &Projection,
        seat: Seat,
    ) -> Result<Option<Sequence<'_>>, Error> {
        if self.encoder_rank_rows.is_null() {
            ensure!(
                self.chunk_rows == 0,
                InvalidArgument,
                "chunk_rows is {}, and encoder_rank_rows is NULL; without it chunk_rows is 0",
                self.chunk_rows
            );
            return Ok(None);
        }
        ensure!(
            self.encoder_rank_rows.is_aligned(),
            Misaligned,
            "encoder_rank_rows is {:p}, not a multiple of the 8 bytes of its integers",
            self.encoder_rank_rows
        );
        let (rank, width) = (seat.rank, projection.spec().encoder_width);
        // SAFETY: the caller's promise.
        let rank_rows =
            unsafe { std::slice::from_raw_parts(self.encoder_rank_rows, seat.rank_count) };
        let dtype = Dtype::from_integer(self.encoder.dtype, "encoder.dtype")?;
        let own = self.encoder.rows("encoder", width)?;
        let row_bytes = width as usize * dtype.bytes();
        let chunk_rows = self.chunk_rows;
        let sequence = Sequence { rank_rows, own, dtype, row_bytes, chunk_rows };
        sequence.check(rank, width)?;
        Ok(Some(sequence))
    }

    /// Where the rows of all ranks come together: at the workspace's beginning.
    fn gathered(
        &self,
        sequence: &Sequence<'_>,
        projection: &Projection,
    ) -> Result<Option<Rows>, Error> {
        let count = sequence.row_count();
        if count == 0 {
            return Ok(None);
        }
        // An example for a plan has no workspace.
        let address = (self.workspace as usize).max(WORKSPACE_ALIGNMENT);
        let width = projection.spec().encoder_width;
        Rows::new("workspace", address, sequence.dtype, count, width, 0, None).map(Some)
    }

    /// # Safety
    /// As for `resolve_collective`.
    unsafe fn decoder_views<'a>(
        &'a self,
        projection: &Projection,
        collective: &Collective<'_>,
        rows: Option<Rows>,
    ) -> Result<Option<DecoderSide<'a>>, Error> {
        let heads = heads(projection, Part::Query, collective.gathers_query);
        let Some(rows) = rows.filter(|_| heads > 0) else { return Ok(None) };
        // SAFETY: passed on.
        let query = unsafe { self.view_of(projection, Part::Query, rows.count(), heads) }?;
        Ok(Some(DecoderSide { rows, query }))
    }

    /// # Safety
    /// As for `resolve_collective`.
    unsafe fn encoder_views<'a>(
        &'a self,
        projection: &Projection,
        collective: &Collective<'_>,
        rows: Option<Rows>,
    ) -> Result<Option<EncoderSide<'a>>, Error> {
        let heads = heads(projection, Part::Key, collective.gathers_key_value);
        let Some(rows) = rows.filter(|_| heads > 0) else { return Ok(None) };
        // SAFETY: passed on.
        let view = |part| unsafe { self.view_of(projection, part, rows.count(), heads) };
        let (key, value) = (view(Part::Key)?, view(Part::Value)?);
        Ok(Some(EncoderSide { rows, key, value }))
    }

    /// # Safety
    /// As for `resolve_collective`.
    unsafe fn view_of<'a>(
        &'a self,
        projection: &Projection,
        part: Part,
        rows: i64,
        heads: i64,
    ) -> Result<View<'a>, Error> {
        let (layers, width) = (self.layer_count(), projection.spec().width(part));
        // SAFETY: passed on.
        unsafe { self.target(part).resolve(part.name(), Shape { layers, rows, heads, width }) }
    }
}

/// Heads that a part's view has.
fn heads(projection: &Projection, part: Part, is_gathered: bool) -> i64 {
    if is_gathered { projection.spec().heads(part) } else { projection.shard().heads(part).count }
}
