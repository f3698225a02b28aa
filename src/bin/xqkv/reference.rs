//! The exact projection in f64, and how far from it a result may be.

use std::thread;
use xqkv::dtype::Dtype;

/// The exact results, and how far from each a result may be before it is rounded to its dtype.
pub struct Reference {
    pub values: Vec<f64>,
    bounds: Vec<f64>,
    /// rows · weightᵀ + bias, before norm and scale.
    projected: Vec<f64>,
    /// The sum of the magnitudes of the terms of each of these.
    pub magnitudes: Vec<f64>,
}

/// What is done to a part's heads after the bias: `scale · rms(head) · weight`, or `scale · head`.
pub struct Finish {
    pub scale: f64,
    pub norm: Option<Norm>,
}

/// A root mean square norm over the lanes of a head.
pub struct Norm {
    /// One for each lane.
    pub weight: Vec<f32>,
    /// Added to the mean square.
    pub epsilon: f64,
    /// What normed lanes are rounded to before their weights are multiplied.
    pub rounds_to: Option<Dtype>,
}

impl Reference {
    /// `rows` [any, inner], `weight` [outputs, inner], `bias` [outputs], in heads of `width`.
    pub fn new(
        rows: &[f32],
        inner: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        width: usize,
        finish: &Finish,
    ) -> Self {
        let (projected, magnitudes): (Vec<f64>, Vec<f64>) =
            projections(rows, inner, weight, bias).into_iter().unzip();
        let errors: Vec<f64> =
            magnitudes.iter().map(|&magnitude| accumulation_bound(inner, magnitude)).collect();
        let heads = projected.chunks_exact(width).zip(errors.chunks_exact(width));
        let (values, bounds) = heads.flat_map(|(head, error)| finish.apply(head, error)).unzip();
        Self { values, bounds, projected, magnitudes }
    }

    /// How far `result` is from output `index`, in units of how far it may be.
    pub fn error_over_bound(&self, index: usize, result: f64, dtype: Dtype) -> f64 {
        let error = (result - self.values[index]).abs();
        let largest = result.abs().max(self.values[index].abs());
        let bound = self.bounds[index] + half_ulp(largest, dtype);
        if error.is_nan() { f64::INFINITY } else { error / bound }
    }

    /// How far a value that was itself stored in f32, before norm and scale, is from output
    /// `index`, in such units.
    pub fn stored_error_over_bound(&self, index: usize, stored: f64) -> f64 {
        let error = (stored - self.projected[index]).abs();
        let bound = half_ulp(stored.abs(), Dtype::F32) + 1e-12 * self.magnitudes[index];
        if error.is_nan() { f64::INFINITY } else { error / bound }
    }
}

/// All outputs, by as many threads as there are.
fn projections(
    rows: &[f32],
    inner: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<(f64, f64)> {
    let rows: Vec<&[f32]> = rows.chunks_exact(inner).collect();
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let share = rows.len().div_ceil(threads).max(1);
    let run = |rows: &[&[f32]]| -> Vec<_> {
        rows.iter().flat_map(|row| project(row, weight, bias)).collect()
    };
    thread::scope(|scope| {
        let workers: Vec<_> =
            rows.chunks(share).map(|rows| scope.spawn(move || run(rows))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

impl Finish {
    /// The exact results of one head, and how far each may be off, where lane j's projection may
    /// be off by `errors[j]`.
    fn apply(&self, head: &[f64], errors: &[f64]) -> Vec<(f64, f64)> {
        let lanes = head.iter().zip(errors);
        match &self.norm {
            None => {
                lanes.map(|(value, error)| (self.scale * value, self.scale.abs() * error)).collect()
            }
            Some(norm) => norm.apply(self.scale, head, errors),
        }
    }
}

impl Norm {
    /// Lane j of n is `scale · weight[j] · y[j] / r` with `r = sqrt(mean(y²) + epsilon)`.
    ///
    /// Let each y[j] be off by at most e[j]. r as a function of y has slope at most 1/sqrt(n), so
    /// it is off by at most `R = sqrt(mean(e²))`, and is never less than
    /// `least = max(r - R, sqrt(epsilon))`. Hence y[j] / r is off by at most
    ///
    ///     d[j] = (e[j] + |y[j]| · R / r) / least
    ///
    /// The norm's own arithmetic in f32 is n squares and their sum (all positive, so γ(n) of it),
    /// the mean and epsilon, of which the root halves the relative error, and then root, quotient,
    /// the lane's, the weight's and the scale's product: below γ(n + 8) of |y[j]| / r + d[j].
    /// Rounding before the weight adds half a unit in the last place there.
    fn apply(&self, scale: f64, head: &[f64], errors: &[f64]) -> Vec<(f64, f64)> {
        let mean_square =
            |lanes: &[f64]| lanes.iter().map(|x| x * x).sum::<f64>() / lanes.len() as f64;
        let root = (mean_square(head) + self.epsilon).sqrt();
        let root_error = mean_square(errors).sqrt();
        let least = (root - root_error).max(self.epsilon.sqrt());
        let steps = gamma(head.len() + 8);
        let lane = |lane: usize| {
            let (normed, factor) = (head[lane] / root, scale * f64::from(self.weight[lane]));
            let error = (errors[lane] + normed.abs() * root_error) / least;
            let reach = normed.abs() + error;
            let rounding = self.rounds_to.map_or(0.0, |dtype| half_ulp(reach, dtype));
            (factor * normed, factor.abs() * (error + steps * reach + rounding))
        };
        (0..head.len()).map(lane).collect()
    }
}

/// γ(n): the relative error of n roundings to f32, one upon the other.
fn gamma(roundings: usize) -> f64 {
    let steps = roundings as f64 * f64::powi(2.0, -24);
    steps / (1.0 - steps)
}

/// Higham's bound for a sum of products in f32, and what products may lose to underflow.
fn accumulation_bound(inner: usize, magnitude: f64) -> f64 {
    gamma(inner + 2) * magnitude + inner as f64 * f64::powi(2.0, -149)
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

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 4;
    const INNER: usize = 8;

    /// Numbers from -1 to 1 of no pattern.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * at * 7 + at * 13 + seed * 5) % 33) as f32 / 16.5 - 1.0).collect()
    }

    /// A norm in f32, in the order of the lanes; epsilon inside the root, the weight after it.
    fn normed(rows: &[f32], weight: &[f32], norm: &Norm, scale: f32) -> Vec<f32> {
        let projected = rows.chunks(INNER).flat_map(|row| {
            let dot = |column: &[f32]| row.iter().zip(column).map(|(x, w)| x * w).sum::<f32>();
            weight.chunks(INNER).map(dot).collect::<Vec<f32>>()
        });
        let projected: Vec<f32> = projected.collect();
        let head = |head: &[f32]| {
            let squares: f32 = head.iter().map(|x| x * x).sum();
            let root = (squares / WIDTH as f32 + norm.epsilon as f32).sqrt();
            let lanes = head.iter().zip(&norm.weight);
            lanes.map(|(x, weight)| x / root * weight * scale).collect::<Vec<f32>>()
        };
        projected.chunks(WIDTH).flat_map(head).collect()
    }

    fn largest_error(results: &[f32], exact: &Reference) -> f64 {
        let errors = results.iter().enumerate();
        errors.map(|(at, &x)| exact.error_over_bound(at, x.into(), Dtype::F32)).fold(0.0, f64::max)
    }

    #[test]
    fn a_norm_in_f32_is_within_its_bound_and_a_wrong_one_is_not() {
        let (rows, weight) = (numbers(5 * INNER, 1), numbers(3 * WIDTH * INNER, 2));
        let norm = |epsilon, rounds_to| Norm { weight: numbers(WIDTH, 3), epsilon, rounds_to };
        let exact = |scale, norm| {
            let finish = Finish { scale, norm: Some(norm) };
            Reference::new(&rows, INNER, &weight, None, WIDTH, &finish)
        };
        let results = normed(&rows, &weight, &norm(1e-3, None), 0.5);
        let error = largest_error(&results, &exact(0.5, norm(1e-3, None)));
        assert!(error > 0.0 && error <= 1.0, "{error}");
        assert!(largest_error(&results, &exact(0.5, norm(1.1e-3, None))) > 1.0, "epsilon");
        assert!(largest_error(&results, &exact(0.50001, norm(1e-3, None))) > 1.0, "scale");
        let rounded = exact(0.5, norm(1e-3, Some(Dtype::Bf16)));
        let slack = largest_error(&results, &rounded);
        assert!(slack < error, "a rounding in between is allowed for: {slack}");
    }
}
