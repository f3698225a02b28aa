//! Copies and fills. What a copy of pageable memory waits for is as the driver's documentation
//! has it ("API synchronization behavior"), and nothing is waited for beyond that.

use super::context::observe;
use super::output;
use crate::clock::Point;
use crate::machine::{Access, Machine, Op, enter, lock};
use crate::memory::{Memory, Place};
use crate::status::*;
use crate::violation::violate;
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

/// One side of a copy, as the function's name or the caller's struct says.
#[derive(Clone, Copy)]
struct Side {
    address: u64,
    pitch: u64,
    host: bool,
}

#[derive(Clone, Copy)]
struct Copy {
    target: Side,
    source: Side,
    width: u64,
    height: u64,
}

/// Where a copy's bytes are when it runs.
#[derive(Clone)]
enum Bytes {
    Known(Side),
    Pageable(Side),
    Staged(Vec<u8>, u64),
}

impl Bytes {
    /// The address of one row, if it is (still) there.
    fn row(&self, memory: &Memory, row: u64, width: u64) -> Option<*mut u8> {
        match self {
            Bytes::Known(side) => memory.bytes(side.address + row * side.pitch, width),
            Bytes::Pageable(side) => Some((side.address + row * side.pitch) as *mut u8),
            Bytes::Staged(bytes, width) => {
                bytes.get((row * width) as usize..).map(|rest| rest.as_ptr().cast_mut())
            }
        }
    }

    fn access(&self, copy: &Copy, write: bool) -> Option<Access> {
        let Bytes::Known(side) = self else { return None };
        let dims = [(copy.height, side.pitch as i64), (1, 0), (1, 0)];
        Some(Access { address: side.address, bytes: copy.width, dims, write })
    }
}

impl Side {
    fn device(address: u64) -> Side {
        Side { address, pitch: 0, host: false }
    }

    fn host(address: *const u8) -> Side {
        Side { address: address as u64, pitch: 0, host: true }
    }
}

impl Copy {
    fn line(target: Side, source: Side, bytes: usize) -> Copy {
        Copy { target, source, width: bytes as u64, height: 1 }
    }
}

impl Machine {
    /// Where the side's bytes are. The host's side may be pinned memory of ours.
    fn locate(&self, function: &str, side: Side) -> Status<Bytes> {
        if side.address == 0 {
            return Err(INVALID_VALUE);
        }
        match self.memory.find(side.address) {
            Some(memory) if side.host && memory.place == Place::Device => {
                violate(format!(
                    "{function}: {:#x} is device memory, not the host's",
                    side.address
                ));
                Err(INVALID_VALUE)
            }
            None if side.host => Ok(Bytes::Pageable(side)),
            _ => Ok(Bytes::Known(side)),
        }
    }

    /// Launches the copy; returns what the call has to wait for before it returns.
    fn copy(
        &mut self,
        function: &'static str,
        stream: u64,
        copy: Copy,
        synchronous: bool,
    ) -> Status<Option<(u64, Vec<Point>)>> {
        if !self.initialised {
            return Err(NOT_INITIALIZED);
        }
        if synchronous {
            self.forbid_in_capture()?;
        }
        let resolved = self.stream(stream)?;
        let captured = self.capturing(resolved)?;
        if copy.width == 0 || copy.height == 0 {
            return Ok(None);
        }
        let target = self.locate(function, copy.target)?;
        let mut source = self.locate(function, copy.source)?;
        let pageable = [&target, &source].map(|bytes| matches!(bytes, Bytes::Pageable(_)));
        if let (Some(capture), true) = (captured, pageable.contains(&true)) {
            return Err(self.invalidate(capture, CAPTURE_UNSUPPORTED));
        }
        if let Bytes::Pageable(side) = source {
            source = stage(side, &copy);
        }
        let pinned_source = copy.source.host && !pageable[1];
        let before = (synchronous && pageable[1]).then(|| self.host_points(resolved));
        self.launch(stream, operation(function, copy, target, source))?;
        let waits = pageable[0] || synchronous && (copy.target.host || pinned_source);
        let points = if waits { Some(self.host_points(resolved)) } else { before };
        Ok(points.map(|points| (self.streams[&resolved].context, points)))
    }
}

/// Reads pageable memory at the call, as the driver does into its staging memory.
fn stage(side: Side, copy: &Copy) -> Bytes {
    let mut bytes = Vec::with_capacity((copy.width * copy.height) as usize);
    for row in 0..copy.height {
        let source = (side.address + row * side.pitch) as *const u8;
        // SAFETY: the caller's memory, which cuda.h wants readable in this call.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(source, copy.width as usize) });
    }
    Bytes::Staged(bytes, copy.width)
}

fn operation(function: &'static str, copy: Copy, target: Bytes, source: Bytes) -> Op {
    let staged = matches!(source, Bytes::Staged(..));
    let hint = if staged { " (from pageable memory, so it may outlast its call)" } else { "" };
    let accesses = [target.access(&copy, true), source.access(&copy, false)];
    let run = move |memory: &Memory| {
        for row in 0..copy.height {
            let rows = [&target, &source].map(|bytes| bytes.row(memory, row, copy.width));
            let [Some(target), Some(source)] = rows else { return };
            // SAFETY: both rows have that many bytes; a copy within one allocation may overlap.
            unsafe { source.copy_to(target, copy.width as usize) };
        }
    };
    let name = format!("{function}{hint}");
    let mut op = Op::transfer(name, accesses.into_iter().flatten().collect(), Arc::new(run));
    op.cost_ns += copy.width * copy.height / 100;
    op
}

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
    crate::machine::call(function, |machine| {
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
