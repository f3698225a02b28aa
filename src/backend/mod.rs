//! The seam to a device: a small trait, and the one place that chooses who implements it.
//!
//! A backend knows matrices, rows and views; it knows nothing of queries and keys, ranks or files.
//! What it is given was checked: sizes are positive, addresses are right, and outputs are disjoint
//! from each other and from inputs.

mod host;

pub use host::InstructionSet;

use crate::dtype::Dtype;
use crate::error::Error;
use crate::stats::Counts;
use crate::view::{Rows, View};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// One device that can keep matrices and multiply rows with them.
pub trait Backend: Send + Sync {
    /// What this backend turned out to be.
    fn info(&self) -> Info;

    /// Takes a copy of a matrix in the form that the device multiplies with.
    fn load(&self, matrix: &Matrix<'_>) -> Result<Weights, Error>;

    /// Runs products, all of them or, on an error, none that anyone may rely on.
    ///
    /// # Safety
    /// The rows can be read and the views written for as long as the call works on them, and
    /// nobody else writes the rows or touches the views meanwhile.
    unsafe fn run(&self, products: &[Product<'_>]) -> Result<Counts, Error>;
}

/// A matrix in host memory: `outputs` rows of `inputs` elements, packed.
pub struct Matrix<'a> {
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// What the elements are.
    pub dtype: Dtype,
    /// The elements, in any alignment.
    pub bytes: &'a [u8],
}

/// A matrix as its backend keeps it; cheap to share. Only the backend that loaded it can look in.
#[derive(Clone)]
pub struct Weights(Arc<dyn Any + Send + Sync>);

/// view[layer] = scale · (rows · weightsᵀ + bias), rounded once.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Read: [rows, inputs].
    pub rows: &'a Rows,
    /// Of this same backend: [outputs, inputs].
    pub weights: &'a Weights,
    /// Added to each row: [outputs].
    pub bias: Option<&'a [f32]>,
    /// Multiplies the sum and its bias.
    pub scale: f32,
    /// Written: [layers, rows, heads, width], with heads · width = outputs.
    pub view: &'a View,
    /// Which of the view's layers.
    pub layer: i64,
}

/// Which backend to open.
pub enum Choice {
    /// The host's threads; 0 threads is one for each CPU, no instruction set is the best there is.
    Host {
        /// Threads that work on a call, the caller's included.
        thread_count: usize,
        /// The instruction set to use.
        instruction_set: Option<InstructionSet>,
    },
}

/// What a backend turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// The host's threads.
    Host {
        /// Threads that work on a call, the caller's included.
        thread_count: usize,
        /// The instruction set in use.
        instruction_set: InstructionSet,
    },
}

impl fmt::Display for Info {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Info::Host { thread_count, instruction_set } => {
                write!(formatter, "host backend, {thread_count} threads, {instruction_set:?}")
            }
        }
    }
}

/// Opens the chosen backend.
pub fn open(choice: Choice) -> Result<Arc<dyn Backend>, Error> {
    match choice {
        Choice::Host { thread_count, instruction_set } => {
            Ok(Arc::new(host::Host::open(thread_count, instruction_set)?))
        }
    }
}
