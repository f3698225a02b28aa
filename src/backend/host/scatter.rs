//! Staged results of other ranks, copied to where a view has them.

use super::rows::Places;
use crate::backend::Block;
use crate::view::View;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Copies a block to its rows and heads of a view of the same dtype.
///
/// # Safety
/// The block is there and the view can be written; its slots were checked.
pub(super) unsafe fn scatter(block: &Block, view: &View<'_>) {
    match view.dtype().bytes() {
        // SAFETY: passed on; only the size of an element matters.
        2 => unsafe { scatter_elements::<u16>(block, view) },
        // SAFETY: as above.
        _ => unsafe { scatter_elements::<u32>(block, view) },
    }
}

/// # Safety
/// As for [`scatter`], with elements of this size.
unsafe fn scatter_elements<E: Copy>(block: &Block, view: &View<'_>) {
    let places = Places::new(view);
    for layer in 0..view.shape().layers as usize {
        let base = with_exposed_provenance_mut::<u8>(view.address(layer));
        for (number, row) in block.rows.clone().enumerate() {
            // SAFETY: passed on; the row is the view's.
            let Some(place) = (unsafe { places.of(row) }) else { continue };
            let element = layer * block.layer_stride + number * block.row_stride;
            let staged = with_exposed_provenance::<E>(block.address);
            // SAFETY: passed on; the block has this row and the view this place.
            unsafe { copy_row(staged.add(element), base.add(place).cast(), view, block) };
        }
    }
}

/// Copies one row of a block to a row of the view.
///
/// # Safety
/// `staged` has the row's heads one behind the other, and `row` is where the view has it.
unsafe fn copy_row<E: Copy>(staged: *const E, row: *mut E, view: &View<'_>, block: &Block) {
    let (strides, width) = (view.strides(), view.shape().width as usize);
    for (number, head) in block.heads.clone().enumerate() {
        // SAFETY: passed on; the head is the view's and the block's.
        let (from, to) =
            unsafe { (staged.add(number * width), row.add(head * strides.head as usize)) };
        match strides.width {
            // SAFETY: as above; the view's memory is not the block's.
            1 => unsafe { to.copy_from_nonoverlapping(from, width) },
            // SAFETY: as above.
            stride => (0..width).for_each(|lane| unsafe {
                *to.add(lane * stride as usize) = *from.add(lane);
            }),
        }
    }
}
