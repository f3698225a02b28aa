//! Root mean square norm of a head, between its sums and its scale.

use crate::backend::NormForm;
use crate::dtype::{Dtype, Element, with_element};

/// One matrix's norm with its weight.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    weight: &'a [f32],
    /// The weight's length, made here: made in a loop, it is drawn out of that, to where there may
    /// be no norm, and checkers of memory take the branch in its making for a bug.
    width: f32,
    epsilon: f32,
    /// Rounds to the weights' dtype and back, if the norm rounds first.
    round: fn(f32) -> f32,
}

impl<'a> Norm<'a> {
    /// The norm of a form, with its weight.
    pub(super) fn new(form: &NormForm, dtype: Dtype, weight: &'a [f32]) -> Self {
        let round = match form.rounds_first {
            true => with_element!(dtype, E => rounded::<E>),
            false => |value| value,
        };
        Self { weight, width: weight.len() as f32, epsilon: form.epsilon, round }
    }

    /// What the values of a head, in order, are multiplied by.
    pub(super) fn factor(&self, head: impl Iterator<Item = f32>) -> f32 {
        let squares = head.fold(0.0, |sum, value| sum + value * value);
        1.0 / (squares / self.width + self.epsilon).sqrt()
    }

    /// The value of an output once its head's factor is known.
    pub(super) fn apply(&self, value: f32, factor: f32, output: usize) -> f32 {
        (self.round)(value * factor) * self.weight[output % self.weight.len()]
    }
}

fn rounded<E: Element>(value: f32) -> f32 {
    <E as Element>::round(value).widen()
}
