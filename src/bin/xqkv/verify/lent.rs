//! What a call is lent beside its rows and results: a plan, and the workspace that it asks for.

use super::ranks::Rank;
use crate::library::{Outcome, Plan};
use crate::memory::{Kept, Memory};
use std::ffi::c_void;
use xqkv::capi::forward::xqkv_forward;

/// To be kept until the call is done.
pub struct Lent<'a> {
    pub plan: Plan,
    _workspace: Kept<'a>,
}

/// What a workspace's address must be a multiple of.
const WORKSPACE_ALIGNMENT: usize = 256;

impl<'a> Lent<'a> {
    /// Plans a call whose addresses are multiples of `alignment`, and lends it the least workspace.
    pub fn new(
        rank: &Rank,
        forward: &mut xqkv_forward,
        alignment: usize,
        memory: &'a Memory,
    ) -> Outcome<Self> {
        let plan = rank.projection.plan(forward, alignment)?;
        let bytes = plan.workspace_bytes()?;
        let workspace = memory.keep(vec![0; bytes + WORKSPACE_ALIGNMENT])?;
        let offset = workspace.address().align_offset(WORKSPACE_ALIGNMENT);
        forward.workspace = workspace.address().wrapping_add(offset).cast();
        forward.workspace_bytes = bytes as i64;
        Ok(Self { plan, _workspace: workspace })
    }
}

/// What the rows and these views are multiples of, up to the 16 bytes that vector loads ask for.
pub fn alignment(forward: &xqkv_forward, views: impl Iterator<Item = *mut c_void>) -> usize {
    let inputs = [forward.decoder.data, forward.encoder.data].map(<*const c_void>::addr);
    let addresses = views.map(<*mut c_void>::addr).chain(inputs);
    addresses.map(|address| 1 << address.trailing_zeros().min(4)).min().unwrap_or(1)
}
