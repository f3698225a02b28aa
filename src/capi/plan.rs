//! `xqkv_plan`: everything slow done up front for one shape of call.

use crate::error::{Error, ensure};

/// A plan: everything slow done up front for one shape of call. This version makes none; wherever
/// one is asked for, NULL is the only value. On the host backend nothing slow is left to plan.
pub struct xqkv_plan {
    _private: (),
}

impl xqkv_plan {
    /// Refuses any but NULL.
    pub(super) fn ensure_none(plan: *const xqkv_plan) -> Result<(), Error> {
        ensure!(
            plan.is_null(),
            NotSupported,
            "plan is not NULL, but this version has no plans; pass NULL"
        );
        Ok(())
    }
}
