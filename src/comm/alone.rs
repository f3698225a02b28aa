//! One rank: every transfer is done before it starts.

use super::medium::{Deadline, Failure, Kind, Medium, Seat, Transfer};

/// The medium of a single rank.
pub(super) struct Alone;

impl Medium for Alone {
    fn kind(&self) -> Kind {
        Kind::Alone
    }

    fn seat(&self) -> Seat {
        Seat { rank: 0, rank_count: 1 }
    }

    unsafe fn start(&self, _: &Transfer<'_>, _: usize, _: Deadline) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&self, _: Deadline) -> Result<(), Failure> {
        Ok(())
    }

    fn poll(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn abort(&self) {}
}
