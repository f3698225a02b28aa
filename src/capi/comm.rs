//! `xqkv_comm`: this rank's seat among the ranks.

/// A communicator: this rank's seat among the ranks of one projection. Optional, since outputs
/// sharded by head need no collective. This version makes none; wherever one is asked for, NULL
/// is the only value.
pub struct xqkv_comm {
    _private: (),
}
