//! The short way of a call by a plan: when all its fields but addresses, rows and layer are known
//! to be those that the plan was made for, only these are left to check. It accepts nothing that
//! the full checks refuse, and refuses nothing: what it does not accept goes through them.

use super::{Call, Done, Plan, Projection};
use crate::backend::{Brief, BriefSide, Lane, Weights};
use crate::comm::Moved;
use crate::error::Error;
use crate::view::{Rows, View};
use std::ops::Range;

/// A call of one layer that has the fields of its plan's example.
pub struct BriefCall {
    /// The layer.
    pub layer: i64,
    /// The decoder's side and the encoder's, as in a call.
    pub sides: [Option<BriefSide>; 2],
    /// Where a device's work is put.
    pub lane: Lane,
}

/// The memory of a plan's calls, as far as it follows from addresses and numbers of rows.
#[derive(Clone)]
pub(super) struct Outline {
    sides: [Option<SideOutline>; 2],
    /// Bits that no address has.
    misaligned: usize,
}

#[derive(Clone)]
struct SideOutline {
    most_rows: usize,
    rows: Extent,
    views: [Option<Extent>; 2],
}

/// One array of the most rows.
#[derive(Clone, Copy)]
struct Extent {
    /// Bytes from the first element to behind the last.
    span: usize,
    /// Bytes that each row less takes off.
    step: usize,
}

const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// What one side reads, and what it writes.
type Ranges = (Range<usize>, [Range<usize>; 2]);

impl Outline {
    /// Of calls like this one; None if they take more than an address for each array.
    pub(super) fn of(call: &Call<'_>, alignment: usize) -> Option<Self> {
        let is_plain = |view: &View<'_>| {
            view.has_layer_stride() && view.slots().is_none() && view.group_rows().is_none()
        };
        let is_listed = call.rows().any(|(_, _, rows)| rows.list().is_some());
        let is_plain = call.views().all(|(_, _, view)| is_plain(view)) && !is_listed;
        if !is_plain || call.layer_count != 1 || call.collective.is_some() {
            return None;
        }
        let element = |view: &View<'_>| view.dtype().bytes();
        let rows = call.rows().map(|(_, _, rows)| rows.dtype().bytes());
        let largest = call.views().map(|(_, _, view)| element(view)).chain(rows).max()?;
        let decoder = call.decoder.as_ref();
        let decoder = decoder.map(|side| SideOutline::of(&side.rows, [Some(&side.query), None]));
        let encoder = call.encoder.as_ref();
        let encoder =
            encoder.map(|side| SideOutline::of(&side.rows, [Some(&side.key), Some(&side.value)]));
        Some(Self { sides: [decoder, encoder], misaligned: alignment.max(largest) - 1 })
    }

    /// Whether the call has a side, all its sides are planned, its addresses are aligned, and what
    /// it writes is surely apart from all else.
    #[inline(always)]
    fn admits(&self, sides: &[Option<BriefSide>; 2]) -> bool {
        let range = |number: usize| match (&sides[number], &self.sides[number]) {
            (None, _) => Some((NOWHERE, [NOWHERE; 2])),
            (Some(side), Some(outline)) => outline.ranges(side, self.misaligned),
            (Some(_), None) => None,
        };
        let is_given = sides.iter().any(Option::is_some);
        let (Some((decoder, [query, _])), Some((encoder, [key, value])), true) =
            (range(0), range(1), is_given)
        else {
            return false;
        };
        let apart = |one: &Range<usize>, two: &Range<usize>| {
            (one.end <= two.start) | (two.end <= one.start)
        };
        let from_rows = |view| apart(view, &decoder) & apart(view, &encoder);
        let from_each_other = apart(&query, &key) & apart(&query, &value) & apart(&key, &value);
        from_rows(&query) & from_rows(&key) & from_rows(&value) & from_each_other
    }
}

impl SideOutline {
    fn of(rows: &Rows, views: [Option<&View<'_>>; 2]) -> Self {
        let bytes = |stride: i64, element: usize| stride as usize * element;
        let view = |view: &View<'_>| Extent {
            span: view.range().len(),
            step: bytes(view.strides().row, view.dtype().bytes()),
        };
        Self {
            most_rows: rows.count() as usize,
            rows: Extent {
                span: rows.range().len(),
                step: bytes(rows.row_stride(), rows.dtype().bytes()),
            },
            views: views.map(|given| given.map(view)),
        }
    }

    #[inline(always)]
    fn ranges(&self, side: &BriefSide, misaligned: usize) -> Option<Ranges> {
        let [first, second] = side.views;
        let bits = side.rows | first | second;
        if !(1..=self.most_rows).contains(&side.row_count) || bits & misaligned != 0 {
            return None;
        }
        let fewer = self.most_rows - side.row_count;
        let view = |part: usize| match &self.views[part] {
            Some(extent) => extent.range(side.views[part], fewer),
            None => Some(NOWHERE),
        };
        Some((self.rows.range(side.rows, fewer)?, [view(0)?, view(1)?]))
    }
}

impl Extent {
    /// From the first byte to behind the last; None for NULL, and beyond the address space.
    #[inline(always)]
    fn range(&self, address: usize, fewer: usize) -> Option<Range<usize>> {
        let end = address.checked_add(self.span - fewer * self.step)?;
        (address != 0).then_some(address..end)
    }
}

impl Projection {
    /// Projects by the short way, or gives None and has done nothing. `full` makes the same call
    /// with all its checks, which debug builds hold this way against.
    ///
    /// # Safety
    /// As for `forward`; the call's other fields are those that the plan was made for.
    pub unsafe fn forward_briefly<'a>(
        &self,
        call: &BriefCall,
        plan: &Plan,
        full: impl FnOnce() -> Result<Call<'a>, Error>,
    ) -> Result<Option<Done>, Error> {
        let is_planned = plan.owner == self.number && self.has_layers(call.layer, 1);
        let admits = |outline: &Outline| outline.admits(&call.sides);
        if !is_planned || !plan.outline.as_ref().is_some_and(admits) {
            return Ok(None);
        }
        let version = self.current.read();
        let Some(weights) = version.complete() else { return Ok(None) };
        let layer = (call.layer - self.shard.layers.begin) as usize;
        let (form, sides, lane) = (&self.form, &call.sides, &call.lane);
        let brief = Brief { form, weights, layer, sides, lane };
        // SAFETY: passed on; addresses and rows were checked, and all else was when it was planned.
        let counts = unsafe { self.backend.run_briefly(&plan.device, &brief) }?;
        debug_assert!(
            counts.is_none() || full().is_ok_and(|call| self.accepts(&call, plan, weights))
        );
        let (weights_version, moved) = (version.number, Moved::default());
        Ok(counts.map(|counts| Done { counts, weights_version, plans_made: 0, moved }))
    }

    /// Whether all checks of a call by a plan let it through.
    fn accepts(&self, call: &Call<'_>, plan: &Plan, weights: &Weights) -> bool {
        let job = self.job(call, weights);
        call.collective.is_none()
            && call.ensure_disjoint().is_ok()
            && job.ensure_addable().is_ok()
            && self.ensure_suits(plan, call, &job).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 8;

    /// Both sides, packed: rows of 16 bytes and results of 32.
    fn outline() -> Outline {
        let extent = |step| Extent { span: ROWS * step, step };
        let side = |views| Some(SideOutline { most_rows: ROWS, rows: extent(16), views });
        let sides = [side([Some(extent(32)), None]), side([Some(extent(32)); 2])];
        Outline { sides, misaligned: 15 }
    }

    fn both() -> [Option<BriefSide>; 2] {
        let side = |rows, views| Some(BriefSide { row_count: ROWS, rows, views });
        [side(1024, [2048, 0]), side(1024, [2048 + 256, 2048 + 512])]
    }

    #[test]
    fn arrays_that_are_apart_are_admitted_and_neighbours_are_apart() {
        let [decoder, encoder] = both();
        for sides in [both(), [decoder, None], [None, encoder]] {
            assert!(outline().admits(&sides), "{sides:?}");
        }
        assert!(!outline().admits(&[None, None]));
    }

    #[test]
    fn what_the_full_checks_may_refuse_is_not_admitted() {
        type Change = fn(&mut BriefSide, &mut BriefSide);
        let changes: [Change; 10] = [
            |decoder, _| decoder.row_count = 0,
            |_, encoder| encoder.row_count = ROWS + 1,
            |decoder, _| decoder.rows += 8,
            |_, encoder| encoder.views[1] += 2,
            |decoder, _| decoder.rows = 0,
            |_, encoder| encoder.views[1] = 0,
            |_, encoder| encoder.views[1] = usize::MAX - 15,
            |decoder, encoder| encoder.views[0] = decoder.views[0] + 240,
            |decoder, encoder| decoder.views[0] = encoder.rows + 112,
            |_, encoder| encoder.views[1] = encoder.views[0] - 240,
        ];
        for (number, change) in changes.iter().enumerate() {
            let [Some(mut decoder), Some(mut encoder)] = both() else { unreachable!() };
            change(&mut decoder, &mut encoder);
            assert!(!outline().admits(&[Some(decoder), Some(encoder)]), "change {number}");
        }
    }

    #[test]
    fn fewer_rows_take_less_memory() {
        let [Some(decoder), Some(mut encoder)] = both() else { unreachable!() };
        encoder.views[1] = encoder.views[0] + 240;
        encoder.row_count = ROWS - 1;
        assert!(outline().admits(&[Some(decoder), Some(encoder)]));
        let mut without_encoder = outline();
        without_encoder.sides[1] = None;
        assert!(!without_encoder.admits(&[Some(decoder), Some(encoder)]));
    }
}
