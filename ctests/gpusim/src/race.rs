//! Races: two accesses to a common byte, one of them a write, that nothing orders. Found when the
//! later one is launched, whatever order the ops then run in.

use crate::clock::{Clock, Point};
use crate::op::Access;
use std::collections::BTreeMap;

struct Touch {
    access: Access,
    stream: u64,
    sequence: u64,
    name: String,
}

/// What was launched on each allocation and is not known to the host to be over.
#[derive(Default)]
pub struct History(BTreeMap<u64, Vec<Touch>>);

impl History {
    /// Notes an access of the op at `point`; returns the last that it races with. `host` is what
    /// the host knows to be over, which needs no more watching.
    pub fn touch(
        &mut self,
        allocation: u64,
        access: &Access,
        name: &str,
        point: &Point,
        host: &Clock,
    ) -> Option<String> {
        let touches = self.0.entry(allocation).or_default();
        touches.retain(|old| !host.covers(old.stream, old.sequence));
        let race = touches.iter().rev().find(|old| {
            (old.access.write || access.write)
                && !point.clock.covers(old.stream, old.sequence)
                && overlap(&old.access, access)
        });
        let text = race.map(|old| describe(old, access, name, point.stream));
        // A stream's later access of the same bytes stands for the earlier one.
        touches.retain(|old| old.stream != point.stream || old.access != *access);
        let (stream, sequence) = (point.stream, point.sequence);
        touches.push(Touch { access: access.clone(), stream, sequence, name: name.to_owned() });
        text
    }

    /// The ops that write into what is accessed, as streams and sequences, of those that the host
    /// does not know to be over.
    pub fn writers(&self, allocation: u64, access: &Access) -> Vec<(u64, u64)> {
        let touches = self.0.get(&allocation).map_or(&[][..], Vec::as_slice);
        let written = touches.iter().filter(|old| old.access.write && overlap(&old.access, access));
        written.map(|old| (old.stream, old.sequence)).collect()
    }

    /// An op on the allocation that the host does not know to be over.
    pub fn unfinished(&self, allocation: u64, host: &Clock) -> Option<String> {
        let touches = self.0.get(&allocation)?;
        let touch = touches.iter().find(|old| !host.covers(old.stream, old.sequence))?;
        Some(format!("{} on stream {:#x}", touch.name, touch.stream))
    }

    pub fn forget(&mut self, allocation: u64) {
        self.0.remove(&allocation);
    }
}

fn describe(old: &Touch, access: &Access, name: &str, stream: u64) -> String {
    let verb = |write| if write { "writes" } else { "reads" };
    let ((start, end), (old_start, old_end)) = (access.span(), old.access.span());
    format!(
        "race: {name} on stream {stream:#x} {} {start:#x}..{end:#x}, {} on stream {:#x} {} \
         {old_start:#x}..{old_end:#x}, and nothing orders them",
        verb(access.write),
        old.name,
        old.stream,
        verb(old.access.write),
    )
}

/// Whether the two have a byte in common; exact, also for interleaved rows.
pub fn overlap(left: &Access, right: &Access) -> bool {
    if left.is_empty() || right.is_empty() {
        return false;
    }
    meet(&normal(left), &normal(right))
}

/// The access with positive strides, the largest first, and no dimension that repeats or that
/// continues the run.
fn normal(access: &Access) -> Access {
    let mut plain = Access { dims: [(1, 0); 3], ..access.clone() };
    plain.address = access.span().0;
    let mut dims: Vec<(u64, i64)> = access.dims.iter().map(|(n, s)| (*n, s.abs())).collect();
    dims.retain(|(count, stride)| *count > 1 && *stride > 0);
    dims.sort_by_key(|(_, stride)| *stride);
    let mut used = 3;
    for (count, stride) in dims {
        if used == 3 && stride as u64 <= plain.bytes {
            plain.bytes += (count - 1) * stride as u64;
        } else {
            used -= 1;
            plain.dims[used] = (count, stride);
        }
    }
    plain
}

/// Takes the longer of the two apart into those repetitions that may meet the other.
fn meet(left: &Access, right: &Access) -> bool {
    let ((left_start, left_end), (right_start, right_end)) = (left.span(), right.span());
    if left_end <= right_start || right_end <= left_start {
        return false;
    }
    if left_end - left_start < right_end - right_start {
        return meet(right, left);
    }
    match left.dims.iter().position(|(count, _)| *count > 1) {
        Some(dim) => parts(left, dim, right_start, right_end).any(|part| meet(&part, right)),
        // A gapless run has a byte of whatever begins within it; a shorter one with gaps lies
        // within its span.
        None => match right.dims.iter().position(|(count, _)| *count > 1) {
            Some(dim) => parts(right, dim, left_start, left_end).any(|part| meet(&part, left)),
            None => true,
        },
    }
}

/// The repetitions of the dimension that may reach into `start..end`.
fn parts(
    access: &Access,
    dim: usize,
    start: u64,
    end: u64,
) -> impl Iterator<Item = Access> + use<> {
    let (count, stride) = access.dims[dim];
    let mut part = access.clone();
    part.dims[dim] = (1, 0);
    let (first, behind) = part.span();
    let stride = stride as u64;
    let low = (start + 1).saturating_sub(behind).div_ceil(stride);
    let high = (end - 1).saturating_sub(first) / stride + 1;
    (low..high.min(count))
        .map(move |index| Access { address: part.address + index * stride, ..part.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// All bytes that the access touches, one by one.
    fn bytes(access: &Access) -> BTreeSet<i64> {
        let [a, b, c] =
            access.dims.map(|(count, stride)| (0..count as i64).map(move |i| i * stride));
        let starts = a.flat_map(|i| b.clone().map(move |j| i + j));
        let starts = starts.flat_map(|i| c.clone().map(move |j| i + j));
        starts
            .flat_map(|i| (0..access.bytes as i64).map(move |j| access.address as i64 + i + j))
            .collect()
    }

    #[test]
    fn overlap_agrees_with_looking_at_every_byte() {
        let mut state = 1u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        let mut met = 0;
        for _ in 0..20_000 {
            let mut access = || {
                let dims = [(); 3].map(|()| (random(4), random(41) as i64 - 20));
                Access { address: 1000 + random(60), bytes: random(6), dims, write: true }
            };
            let (left, right) = (access(), access());
            let common = !bytes(&left).is_disjoint(&bytes(&right));
            assert_eq!(overlap(&left, &right), common, "{left:?} {right:?}");
            met += common as u32;
        }
        assert!((1_000..19_000).contains(&met), "{met}");
    }
}
