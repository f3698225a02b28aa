//! The rows that a call is given: all in order, or some of them by a row list, out of a larger
//! buffer in which everything else is NaN.

use super::elements::{Elements, POISON};
use crate::memory::{Kept, Memory};
use crate::tensors::Outcome;
use xqkv::capi::input::xqkv_input;
use xqkv::dtype::Dtype;

/// Rows where a call finds them.
pub struct Rows<'a> {
    data: Kept<'a>,
    dtype: Dtype,
    buffer_rows: usize,
    /// The buffer's row for each of the call's; None for all in order.
    list: Option<Kept<'a>>,
    /// Which original row each of the call's rows is.
    pub sources: Vec<usize>,
}

impl<'a> Rows<'a> {
    /// The `count` rows as they are.
    pub fn in_order(rows: &Elements, count: usize, memory: &'a Memory) -> Outcome<Self> {
        let data = memory.keep(rows.bytes.clone())?;
        let (dtype, sources) = (rows.dtype, (0..count).collect());
        Ok(Self { data, dtype, buffer_rows: count, list: None, sources })
    }

    /// Three of four rows, every sixth of them twice, in no order.
    pub fn listed(rows: &Elements, count: usize, memory: &'a Memory) -> Outcome<Self> {
        let kept: Vec<usize> = (0..count).filter(|row| row % 4 != 1).collect();
        let buffer_rows = 2 * count + 3;
        let places = shuffled(buffer_rows);
        let row_bytes = rows.bytes.len() / count.max(1);
        let mut buffer = vec![POISON; buffer_rows * row_bytes];
        for &row in &kept {
            let target = &mut buffer[places[row] * row_bytes..][..row_bytes];
            target.copy_from_slice(&rows.bytes[row * row_bytes..][..row_bytes]);
        }
        let named: Vec<usize> = kept.iter().chain(kept.iter().step_by(6)).copied().collect();
        let sources: Vec<usize> = shuffled(named.len()).into_iter().map(|at| named[at]).collect();
        let list: Vec<i64> = sources.iter().map(|&row| places[row] as i64).collect();
        let (data, list) = (memory.keep(buffer)?, Some(memory.keep(bytes_of(&list))?));
        Ok(Self { data, dtype: rows.dtype, buffer_rows, list, sources })
    }

    /// As a call is told of them.
    pub fn input(&self) -> xqkv_input {
        // SAFETY: a plain struct of which zero is a value.
        let mut input: xqkv_input = unsafe { std::mem::zeroed() };
        input.data = self.data.address().cast();
        input.rows = self.sources.len() as i64;
        input.dtype = self.dtype as i32;
        if let Some(list) = &self.list {
            input.row_list = list.address().cast();
            input.buffer_rows = self.buffer_rows as i64;
        }
        input
    }
}

/// A list as it lies in memory.
pub fn bytes_of(list: &[i64]) -> Vec<u8> {
    list.iter().flat_map(|index| index.to_ne_bytes()).collect()
}

/// The numbers below `count` in an order that is always the same, and none in particular.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state: u64 = 1;
    for last in (1..count).rev() {
        // Knuth's linear congruential generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}
