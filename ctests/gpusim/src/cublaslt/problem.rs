//! A product whose operation and layouts were checked against each other: D(m, n) =
//! alpha · op(A)(m, k) · op(B)(k, n) + beta · C(m, n) + bias(m), for each matrix of a batch.

use super::layout::{Layout, ORDER_COLUMN, ORDER_ROW};
use super::operation::Operation;
use super::status::{INVALID_VALUE, NOT_SUPPORTED};
use crate::machine::Access;
use crate::reference::Format;
use std::ffi::{c_int, c_void};

pub const COMPUTE_32F: c_int = 68;
pub const COMPUTE_32F_FAST_TF32: c_int = 77;
const SCALE_32F: c_int = 0;
const EPILOGUE_DEFAULT: u32 = 1;
const EPILOGUE_BIAS: u32 = 4;
const FILL_FULL: c_int = 2;

/// One matrix of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub layout: Layout,
    pub format: Format,
    pub transposed: bool,
}

/// Whether alpha and beta are on the host or on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerMode {
    Host,
    Device,
}

#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub operation: Operation,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    pub d: Matrix,
    pub m: u64,
    pub n: u64,
    pub k: u64,
    pub batch: u64,
    pub pointer_mode: PointerMode,
    pub biased: bool,
    pub tf32: bool,
}

impl Problem {
    /// The problem that the caller's descriptors make. A NULL layout of C is D's.
    ///
    /// # Safety
    /// Each pointer must be NULL or a descriptor; the layouts are those of A, B, C and D.
    pub unsafe fn read(
        operation: *const c_void,
        layouts: [*const c_void; 4],
    ) -> Result<Problem, c_int> {
        let [a, b, c, d] = layouts;
        let c = if c.is_null() { d } else { c };
        // SAFETY: as promised.
        unsafe {
            let operation = Operation::read(operation)?;
            let layouts = [Layout::read(a)?, Layout::read(b)?, Layout::read(c)?, Layout::read(d)?];
            Problem::new(operation, layouts)
        }
    }

    pub fn new(operation: Operation, layouts: [Layout; 4]) -> Result<Problem, c_int> {
        let [a, b, c, d] = layouts;
        check_operation(&operation)?;
        let a = Matrix::new(a, operation.transpose_a)?;
        let b = Matrix::new(b, operation.transpose_b)?;
        let (c, d) = (Matrix::new(c, 0)?, Matrix::new(d, 0)?);
        check_shapes(&a, &b, &c, &d)?;
        let formats = [a.format, b.format, c.format, d.format];
        check_types(operation.compute_type, operation.scale_type, formats)?;
        check_epilogue(&operation, &d)?;
        Ok(Problem {
            operation,
            a,
            b,
            c,
            d,
            m: d.layout.rows,
            n: d.layout.columns,
            k: a.shape().1,
            batch: d.layout.batch_count as u64,
            pointer_mode: pointer_mode(operation.pointer_mode)?,
            biased: operation.epilogue == EPILOGUE_BIAS,
            tf32: operation.compute_type == COMPUTE_32F_FAST_TF32,
        })
    }

    pub fn matrices(&self) -> [&Matrix; 4] {
        [&self.a, &self.b, &self.c, &self.d]
    }

    pub fn multiply_adds(&self) -> u64 {
        self.batch * self.m * self.n * self.k
    }

    /// The bias at this address: m elements for each matrix of the batch.
    pub fn bias_access(&self, address: u64) -> Access {
        let bytes = self.d.format.bytes();
        let batch = (self.batch, self.operation.bias_batch_stride * bytes as i64);
        Access { dims: [batch, (1, 0), (1, 0)], ..Access::read(address, self.m * bytes) }
    }
}

impl Matrix {
    fn new(layout: Layout, transpose: c_int) -> Result<Matrix, c_int> {
        let format = Format::from_cuda(layout.data_type).ok_or(NOT_SUPPORTED)?;
        if layout.order != ORDER_COLUMN && layout.order != ORDER_ROW {
            return Err(NOT_SUPPORTED);
        }
        if layout.batch_mode != 0 || layout.plane_offset != 0 {
            return Err(NOT_SUPPORTED);
        }
        check_extents(&layout)?;
        // The conjugate transpose of real numbers is the transpose.
        match transpose {
            0 => Ok(Matrix { layout, format, transposed: false }),
            1 | 2 => Ok(Matrix { layout, format, transposed: true }),
            _ => Err(NOT_SUPPORTED),
        }
    }

    /// Rows and columns as the product sees them.
    fn shape(&self) -> (u64, u64) {
        let Layout { rows, columns, .. } = self.layout;
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    /// Elements from one row, as the product sees it, to the next, and from column to column.
    pub fn strides(&self) -> (i64, i64) {
        let leading = self.layout.leading;
        match (self.layout.order == ORDER_ROW) != self.transposed {
            true => (leading, 1),
            false => (1, leading),
        }
    }

    /// What the whole batch touches of memory.
    pub fn access(&self, address: u64, write: bool) -> Access {
        let bytes = self.format.bytes();
        let (length, count) = self.layout.runs();
        let runs = (count, self.layout.leading * bytes as i64);
        let batch = (self.layout.batch_count as u64, self.layout.batch_stride * bytes as i64);
        Access { address, bytes: length * bytes, dims: [runs, batch, (1, 0)], write }
    }

    /// Whether runs and matrices of the batch start at multiples of `alignment` bytes, given
    /// that the first one does.
    pub fn keeps_alignment(&self, alignment: u64) -> bool {
        let bytes = self.format.bytes();
        let steps = [self.layout.leading, self.layout.batch_stride];
        steps.iter().all(|step| (step.unsigned_abs() * bytes).is_multiple_of(alignment))
    }
}

fn check_operation(operation: &Operation) -> Result<(), c_int> {
    if operation.scaled {
        return Err(INVALID_VALUE);
    }
    match operation.transpose_c == 0 && operation.fill_mode == FILL_FULL {
        true => Ok(()),
        false => Err(NOT_SUPPORTED),
    }
}

fn check_extents(layout: &Layout) -> Result<(), c_int> {
    if layout.rows == 0 || layout.columns == 0 || layout.batch_count < 1 {
        return Err(INVALID_VALUE);
    }
    match layout.rows <= i32::MAX as u64 && layout.columns <= i32::MAX as u64 {
        true => Ok(()),
        false => Err(NOT_SUPPORTED),
    }
}

fn check_shapes(a: &Matrix, b: &Matrix, c: &Matrix, d: &Matrix) -> Result<(), c_int> {
    let ((m, k), (k_of_b, n)) = (a.shape(), b.shape());
    let fits = k == k_of_b && d.shape() == (m, n) && c.shape() == (m, n);
    let batch = d.layout.batch_count;
    let batched = [a, b, c].iter().all(|matrix| matrix.layout.batch_count == batch);
    let leading = |matrix: &Matrix| matrix.layout.leading >= matrix.layout.runs().0 as i64;
    // C's may be 0: one run for all.
    let led = leading(a) && leading(b) && leading(d) && (leading(c) || c.layout.leading == 0);
    if !fits || !batched || !led {
        return Err(INVALID_VALUE);
    }
    match c.layout.order == d.layout.order {
        true => Ok(()),
        false => Err(NOT_SUPPORTED),
    }
}

/// The combinations of types that the documentation's table has for f32 sums, narrowed to those
/// that the simulator computes.
pub fn check_types(compute: c_int, scale: c_int, formats: [Format; 4]) -> Result<(), c_int> {
    let [a, b, c, d] = formats;
    let known = match a {
        Format::F32 => compute == COMPUTE_32F || compute == COMPUTE_32F_FAST_TF32,
        Format::F16 | Format::Bf16 => compute == COMPUTE_32F,
    };
    let stored = d == a || d == Format::F32;
    match known && stored && a == b && c == d && scale == SCALE_32F {
        true => Ok(()),
        false => Err(NOT_SUPPORTED),
    }
}

fn check_epilogue(operation: &Operation, d: &Matrix) -> Result<(), c_int> {
    if operation.epilogue == EPILOGUE_DEFAULT {
        return Ok(());
    }
    let own = operation.bias_type == -1 || operation.bias_type as u32 == d.layout.data_type;
    let column = d.layout.order == ORDER_COLUMN;
    match operation.epilogue == EPILOGUE_BIAS && own && column {
        true => Ok(()),
        false => Err(NOT_SUPPORTED),
    }
}

fn pointer_mode(mode: c_int) -> Result<PointerMode, c_int> {
    match mode {
        0 => Ok(PointerMode::Host),
        1 => Ok(PointerMode::Device),
        _ => Err(NOT_SUPPORTED),
    }
}
