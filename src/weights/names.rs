//! What one checkpoint calls its tensors and numbers its layers.

use crate::spec::{Part, Parts};
use crate::weights::Kind;

/// The names that one checkpoint's tensors have.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
    pub(super) tensor: String,
    pub(super) parts: Parts<String>,
    /// What stands in a part's place for its norm, if norms are known.
    pub(super) norms: Option<Parts<String>>,
}

impl Names {
    /// A tensor's name, if it can have one; `number` is the checkpoint's own for the layer.
    pub(super) fn of(&self, number: i64, part: Part, kind: Kind) -> Option<String> {
        let (parts, kind) = match kind {
            Kind::Weight | Kind::Bias => (&self.parts, kind),
            // A norm is a module beside the projections, and its only tensor is its weight.
            Kind::Norm => (self.norms.as_ref().filter(|_| part != Part::Value)?, Kind::Weight),
        };
        let name = self.tensor.replace("{layer}", &number.to_string());
        let name = name.replace("{part}", &parts[part]).replace("{kind}", kind.name());
        Some(format!("{}{name}", self.prefix))
    }

    /// Whether a tensor may be a weight, bias or norm of some layer's cross-attention.
    pub(super) fn could_be(&self, tensor: &str) -> bool {
        let is_of = |number: i64| {
            let is = |part, kind| self.of(number, part, kind).is_some_and(|name| name == tensor);
            Part::ALL.iter().any(|&part| Kind::ALL.iter().any(|&kind| is(part, kind)))
        };
        tensor
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .any(is_of)
    }

    /// Whether a tensor is of the same attention module of some layer.
    pub(super) fn is_neighbour(&self, tensor: &str) -> bool {
        let stem = self.tensor.split("{part}").next().unwrap_or_default();
        let stem = format!("{}{stem}", self.prefix);
        let Some((head, tail)) = stem.split_once("{layer}") else {
            return tensor.starts_with(&stem);
        };
        let rest = tensor.strip_prefix(head).unwrap_or_default();
        let behind_number = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        behind_number.len() < rest.len() && behind_number.starts_with(tail)
    }
}

/// Which numbers the layers with cross-attention have in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LayerNumbers {
    /// 0, 1, 2 and so on, so many.
    Counted(i64),
    /// These, ascending.
    Listed(Vec<i64>),
    /// 0, 1, 2 and so on, as many as the spec says.
    Unknown,
}

impl LayerNumbers {
    /// How many there are, if that is known.
    pub(super) fn count(&self) -> Option<i64> {
        match self {
            LayerNumbers::Counted(count) => Some(*count),
            LayerNumbers::Listed(numbers) => Some(numbers.len() as i64),
            LayerNumbers::Unknown => None,
        }
    }

    /// The checkpoint's number of the layer at a position.
    pub(super) fn at(&self, position: i64) -> i64 {
        match self {
            LayerNumbers::Listed(numbers) => {
                numbers.get(position as usize).map_or(position, |&n| n)
            }
            LayerNumbers::Counted(_) | LayerNumbers::Unknown => position,
        }
    }
}
