//! Rows of hidden states that are read.

use super::footprint::{Axes, Axis, Footprint, known_span};
use super::indices::Indices;
use crate::dtype::Dtype;
use crate::error::{Error, ensure};
use std::ops::Range;

/// Rows of hidden states, checked.
#[derive(Clone, Debug)]
pub struct Rows {
    dtype: Dtype,
    count: i64,
    row_stride: i64,
    list: Option<Indices>,
    address: usize,
    width: i64,
    /// Bytes from the first element to behind the last.
    span: i64,
}

impl Rows {
    /// `count` rows of `width` elements; a stride of 0 is packed. With a list, the rows that it
    /// names of the buffer that it bounds.
    #[inline(always)]
    pub fn new(
        name: &str,
        address: usize,
        dtype: Dtype,
        count: i64,
        width: i64,
        row_stride: i64,
        list: Option<Indices>,
    ) -> Result<Self, Error> {
        ensure!(count > 0, InvalidArgument, "{name}.rows is {count}; it must not be negative");
        let row_stride = if row_stride == 0 { width } else { row_stride };
        const NAMES: [&str; 5] = ["row_stride", "width", "", "", ""];
        let mut rows = Self { dtype, count, row_stride, list, address, width, span: 0 };
        rows.span = Footprint::new(name, address, dtype, rows.axes(), NAMES)?.span();
        Ok(rows)
    }

    /// Some of the rows.
    pub fn part(&self, rows: Range<usize>) -> Rows {
        debug_assert!(rows.start < rows.end && rows.end <= self.count as usize);
        let mut part = Rows { count: rows.len() as i64, ..self.clone() };
        match &mut part.list {
            Some(list) => *list = list.part(rows),
            None => part.address += rows.start * self.row_stride as usize * self.dtype.bytes(),
        }
        part.span = known_span(part.axes(), self.dtype);
        part
    }

    #[inline(always)]
    fn axes(&self) -> Axes {
        let mut axes = [Axis::NONE; 5];
        let buffer_rows = self.list.as_ref().map_or(self.count, Indices::bound);
        axes[0] = Axis { extent: buffer_rows, stride: self.row_stride };
        axes[1] = Axis { extent: self.width, stride: 1 };
        axes
    }

    /// Where the first element is; of the buffer's first row if there is a list.
    pub fn address(&self) -> usize {
        self.address
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many rows are projected.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Elements from one row to the next.
    pub fn row_stride(&self) -> i64 {
        self.row_stride
    }

    /// Which rows of the buffer; None for the first ones.
    pub fn list(&self) -> Option<&Indices> {
        self.list.as_ref()
    }

    /// The memory that is read.
    pub fn footprint(&self) -> Footprint {
        Footprint::known(self.address, self.dtype, self.axes(), self.span)
    }

    /// From its first byte to behind its last.
    #[inline(always)]
    pub fn range(&self) -> Range<usize> {
        self.address..self.address + self.span as usize
    }
}
