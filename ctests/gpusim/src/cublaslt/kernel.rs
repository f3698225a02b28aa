//! What the launched product computes, on the simulator's copy of device memory.

use super::algorithm::Algorithm;
use super::problem::{Matrix, Problem};
use crate::machine::{Access, Memory};
use crate::reference::{Format, parts, product, tf32};
use std::{ptr, slice};

/// alpha or beta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    Value(f32),
    Device(u64),
}

/// A product with its addresses. It is plain data, so a graph can run it again.
#[derive(Clone, Copy)]
pub struct Launch {
    pub problem: Problem,
    pub algorithm: Algorithm,
    pub alpha: Scalar,
    pub beta: Scalar,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
    pub workspace: u64,
}

/// One matrix of the batch in memory: the contents from its first byte on.
struct View {
    contents: *mut u8,
    format: Format,
    row: i64,
    column: i64,
}

impl Launch {
    /// With beta 0 on the host, C is not read.
    pub fn reads_c(&self) -> bool {
        self.beta != Scalar::Value(0.0)
    }

    pub fn accesses(&self) -> Vec<Access> {
        let problem = &self.problem;
        let mut accesses = vec![problem.a.access(self.a, false), problem.b.access(self.b, false)];
        if self.reads_c() {
            accesses.push(problem.c.access(self.c, false));
        }
        if problem.biased {
            accesses.push(problem.bias_access(problem.operation.bias));
        }
        for scalar in [self.alpha, self.beta] {
            if let Scalar::Device(address) = scalar {
                accesses.push(Access::read(address, 4));
            }
        }
        let workspace_bytes = self.algorithm.workspace_bytes(problem);
        if workspace_bytes > 0 {
            accesses.push(Access::write(self.workspace, workspace_bytes));
        }
        accesses.push(problem.d.access(self.d, true));
        accesses
    }

    /// Runs the whole batch. Memory that is not there was a violation already, and is left alone.
    pub fn run(&self, memory: &Memory) {
        for index in 0..self.problem.batch {
            let _ran = self.run_matrix(memory, index);
        }
    }

    fn run_matrix(&self, memory: &Memory, index: u64) -> Option<()> {
        let Problem { m, n, .. } = self.problem;
        let sums = self.sums(memory, index)?;
        let alpha = self.alpha.load(memory)?;
        let bias = self.bias(memory, index)?;
        let joined = self.joined(memory, index)?;
        let view = View::new(memory, &self.problem.d, self.d, index)?;
        for column in 0..n as usize {
            for (row, bias) in bias.iter().enumerate() {
                let place = column * m as usize + row;
                view.store(row, column, alpha * sums[place] + joined[place] + bias);
            }
        }
        Some(())
    }

    /// The sums over k in column order; those of parts go through the workspace.
    fn sums(&self, memory: &Memory, index: u64) -> Option<Vec<f32>> {
        let (m, n) = (self.problem.m as usize, self.problem.n as usize);
        let k = self.problem.k as usize;
        let left = View::new(memory, &self.problem.a, self.a, index)?.pack(k, m, true);
        let right = View::new(memory, &self.problem.b, self.b, index)?.pack(k, n, false);
        let (left, right) = (self.as_computed(left), self.as_computed(right));
        let splits = self.algorithm.splits as usize;
        if splits == 1 {
            return Some(product(&left, &right, m, n));
        }
        for (part, range) in parts(k, splits).enumerate() {
            let left = &left[range.start * m..range.end * m];
            let right = &right[range.start * n..range.end * n];
            let sums = product(left, right, m, n);
            let target = self.part(memory, index, part)?;
            // SAFETY: the part has room for m · n sums, and they were just made elsewhere.
            unsafe { ptr::copy_nonoverlapping(sums.as_ptr(), target, m * n) };
        }
        self.reduce(memory, index)
    }

    fn as_computed(&self, mut values: Vec<f32>) -> Vec<f32> {
        if self.problem.tf32 {
            values.iter_mut().for_each(|value| *value = tf32(*value));
        }
        values
    }

    fn reduce(&self, memory: &Memory, index: u64) -> Option<Vec<f32>> {
        let count = (self.problem.m * self.problem.n) as usize;
        let mut sums = vec![0f32; count];
        for part in 0..self.algorithm.splits as usize {
            let source = self.part(memory, index, part)?;
            // SAFETY: the part has m · n sums, which nothing changes meanwhile.
            let values = unsafe { slice::from_raw_parts(source, count) };
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += *value);
        }
        Some(sums)
    }

    /// Where the workspace keeps the sums of one part of one matrix: m · n of them.
    fn part(&self, memory: &Memory, index: u64, part: usize) -> Option<*mut f32> {
        let bytes = self.problem.m * self.problem.n * 4;
        let place = (index * u64::from(self.algorithm.splits) + part as u64) * bytes;
        memory.bytes(self.workspace + place, bytes).map(|contents| contents.cast())
    }

    /// beta · C in column order.
    fn joined(&self, memory: &Memory, index: u64) -> Option<Vec<f32>> {
        let (m, n) = (self.problem.m as usize, self.problem.n as usize);
        let beta = self.beta.load(memory)?;
        if beta == 0.0 {
            return Some(vec![0.0; m * n]);
        }
        let view = View::new(memory, &self.problem.c, self.c, index)?;
        let places = (0..n).flat_map(|column| (0..m).map(move |row| (row, column)));
        Some(places.map(|(row, column)| beta * view.load(row, column)).collect())
    }

    fn bias(&self, memory: &Memory, index: u64) -> Option<Vec<f32>> {
        let (m, operation) = (self.problem.m as usize, &self.problem.operation);
        if !self.problem.biased {
            return Some(vec![0.0; m]);
        }
        let format = self.problem.d.format;
        let step = operation.bias_batch_stride * format.bytes() as i64;
        let address = operation.bias.wrapping_add_signed(step * index as i64);
        let contents = memory.bytes(address, m as u64 * format.bytes())?;
        // SAFETY: that many bytes are there.
        let bytes = unsafe { slice::from_raw_parts(contents, m * format.bytes() as usize) };
        Some(bytes.chunks_exact(format.bytes() as usize).map(|one| format.load(one)).collect())
    }
}

impl Scalar {
    fn load(self, memory: &Memory) -> Option<f32> {
        match self {
            Scalar::Value(value) => Some(value),
            Scalar::Device(address) => {
                // SAFETY: four bytes are there.
                memory.bytes(address, 4).map(|at| unsafe { at.cast::<f32>().read_unaligned() })
            }
        }
    }
}

impl View {
    fn new(memory: &Memory, matrix: &Matrix, address: u64, index: u64) -> Option<View> {
        let bytes = matrix.format.bytes();
        let step = matrix.layout.batch_stride * bytes as i64 * index as i64;
        let first = address.wrapping_add_signed(step);
        let (length, count) = matrix.layout.runs();
        let reach = (count - 1) * matrix.layout.leading as u64 + length;
        let contents = memory.bytes(first, reach * bytes)?;
        let (row, column) = matrix.strides();
        Some(View { contents, format: matrix.format, row, column })
    }

    fn at(&self, row: usize, column: usize) -> *mut u8 {
        let element = row as i64 * self.row + column as i64 * self.column;
        // SAFETY: the view's memory reaches over all rows and columns of the matrix.
        unsafe { self.contents.add(element as usize * self.format.bytes() as usize) }
    }

    fn load(&self, row: usize, column: usize) -> f32 {
        let bytes = self.format.bytes() as usize;
        // SAFETY: the element lies in the view, and while an op runs nothing else is at work.
        self.format.load(unsafe { slice::from_raw_parts(self.at(row, column), bytes) })
    }

    fn store(&self, row: usize, column: usize, value: f32) {
        let mut element = [0; 4];
        self.format.store(value, &mut element);
        let bytes = self.format.bytes() as usize;
        // SAFETY: as in `load`.
        unsafe { ptr::copy_nonoverlapping(element.as_ptr(), self.at(row, column), bytes) };
    }

    /// The elements as k rows of `width`; k is the column where the matrix is on the left.
    fn pack(&self, k: usize, width: usize, left: bool) -> Vec<f32> {
        let place = |depth, lane| if left { (lane, depth) } else { (depth, lane) };
        let places = (0..k).flat_map(|depth| (0..width).map(move |lane| place(depth, lane)));
        places.map(|(row, column)| self.load(row, column)).collect()
    }
}
