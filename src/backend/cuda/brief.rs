//! Briefs: which of them a plan runs, and what their matmuls work on.

use super::launch::{Operands, Written};
use super::plan::{DevicePlan, SidePlan};
use super::planner::Relation;
use super::shape::relation_of;
use super::weights::DeviceWeights;
use crate::backend::{Brief, BriefSide};

impl DevicePlan {
    /// What a brief is launched with; None if the plan takes kernels, which take more than
    /// addresses, or if the weights or views may lie otherwise than planned.
    #[inline(always)]
    pub(super) fn operands(
        &self,
        brief: &Brief<'_>,
        weights: &DeviceWeights,
    ) -> Option<[Option<Operands<'static>>; 2]> {
        let lies_alike = self.arrangement.as_ref().is_some_and(|known| weights.has(known));
        let is_lent = self.scratch.minimum <= brief.lane.workspace_bytes;
        if self.kernels.is_some() || !lies_alike || !is_lent {
            return None;
        }
        let mut operands = [None, None];
        for (number, side) in brief.sides.iter().enumerate() {
            if let Some(side) = side {
                operands[number] = Some(self.sides[number].as_ref()?.operands(side)?);
            }
        }
        Some(operands)
    }
}

impl SidePlan {
    #[inline(always)]
    fn operands(&self, side: &BriefSide) -> Option<Operands<'static>> {
        let [first, second] = side.views;
        let given = match self.shape.parts {
            [Some(part), Some(_)] => relation_of(first, second, part.dtype),
            _ => Relation::Apart,
        };
        if self.shape.layers != 1 || !self.suits(given) {
            return None;
        }
        let written = |part: usize| {
            let (matrix, columns) = self.outputs[part]?;
            Some(Written { matrix, begin: columns.begin, view: side.views[part] })
        };
        let outputs = [written(0), written(1)];
        Some(Operands { side: None, rows: side.rows, row_count: side.row_count, outputs })
    }
}
