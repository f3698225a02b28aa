//! The layouts in which engines keep Q, K and V: for each the strides, groups, slots and buffers
//! that a call's views are made of.

use super::rows::shuffled;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// How an engine lays out its cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    Plain,
    Interleaved,
    HeadMajor,
    Batched,
    Transposed,
    Paged,
    PerLayer,
}

/// Each layout's name and shape: layers L, rows T, heads H, a head's lanes d, K and V 2, sequences
/// B of capacity S, pages P.
const NAMED: [(Layout, &str, &str); 7] = [
    (Layout::Plain, "plain", "[L, T, H, d], K and V apart"),
    (Layout::Interleaved, "interleaved", "[L, T, 2, H, d]: each row's K, then its V"),
    (Layout::HeadMajor, "head-major", "[L, H, T, d]: each head's rows together"),
    (Layout::Batched, "batched", "[L, B, H, S, d]: sequences with room for more rows"),
    (Layout::Transposed, "transposed", "[L, H, d, S]: rows innermost, with room for more"),
    (Layout::Paged, "paged", "[L, P, 16, H, 2d] through slots: pages in any order, rows left out"),
    (Layout::PerLayer, "per-layer", "[T, H, d] in an allocation for each layer"),
];

impl Layout {
    pub fn name(self) -> &'static str {
        NAMED.iter().find(|(layout, ..)| *layout == self).map_or("", |(_, name, _)| name)
    }
}

/// What one name on the command line means.
#[derive(Clone)]
pub struct Layouts(pub Vec<Layout>);

impl Layouts {
    /// Reads a name as one layout, and `all` as every one.
    pub fn parser() -> impl TypedValueParser<Value = Layouts> {
        let named = NAMED.iter().map(|(_, name, shape)| PossibleValue::new(*name).help(*shape));
        let all = PossibleValue::new("all").help("each of them");
        PossibleValuesParser::new(named.chain([all])).map(|given| {
            let is_meant = |name: &str| given == "all" || given == name;
            let meant = NAMED.iter().filter(|(_, name, _)| is_meant(name));
            Layouts(meant.map(|(layout, ..)| *layout).collect())
        })
    }
}

/// How many of each a call's results have: rows and width of Q, K and V in this order, and heads
/// of this rank.
pub struct Extents {
    pub rows: [usize; 3],
    pub heads: [usize; 3],
    pub widths: [usize; 3],
}

/// Elements from one of these to the next.
#[derive(Clone, Copy, Default)]
pub struct Strides {
    pub layer: usize,
    pub group: usize,
    pub row: usize,
    pub head: usize,
    pub lane: usize,
}

/// Where one of Q, K and V goes.
pub struct Place {
    /// Which of the call's buffers, of its first layer.
    pub buffer: usize,
    /// Buffers from one layer to the next; 0 where all layers lie in one.
    pub buffers_per_layer: usize,
    /// The buffer's element at which the first layer begins.
    pub offset: usize,
    pub strides: Strides,
    /// Places of one group; 0 without groups.
    pub group_rows: usize,
    /// Each row's place, or -1; None for the rows in order.
    pub slots: Option<Vec<i64>>,
    pub slot_count: usize,
}

const PAGE_ROWS: usize = 16;

/// Of so many rows one is left out by its slot.
const LEFT_OUT_OF: usize = 5;

impl Place {
    /// Where `part` (0, 1, 2 are Q, K, V) goes in a layout.
    pub fn new(layout: Layout, part: usize, extents: &Extents) -> Self {
        let (rows, heads) = (extents.rows[part], extents.heads[part]);
        let (width, pair) = (extents.widths[part], pair_width(part, extents));
        let before = if part == 2 { extents.widths[1] } else { 0 };
        let shared = part.min(1);
        let packed = Strides { row: heads * width, head: width, lane: 1, ..Strides::default() };
        match layout {
            Layout::Plain => Self::rows(part, packed.layer(rows * heads * width)),
            Layout::Interleaved => {
                let strides = Strides { row: heads * pair, ..packed };
                let place = Self::rows(shared, strides.layer(rows * heads * pair));
                Self { offset: heads * before, ..place }
            }
            Layout::HeadMajor => {
                let strides = Strides { row: width, head: rows * width, ..packed };
                Self::rows(part, strides.layer(heads * rows * width))
            }
            Layout::Batched => {
                let group_rows = rows.div_ceil(3);
                let capacity = group_rows.next_multiple_of(8) + 8;
                let group = heads * capacity * width;
                let strides = Strides { row: width, head: capacity * width, group, ..packed };
                Self { group_rows, ..Self::rows(part, strides.layer(3 * group)) }
            }
            Layout::Transposed => {
                let capacity = rows + 3;
                let strides = Strides { lane: capacity, row: 1, head: width * capacity, ..packed };
                Self::rows(part, strides.layer(heads * width * capacity))
            }
            Layout::Paged => {
                let page_count = rows.div_ceil(PAGE_ROWS) + 2;
                let group = (PAGE_ROWS * heads + 1) * pair;
                let strides = Strides { row: heads * pair, head: pair, group, ..packed };
                Self {
                    offset: before,
                    group_rows: PAGE_ROWS,
                    slots: Some(slots(rows, page_count)),
                    slot_count: page_count * PAGE_ROWS,
                    ..Self::rows(shared, strides.layer(page_count * group))
                }
            }
            Layout::PerLayer => {
                let place = Self::rows(part, packed.layer(rows * heads * width));
                Self { buffers_per_layer: 3, ..place }
            }
        }
    }

    fn rows(buffer: usize, strides: Strides) -> Self {
        let (buffers_per_layer, offset, group_rows, slots, slot_count) = (0, 0, 0, None, 0);
        Self { buffer, buffers_per_layer, offset, strides, group_rows, slots, slot_count }
    }

    /// The buffer of a layer, and its element there at which the layer begins.
    pub fn base(&self, layer: usize) -> (usize, usize) {
        match self.buffers_per_layer {
            0 => (self.buffer, self.offset + layer * self.strides.layer),
            count => (self.buffer + layer * count, self.offset),
        }
    }

    /// Elements of a buffer that holds this.
    pub fn buffer_elements(&self, layers: usize) -> usize {
        if self.buffers_per_layer == 0 { layers * self.strides.layer } else { self.strides.layer }
    }

    /// How far behind a layer's beginning a row's first lane is; None if it is left out.
    pub fn row(&self, row: usize) -> Option<usize> {
        let slot = self.slots.as_ref().map_or(Some(row), |slots| usize::try_from(slots[row]).ok());
        slot.map(|place| {
            let group_rows = if self.group_rows == 0 { usize::MAX } else { self.group_rows };
            place / group_rows * self.strides.group + place % group_rows * self.strides.row
        })
    }
}

impl Strides {
    fn layer(self, layer: usize) -> Self {
        Self { layer, ..self }
    }
}

/// Lanes of a K and a V side by side; Q lies beside as much that is not its own.
fn pair_width(part: usize, extents: &Extents) -> usize {
    if part == 0 { 2 * extents.widths[0] } else { extents.widths[1] + extents.widths[2] }
}

/// Rows in pages that follow each other in no order, some rows in none.
fn slots(rows: usize, page_count: usize) -> Vec<i64> {
    let pages = shuffled(page_count);
    let slot = |row: usize| match row % LEFT_OUT_OF == LEFT_OUT_OF - 2 {
        true => -1,
        false => (pages[row / PAGE_ROWS] * PAGE_ROWS + row % PAGE_ROWS) as i64,
    };
    (0..rows).map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const LAYERS: usize = 2;
    const EXTENTS: Extents = Extents { rows: [5, 37, 37], heads: [4, 2, 2], widths: [6, 6, 10] };

    /// Every element of a part: its buffer and its place there.
    fn elements(place: &Place, part: usize) -> Vec<(usize, usize)> {
        let mut elements = Vec::new();
        for layer in 0..LAYERS {
            let (buffer, base) = place.base(layer);
            for row in (0..EXTENTS.rows[part]).filter_map(|row| place.row(row)) {
                for head in 0..EXTENTS.heads[part] {
                    let lane =
                        |lane| base + row + head * place.strides.head + lane * place.strides.lane;
                    elements.extend((0..EXTENTS.widths[part]).map(|at| (buffer, lane(at))));
                }
            }
        }
        elements
    }

    #[test]
    fn no_two_elements_are_in_one_place_and_all_are_in_their_buffers() {
        for (layout, name, _) in NAMED {
            let mut seen = HashSet::new();
            for part in 0..3 {
                let place = Place::new(layout, part, &EXTENTS);
                for (buffer, element) in elements(&place, part) {
                    assert!(seen.insert((buffer, element)), "{name} {part}: {buffer} {element}");
                    assert!(element < place.buffer_elements(LAYERS), "{name} {part}: {element}");
                }
            }
        }
    }

    #[test]
    fn pages_are_in_no_order_and_every_fifth_row_is_in_none() {
        let slots = Place::new(Layout::Paged, 1, &EXTENTS).slots.unwrap();
        assert!(!slots.iter().filter(|&&slot| slot >= 0).is_sorted());
        assert_eq!(slots.iter().filter(|&&slot| slot < 0).count(), 37 / 5);
    }
}
