//! What weights are made of: the matrices, biases and norms that a backend is handed to load.

use super::Form;

/// The matrices, biases and norms that weights are made of: `matrices` of each layer in turn.
pub struct Stock<'a> {
    /// What every layer holds.
    pub form: &'a Form,
    /// Layer by layer, matrix by matrix.
    pub contents: Vec<Content<'a>>,
}

/// What stands in the place of one matrix.
#[derive(Clone, Copy, Default)]
pub struct Content<'a> {
    /// The matrix.
    pub weight: WeightSource<'a>,
    /// Its bias.
    pub bias: VectorSource<'a>,
    /// The weight of its norm.
    pub norm: VectorSource<'a>,
}

/// Where a matrix comes from.
#[derive(Clone, Copy, Default)]
pub enum WeightSource<'a> {
    /// There is none.
    #[default]
    Absent,
    /// It is the one that was there before.
    Kept,
    /// [outputs, inputs] packed, in host memory, of the form's dtype; copied.
    Copied(&'a [u8]),
    /// In the device's memory, used in place.
    Borrowed(Borrowed),
}

/// A matrix in memory of the device that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Borrowed {
    /// The first element.
    pub address: usize,
    /// Elements from one row to the next.
    pub row_stride: i64,
}

/// Where a bias comes from, or another vector that belongs to a matrix.
#[derive(Clone, Copy, Default)]
pub enum VectorSource<'a> {
    /// There is none.
    #[default]
    Absent,
    /// It is the one that was there before.
    Kept,
    /// Its elements; copied.
    Copied(&'a [f32]),
}
