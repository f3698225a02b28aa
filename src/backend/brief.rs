//! A job in a few words: what differs between jobs of one plan that lie alike, which are most.
//! Views and rows take longer to make and to check than a planned job takes to be launched.

use super::{Form, Lane, Weights};

/// A job of one layer whose dtypes, strides and outputs are its plan's, without lists and slots.
pub struct Brief<'a> {
    /// What the weights hold.
    pub form: &'a Form,
    /// Of this same backend.
    pub weights: &'a Weights,
    /// The layer, counted in the form.
    pub layer: usize,
    /// The sides of the plan, or some of them.
    pub sides: &'a [Option<BriefSide>; 2],
    /// Where a device's work is put.
    pub lane: &'a Lane,
}

/// Where a side's rows and results are.
#[derive(Clone, Copy, Debug)]
pub struct BriefSide {
    /// How many rows; at least one, and not more than planned.
    pub row_count: usize,
    /// The first row.
    pub rows: usize,
    /// The views' first elements; 0 where there is none.
    pub views: [usize; 2],
}
