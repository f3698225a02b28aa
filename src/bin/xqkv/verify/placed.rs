//! One rank's call into memory laid out as an engine's: poisoned, written by the call, and read
//! back element by element.

use super::Setting;
use super::arena::Arena;
use super::calls::Plain;
use super::elements::{Elements, widen};
use super::layer::Call;
use super::layouts::{Extents, Layout, Place};
use super::lent::{Lent, alignment};
use super::ranks::Rank;
use super::rows::{Rows, bytes_of};
use super::tally::Tally;
use crate::library::{Outcome, call};
use crate::memory::{Kept, Memory};
use std::ffi::c_void;
use xqkv::capi::view::xqkv_view;
use xqkv::dtype::Dtype;

/// One call.
pub struct Placed<'a> {
    pub setting: &'a Setting<'a>,
    pub layout: Layout,
    pub rank: &'a Rank,
    /// The layers that it runs; several only in a cache fill, on the rows of the first.
    pub layers: &'a [Plain],
    pub kind: Call,
}

/// Where one of Q, K and V goes, with what its view points to.
struct Target<'a> {
    place: Place,
    slots: Option<Kept<'a>>,
    /// Where each layer begins.
    layers: Vec<*mut c_void>,
}

impl Placed<'_> {
    /// Runs the call and judges all that it wrote.
    pub fn run(&self) -> Outcome<Tally> {
        let first = &self.layers[0];
        let inputs = [
            self.rows(&first.decoder, first.layer.decoder.rows)?,
            self.rows(&first.encoder, first.layer.encoder.rows)?,
        ];
        let sources = [&inputs[0].sources, &inputs[1].sources, &inputs[1].sources];
        let extents = self.extents(sources.map(Vec::len));
        let places = [0, 1, 2].map(|part| Place::new(self.layout, part, &extents));
        let mut arenas = self.arenas(&places)?;
        let mut targets = Vec::new();
        for place in places {
            targets.push(self.target(place, &arenas)?);
        }
        let (mut tally, _lent) = self.forward(&inputs, &targets)?;
        arenas.iter_mut().try_for_each(Arena::fetch)?;
        for part in (0..3).filter(|&part| self.kind.runs()[part]) {
            self.judge(part, sources[part], &targets[part].place, &mut arenas, &mut tally);
        }
        tally.bytes_touched = arenas.iter().map(Arena::touched).sum();
        Ok(tally)
    }

    fn rows(&self, rows: &Elements, count: usize) -> Outcome<Rows<'_>> {
        let make = if self.setting.lists_rows { Rows::listed } else { Rows::in_order };
        make(rows, count, self.setting.memory)
    }

    fn extents(&self, rows: [usize; 3]) -> Extents {
        let widths = [0, 1, 2].map(|part| self.layers[0].layer.parts[part].width);
        Extents { rows, heads: self.rank.heads(), widths }
    }

    /// All buffers of the layout, those of parts that the call does not run as well.
    fn arenas(&self, places: &[Place; 3]) -> Outcome<Vec<Arena<'_>>> {
        let mut sizes: Vec<usize> = Vec::new();
        for place in places {
            for layer in 0..self.layers.len() {
                let (buffer, _) = place.base(layer);
                sizes.resize(sizes.len().max(buffer + 1), 0);
                sizes[buffer] = place.buffer_elements(self.layers.len());
            }
        }
        let bytes = self.setting.out.bytes();
        sizes.into_iter().map(|size| Arena::new(size, bytes, self.setting.memory)).collect()
    }

    fn target(&self, place: Place, arenas: &[Arena<'_>]) -> Outcome<Target<'_>> {
        let keep = |slots: &Vec<i64>| self.setting.memory.keep(bytes_of(slots));
        let slots = place.slots.as_ref().map(keep).transpose()?;
        let address = |layer| {
            let (buffer, element) = place.base(layer);
            arenas[buffer].address(element).cast()
        };
        let layers = (0..self.layers.len()).map(address).collect();
        Ok(Target { place, slots, layers })
    }

    /// Makes the call by a plan, lent what the plan asks for.
    fn forward(
        &self,
        inputs: &[Rows<'_>; 2],
        targets: &[Target<'_>],
    ) -> Outcome<(Tally, Lent<'_>)> {
        let (runs, out) = (self.kind.runs(), self.setting.out);
        let mut forward = call(self.layers[0].layer.number);
        forward.layer_count = self.layers.len() as i64;
        if runs[0] {
            forward.decoder = inputs[0].input();
            forward.query = targets[0].view(out);
        }
        if runs[1] {
            forward.encoder = inputs[1].input();
            (forward.key, forward.value) = (targets[1].view(out), targets[2].view(out));
        }
        let layers = targets.iter().flat_map(|target| &target.layers);
        let alignment = alignment(&forward, layers.copied());
        let lent = Lent::new(self.rank, &mut forward, alignment, self.setting.memory)?;
        forward.plan = lent.plan.handle();
        // SAFETY: rows, views, lists and workspace are as long as their shapes say, and alive.
        let done = unsafe { self.rank.projection.forward(&forward) }?;
        let necessary = self.necessary(inputs, targets);
        Ok((Tally::new(done.multiply_adds, necessary, done.matmuls), lent))
    }

    /// Multiply-adds that the rank cannot do without. Rows that slots leave out are not among them
    /// where the slots can be seen.
    fn necessary(&self, inputs: &[Rows<'_>; 2], targets: &[Target<'_>]) -> i64 {
        let rows = [0, 1, 2].map(|part: usize| {
            let rows = 0..inputs[part.min(1)].sources.len();
            let sees_slots = matches!(self.setting.memory, Memory::Host);
            rows.filter(|&row| !sees_slots || targets[part].place.row(row).is_some()).count()
        });
        let layers = self.layers.iter();
        layers.map(|plain| plain.layer.necessary(self.rank, rows, self.kind.runs())).sum()
    }

    /// Holds every element of a part against the exact and the plain result of its row.
    fn judge(
        &self,
        part: usize,
        sources: &[usize],
        place: &Place,
        arenas: &mut [Arena<'_>],
        tally: &mut Tally,
    ) {
        for (layer, plain) in self.layers.iter().enumerate() {
            let (buffer, base) = place.base(layer);
            for (row, &source) in sources.iter().enumerate() {
                if let Some(at) = place.row(row) {
                    let arena = &mut arenas[buffer];
                    self.judge_row(part, plain, source, (place, base + at), arena, tally);
                }
            }
        }
    }

    fn judge_row(
        &self,
        part: usize,
        plain: &Plain,
        source: usize,
        (place, first): (&Place, usize),
        arena: &mut Arena<'_>,
        tally: &mut Tally,
    ) {
        let (of_part, first_head) = (&plain.layer.parts[part], self.rank.first_heads()[part]);
        let (exact, result) = (&plain.exact[part], &plain.results[part]);
        for head in 0..self.rank.heads()[part] {
            for lane in 0..of_part.width {
                let (strides, dtype) = (place.strides, result.dtype);
                let bytes = arena.take(first + head * strides.head + lane * strides.lane);
                let of_all_heads = source * of_part.heads + first_head + head;
                let index = of_all_heads * of_part.width + lane;
                let value = widen(bytes, dtype).into();
                tally.hold(exact.error_over_bound(index, value, dtype));
                tally.compare(bytes, &result.bytes[index * dtype.bytes()..]);
            }
        }
    }
}

impl Target<'_> {
    fn view(&self, dtype: Dtype) -> xqkv_view {
        // SAFETY: a plain struct of which zero is a value.
        let mut view: xqkv_view = unsafe { std::mem::zeroed() };
        let (place, strides) = (&self.place, self.place.strides);
        if place.buffers_per_layer == 0 {
            (view.data, view.layer_stride) = (self.layers[0], strides.layer as i64);
        } else {
            view.layer_data = self.layers.as_ptr();
        }
        if let Some(slots) = &self.slots {
            (view.slots, view.slot_count) = (slots.address().cast(), place.slot_count as i64);
        }
        (view.group_rows, view.group_stride) = (place.group_rows as i64, strides.group as i64);
        (view.row_stride, view.head_stride) = (strides.row as i64, strides.head as i64);
        (view.width_stride, view.dtype) = (strides.lane as i64, dtype as i32);
        view
    }
}
