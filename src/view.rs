//! Memory that the engine owns: rows that are read and views that are written, with the checks
//! that make every later address right. Addresses are numbers here; only a backend goes there.

use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};

/// Rows of hidden states, checked.
#[derive(Clone, Debug)]
pub struct Rows {
    dtype: Dtype,
    row_stride: i64,
    memory: Footprint,
}

impl Rows {
    /// `count` rows of `width` elements; a stride of 0 is packed.
    #[inline(always)]
    pub fn new(
        name: &str,
        address: usize,
        dtype: Dtype,
        count: i64,
        width: i64,
        row_stride: i64,
    ) -> Result<Self, Error> {
        ensure!(count > 0, InvalidArgument, "{name}.rows is {count}; it must not be negative");
        let row_stride = if row_stride == 0 { width } else { row_stride };
        const NAMES: [&str; 4] = ["row_stride", "width", "", ""];
        let axes = [
            Axis { extent: count, stride: row_stride },
            Axis { extent: width, stride: 1 },
            Axis::NONE,
            Axis::NONE,
        ];
        Ok(Self { dtype, row_stride, memory: Footprint::new(name, address, dtype, axes, NAMES)? })
    }

    /// Where the first element is.
    pub fn address(&self) -> usize {
        self.memory.address
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many rows.
    pub fn count(&self) -> i64 {
        self.memory.axes[0].extent
    }

    /// Elements from one row to the next.
    pub fn row_stride(&self) -> i64 {
        self.row_stride
    }

    /// The memory that is read.
    pub fn footprint(&self) -> &Footprint {
        &self.memory
    }
}

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

/// Elements from one layer, row, head or lane to the next; 0 is packed in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// From layer to layer.
    pub layer: i64,
    /// From row to row.
    pub row: i64,
    /// From head to head.
    pub head: i64,
    /// From lane to lane.
    pub width: i64,
}

/// Where a result goes, checked.
#[derive(Clone, Debug)]
pub struct View {
    dtype: Dtype,
    shape: Shape,
    strides: Strides,
    memory: Footprint,
}

impl View {
    /// A view of this shape; strides that nest, an aligned address, a span that can be counted.
    #[inline(always)]
    pub fn new(
        name: &str,
        address: usize,
        dtype: Dtype,
        shape: Shape,
        strides: Strides,
    ) -> Result<Self, Error> {
        let strides = packed_where_zero(strides, shape).ok_or_else(|| too_large(name))?;
        const NAMES: [&str; 4] = ["layer_stride", "row_stride", "head_stride", "width_stride"];
        let axes = [
            Axis { extent: shape.layers, stride: strides.layer },
            Axis { extent: shape.rows, stride: strides.row },
            Axis { extent: shape.heads, stride: strides.head },
            Axis { extent: shape.width, stride: strides.width },
        ];
        let memory = Footprint::new(name, address, dtype, axes, NAMES)?;
        Ok(Self { dtype, shape, strides, memory })
    }

    /// Where the first element is.
    pub fn address(&self) -> usize {
        self.memory.address
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many of each it has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Its strides, none of them 0.
    pub fn strides(&self) -> Strides {
        self.strides
    }

    /// The memory that is written.
    pub fn footprint(&self) -> &Footprint {
        &self.memory
    }
}

fn packed_where_zero(strides: Strides, shape: Shape) -> Option<Strides> {
    let or = |stride: i64, packed: i64| if stride == 0 { packed } else { stride };
    let row = shape.heads.checked_mul(shape.width)?;
    Some(Strides {
        width: or(strides.width, 1),
        head: or(strides.head, shape.width),
        row: or(strides.row, row),
        layer: or(strides.layer, shape.rows.checked_mul(row)?),
    })
}

/// One direction in which elements repeat.
#[derive(Clone, Copy, Debug)]
struct Axis {
    extent: i64,
    stride: i64,
}

impl Axis {
    const NONE: Axis = Axis { extent: 1, stride: 1 };

    /// Elements from the first to the last, or None beyond 63 bits.
    fn reach(&self) -> Option<i64> {
        (self.extent - 1).checked_mul(self.stride)
    }
}

/// The elements that one strided array occupies.
#[derive(Clone, Debug)]
pub struct Footprint {
    address: usize,
    element: i64,
    axes: [Axis; 4],
    /// Bytes from the first element to behind the last.
    span: i64,
}

impl Footprint {
    #[inline(always)]
    fn new(
        name: &str,
        address: usize,
        dtype: Dtype,
        axes: [Axis; 4],
        names: [&str; 4],
    ) -> Result<Self, Error> {
        let element = dtype.bytes() as i64;
        ensure!(
            address.is_multiple_of(dtype.bytes()),
            Misaligned,
            "{name}.data is {address:#x}, not a multiple of the {element} bytes of {}",
            dtype.name()
        );
        let elements = nested_extent(name, &axes, names)?;
        let span = elements.checked_mul(element).ok_or_else(|| too_large(name))?;
        let end = address.checked_add(span as usize);
        ensure!(end.is_some(), SizeOverflow, "{name} at {address:#x} leaves the address space");
        Ok(Self { address, element, axes, span })
    }

    /// Where the first element is.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Whether the two have no byte in common, as far as can be told from ranges and strides.
    pub fn is_disjoint_from(&self, other: &Footprint) -> bool {
        let (first, second) =
            if self.address <= other.address { (self, other) } else { (other, self) };
        let gap = second.address - first.address;
        gap >= first.span as usize
            || [first, second].iter().any(|footprint| {
                footprint.periods().any(|period| disjoint_modulo(first, second, gap, period))
            })
    }

    /// The strides in bytes at which something repeats.
    fn periods(&self) -> impl Iterator<Item = i64> {
        let repeated = self.axes.iter().filter(|axis| axis.extent > 1);
        repeated.filter_map(|axis| axis.stride.checked_mul(self.element))
    }

    /// Bytes of what repeats every `period` bytes, if all larger strides are multiples of it.
    fn span_within(&self, period: i64) -> Option<i64> {
        let mut span = self.element;
        for axis in self.axes.iter().filter(|axis| axis.extent > 1) {
            let stride = axis.stride * self.element;
            if stride < period {
                span += (axis.extent - 1) * stride;
            } else if stride % period != 0 {
                return None;
            }
        }
        (span <= period).then_some(span)
    }
}

/// Whether the two arrays keep to different parts of every stretch of `period` bytes, as K and V
/// do when they are interleaved.
fn disjoint_modulo(first: &Footprint, second: &Footprint, gap: usize, period: i64) -> bool {
    let (Some(one), Some(two)) = (first.span_within(period), second.span_within(period)) else {
        return false;
    };
    let offset = (gap % period as usize) as i64;
    offset >= one && two <= period - offset
}

/// Elements from the first to behind the last; each stride must be at least the extent inside it.
#[inline(always)]
fn nested_extent(name: &str, axes: &[Axis; 4], names: [&str; 4]) -> Result<i64, Error> {
    match extent_as_given(axes) {
        Some(extent) => Ok(extent),
        None => nested_extent_in_order(name, axes, names),
    }
}

/// The same for axes that nest as they are given, the last one innermost, which is the order of
/// most views: their strides ascend then, so it is also the order that sorting finds.
#[inline(always)]
fn extent_as_given(axes: &[Axis; 4]) -> Option<i64> {
    let mut inside: i64 = 1;
    for axis in axes.iter().rev().filter(|axis| axis.extent > 1) {
        if axis.stride < inside {
            return None;
        }
        inside = axis.reach()?.checked_add(inside)?;
    }
    Some(inside)
}

#[cold]
fn nested_extent_in_order(name: &str, axes: &[Axis; 4], names: [&str; 4]) -> Result<i64, Error> {
    let mut inside: i64 = 1;
    for at in by_stride(axes).into_iter().filter(|&at| axes[at].extent > 1) {
        let axis = &axes[at];
        ensure!(
            axis.stride >= inside,
            InvalidStride,
            "{name}.{} is {}, less than the {inside} elements inside it",
            names[at],
            axis.stride
        );
        let reach = axis.reach().and_then(|reach| reach.checked_add(inside));
        inside = reach.ok_or_else(|| too_large(name))?;
    }
    Ok(inside)
}

/// The axes from the smallest stride to the largest. Written out, since a forward does this for
/// each of its views that lies otherwise than as given, and a general sort takes longer than the
/// rest of the checks.
fn by_stride(axes: &[Axis; 4]) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    for (left, right) in [(0, 1), (2, 3), (0, 2), (1, 3), (1, 2)] {
        if axes[order[left]].stride > axes[order[right]].stride {
            order.swap(left, right);
        }
    }
    order
}

fn too_large(name: &str) -> Error {
    let message = format!("{name} spans more than 2^63 bytes; check its rows and strides");
    Error::new(Status::SizeOverflow, message)
}

/// Refuses two arrays that share memory, of which at least one is written.
pub fn ensure_disjoint(one: (&str, &Footprint), two: (&str, &Footprint)) -> Result<(), Error> {
    ensure!(
        one.1.is_disjoint_from(two.1),
        Overlap,
        "{} ({} bytes at {:#x}) shares memory with {} ({} bytes at {:#x}); give each its own, or \
         interleave them at a common stride",
        one.0,
        one.1.span,
        one.1.address,
        two.0,
        two.1.span,
        two.1.address
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { layers: 1, rows: 5, heads: 2, width: 4 };

    fn view(address: usize, strides: Strides) -> Result<View, Error> {
        View::new("key", address, Dtype::F32, SHAPE, strides)
    }

    fn disjoint(one: &View, two: &View) -> bool {
        let answer = one.footprint().is_disjoint_from(two.footprint());
        assert_eq!(answer, two.footprint().is_disjoint_from(one.footprint()), "symmetry");
        answer
    }

    #[test]
    fn zero_strides_are_packed() {
        let strides = view(64, Strides::default()).unwrap().strides();
        assert_eq!(strides, Strides { layer: 40, row: 8, head: 4, width: 1 });
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
        let one = |address| View::new("query", address, Dtype::F32, shape, Strides::default());
        assert!(disjoint(&many, &one(1024 + (3 * 16 + 8) * 4).unwrap()));
        assert!(!disjoint(&many, &one(1024 + (3 * 16 + 4) * 4).unwrap()));
    }
}
