//! Device memory as numbers of a format.

use super::support::{alloc, ok, read};
use gpusim::driver::{context::cuCtxSynchronize, copy::cuMemcpyHtoD_v2};
use gpusim::reference::Format;

pub fn upload(format: Format, values: &[f32]) -> u64 {
    let address = alloc(values.len() * format.bytes() as usize);
    write(format, address, values);
    address
}

/// Writes the values; whatever is launched afterwards comes behind them.
pub fn write(format: Format, address: u64, values: &[f32]) {
    let size = format.bytes() as usize;
    let mut bytes = vec![0; values.len() * size];
    for (target, value) in bytes.chunks_exact_mut(size).zip(values) {
        format.store(*value, target);
    }
    ok(unsafe { cuMemcpyHtoD_v2(address, bytes.as_ptr(), bytes.len()) });
    ok(unsafe { cuCtxSynchronize() });
}

/// The values once all work is over.
pub fn download(format: Format, address: u64, count: usize) -> Vec<f32> {
    let size = format.bytes() as usize;
    let bytes = read(address, count * size);
    bytes.chunks_exact(size).map(|one| format.load(one)).collect()
}
