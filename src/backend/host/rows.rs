//! Which row of the input becomes which row of the view, and where that is, under row lists, slots
//! and groups.

use crate::dtype::Dtype;
use crate::view::{Indices, Rows, View};
use std::ops::Range;
use std::ptr::{null, with_exposed_provenance};

/// One row that is projected.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its first element.
    pub(super) source: *const u8,
    /// Its place: bytes behind the view's base.
    pub(super) target: usize,
}

// SAFETY: an address that is only read where the rows of a job can be.
unsafe impl Send for Row {}

impl Default for Row {
    fn default() -> Self {
        Row { source: null(), target: 0 }
    }
}

/// All rows of one product. Equal ones have the same rows at the same places.
#[derive(Clone, PartialEq)]
pub(super) struct RowTable {
    first: *const u8,
    source_bytes: usize,
    pub(super) dtype: Dtype,
    count: usize,
    /// One index a row, or NULL.
    list: *const i64,
    places: Places,
}

/// Where a view's rows are.
#[derive(Clone, PartialEq)]
pub(super) struct Places {
    /// One place a row, or NULL.
    slots: *const i64,
    /// At least all places, if there are no groups.
    group_rows: usize,
    group_bytes: usize,
    row_bytes: usize,
}

impl RowTable {
    /// Resolves the rows of an input and a view of it.
    pub(super) fn new(rows: &Rows, view: &View<'_>) -> Self {
        RowTable {
            first: with_exposed_provenance(rows.address()),
            source_bytes: rows.row_stride() as usize * rows.dtype().bytes(),
            dtype: rows.dtype(),
            count: rows.count() as usize,
            list: integers(rows.list()),
            places: Places::new(view),
        }
    }

    /// How many rows there are, those that slots leave out included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The rows of a range that are projected.
    ///
    /// # Safety
    /// The list and the slots can be read, and were checked; `rows` holds as many as the range.
    pub(super) unsafe fn fill<'a>(&self, range: Range<usize>, rows: &'a mut [Row]) -> &'a [Row] {
        let mut count = 0;
        for row in range {
            // SAFETY: passed on.
            let Some(target) = (unsafe { self.places.of(row) }) else { continue };
            // SAFETY: passed on; the index was checked to be a row of the buffer.
            let source = unsafe { self.first.add(at(self.list, row) as usize * self.source_bytes) };
            rows[count] = Row { source, target };
            count += 1;
        }
        &rows[..count]
    }
}

impl Places {
    /// Resolves a view.
    pub(super) fn new(view: &View<'_>) -> Self {
        let bytes = |stride: i64| stride as usize * view.dtype().bytes();
        Places {
            slots: integers(view.slots()),
            group_rows: view.group_rows().unwrap_or(i64::MAX) as usize,
            group_bytes: bytes(view.strides().group),
            row_bytes: bytes(view.strides().row),
        }
    }

    /// Bytes from the view's base to a row; None if slots leave it out.
    ///
    /// # Safety
    /// The slots can be read and have that row.
    pub(super) unsafe fn of(&self, row: usize) -> Option<usize> {
        // SAFETY: passed on.
        let place = usize::try_from(unsafe { at(self.slots, row) }).ok()?;
        let (group, row) = (place / self.group_rows, place % self.group_rows);
        Some(group * self.group_bytes + row * self.row_bytes)
    }
}

/// Where a list's integers are, or NULL.
fn integers(list: Option<&Indices>) -> *const i64 {
    list.map_or(null(), |list| with_exposed_provenance(list.address()))
}

/// What a list says of a row; the row itself without one.
///
/// # Safety
/// `list` is NULL or has that row.
unsafe fn at(list: *const i64, row: usize) -> i64 {
    // SAFETY: the caller's promise.
    if list.is_null() { row as i64 } else { unsafe { *list.add(row) } }
}
