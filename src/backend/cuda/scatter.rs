//! Staged results of other ranks, put where a view has them by the kernel that stores.

use super::context::Context;
use super::driver::Handle;
use super::kernels::Store;
use crate::backend::Block;
use crate::error::Error;
use crate::view::View;

/// Puts one launch for each layer of a block on the stream. The kernels are there since a wire was
/// made.
///
/// # Safety
/// As for [`crate::backend::Backend::scatter`]; our context is current.
pub(super) unsafe fn scatter(
    context: &Context,
    block: &Block,
    view: &View<'_>,
    stream: Handle,
) -> Result<(), Error> {
    let kernels = context.kernels()?;
    for layer in 0..view.shape().layers as usize {
        // SAFETY: passed on; the block is within the view.
        unsafe { kernels.store(&call(block, view, layer), stream) }?;
    }
    Ok(())
}

fn call(block: &Block, view: &View<'_>, layer: usize) -> Store {
    let (whole, bytes) = (Store::whole(view, layer), view.dtype().bytes());
    let first_head = block.heads.start * view.strides().head as usize;
    Store {
        staged: (block.address + layer * block.layer_stride * bytes) as u64,
        destination: whole.destination + (first_head * bytes) as u64,
        rows: block.rows.len() as i64,
        first_row: block.rows.start as i64,
        heads: block.heads.len() as i64,
        staged_row_stride: block.row_stride as i64,
        ..whole
    }
}
