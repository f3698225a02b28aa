//! Where a device's work is put, and what it may use there.

use crate::error::{Error, ensure};

/// What a workspace's address is a multiple of.
pub const WORKSPACE_ALIGNMENT: usize = 256;

/// Where a device's work is put: addresses of the engine's objects, 0 for none. All 0 on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// The stream; 0 is the device's default stream.
    pub stream: usize,
    /// An event to wait for first.
    pub wait_event: usize,
    /// An event to record last.
    pub signal_event: usize,
    /// Scratch memory of the device.
    pub workspace: usize,
    /// Its size.
    pub workspace_bytes: usize,
}

impl Lane {
    /// Refuses a workspace that is smaller than what is needed.
    pub fn ensure_workspace(&self, needed: usize) -> Result<(), Error> {
        ensure!(
            needed <= self.workspace_bytes,
            WorkspaceTooSmall,
            "workspace_bytes is {}, this call needs {needed}; xqkv_plan_get_workspace tells the \
             sizes for a plan's rows",
            self.workspace_bytes
        );
        Ok(())
    }
}
