//! What the cuBLASLt tests share: a product as a value, its descriptors, device memory, and its
//! result in f64.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]
#![allow(dead_code, unused_imports, reason = "no test file uses all of it")]

use gpusim::cublaslt::handle::*;
use gpusim::cublaslt::heuristic::*;
use gpusim::cublaslt::launch::cublasLtMatmul;
use gpusim::cublaslt::layout::*;
use gpusim::cublaslt::operation::*;
use gpusim::cublaslt::preference::*;
use gpusim::reference::Format;
use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};

#[path = "../support/mod.rs"]
pub mod support;

pub mod device;
pub use device::*;
pub use support::sim;

pub const F32: c_int = 0;
pub const F16: c_int = 2;
pub const BF16: c_int = 14;
pub const COMPUTE_32F: c_int = 68;
pub const COMPUTE_TF32: c_int = 77;
pub const EPILOGUE_BIAS: u32 = 4;

/// A descriptor in the test's own memory.
pub type Words = [u64; 32];

pub fn pointer(words: &Words) -> *const c_void {
    words.as_ptr().cast()
}

pub fn handle() -> *mut c_void {
    let mut handle = null_mut();
    assert_eq!(unsafe { cublasLtCreate(&mut handle) }, 0);
    handle
}

/// A matrix's layout, and whether the product takes its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub data_type: c_int,
    pub rows: u64,
    pub columns: u64,
    pub leading: i64,
    pub row_order: bool,
    pub batch_stride: i64,
}

impl Shape {
    pub fn column(data_type: c_int, rows: u64, columns: u64) -> Shape {
        let (leading, batch_stride) = (rows as i64, (rows * columns) as i64);
        Shape { data_type, rows, columns, leading, row_order: false, batch_stride }
    }

    pub fn row(data_type: c_int, rows: u64, columns: u64) -> Shape {
        Shape {
            leading: columns as i64,
            row_order: true,
            ..Shape::column(data_type, rows, columns)
        }
    }

    pub fn words(&self, batch: i32) -> Words {
        let mut words = [0; 32];
        let at = words.as_mut_ptr().cast();
        let Shape { data_type, rows, columns, leading, .. } = *self;
        let made = unsafe {
            cublasLtMatrixLayoutInit_internal(at, 112, data_type, rows, columns, leading)
        };
        assert_eq!(made, 0);
        set_layout(&mut words, 1, &i32::from(self.row_order));
        set_layout(&mut words, 5, &batch);
        set_layout(&mut words, 6, &self.batch_stride);
        words
    }

    /// Elements from the first to the last one of the batch.
    pub fn elements(&self, batch: u64) -> usize {
        let runs = if self.row_order { self.rows } else { self.columns };
        self.leading as usize * runs as usize
            + self.batch_stride.unsigned_abs() as usize * (batch as usize - 1)
    }

    pub fn place(&self, index: u64, row: u64, column: u64) -> usize {
        let (run, lane) = if self.row_order { (row, column) } else { (column, row) };
        (index as i64 * self.batch_stride + run as i64 * self.leading) as usize + lane as usize
    }
}

pub fn set_layout<T>(words: &mut Words, attribute: c_int, value: &T) {
    let (at, from) = (words.as_mut_ptr().cast(), (value as *const T).cast());
    let bytes = size_of::<T>();
    assert_eq!(unsafe { cublasLtMatrixLayoutSetAttribute(at, attribute, from, bytes) }, 0);
}

pub fn set_operation<T>(words: &mut Words, attribute: c_int, value: &T) {
    let (at, from) = (words.as_mut_ptr().cast(), (value as *const T).cast());
    let bytes = size_of::<T>();
    assert_eq!(unsafe { cublasLtMatmulDescSetAttribute(at, attribute, from, bytes) }, 0);
}

pub fn set_preference<T>(words: &mut Words, attribute: c_int, value: &T) {
    let (at, from) = (words.as_mut_ptr().cast(), (value as *const T).cast());
    let bytes = size_of::<T>();
    assert_eq!(unsafe { cublasLtMatmulPreferenceSetAttribute(at, attribute, from, bytes) }, 0);
}

pub fn operation(compute: c_int, transposes: [bool; 2]) -> Words {
    let mut words = [0; 32];
    let at = words.as_mut_ptr().cast();
    assert_eq!(unsafe { cublasLtMatmulDescInit_internal(at, 256, compute, F32) }, 0);
    set_operation(&mut words, 3, &i32::from(transposes[0]));
    set_operation(&mut words, 4, &i32::from(transposes[1]));
    words
}

/// Allows as much workspace as the tests have.
pub fn preference() -> Words {
    let mut words = [0; 32];
    assert_eq!(unsafe { cublasLtMatmulPreferenceInit_internal(words.as_mut_ptr().cast(), 96) }, 0);
    set_preference(&mut words, 1, &(32u64 << 20));
    words
}

/// The descriptors of a product.
#[derive(Clone, Copy)]
pub struct Descriptors {
    pub operation: Words,
    pub a: Words,
    pub b: Words,
    pub c: Words,
    pub d: Words,
}

pub type Found = (c_int, Vec<HeuristicResult>);

impl Descriptors {
    /// The transposed weights of a projection: D(m, n) = Aᵀ(k, m) · B(k, n), all in column order.
    pub fn projection(data_type: c_int, m: u64, n: u64, k: u64) -> Descriptors {
        Descriptors {
            operation: operation(COMPUTE_32F, [true, false]),
            a: Shape::column(data_type, k, m).words(1),
            b: Shape::column(data_type, k, n).words(1),
            c: Shape::column(data_type, m, n).words(1),
            d: Shape::column(data_type, m, n).words(1),
        }
    }

    pub fn pointers(&self) -> [*const c_void; 5] {
        [&self.operation, &self.a, &self.b, &self.c, &self.d].map(pointer)
    }

    /// The heuristic's status and at most `requested` algorithms.
    pub fn search(&self, preference: &Words, requested: usize) -> Found {
        let handle = handle();
        let found = self.search_with(handle, preference, requested);
        assert_eq!(cublasLtDestroy(handle), 0);
        found
    }

    pub fn search_with(&self, handle: *mut c_void, preference: &Words, requested: usize) -> Found {
        // SAFETY: a result is plain numbers.
        let mut results: Vec<HeuristicResult> = vec![unsafe { std::mem::zeroed() }; requested];
        let [operation, a, b, c, d] = self.pointers();
        let (mut returned, count, to) = (-1, requested as c_int, results.as_mut_ptr());
        let (wanted, out) = (pointer(preference), &raw mut returned);
        let status = unsafe {
            cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, c, d, wanted, count, to, out)
        };
        results.truncate(returned.max(0) as usize);
        (status, results)
    }

    pub fn status(&self) -> c_int {
        self.search(&preference(), 1).0
    }
}

/// The arguments of a launch.
#[derive(Clone, Copy)]
pub struct Arguments {
    pub alpha: f32,
    pub beta: f32,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
    /// NULL lets the library choose.
    pub algorithm: Option<[u64; 8]>,
    pub workspace: u64,
    pub workspace_bytes: usize,
    pub stream: u64,
}

impl Arguments {
    pub fn launch(&self, handle: *mut c_void, descriptors: &Descriptors) -> c_int {
        let [operation, a, b, c, d] = descriptors.pointers();
        let algorithm = self.algorithm.as_ref().map_or(null(), |words| words.as_ptr().cast());
        let scalar = |value: &f32| (value as *const f32).cast::<c_void>();
        let at = |address: u64| address as *mut c_void;
        let (alpha, beta) = (scalar(&self.alpha), scalar(&self.beta));
        let (workspace, bytes) = (at(self.workspace), self.workspace_bytes);
        unsafe {
            cublasLtMatmul(
                handle,
                operation,
                alpha,
                at(self.a),
                a,
                at(self.b),
                b,
                beta,
                at(self.c),
                c,
                at(self.d),
                d,
                algorithm,
                workspace,
                bytes,
                at(self.stream),
            )
        }
    }
}

pub fn format(data_type: c_int) -> Format {
    Format::from_cuda(data_type as u32).expect("a format of the tests")
}
