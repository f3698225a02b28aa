//! Outputs that overlap what they must not: the library does not look, and the device would be
//! silently wrong.

use super::kernel::Launch;
use crate::machine::{Access, violate};
use crate::race::overlap;

/// Notes what is wrong with where the product writes.
pub fn check(launch: &Launch) {
    let accesses = launch.accesses();
    let Some((written, others)) = accesses.split_last() else { return };
    if repeats(written) {
        violate("cublasLtMatmul: the batch's matrices D overlap each other".to_owned());
    }
    for other in others {
        let in_place = other.address == written.address && other.dims == written.dims;
        if !in_place && overlap(written, other) {
            let (d, other) = (written.address, other.address);
            violate(format!("cublasLtMatmul: D at {d:#x} overlaps its own operand at {other:#x}"));
        }
    }
}

/// Whether some byte is touched by two runs.
fn repeats(access: &Access) -> bool {
    if nests(access) {
        return false;
    }
    let [(runs, stride), (batch, step), _] = access.dims;
    let start = |run: u64, index: u64| run as i64 * stride + index as i64 * step;
    let mut starts: Vec<i64> =
        (0..batch).flat_map(|index| (0..runs).map(move |run| start(run, index))).collect();
    starts.sort_unstable();
    starts.windows(2).any(|pair| pair[1] - pair[0] < access.bytes as i64)
}

/// Whether each stride is at least what lies inside it.
fn nests(access: &Access) -> bool {
    let mut dims: Vec<(u64, u64)> = access
        .dims
        .iter()
        .filter(|dim| dim.0 > 1)
        .map(|dim| (dim.1.unsigned_abs(), dim.0))
        .collect();
    dims.sort_unstable();
    let mut extent = access.bytes;
    dims.into_iter().all(|(stride, count)| {
        let fits = stride >= extent;
        extent += stride * (count - 1);
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(bytes: u64, runs: (u64, i64), batch: (u64, i64)) -> Access {
        Access { dims: [runs, batch, (1, 0)], ..Access::write(0, bytes) }
    }

    #[test]
    fn a_batch_inside_the_leading_stride_does_not_repeat() {
        assert!(!repeats(&access(8, (4, 64), (8, 8))));
        assert!(repeats(&access(8, (4, 64), (9, 8))));
    }

    #[test]
    fn a_batch_without_a_stride_repeats() {
        assert!(repeats(&access(8, (4, 8), (2, 0))));
        assert!(!repeats(&access(8, (4, 8), (1, 0))));
    }

    #[test]
    fn strides_that_do_not_nest_may_still_be_apart() {
        // Runs at 0, 6 and at 4, 10: apart, though neither stride holds the other's extent.
        assert!(!repeats(&access(2, (2, 6), (2, 4))));
        assert!(repeats(&access(3, (2, 6), (2, 4))));
    }
}
