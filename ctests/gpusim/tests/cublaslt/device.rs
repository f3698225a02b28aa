//! The simulated device's memory, written and read by the test past the driver.

use gpusim::machine::lock;
use gpusim::memory::Place;
use gpusim::reference::Format;
use std::slice;

pub fn make_context_current() {}

/// Runs what was launched.
pub fn synchronize() {}

pub fn allocate(bytes: usize) -> u64 {
    lock().memory.allocate(Place::Device, bytes as u64, 1, 0).expect("memory")
}

pub fn upload(format: Format, values: &[f32]) -> u64 {
    let size = format.bytes() as usize;
    let address = allocate(values.len() * size);
    fill(format, address, values);
    address
}

pub fn fill(format: Format, address: u64, values: &[f32]) {
    let size = format.bytes() as usize;
    let machine = lock();
    let contents = machine.memory.bytes(address, (values.len() * size) as u64).expect("bytes");
    // SAFETY: that many bytes are there, and no op runs.
    let bytes = unsafe { slice::from_raw_parts_mut(contents, values.len() * size) };
    for (target, value) in bytes.chunks_exact_mut(size).zip(values) {
        format.store(*value, target);
    }
}

pub fn download(format: Format, address: u64, count: usize) -> Vec<f32> {
    synchronize();
    let size = format.bytes() as usize;
    let machine = lock();
    let contents = machine.memory.bytes(address, (count * size) as u64).expect("bytes");
    // SAFETY: that many bytes are there, and no op runs.
    let bytes = unsafe { slice::from_raw_parts(contents, count * size) };
    bytes.chunks_exact(size).map(|one| format.load(one)).collect()
}
