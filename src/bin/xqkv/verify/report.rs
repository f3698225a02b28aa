//! The verdict, as a table and as JSON.

use crate::numbers::{grouped, ratio};
use serde_json::{Value, json};

/// One matrix of one layer.
pub struct Matrix {
    pub name: &'static str,
    pub error_over_bound: f64,
    /// Whether the exact results are what the model's own module computed.
    pub agrees: bool,
    /// Whether all calls gave the same bits.
    pub same_bits: bool,
}

/// One layer's three calls on all ranks.
pub struct LayerVerdict {
    layer: i64,
    checkpoint_layer: i64,
    pub matrices: Vec<Matrix>,
    executed: i64,
    necessary: i64,
    /// Whether each rank of each call executed exactly what it had to.
    exact: bool,
    /// Multiply-adds of the uncut layer in the same calls.
    pub uncut: i64,
}

/// All layers.
pub struct Verdict<'a> {
    pub family: &'a str,
    pub ranks: usize,
    pub layers: Vec<LayerVerdict>,
}

impl LayerVerdict {
    pub fn new(layer: i64, checkpoint_layer: i64) -> Self {
        let matrices = Vec::new();
        Self { layer, checkpoint_layer, matrices, executed: 0, necessary: 0, exact: true, uncut: 0 }
    }

    /// Adds one rank's call.
    pub fn count(&mut self, executed: i64, necessary: i64) {
        self.executed += executed;
        self.necessary += necessary;
        self.exact &= executed == necessary;
    }

    fn passes(&self) -> bool {
        let good =
            |matrix: &Matrix| matrix.error_over_bound <= 1.0 && matrix.agrees && matrix.same_bits;
        self.exact && self.matrices.len() == 3 && self.matrices.iter().all(good)
    }

    fn largest_error(&self) -> f64 {
        self.matrices.iter().map(|matrix| matrix.error_over_bound).fold(0.0, f64::max)
    }

    fn to_json(&self) -> Value {
        let matrix = |matrix: &Matrix| {
            json!({
                "name": matrix.name,
                "error_over_bound": finite(matrix.error_over_bound),
                "agrees_with_model": matrix.agrees,
                "same_bits_in_every_call": matrix.same_bits,
            })
        };
        json!({
            "layer": self.layer,
            "checkpoint_layer": self.checkpoint_layer,
            "pass": self.passes(),
            "matrices": self.matrices.iter().map(matrix).collect::<Vec<_>>(),
            "multiply_adds_executed": self.executed,
            "multiply_adds_necessary": self.necessary,
        })
    }
}

impl Verdict<'_> {
    pub fn passes(&self) -> bool {
        !self.layers.is_empty() && self.layers.iter().all(LayerVerdict::passes)
    }

    fn sum(&self, count: impl Fn(&LayerVerdict) -> i64) -> i64 {
        self.layers.iter().map(count).sum()
    }

    fn totals(&self) -> (i64, i64, i64) {
        let executed = self.sum(|layer| layer.executed);
        (executed, self.sum(|layer| layer.necessary), self.sum(|layer| layer.uncut))
    }

    fn largest_error(&self) -> f64 {
        self.layers.iter().map(LayerVerdict::largest_error).fold(0.0, f64::max)
    }

    pub fn to_json(&self) -> Value {
        let (executed, necessary, uncut) = self.totals();
        json!({
            "pass": self.passes(),
            "family": self.family,
            "layers": self.layers.len(),
            "ranks": self.ranks,
            "max_error_over_bound": finite(self.largest_error()),
            "multiply_adds_executed": executed,
            "multiply_adds_necessary": necessary,
            "ratio": ratio(necessary, executed),
            "group_ratio": ratio(uncut, executed),
            "per_layer": self.layers.iter().map(LayerVerdict::to_json).collect::<Vec<_>>(),
        })
    }

    pub fn print(&self) {
        println!("layer  matrix  error/bound  calls agree  model agrees");
        for layer in &self.layers {
            for matrix in &layer.matrices {
                println!(
                    "{:>5}  {:<6}  {:>11.3}  {:>11}  {:>12}",
                    layer.checkpoint_layer,
                    matrix.name,
                    matrix.error_over_bound,
                    yes(matrix.same_bits),
                    yes(matrix.agrees)
                );
            }
        }
        let (executed, necessary, uncut) = self.totals();
        println!("\nfamily                   {}, {} ranks", self.family, self.ranks);
        println!("multiply-adds executed   {}", grouped(executed));
        println!("multiply-adds necessary  {}", grouped(necessary));
        println!("ratio of each rank       {:.3}", ratio(necessary, executed));
        println!("ratio of the group       {:.3}", ratio(uncut, executed));
        println!("\n{}", if self.passes() { "PASS" } else { "FAIL" });
    }
}

fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "NO" }
}

/// JSON has no infinity; a number beyond every bound stands for it.
fn finite(number: f64) -> f64 {
    number.min(f64::MAX)
}
