//! Row lists and slots, which the host can see: refused before anything is written if they break
//! their promise.

use crate::backend::{Job, Lane};
use crate::error::{Error, ensure};
use crate::view::{Indices, Rows, View};

/// Scratch memory that a job takes for its check of slots.
pub(super) fn scratch_bytes(job: &Job<'_>) -> usize {
    let outputs = job.sides.iter().flatten().flat_map(|side| side.outputs());
    outputs.map(|output| view_scratch_bytes(output.view)).max().unwrap_or(0)
}

/// Scratch memory that a view takes for the check of its slots.
fn view_scratch_bytes(view: &View<'_>) -> usize {
    view.slots().map_or(0, |_| view.shape().rows as usize * size_of::<i64>())
}

/// Refuses a job whose row lists or slots break their promise.
///
/// # Safety
/// The lists can be read and the job's workspace written.
pub(super) unsafe fn ensure_indices(job: &Job<'_>) -> Result<(), Error> {
    job.lane.ensure_workspace(scratch_bytes(job))?;
    let scratch = std::ptr::with_exposed_provenance_mut(job.lane.workspace);
    for side in job.sides() {
        // SAFETY: passed on.
        unsafe { ensure_listed(side.rows, side.name) }?;
        side.outputs().try_for_each(|output| {
            // SAFETY: passed on; the workspace is large enough.
            unsafe { ensure_slots(output.name, output.view, scratch) }
        })?;
    }
    Ok(())
}

/// Refuses rows whose list breaks its promise.
///
/// # Safety
/// The list can be read.
pub(super) unsafe fn ensure_listed(rows: &Rows, name: &str) -> Result<(), Error> {
    match rows.list() {
        // SAFETY: passed on.
        Some(list) => unsafe { ensure_row_list(name, list, rows.count()) },
        None => Ok(()),
    }
}

/// Refuses a view whose slots break their promise, with the lane's workspace to check them in.
///
/// # Safety
/// The slots can be read and the workspace written.
pub(super) unsafe fn ensure_view_slots(
    name: &str,
    view: &View<'_>,
    lane: &Lane,
) -> Result<(), Error> {
    lane.ensure_workspace(view_scratch_bytes(view))?;
    let scratch = std::ptr::with_exposed_provenance_mut(lane.workspace);
    // SAFETY: passed on; the workspace is large enough.
    unsafe { ensure_slots(name, view, scratch) }
}

/// Refuses a row that the buffer does not have.
///
/// # Safety
/// The list can be read.
unsafe fn ensure_row_list(name: &str, list: &Indices, rows: i64) -> Result<(), Error> {
    // SAFETY: passed on.
    for (row, &index) in unsafe { read(list, rows) }.iter().enumerate() {
        ensure!(
            (0..list.bound()).contains(&index),
            InvalidArgument,
            "{name}.row_list[{row}] is {index}; it must be in 0 to {}",
            list.bound() - 1
        );
    }
    Ok(())
}

/// Refuses a place that the view does not have, and two rows in one place. Needs scratch memory
/// for one integer a row.
///
/// # Safety
/// The slots can be read and the scratch memory written.
unsafe fn ensure_slots(name: &str, view: &View<'_>, scratch: *mut i64) -> Result<(), Error> {
    let Some(list) = view.slots() else { return Ok(()) };
    // SAFETY: passed on.
    let slots = unsafe { read(list, view.shape().rows) };
    for (row, &slot) in slots.iter().enumerate() {
        ensure!(
            (-1..list.bound()).contains(&slot),
            InvalidArgument,
            "{name}.slots[{row}] is {slot}; it must be in 0 to {}, or -1 to leave the row out",
            list.bound() - 1
        );
    }
    if slots.is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    // SAFETY: the caller gives room for as many.
    let sorted = unsafe {
        scratch.copy_from_nonoverlapping(slots.as_ptr(), slots.len());
        std::slice::from_raw_parts_mut(scratch, slots.len())
    };
    sorted.sort_unstable();
    ensure_single(name, sorted)
}

fn ensure_single(name: &str, sorted: &[i64]) -> Result<(), Error> {
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1] && pair[0] >= 0);
    ensure!(
        twice.is_none(),
        Overlap,
        "{name}.slots has {} twice; give each row a place of its own",
        twice.map_or(0, |pair| pair[0])
    );
    Ok(())
}

/// # Safety
/// The list has that many integers, and they can be read for as long as the result is used.
unsafe fn read<'a>(list: &Indices, count: i64) -> &'a [i64] {
    let first = std::ptr::with_exposed_provenance(list.address());
    // SAFETY: the caller's promise; the address was checked to be aligned.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
