//! Kernels by name: what a launch of each does, written for the host. A project's kernel is a row
//! here; the one that we have is a sample for the tests of launching.

use crate::memory::Memory;
use crate::op::{Access, Op};
use std::sync::Arc;

/// The grid and the block of a launch, and its parameters' bits.
pub struct Launch<'a> {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub parameters: &'a [u64],
}

pub struct Kernel {
    pub name: &'static str,
    /// The bytes of each parameter, in the order of the signature.
    pub parameter_bytes: &'static [usize],
    pub launch: fn(&Launch) -> Op,
}

const KERNELS: &[Kernel] =
    &[Kernel { name: "gpusim_fill_u32", parameter_bytes: &[8, 4, 4], launch: fill_u32 }];

pub fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.name == name)
}

/// `gpusim_fill_u32(address, value, count)`: as many words as there are threads, at most `count`.
fn fill_u32(launch: &Launch) -> Op {
    let threads = launch.blocks.iter().chain(&launch.threads).map(|n| *n as u64).product::<u64>();
    let (address, value) = (launch.parameters[0], launch.parameters[1] as u32);
    let bytes = threads.min(launch.parameters[2]) * 4;
    let run = move |memory: &Memory| {
        let Some(target) = memory.bytes(address, bytes) else { return };
        for word in 0..(bytes / 4) as usize {
            // SAFETY: the memory has these bytes; the address may be unaligned.
            unsafe { target.cast::<u32>().add(word).write_unaligned(value) };
        }
    };
    Op::kernel("gpusim_fill_u32", vec![Access::write(address, bytes)], Arc::new(run))
}
