//! Memory that the engine owns: rows that are read and views that are written, with the checks
//! that make every later address right. Addresses are numbers here; only a backend goes there.

mod footprint;
mod indices;
mod part;
mod rows;

pub use footprint::{Footprint, ensure_disjoint};
pub use indices::Indices;
pub use rows::Rows;

use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use footprint::{Axes, Axis, too_large};
use std::ops::Range;

/// How many of each a result has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers of the call.
    pub layers: i64,
    /// Rows of the input.
    pub rows: i64,
    /// This rank's heads.
    pub heads: i64,
    /// Columns of a head.
    pub width: i64,
}

/// Elements from one layer, group, row, head or lane to the next; 0 is packed in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// From layer to layer; of no use where each layer has its own address.
    pub layer: i64,
    /// From group to group.
    pub group: i64,
    /// From row to row of a group.
    pub row: i64,
    /// From head to head.
    pub head: i64,
    /// From lane to lane.
    pub width: i64,
}

/// Where the layers of a result begin.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// The first layer's address; the others follow at the layer stride.
    First(usize),
    /// Each layer's address.
    Each(&'a [usize]),
}

/// Where a result shall go, as the engine says it.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Where the layers begin.
    pub base: Base<'a>,
    /// What the elements are.
    pub dtype: Dtype,
    /// How far apart they are.
    pub strides: Strides,
    /// Places of one group; 0 for all.
    pub group_rows: i64,
    /// For each row its place, below the list's bound, or -1; without it rows go in order.
    pub slots: Option<Indices>,
    /// Whether results are added to what is there.
    pub accumulates: bool,
}

/// Where a result goes, checked.
#[derive(Clone, Debug)]
pub struct View<'a> {
    shape: Shape,
    target: Target<'a>,
    /// Bytes from where a layer of the target begins to its first element here.
    offset: usize,
    /// Bytes from the first element to behind the last: of one layer if each has its own address.
    span: i64,
}

impl<'a> View<'a> {
    /// A view of this shape; strides that nest, aligned addresses, a span that can be counted.
    #[inline(always)]
    pub fn new(name: &str, shape: Shape, mut target: Target<'a>) -> Result<Self, Error> {
        ensure!(
            target.group_rows > 0 || (target.group_rows, target.strides.group) == (0, 0),
            InvalidArgument,
            "{name}.group_rows is {} and {name}.group_stride is {}; without groups both are 0",
            target.group_rows,
            target.strides.group
        );
        let groups = Groups::of(&target, shape.rows);
        let strides = packed_where_zero(target.strides, shape, groups, target.group_rows);
        target.strides = strides.ok_or_else(|| too_large(name))?;
        target.join();
        const NAMES: [&str; 5] =
            ["layer_stride", "group_stride", "row_stride", "head_stride", "width_stride"];
        let first = match target.base {
            Base::First(address) => address,
            Base::Each(addresses) => addresses[0],
        };
        let memory = Footprint::new(name, first, target.dtype, target.axes(shape), NAMES)?;
        let span = memory.span();
        if let Base::Each(addresses) = target.base {
            ensure_layers(name, addresses, &memory, target.dtype)?;
        }
        Ok(Self { shape, target, offset: 0, span })
    }

    /// Where the first element of a layer of the call is.
    pub fn address(&self, layer: usize) -> usize {
        let first = match self.target.base {
            Base::First(address) => {
                address + layer * self.target.strides.layer as usize * self.dtype().bytes()
            }
            Base::Each(addresses) => addresses[layer],
        };
        first + self.offset
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.target.dtype
    }

    /// How many of each it has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Its strides, none of them 0.
    pub fn strides(&self) -> Strides {
        self.target.strides
    }

    /// Its strides, 0 where nothing steps by them: between layers that are one or have each its
    /// own address, groups that there are none of, and a single head. What is packed there may
    /// depend on the rows.
    #[inline(always)]
    pub fn stepped_strides(&self) -> Strides {
        let (shape, strides) = (self.shape, self.target.strides);
        let steps_layers = shape.layers > 1 && self.has_layer_stride();
        Strides {
            layer: if steps_layers { strides.layer } else { 0 },
            group: if self.target.group_rows > 0 { strides.group } else { 0 },
            head: if shape.heads > 1 { strides.head } else { 0 },
            ..strides
        }
    }

    /// Places of one group, where groups do not just continue each other.
    pub fn group_rows(&self) -> Option<i64> {
        (self.target.group_rows > 0).then_some(self.target.group_rows)
    }

    /// For each row its place, or -1.
    pub fn slots(&self) -> Option<&Indices> {
        self.target.slots.as_ref()
    }

    /// Whether results are added to what is there.
    pub fn accumulates(&self) -> bool {
        self.target.accumulates
    }

    /// Whether the layers follow each other at the layer stride.
    pub fn has_layer_stride(&self) -> bool {
        matches!(self.target.base, Base::First(_))
    }

    /// From the first byte to behind the last. Of layers that have addresses of their own all
    /// memory, since they may share some with each other as well.
    #[inline(always)]
    pub fn range(&self) -> Range<usize> {
        match self.target.base {
            Base::First(_) => self.address(0)..self.address(0) + self.span as usize,
            Base::Each(_) => 0..usize::MAX,
        }
    }

    /// All layers' addresses, one over the other: a multiple of whatever all are a multiple of.
    #[inline(always)]
    pub fn address_bits(&self) -> usize {
        match self.target.base {
            // At one stride, of which nothing is said.
            Base::First(address) => address + self.offset,
            Base::Each(addresses) => {
                addresses.iter().fold(0, |bits, &address| bits | (address + self.offset))
            }
        }
    }

    /// The memory that is written: of all layers together, or of each.
    pub fn footprints(&self) -> impl Iterator<Item = Footprint> {
        let count = if self.has_layer_stride() { 1 } else { self.shape.layers as usize };
        let (dtype, axes) = (self.dtype(), self.target.axes(self.shape));
        (0..count).map(move |layer| Footprint::known(self.address(layer), dtype, axes, self.span))
    }
}

/// How places are grouped: whole groups, the last of which may be filled in part.
#[derive(Clone, Copy)]
struct Groups {
    count: i64,
    rows: i64,
}

impl Groups {
    #[inline(always)]
    fn of(target: &Target<'_>, rows: i64) -> Self {
        let places = target.slots.as_ref().map_or(rows, Indices::bound);
        if target.group_rows == 0 {
            return Self { count: 1, rows: places };
        }
        let group_rows = target.group_rows;
        Self { count: (places - 1) / group_rows + 1, rows: group_rows.min(places) }
    }
}

impl Target<'_> {
    /// Without groups that only continue each other.
    #[inline(always)]
    fn join(&mut self) {
        if self.group_rows.checked_mul(self.strides.row) == Some(self.strides.group) {
            self.group_rows = 0;
        }
    }

    #[inline(always)]
    fn axes(&self, shape: Shape) -> Axes {
        let groups = Groups::of(self, shape.rows);
        let layers = if matches!(self.base, Base::First(_)) { shape.layers } else { 1 };
        [
            Axis { extent: layers, stride: self.strides.layer },
            Axis { extent: groups.count, stride: self.strides.group },
            Axis { extent: groups.rows, stride: self.strides.row },
            Axis { extent: shape.heads, stride: self.strides.head },
            Axis { extent: shape.width, stride: self.strides.width },
        ]
    }
}

/// Each layer's own address is one at which the layer can lie.
fn ensure_layers(
    name: &str,
    addresses: &[usize],
    memory: &Footprint,
    dtype: Dtype,
) -> Result<(), Error> {
    for (layer, &address) in addresses.iter().enumerate() {
        ensure!(
            address != 0,
            NullArgument,
            "{name}.layer_data[{layer}] is NULL; give each layer of the call its memory"
        );
        memory.clone().moved_to(name, address, dtype)?;
    }
    Ok(())
}

#[inline(always)]
fn packed_where_zero(
    strides: Strides,
    shape: Shape,
    groups: Groups,
    group_rows: i64,
) -> Option<Strides> {
    let or = |stride: i64, packed: i64| if stride == 0 { packed } else { stride };
    let row = shape.heads.checked_mul(shape.width)?;
    let group = row.checked_mul(if group_rows == 0 { groups.rows } else { group_rows })?;
    Some(Strides {
        width: or(strides.width, 1),
        head: or(strides.head, shape.width),
        row: or(strides.row, row),
        group: or(strides.group, group),
        layer: or(strides.layer, group.checked_mul(groups.count)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    const SHAPE: Shape = Shape { layers: 1, rows: 5, heads: 2, width: 4 };

    fn target(address: usize, strides: Strides) -> Target<'static> {
        let base = Base::First(address);
        let (dtype, slots) = (Dtype::F32, None);
        Target { base, dtype, strides, group_rows: 0, slots, accumulates: false }
    }

    fn view(address: usize, strides: Strides) -> Result<View<'static>, Error> {
        View::new("key", SHAPE, target(address, strides))
    }

    fn disjoint(one: &View<'_>, two: &View<'_>) -> bool {
        let (one, two) = (one.footprints().next().unwrap(), two.footprints().next().unwrap());
        let answer = one.is_disjoint_from(&two);
        assert_eq!(answer, two.is_disjoint_from(&one), "symmetry");
        answer
    }

    #[test]
    fn zero_strides_are_packed() {
        let strides = view(64, Strides::default()).unwrap().strides();
        assert_eq!(strides, Strides { layer: 40, group: 40, row: 8, head: 4, width: 1 });
    }

    #[test]
    fn head_major_and_transposed_views_nest() {
        view(64, Strides { head: 20, row: 4, ..Strides::default() }).unwrap();
        view(64, Strides { width: 5, head: 20, row: 1, ..Strides::default() }).unwrap();
    }

    #[test]
    fn a_stride_below_the_extent_inside_it_is_refused() {
        for strides in [
            Strides { row: 7, ..Strides::default() },
            Strides { head: 3, ..Strides::default() },
            Strides { row: -8, ..Strides::default() },
            Strides { width: 2, head: 4, row: 16, ..Strides::default() },
        ] {
            assert_eq!(view(64, strides).unwrap_err().status, Status::InvalidStride);
        }
    }

    #[test]
    fn spans_beyond_63_bits_and_the_address_space_are_refused() {
        let far = Strides { row: i64::MAX / 4, ..Strides::default() };
        assert_eq!(view(64, far).unwrap_err().status, Status::SizeOverflow);
        let end = usize::MAX - 15;
        assert_eq!(view(end, Strides::default()).unwrap_err().status, Status::SizeOverflow);
    }

    #[test]
    fn a_misaligned_address_is_refused() {
        assert_eq!(view(66, Strides::default()).unwrap_err().status, Status::Misaligned);
    }

    #[test]
    fn interleaved_views_are_disjoint_and_shifted_ones_are_not() {
        let interleaved = Strides { row: 16, ..Strides::default() };
        let key = view(1024, interleaved).unwrap();
        assert!(disjoint(&key, &view(1024 + 8 * 4, interleaved).unwrap()));
        assert!(!disjoint(&key, &view(1024 + 7 * 4, interleaved).unwrap()));
        assert!(!disjoint(&key, &view(1024 + 9 * 4, interleaved).unwrap()));
        assert!(!disjoint(&key, &key.clone()));
        assert!(disjoint(&key, &view(1024 + 5 * 16 * 4, interleaved).unwrap()));
    }

    #[test]
    fn one_row_beside_many_is_told_apart_by_the_stride_of_the_many() {
        let many = view(1024, Strides { row: 16, ..Strides::default() }).unwrap();
        let shape = Shape { rows: 1, ..SHAPE };
        let one = |address| View::new("query", shape, target(address, Strides::default()));
        assert!(disjoint(&many, &one(1024 + (3 * 16 + 8) * 4).unwrap()));
        assert!(!disjoint(&many, &one(1024 + (3 * 16 + 4) * 4).unwrap()));
    }
}
