//! A buffer that calls write into, poisoned with NaN and fenced by canaries, which remembers what
//! was read back, so that every other byte can be held against what it was.

use super::elements::POISON;
use crate::memory::{Kept, Memory};
use crate::tensors::Outcome;

/// Bytes before and behind the elements; a multiple of what any alignment asks for.
const FENCE_BYTES: usize = 4096;

const CANARY: u8 = 0xa5;

pub struct Arena<'a> {
    kept: Kept<'a>,
    element_bytes: usize,
    is_taken: Vec<bool>,
}

impl<'a> Arena<'a> {
    pub fn new(elements: usize, element_bytes: usize, memory: &'a Memory) -> Outcome<Self> {
        let kept = memory.keep(initial(elements * element_bytes))?;
        Ok(Self { kept, element_bytes, is_taken: vec![false; elements] })
    }

    /// Where an element is for calls.
    pub fn address(&self, element: usize) -> *mut u8 {
        self.kept.address().wrapping_add(FENCE_BYTES + element * self.element_bytes)
    }

    /// Waits for what calls wrote.
    pub fn fetch(&mut self) -> Outcome<()> {
        self.kept.fetch()
    }

    /// An element that a call had to write.
    pub fn take(&mut self, element: usize) -> &[u8] {
        self.is_taken[element] = true;
        &self.kept.bytes[FENCE_BYTES + element * self.element_bytes..][..self.element_bytes]
    }

    /// Bytes that changed though no element taken is there.
    pub fn touched(&self) -> usize {
        let is_taken = |at: usize| {
            let element = at.checked_sub(FENCE_BYTES).map(|byte| byte / self.element_bytes);
            element.and_then(|element| self.is_taken.get(element)).is_some_and(|&taken| taken)
        };
        let before = initial(self.kept.bytes.len() - 2 * FENCE_BYTES);
        let pairs = self.kept.bytes.iter().zip(&before).enumerate();
        pairs.filter(|(at, (now, before))| now != before && !is_taken(*at)).count()
    }
}

/// Poison between two fences.
fn initial(length: usize) -> Vec<u8> {
    let mut bytes = vec![CANARY; FENCE_BYTES];
    bytes.resize(FENCE_BYTES + length, POISON);
    bytes.resize(FENCE_BYTES + length + FENCE_BYTES, CANARY);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_touched_if_they_changed_and_nobody_took_them() {
        let mut arena = Arena::new(8, 4, &Memory::Host).unwrap();
        let write = |element: isize| {
            let address = arena.address(0).wrapping_offset(element * 4).cast::<f32>();
            // SAFETY: within the arena or its fences.
            unsafe { address.write_unaligned(1.0) }
        };
        [-1, 0, 5, 8].into_iter().for_each(write);
        assert_eq!(arena.touched(), 4 * 4);
        assert_eq!(arena.take(5), 1f32.to_ne_bytes());
        assert_eq!(arena.touched(), 3 * 4);
    }
}
