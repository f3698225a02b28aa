//! The verdict, as a table and as JSON.

use super::group::GroupVerdict;
use super::tally::Line;
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

/// Multiply-adds.
#[derive(Clone, Copy, Default)]
struct Count {
    executed: i64,
    necessary: i64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.executed += other.executed;
        self.necessary += other.necessary;
    }

    fn to_json(self) -> Value {
        json!({
            "multiply_adds_executed": self.executed,
            "multiply_adds_necessary": self.necessary,
            "ratio": ratio(self.necessary, self.executed),
        })
    }

    fn sum(counts: impl Iterator<Item = Count>) -> Count {
        counts.fold(Count::default(), |mut sum, count| {
            sum.add(count);
            sum
        })
    }
}

/// One layer's three calls on all ranks.
pub struct LayerVerdict {
    layer: i64,
    checkpoint_layer: i64,
    pub matrices: Vec<Matrix>,
    /// Of each rank, in all three calls.
    ranks: Vec<Count>,
    /// Whether each rank of each call executed exactly what it had to.
    exact: bool,
    /// Multiply-adds of the uncut layer in the same calls.
    pub uncut: i64,
    /// Products that all ranks' calls were given to the backend as.
    pub matmuls: i64,
}

/// All layers.
pub struct Verdict<'a> {
    pub family: &'a str,
    pub ranks: usize,
    pub layers: Vec<LayerVerdict>,
    /// What was asked for beside the plain calls.
    pub lines: Vec<Line>,
    /// What ranks with a communicator did, if that was asked for.
    pub group: Option<GroupVerdict>,
}

impl LayerVerdict {
    pub fn new(layer: i64, checkpoint_layer: i64, rank_count: usize) -> Self {
        let ranks = vec![Count::default(); rank_count];
        let (matrices, exact, uncut, matmuls) = (Vec::new(), true, 0, 0);
        Self { layer, checkpoint_layer, matrices, ranks, exact, uncut, matmuls }
    }

    /// Adds one rank's call.
    pub fn count(&mut self, rank: usize, executed: i64, necessary: i64) {
        self.ranks[rank].add(Count { executed, necessary });
        self.exact &= executed == necessary;
    }

    fn total(&self) -> Count {
        Count::sum(self.ranks.iter().copied())
    }

    fn passes(&self) -> bool {
        let good =
            |matrix: &Matrix| matrix.error_over_bound <= 1.0 && matrix.agrees && matrix.same_bits;
        self.exact && self.matrices.len() == 3 && self.matrices.iter().all(good)
    }

    fn largest_error(&self) -> f64 {
        self.matrices.iter().map(|matrix| matrix.error_over_bound).fold(0.0, f64::max)
    }

    fn print(&self) {
        for matrix in &self.matrices {
            println!(
                "{:>5}  {:<6}  {:>11.3}  {:>11}  {:>12}",
                self.checkpoint_layer,
                matrix.name,
                matrix.error_over_bound,
                yes(matrix.same_bits),
                yes(matrix.agrees)
            );
        }
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
            "multiply_adds_executed": self.total().executed,
            "multiply_adds_necessary": self.total().necessary,
            "group_ratio": ratio(self.uncut, self.total().executed),
        })
    }
}

impl Verdict<'_> {
    pub fn passes(&self) -> bool {
        !self.layers.is_empty()
            && self.layers.iter().all(LayerVerdict::passes)
            && self.lines.iter().all(Line::passes)
            && self.group.as_ref().is_none_or(GroupVerdict::passes)
    }

    /// One rank's work in all layers.
    fn of_rank(&self, rank: usize) -> Count {
        Count::sum(self.layers.iter().map(|layer| layer.ranks[rank]))
    }

    fn total(&self) -> Count {
        Count::sum(self.layers.iter().map(LayerVerdict::total))
    }

    fn group_ratio(&self) -> f64 {
        ratio(self.layers.iter().map(|layer| layer.uncut).sum(), self.total().executed)
    }

    fn largest_error(&self) -> f64 {
        self.layers.iter().map(LayerVerdict::largest_error).fold(0.0, f64::max)
    }

    pub fn to_json(&self) -> Value {
        let Count { executed, necessary } = self.total();
        let ranks = (0..self.ranks).map(|rank| self.of_rank(rank).to_json());
        json!({
            "pass": self.passes(),
            "family": self.family,
            "layers": self.layers.len(),
            "ranks": self.ranks,
            "max_error_over_bound": finite(self.largest_error()),
            "multiply_adds_executed": executed,
            "multiply_adds_necessary": necessary,
            "matmuls": self.layers.iter().map(|layer| layer.matmuls).sum::<i64>(),
            "ratio": ratio(necessary, executed),
            "group_ratio": self.group_ratio(),
            "per_rank": ranks.collect::<Vec<_>>(),
            "per_layer": self.layers.iter().map(LayerVerdict::to_json).collect::<Vec<_>>(),
            "per_layout": self.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "group": self.group.as_ref().map(GroupVerdict::to_json),
        })
    }

    pub fn print(&self) {
        println!("layer  matrix  error/bound  calls agree  model agrees");
        self.layers.iter().for_each(LayerVerdict::print);
        println!("\n rank        executed       necessary  ratio");
        for rank in 0..self.ranks {
            print_count(&rank.to_string(), self.of_rank(rank), None);
        }
        for layer in &self.layers {
            let name = format!("layer {}", layer.checkpoint_layer);
            let group = ratio(layer.uncut, layer.total().executed);
            print_count(&name, layer.total(), Some(group));
        }
        print_count("all", self.total(), Some(self.group_ratio()));
        if !self.lines.is_empty() {
            Line::print_head();
            self.lines.iter().for_each(Line::print);
        }
        if let Some(group) = &self.group {
            group.print();
        }
        let verdict = if self.passes() { "PASS" } else { "FAIL" };
        println!("\n{}, {} ranks: {verdict}", self.family, self.ranks);
    }
}

/// A line of multiply-adds; against the uncut layer as well where the group's are told.
fn print_count(name: &str, count: Count, group: Option<f64>) {
    let (executed, necessary) = (grouped(count.executed), grouped(count.necessary));
    let group = group.map_or(String::new(), |group| format!("  of the uncut layer {group:.3}"));
    let ratio = ratio(count.necessary, count.executed);
    println!("{name:>7} {executed:>13} {necessary:>15}  {ratio:.3}{group}");
}

fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "NO" }
}

/// JSON has no infinity; a number beyond every bound stands for it.
fn finite(number: f64) -> f64 {
    number.min(f64::MAX)
}
