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

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};
    use std::ops::Range;

    fn bytes<T>(at: usize) -> Range<usize> {
        at..at + size_of::<T>()
    }

    /// A call with both sides: at aligned addresses, and with zeros for all else.
    fn example() -> xqkv_forward {
        // SAFETY: zero is a value of every field.
        let mut call: xqkv_forward = unsafe { std::mem::zeroed() };
        for (number, input) in [&mut call.decoder, &mut call.encoder].into_iter().enumerate() {
            (input.data, input.rows) = ((4096 * (number + 1)) as *const _, 8);
        }
        let views = [&mut call.query, &mut call.key, &mut call.value];
        for (number, view) in views.into_iter().enumerate() {
            view.data = (65536 * (number + 1)) as *mut _;
        }
        call
    }

    #[test]
    fn a_call_that_differs_in_any_byte_but_of_addresses_rows_layer_and_lane_goes_the_full_way() {
        type Call = xqkv_forward;
        let free: [Range<usize>; 15] = [
            bytes::<u32>(offset_of!(Call, struct_size)),
            bytes::<i64>(offset_of!(Call, layer)),
            bytes::<usize>(offset_of!(Call, decoder.data)),
            bytes::<i64>(offset_of!(Call, decoder.rows)),
            bytes::<usize>(offset_of!(Call, encoder.data)),
            bytes::<i64>(offset_of!(Call, encoder.rows)),
            bytes::<usize>(offset_of!(Call, query.data)),
            bytes::<usize>(offset_of!(Call, key.data)),
            bytes::<usize>(offset_of!(Call, value.data)),
            bytes::<usize>(offset_of!(Call, stream)),
            // All but the byte that is 0 at multiples of 256.
            offset_of!(Call, workspace) + 1..offset_of!(Call, workspace_bytes),
            bytes::<i64>(offset_of!(Call, workspace_bytes)),
            bytes::<usize>(offset_of!(Call, plan)),
            bytes::<usize>(offset_of!(Call, wait_event)),
            bytes::<usize>(offset_of!(Call, signal_event)),
        ];
        for at in 0..size_of::<Call>() {
            let mut call = example();
            // SAFETY: a byte of the struct, of which every value is one.
            unsafe { *(&raw mut call).cast::<u8>().add(at) ^= 1 };
            let is_free = free.iter().any(|field| field.contains(&at));
            assert_eq!(brief(&call, &example()).is_some(), is_free, "byte {at}");
        }
    }

    #[test]
    fn a_side_that_is_absent_may_hold_anything() {
        let mut call = example();
        (call.encoder.data, call.encoder.dtype, call.key.accumulate) = (std::ptr::null(), 77, 77);
        let made = brief(&call, &example()).unwrap();
        assert!(made.sides[0].is_some() && made.sides[1].is_none());
    }

    #[test]
    fn negative_rows_and_negative_workspace_go_the_full_way() {
        let (mut rows, mut workspace) = (example(), example());
        (rows.encoder.rows, workspace.workspace_bytes) = (-1, -1);
        assert!(brief(&rows, &example()).is_none() && brief(&workspace, &example()).is_none());
    }
}
