//! The exact projection in f64, and how far from it a result may be.

use std::thread;
use xqkv::dtype::Dtype;

/// rows · weightᵀ + bias in f64, and the sum of the terms' magnitudes, for each output.
pub struct Reference {
    pub values: Vec<f64>,
    pub magnitudes: Vec<f64>,
    inner: usize,
}

impl Reference {
    /// `rows` [any, inner], `weight` [outputs, inner], `bias` [outputs].
    pub fn new(rows: &[f32], inner: usize, weight: &[f32], bias: Option<&[f32]>) -> Self {
        let rows: Vec<&[f32]> = rows.chunks_exact(inner).collect();
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let share = rows.len().div_ceil(threads).max(1);
        let mut terms = Vec::new();
        thread::scope(|scope| {
            let run = |rows: &[&[f32]]| -> Vec<_> {
                rows.iter().flat_map(|row| project(row, weight, bias)).collect()
            };
            let workers: Vec<_> =
                rows.chunks(share).map(|rows| scope.spawn(move || run(rows))).collect();
            for worker in workers {
                terms.extend(worker.join().unwrap_or_default());
            }
        });
        let (values, magnitudes) = terms.into_iter().unzip();
        Self { values, magnitudes, inner }
    }

    /// How far `result` is from output `index`, in units of how far it may be.
    pub fn error_over_bound(&self, index: usize, result: f64, dtype: Dtype) -> f64 {
        let error = (result - self.values[index]).abs();
        let largest = result.abs().max(self.values[index].abs());
        let bound = self.accumulation_bound(index) + half_ulp(largest, dtype);
        if error.is_nan() { f64::INFINITY } else { error / bound }
    }

    /// How far a value that was itself stored in f32 is from output `index`, in such units.
    pub fn stored_error_over_bound(&self, index: usize, stored: f64) -> f64 {
        let error = (stored - self.values[index]).abs();
        let bound = half_ulp(stored.abs(), Dtype::F32) + 1e-12 * self.magnitudes[index];
        if error.is_nan() { f64::INFINITY } else { error / bound }
    }

    /// Higham's bound for a sum of products in f32, and what products may lose to underflow.
    fn accumulation_bound(&self, index: usize) -> f64 {
        let steps = (self.inner + 2) as f64 * f64::powi(2.0, -24);
        let underflow = self.inner as f64 * f64::powi(2.0, -149);
        steps / (1.0 - steps) * self.magnitudes[index] + underflow
    }
}

/// Each output's exact value and the sum of its terms' magnitudes.
fn project(row: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<(f64, f64)> {
    let columns = weight.chunks_exact(row.len()).enumerate();
    columns
        .map(|(output, column)| {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[output]));
            let terms = row.iter().zip(column).map(|(x, w)| f64::from(*x) * f64::from(*w));
            terms.fold((bias, bias.abs()), |(sum, size), term| (sum + term, size + term.abs()))
        })
        .collect()
}

/// Half a unit in the last place of a dtype at a magnitude; of its denormals where it has no
/// smaller ones.
fn half_ulp(magnitude: f64, dtype: Dtype) -> f64 {
    let (precision, least_exponent) = match dtype {
        Dtype::F32 => (24, -126),
        Dtype::F16 => (11, -14),
        Dtype::Bf16 => (8, -126),
    };
    let exponent = if magnitude > 0.0 { magnitude.log2().floor() as i32 } else { least_exponent };
    f64::powi(2.0, exponent.max(least_exponent) - precision)
}
