//! Copies and fills.

use super::context::observe;
use super::output;
use crate::clock::Point;
use crate::machine::{Access, Machine, Op, call, enter, lock};
use crate::memory::{Memory, Place};
use crate::status::*;
use crate::transfer::{Copy, Side};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

/// The body of all copies.
fn copy(function: &'static str, stream: u64, copy: Copy, synchronous: bool) -> c_int {
    if let Err(status) = enter(function) {
        return status;
    }
    let started = lock().copy(function, stream, copy, synchronous);
    let waited = |points: Option<(u64, Vec<Point>)>| {
        points.map_or(Ok(()), |(context, points)| observe(context, &points))
    };
    number(started.and_then(waited))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(target: u64, source: *const u8, bytes: usize) -> c_int {
    let line = Copy::line(Side::device(target), Side::host(source), bytes);
    copy("cuMemcpyHtoD_v2", 0, line, true)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(target: *mut u8, source: u64, bytes: usize) -> c_int {
    let line = Copy::line(Side::host(target), Side::device(source), bytes);
    copy("cuMemcpyDtoH_v2", 0, line, true)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(target: u64, source: u64, bytes: usize) -> c_int {
    let line = Copy::line(Side::device(target), Side::device(source), bytes);
    copy("cuMemcpyDtoD_v2", 0, line, true)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    target: u64,
    source: *const u8,
    bytes: usize,
    stream: u64,
) -> c_int {
    let line = Copy::line(Side::device(target), Side::host(source), bytes);
    copy("cuMemcpyHtoDAsync_v2", stream, line, false)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    target: *mut u8,
    source: u64,
    bytes: usize,
    stream: u64,
) -> c_int {
    let line = Copy::line(Side::host(target), Side::device(source), bytes);
    copy("cuMemcpyDtoHAsync_v2", stream, line, false)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    target: u64,
    source: u64,
    bytes: usize,
    stream: u64,
) -> c_int {
    let line = Copy::line(Side::device(target), Side::device(source), bytes);
    copy("cuMemcpyDtoDAsync_v2", stream, line, false)
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memcpy2D {
    pub source: Memcpy2DSide,
    pub target: Memcpy2DSide,
    pub width: usize,
    pub height: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memcpy2DSide {
    pub x_bytes: usize,
    pub y: usize,
    /// `CU_MEMORYTYPE_*`: 1 the host's, 2 a device's, 4 to be found out.
    pub memory_type: c_uint,
    pub host: u64,
    pub device: u64,
    pub array: u64,
    pub pitch: usize,
}

impl Memcpy2DSide {
    fn side(&self, machine: &Machine, width: u64) -> Status<Side> {
        let (host, base) = match self.memory_type {
            1 => (true, self.host),
            2 => (false, self.device),
            4 => {
                let found = machine.memory.find(self.device);
                (found.is_none_or(|memory| memory.place == Place::Host), self.device)
            }
            _ => return Err(INVALID_VALUE),
        };
        if base == 0 || (self.pitch as u64) < width + self.x_bytes as u64 {
            return Err(INVALID_VALUE);
        }
        let address = base + (self.y * self.pitch + self.x_bytes) as u64;
        Ok(Side { address, pitch: self.pitch as u64, host })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2D_v2(described: *const Memcpy2D) -> c_int {
    // SAFETY: the caller's struct, as cuda.h asks.
    unsafe { copy_2d("cuMemcpy2D_v2", described, 0, true) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(described: *const Memcpy2D, stream: u64) -> c_int {
    // SAFETY: the caller's struct, as cuda.h asks.
    unsafe { copy_2d("cuMemcpy2DAsync_v2", described, stream, false) }
}

/// # Safety
/// `described` is NULL or a struct that can be read.
unsafe fn copy_2d(
    function: &'static str,
    described: *const Memcpy2D,
    stream: u64,
    synchronous: bool,
) -> c_int {
    // SAFETY: as above.
    let sides = unsafe { described.as_ref() }.ok_or(INVALID_VALUE).and_then(|described| {
        let (machine, width) = (lock(), described.width as u64);
        let target = described.target.side(&machine, width)?;
        let source = described.source.side(&machine, width)?;
        Ok(Copy { target, source, width, height: described.height as u64 })
    });
    match sides {
        Ok(sides) => copy(function, stream, sides, synchronous),
        Err(status) => number(enter(function).and(Err(status))),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(address: u64, value: u8, bytes: usize) -> c_int {
    fill("cuMemsetD8_v2", address, value, bytes as u64, 0, true)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(
    address: u64,
    value: u8,
    bytes: usize,
    stream: u64,
) -> c_int {
    fill("cuMemsetD8Async", address, value, bytes as u64, stream, false)
}

/// Neither form waits for the fill of device memory.
fn fill(
    function: &'static str,
    address: u64,
    value: u8,
    bytes: u64,
    stream: u64,
    synchronous: bool,
) -> c_int {
    call(function, |machine| {
        if synchronous {
            machine.forbid_in_capture()?;
        }
        output(address as *mut u8)?;
        let run = move |memory: &Memory| {
            if let Some(target) = memory.bytes(address, bytes) {
                // SAFETY: the memory has these bytes.
                unsafe { target.write_bytes(value, bytes as usize) };
            }
        };
        let accesses = vec![Access::write(address, bytes)];
        machine.launch(stream, Op::transfer(function, accesses, Arc::new(run)))
    })
}
