//! Copies. What a copy of pageable memory waits for is as the driver's documentation has it ("API
//! synchronization behavior"), and nothing is waited for beyond that.

use crate::clock::Point;
use crate::machine::{Access, Machine, Op};
use crate::memory::{Memory, Place};
use crate::status::*;
use crate::violation::violate;
use std::sync::Arc;

/// One side of a copy, as the function's name or the caller's struct says.
#[derive(Clone, Copy)]
pub struct Side {
    pub address: u64,
    pub pitch: u64,
    pub host: bool,
}

#[derive(Clone, Copy)]
pub struct Copy {
    pub target: Side,
    pub source: Side,
    pub width: u64,
    pub height: u64,
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
    pub fn device(address: u64) -> Side {
        Side { address, pitch: 0, host: false }
    }

    pub fn host(address: *const u8) -> Side {
        Side { address: address as u64, pitch: 0, host: true }
    }
}

impl Copy {
    pub fn line(target: Side, source: Side, bytes: usize) -> Copy {
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
    pub fn copy(
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
