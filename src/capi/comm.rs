//! `xqkv_comm`: this rank's seat among the ranks.

use crate::error::{Error, ensure};

/// A communicator: this rank's seat among the ranks of one projection. Optional, since outputs
/// sharded by head need no collective. This version makes none; wherever one is asked for, NULL
/// is the only value.
pub struct xqkv_comm {
    _private: (),
}

impl xqkv_comm {
    /// Refuses any but NULL.
    pub(super) fn ensure_none(comm: *const xqkv_comm) -> Result<(), Error> {
        ensure!(
            comm.is_null(),
            NotSupported,
            "comm is not NULL, but this version has no communicators; outputs sharded by head need \
             none"
        );
        Ok(())
    }
}
