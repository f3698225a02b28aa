//! A sample for the tests of launching: `gpusim_fill_u32(address, value, count)`.

use super::Launch;
use crate::memory::Memory;
use crate::op::{Access, Op};
use std::sync::Arc;

pub const NAME: &str = "gpusim_fill_u32";

/// As many words as there are threads, at most `count`.
pub fn launch(launch: &Launch) -> Result<Op, String> {
    let threads = launch.blocks.iter().chain(&launch.threads).map(|n| *n as u64).product::<u64>();
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes[..launch.parameters[at].len()].copy_from_slice(&launch.parameters[at]);
        u64::from_le_bytes(bytes)
    };
    let (address, value) = (number(0), number(1) as u32);
    let bytes = threads.min(number(2)) * 4;
    let run = move |memory: &Memory| {
        let Some(target) = memory.bytes(address, bytes) else { return };
        for word in 0..(bytes / 4) as usize {
            // SAFETY: the memory has these bytes; the address may be unaligned.
            unsafe { target.cast::<u32>().add(word).write_unaligned(value) };
        }
    };
    Ok(Op::kernel(NAME, vec![Access::write(address, bytes)], Arc::new(run)))
}
