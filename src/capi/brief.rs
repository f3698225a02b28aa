//! Whether a call has the fields that its plan was made for, so that its addresses, rows and layer
//! are all that is left to check.

use super::forward::xqkv_forward;
use super::input::xqkv_input;
use super::projection::Held;
use super::view::xqkv_view;
use crate::backend::{BriefSide, WORKSPACE_ALIGNMENT};
use crate::error::Error;
use crate::projection::{BriefCall, Done, Plan, Projection};

/// A plan of the caller's, and the call that it was made for.
pub struct Planned {
    pub(super) plan: Plan,
    /// None where other ranks take part.
    example: Option<xqkv_forward>,
}

// SAFETY: the example's pointers are compared and never followed.
unsafe impl Send for Planned {}
// SAFETY: as above.
unsafe impl Sync for Planned {}

impl Planned {
    pub(super) fn new(plan: Plan, example: &xqkv_forward, projection: &Projection) -> Self {
        let example = (!example.is_collective(projection)).then_some(*example);
        Self { plan, example }
    }

    /// Projects if no more than addresses, rows and layer are other than in the plan's example;
    /// None has done nothing.
    ///
    /// # Safety
    /// As for xqkv_projection_forward.
    #[inline(always)]
    pub(super) unsafe fn forward(
        &self,
        forward: &xqkv_forward,
        held: &Held,
    ) -> Result<Option<Done>, Error> {
        let Some(call) = self.example.as_ref().and_then(|example| brief(forward, example)) else {
            return Ok(None);
        };
        // SAFETY: the caller's promise; all other fields are the example's.
        unsafe {
            let full = || forward.resolve(&held.projection);
            held.projection.forward_briefly(&call, &self.plan, full)
        }
    }
}

#[inline(always)]
fn brief(forward: &xqkv_forward, example: &xqkv_forward) -> Option<BriefCall> {
    let has_workspace = (forward.workspace as usize).is_multiple_of(WORKSPACE_ALIGNMENT)
        && forward.workspace_bytes >= 0;
    let is_alike = forward.flags == example.flags
        && forward.layer_count == example.layer_count
        && forward.encoder_rank_rows == example.encoder_rank_rows
        && forward.chunk_rows == example.chunk_rows;
    if !is_alike || !has_workspace {
        return None;
    }
    let has = |input: &xqkv_input| !input.data.is_null() && input.rows != 0;
    let mut sides = [None; 2];
    if has(&forward.decoder) {
        let is_planned =
            forward.decoder.is_like(&example.decoder) && forward.query.is_like(&example.query);
        sides[0] = Some(side(&forward.decoder, [forward.query.data as usize, 0], is_planned)?);
    }
    if has(&forward.encoder) {
        let is_planned = forward.encoder.is_like(&example.encoder)
            && forward.key.is_like(&example.key)
            && forward.value.is_like(&example.value);
        let views = [forward.key.data as usize, forward.value.data as usize];
        sides[1] = Some(side(&forward.encoder, views, is_planned)?);
    }
    Some(BriefCall { layer: forward.layer, sides, lane: forward.lane() })
}

#[inline(always)]
fn side(input: &xqkv_input, views: [usize; 2], is_planned: bool) -> Option<BriefSide> {
    let row_count = usize::try_from(input.rows).ok()?;
    is_planned.then_some(BriefSide { row_count, rows: input.data as usize, views })
}

impl xqkv_input {
    /// Whether all but address and rows are the same.
    #[inline(always)]
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { data: self.data, rows: self.rows, ..*other }
    }
}

impl xqkv_view {
    /// Whether all but the address is the same.
    #[inline(always)]
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { data: self.data, ..*other }
    }
}
