//! The memory that a strided array occupies: that its strides nest, and that two arrays have no
//! byte in common.

use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};

/// One direction in which elements repeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) extent: i64,
    pub(super) stride: i64,
}

impl Axis {
    pub(super) const NONE: Axis = Axis { extent: 1, stride: 1 };

    /// Elements from the first to the last, or None beyond 63 bits.
    fn reach(&self) -> Option<i64> {
        (self.extent - 1).checked_mul(self.stride)
    }
}

/// Layers, groups, rows, heads and lanes.
pub(super) type Axes = [Axis; 5];

/// The elements that one strided array occupies.
#[derive(Clone, Debug)]
pub struct Footprint {
    address: usize,
    element: i64,
    axes: Axes,
    /// Bytes from the first element to behind the last.
    span: i64,
}

impl Footprint {
    /// Refuses a misaligned address, strides that do not nest, and what leaves the address space.
    #[inline(always)]
    pub(super) fn new(
        name: &str,
        address: usize,
        dtype: Dtype,
        axes: Axes,
        names: [&str; 5],
    ) -> Result<Self, Error> {
        let element = dtype.bytes() as i64;
        let elements = nested_extent(name, &axes, names)?;
        let span = elements.checked_mul(element).ok_or_else(|| too_large(name))?;
        Self { address: 0, element, axes, span }.moved_to(name, address, dtype)
    }

    /// The array that `new` made with these, and found to span so many bytes.
    pub(super) fn known(address: usize, dtype: Dtype, axes: Axes, span: i64) -> Self {
        Self { address, element: dtype.bytes() as i64, axes, span }
    }

    /// Bytes from the first element to behind the last.
    pub(super) fn span(&self) -> i64 {
        self.span
    }

    /// A list of 64-bit integers.
    pub(super) fn integers(name: &str, address: usize, count: i64) -> Result<Self, Error> {
        let element = size_of::<i64>() as i64;
        let mut axes = [Axis::NONE; 5];
        axes[0].extent = count;
        let span = count.checked_mul(element).ok_or_else(|| too_large(name))?;
        Self { address: 0, element, axes, span }.placed(name, address)
    }

    /// The same array elsewhere.
    #[inline(always)]
    pub(super) fn moved_to(self, name: &str, address: usize, dtype: Dtype) -> Result<Self, Error> {
        ensure!(
            address & (dtype.bytes() - 1) == 0,
            Misaligned,
            "{name}.data is {address:#x}, not a multiple of the {} bytes of {}",
            dtype.bytes(),
            dtype.name()
        );
        self.placed(name, address)
    }

    #[inline(always)]
    fn placed(self, name: &str, address: usize) -> Result<Self, Error> {
        let end = address.checked_add(self.span as usize);
        ensure!(end.is_some(), SizeOverflow, "{name} at {address:#x} leaves the address space");
        Ok(Self { address, ..self })
    }

    /// Where the first element is.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Whether the two have no byte in common, as far as can be told from ranges and strides.
    #[inline(always)]
    pub fn is_disjoint_from(&self, other: &Footprint) -> bool {
        let (first, second) =
            if self.address <= other.address { (self, other) } else { (other, self) };
        let gap = second.address - first.address;
        gap >= first.span as usize || are_interleaved(first, second, gap)
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

/// Bytes from the first element to behind the last, of axes that lie within a checked array.
pub(super) fn known_span(axes: Axes, dtype: Dtype) -> i64 {
    let reach: i64 = axes.iter().map(|axis| (axis.extent - 1) * axis.stride).sum();
    (reach + 1) * dtype.bytes() as i64
}

/// Whether some stride of either keeps the two apart.
fn are_interleaved(first: &Footprint, second: &Footprint, gap: usize) -> bool {
    let mut periods = first.periods().chain(second.periods());
    periods.any(|period| disjoint_modulo(first, second, gap, period))
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
fn nested_extent(name: &str, axes: &Axes, names: [&str; 5]) -> Result<i64, Error> {
    match extent_as_given(axes) {
        Some(extent) => Ok(extent),
        None => extent_in_order(name, axes, names),
    }
}

/// The same for axes that nest as they are given, the last one innermost, which is the order of
/// most views: their strides ascend then, so it is also the order that sorting finds.
#[inline(always)]
fn extent_as_given(axes: &Axes) -> Option<i64> {
    let mut inside: i64 = 1;
    for axis in axes.iter().rev().filter(|axis| axis.extent > 1) {
        if axis.stride < inside {
            return None;
        }
        inside = axis.reach()?.checked_add(inside)?;
    }
    Some(inside)
}

fn extent_in_order(name: &str, axes: &Axes, names: [&str; 5]) -> Result<i64, Error> {
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

/// The axes from the smallest stride to the largest. Written out, since a general sort takes longer
/// than the rest of the checks.
fn by_stride(axes: &Axes) -> [usize; 5] {
    let mut order = [0, 1, 2, 3, 4];
    const NETWORK: [(usize, usize); 9] =
        [(0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3)];
    for (left, right) in NETWORK {
        if axes[order[left]].stride > axes[order[right]].stride {
            order.swap(left, right);
        }
    }
    order
}

pub(super) fn too_large(name: &str) -> Error {
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
    use proptest::prelude::*;

    const SCALES: &[i64] = &[1, 7, 1 << 40, i64::MAX / 300];

    proptest! {
        #[test]
        fn axes_that_nest_as_given_have_the_extent_that_sorting_finds(
            given in prop::array::uniform5((1i64..5, 0i64..200, prop::sample::select(SCALES))),
        ) {
            let axes = given.map(|(extent, stride, scale)| Axis { extent, stride: stride * scale });
            let sorted = extent_in_order("key", &axes, [""; 5]);
            if let Some(extent) = extent_as_given(&axes) {
                prop_assert_eq!(sorted, Ok(extent));
            }
        }
    }
}
