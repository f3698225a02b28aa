//! A tensor in the engine's memory, and its rows one by one, whichever way it lies.

use super::convert::with_room;
use super::cut::FusedOrder;
use crate::dtype::{Dtype, Element, WeightDtype, with_element};
use crate::error::{Error, Status};
use crate::shard::Range;

/// Whose rows a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The uncut layer's.
    Whole,
    /// This rank's.
    Shard,
}

/// Which elements of a tensor are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Those of one output: [outputs, inputs].
    OutIn,
    /// Those of one input: [inputs, outputs].
    InOut,
}

/// The elements of a tensor.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// In host memory, in any alignment, up to the last element; copied.
    Copied(&'a [u8]),
    /// At this address of the backend's device; used in place.
    Borrowed(usize),
}

/// What numbers the elements of a tensor stand for.
#[derive(Clone, Copy)]
pub enum Numbers<'a> {
    /// Themselves, of this dtype.
    Plain(Dtype),
    /// Integers of 8 bits, times these scales.
    Scaled(Integers<'a>),
}

/// What makes numbers of integers.
#[derive(Clone, Copy)]
pub struct Integers<'a> {
    /// One behind the other, in any alignment.
    pub scales: &'a [u8],
    /// What the scales are.
    pub dtype: Dtype,
    /// Rows that share a scale.
    pub block_rows: i64,
}

impl Integers<'_> {
    /// The scale of a row of the tensor.
    pub(super) fn scale(&self, row: i64) -> f32 {
        let at = (row / self.block_rows) as usize * self.dtype.bytes();
        let bytes = &self.scales[at..][..self.dtype.bytes()];
        with_element!(self.dtype, E => E::from_bytes(bytes).widen())
    }
}

/// A tensor in the engine's memory.
pub struct Source<'a> {
    /// What its elements are.
    pub numbers: Numbers<'a>,
    /// Where its elements are.
    pub data: Data<'a>,
    /// Output features.
    pub rows: i64,
    /// Input features; 1 for a bias.
    pub columns: i64,
    /// Elements from one output to the next, or from one input to the next, as the layout says.
    pub row_stride: i64,
    /// Which elements are neighbours.
    pub layout: Layout,
    /// How its parts follow each other.
    pub order: FusedOrder,
    /// Whose rows it has.
    pub extent: Extent,
    /// Whether a weight of another dtype is rounded to the spec's.
    pub convert: bool,
}

/// Outputs that are read from each input at a time: a cache line or two of neighbours.
const BLOCK_ROWS: i64 = 32;

impl Source<'_> {
    /// What its elements are.
    pub fn dtype(&self) -> WeightDtype {
        match self.numbers {
            Numbers::Plain(dtype) => dtype.into(),
            Numbers::Scaled(_) => WeightDtype::Int8,
        }
    }

    /// Bytes from the first element to behind the last.
    pub fn bytes(&self) -> Result<usize, Error> {
        let &Source { rows, columns, row_stride, .. } = self;
        if rows == 0 || columns == 0 {
            return Ok(0);
        }
        let (far, near) = match self.layout {
            Layout::OutIn => (rows, columns),
            Layout::InOut => (columns, rows),
        };
        let elements = (far - 1).checked_mul(row_stride).and_then(|last| last.checked_add(near));
        let bytes = elements.and_then(|elements| elements.checked_mul(self.dtype().bytes() as i64));
        bytes.map(|bytes| bytes as usize).ok_or_else(|| {
            let message = format!(
                "tensor [{rows}, {columns}] with row_stride {row_stride} exceeds 2^63 bytes"
            );
            Error::new(Status::SizeOverflow, message)
        })
    }

    /// Bytes before a row of a tensor whose rows' elements are neighbours.
    pub(super) fn offset(&self, row: i64) -> usize {
        (row * self.row_stride) as usize * self.dtype().bytes()
    }

    /// How many elements these rows have.
    pub(super) fn elements(&self, runs: &[Range]) -> usize {
        let rows: i64 = runs.iter().map(|run| run.count).sum();
        (rows * self.columns) as usize
    }

    /// Hands over the elements of these rows of data that is copied, some whole rows at a time.
    pub(super) fn each_piece(
        &self,
        data: &[u8],
        runs: &[Range],
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self.layout {
            Layout::OutIn => {
                let mut rows = runs.iter().flat_map(|run| run.begin..run.end());
                rows.try_for_each(|row| take(self.row(data, row)))
            }
            Layout::InOut => self.each_block(data, runs, take),
        }
    }

    fn row<'b>(&self, data: &'b [u8], row: i64) -> &'b [u8] {
        &data[self.offset(row)..][..self.columns as usize * self.dtype().bytes()]
    }

    /// As `for row in runs { take(data[.., row]) }`, but by blocks of rows, so that a cache line of
    /// the data is read once and not once for each row.
    fn each_block(
        &self,
        data: &[u8],
        runs: &[Range],
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let bytes = self.dtype().bytes();
        let most = BLOCK_ROWS.min(self.rows) as usize * self.columns as usize * bytes;
        let mut block = with_room(most)?;
        for run in runs {
            for begin in (run.begin..run.end()).step_by(BLOCK_ROWS as usize) {
                let count = BLOCK_ROWS.min(run.end() - begin) as usize;
                block.resize(count * self.columns as usize * bytes, 0);
                match bytes {
                    1 => self.transpose::<1>(data, begin, count, &mut block),
                    2 => self.transpose::<2>(data, begin, count, &mut block),
                    _ => self.transpose::<4>(data, begin, count, &mut block),
                }
                take(&block)?;
            }
        }
        Ok(())
    }

    /// block[row][input] = data[input][begin + row], for so many rows.
    fn transpose<const BYTES: usize>(
        &self,
        data: &[u8],
        begin: i64,
        count: usize,
        block: &mut [u8],
    ) {
        let columns = self.columns as usize;
        let (block, _) = block.as_chunks_mut::<BYTES>();
        for input in 0..columns {
            let first = (input as i64 * self.row_stride + begin) as usize * BYTES;
            let (elements, _) = data[first..][..count * BYTES].as_chunks::<BYTES>();
            for (row, element) in elements.iter().enumerate() {
                block[row * columns + input] = *element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [inputs, outputs] of u16 that name their place, with elements of 0xffff between the inputs.
    #[test]
    fn rows_that_lie_across_are_read_as_rows_that_lie_along() {
        let (rows, columns, row_stride) = (71, 5, 75);
        let element = |row: i64, column: i64| (row * 100 + column) as u16;
        let mut elements = vec![u16::MAX; ((columns - 1) * row_stride + rows) as usize];
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |at| (row, at))) {
            elements[(column * row_stride + row) as usize] = element(row, column);
        }
        let data: Vec<u8> = elements.iter().flat_map(|element| element.to_ne_bytes()).collect();
        let (layout, order) = (Layout::InOut, FusedOrder::Concatenated);
        let (extent, convert) = (Extent::Whole, false);
        let source = Source {
            numbers: Numbers::Plain(Dtype::Bf16),
            data: Data::Copied(&data),
            rows,
            columns,
            row_stride,
            layout,
            order,
            extent,
            convert,
        };
        assert_eq!(source.bytes().unwrap(), data.len());
        let runs = [Range { begin: 2, count: 1 }, Range { begin: 5, count: 66 }];
        let mut read = Vec::new();
        source
            .each_piece(&data, &runs, |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        let wanted = runs.iter().flat_map(|run| run.begin..run.end());
        let wanted = wanted.flat_map(|row| (0..columns).map(move |column| element(row, column)));
        assert_eq!(read, wanted.flat_map(u16::to_ne_bytes).collect::<Vec<u8>>());
    }
}
