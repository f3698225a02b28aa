//! Kernels by name: what a launch of each does, written for the host. A project's kernel is a row
//! here. What a device would carry out all the same, to somebody's harm, is refused with a reason.

mod fill;
mod gather;
mod store;

use crate::memory::Memory;
use crate::op::{Access, Op};
use crate::race::overlap;

/// The grid and the block of a launch, and its parameters' bytes.
pub struct Launch<'a> {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub parameters: &'a [Vec<u8>],
}

pub struct Kernel {
    pub name: &'static str,
    /// The bytes of each parameter, in the order of the signature.
    pub parameter_bytes: &'static [usize],
    pub launch: fn(&Launch) -> Result<Op, String>,
}

const KERNELS: &[Kernel] = &[
    Kernel { name: fill::NAME, parameter_bytes: &[8, 4, 4], launch: fill::launch },
    Kernel { name: gather::NAME, parameter_bytes: &[gather::BYTES], launch: gather::launch },
    Kernel { name: store::NAME, parameter_bytes: &[store::BYTES], launch: store::launch },
];

pub fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.name == name)
}

/// A parameter that is a struct.
///
/// # Safety
/// Any bytes make a `T`.
unsafe fn structure<T: Copy>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: as many bytes, and the caller's promise.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// So many numbers in the device's memory; nothing if it does not have them.
fn values<T: Number>(memory: &Memory, address: u64, count: u64) -> Option<Vec<T>> {
    let source = memory.bytes(address, count.checked_mul(size_of::<T>() as u64)?)?.cast::<T>();
    // SAFETY: the memory has these bytes, and any bytes make a number.
    Some((0..count as usize).map(|at| unsafe { source.add(at).read_unaligned() }).collect())
}

trait Number: Copy {}
impl Number for f32 {}
impl Number for i64 {}

/// Why a kernel must not be given the address.
fn ensure_aligned(name: &str, address: u64, bytes: u64) -> Result<(), String> {
    match address.is_multiple_of(bytes) {
        true => Ok(()),
        false => Err(format!("{name} is {address:#x}, which is no multiple of {bytes}")),
    }
}

/// Why these fields cannot be: each comes with the least that it may be.
fn ensure_least(fields: &[(&str, i64, i64)]) -> Result<(), String> {
    match fields.iter().find(|(_, value, least)| value < least) {
        None => Ok(()),
        Some((name, value, least)) => Err(format!("{name} is {value}, less than {least}")),
    }
}

/// Whether two of the launch's threads would write, or one write and another read, one byte.
fn collides(written: &[Access], read: &[Access]) -> bool {
    let crosses = |one: &Access| read.iter().any(|other| overlap(one, other));
    let mut runs: Vec<(u64, u64)> = written.iter().flat_map(Access::runs).collect();
    runs.sort_unstable();
    runs.windows(2).any(|pair| pair[0].1 > pair[1].0) || written.iter().any(crosses)
}
