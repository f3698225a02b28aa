//! What the tasks of a product are: some rows x some panels. Tasks of the same rows are neighbours.

use super::kernel::MOST_LANES;
use super::scratch::{TASK_ROWS, TASK_SUMS};
use crate::backend::MOST_NORM_WIDTH;
use std::ops::Range;

/// Outputs of a task: whole multiples of this, so that few rows can take several panels at once.
const LEAST_OUTPUTS: usize = 64;
/// And at most this, unless a normed head is wider.
const MOST_OUTPUTS: usize = 256;
/// Tasks for each thread, if there is so much to do: the last ones end at about the same time.
const TASKS_EACH: usize = 16;
const _: () = assert!(MOST_NORM_WIDTH + MOST_LANES <= TASK_SUMS);

/// How a product is cut.
pub(super) struct Cut {
    /// Rows of a task; the last may have fewer.
    pub(super) rows: usize,
    row_blocks: usize,
    panels: usize,
    chunks: usize,
}

impl Cut {
    /// `head` is how many panels a norm takes together.
    pub(super) fn new(
        rows: usize,
        panels: usize,
        lanes: usize,
        head: Option<usize>,
        most_rows: usize,
        threads: usize,
    ) -> Self {
        let head_rows = head.map_or(TASK_ROWS, |panels| TASK_SUMS / (panels * lanes));
        let least_blocks = rows.div_ceil(TASK_ROWS.min(head_rows));
        let outputs = (panels * lanes * least_blocks).div_ceil(TASKS_EACH * threads);
        let outputs = outputs.next_multiple_of(LEAST_OUTPUTS).clamp(LEAST_OUTPUTS, MOST_OUTPUTS);
        let chunk = head.unwrap_or(outputs / lanes);
        let chunks = panels.div_ceil(chunk);
        // Many threads that share few outputs share the rows as well.
        let sought = (4 * threads).div_ceil(chunks.max(1)).min(rows / (2 * most_rows));
        let block = rows.div_ceil(least_blocks.max(sought).max(1)).max(1);
        Cut { rows: block, row_blocks: rows.div_ceil(block), panels: chunk, chunks }
    }

    pub(super) fn task_count(&self) -> usize {
        self.row_blocks * self.chunks
    }

    /// The rows and panels of a task, of so many rows and of these panels.
    pub(super) fn task(
        &self,
        index: usize,
        rows: usize,
        panels: &Range<usize>,
    ) -> (Range<usize>, Range<usize>) {
        let rows = nth(index / self.chunks, self.rows, 0..rows);
        (rows, nth(index % self.chunks, self.panels, panels.clone()))
    }
}

/// The n-th stretch of a length, the last of which may be shorter.
fn nth(index: usize, length: usize, whole: Range<usize>) -> Range<usize> {
    let begin = whole.start + index * length;
    begin..whole.end.min(begin + length)
}
