//! Views that ranks share work by: parts of a view, which are the same memory with fewer rows and
//! heads, and results that are staged for other ranks.

use super::footprint::known_span;
use super::{Base, Shape, Strides, Target, View};
use crate::dtype::Dtype;
use std::ops::Range;

impl<'a> View<'a> {
    /// Some of its rows and heads at the same places; None where those rows cannot be told from
    /// their first one's place: with slots, and with groups unless a group begins there.
    pub fn part(&self, rows: Range<usize>, heads: Range<usize>) -> Option<View<'a>> {
        debug_assert!(rows.start < rows.end && rows.end <= self.shape.rows as usize);
        debug_assert!(heads.start < heads.end && heads.end <= self.shape.heads as usize);
        let shape = Shape { rows: rows.len() as i64, heads: heads.len() as i64, ..self.shape };
        let elements = self.before(rows)? + heads.start as i64 * self.target.strides.head;
        let offset = self.offset + elements as usize * self.dtype().bytes();
        let span = known_span(self.target.axes(shape), self.dtype());
        Some(View { shape, target: self.target.clone(), offset, span })
    }

    /// Elements from the first row to the first of these.
    fn before(&self, rows: Range<usize>) -> Option<i64> {
        let strides = self.target.strides;
        if self.target.slots.is_some() {
            return (rows == (0..self.shape.rows as usize)).then_some(0);
        }
        let first = rows.start as i64;
        match self.target.group_rows {
            0 => Some(first * strides.row),
            group_rows => (first % group_rows == 0).then_some(first / group_rows * strides.group),
        }
    }

    /// Results that are packed [rows, layers, heads, width]: no stride depends on the rows.
    pub fn staged(address: usize, shape: Shape, dtype: Dtype) -> View<'static> {
        let layer = shape.heads * shape.width;
        let row = shape.layers * layer;
        let (group, head) = (shape.rows * row, shape.width);
        let strides = Strides { layer, group, row, head, width: 1 };
        let base = Base::First(address);
        let target =
            Target { base, dtype, strides, group_rows: 0, slots: None, accumulates: false };
        let span = known_span(target.axes(shape), dtype);
        View { shape, target, offset: 0, span }
    }
}
