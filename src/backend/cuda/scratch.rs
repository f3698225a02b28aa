//! How a call divides its workspace: rows that were gathered, one side's behind the other's,
//! results on their way to a kernel, and the rest for cuBLASLt.

use super::plan::SidePlan;
use crate::backend::{Job, WORKSPACE_ALIGNMENT};
use crate::dtype::Dtype;
use crate::error::{Error, Status};

/// Bytes from the workspace's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scratch {
    /// Where each side's rows are gathered.
    pub(super) gathered: [usize; 2],
    /// Where results are staged, one matmul after the other.
    pub(super) staged: usize,
    /// Where cuBLASLt's own begins. A call does not run with less.
    pub(super) minimum: usize,
}

impl Scratch {
    /// What the sides need with the rows that they were planned for.
    pub(super) fn of(job: &Job<'_>, sides: &[Option<SidePlan>; 2]) -> Result<Self, Error> {
        let rows = |number: usize| job.sides[number].map_or(0, |side| side.rows.count() as usize);
        let present = |number: usize| sides[number].as_ref().map(|side| (side, rows(number)));
        let gathered = |number: usize| match present(number) {
            Some((side, rows)) => side.gathered_bytes(job.form.element(), rows),
            None => Some(0),
        };
        let staged = |number: usize| match present(number) {
            Some((side, rows)) => side.staged_bytes(rows),
            None => Some(0),
        };
        let divided = || {
            let second = gathered(0)?;
            let results = second.checked_add(gathered(1)?)?;
            let minimum = results.checked_add(staged(0)?.max(staged(1)?))?;
            Some(Self { gathered: [0, second], staged: results, minimum })
        };
        divided().ok_or_else(|| {
            let message = "the workspace of this call has more than 2^63 bytes; plan fewer rows";
            Error::new(Status::SizeOverflow, message)
        })
    }
}

impl SidePlan {
    fn gathered_bytes(&self, dtype: Dtype, rows: usize) -> Option<usize> {
        match self.shape.has_list {
            true => aligned(rows.checked_mul(self.shape.inputs)?.checked_mul(dtype.bytes())?),
            false => Some(0),
        }
    }

    fn staged_bytes(&self, rows: usize) -> Option<usize> {
        let staged = self.matmuls.iter().filter(|prepared| prepared.matmul.is_staged);
        let outputs = staged.map(|prepared| prepared.matmul.outputs).max().unwrap_or(0);
        aligned(rows.checked_mul(outputs)?.checked_mul(Dtype::F32.bytes())?)
    }
}

fn aligned(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(WORKSPACE_ALIGNMENT)
}
