//! `xqkv_gather_rows`: rows that a list names, one behind the other.

use super::{Launch, collides, ensure_aligned, ensure_least, structure, values};
use crate::memory::Memory;
use crate::op::{Access, Listed, Op};
use crate::violation::violate;
use std::sync::Arc;

pub const NAME: &str = "xqkv_gather_rows";
pub const BYTES: usize = size_of::<Gather>();

/// The kernel's parameter.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gather {
    source: u64,
    list: u64,
    staged: u64,
    rows: i64,
    buffer_rows: i64,
    width: i64,
    row_stride: i64,
    element_bytes: i64,
}

pub fn launch(launch: &Launch) -> Result<Op, String> {
    // SAFETY: a struct of integers.
    let call: Gather = unsafe { structure(&launch.parameters[0]) };
    if launch.threads[1..] != [1, 1] || launch.blocks[2] != 1 {
        return Err("a block is a row of threads, and a grid has two dimensions".to_owned());
    }
    call.check()?;
    let written = Access::write(call.staged, (call.rows * call.row_bytes()) as u64);
    let accesses = vec![call.list(), written.clone()];
    let rows = Arc::new(move |memory: &Memory| {
        let read = call.rows_read(memory).unwrap_or_default();
        if collides(std::slice::from_ref(&written), &read) {
            violate(format!("{NAME}: staged at {:#x} overlaps the rows", call.staged));
        }
        read
    });
    let run = Arc::new(move |memory: &Memory| call.run(memory).unwrap_or_default());
    let listed = Some(Listed { list: call.list(), accesses: rows });
    Ok(Op { listed, ..Op::kernel(NAME, accesses, run) })
}

impl Gather {
    fn check(&self) -> Result<(), String> {
        if ![2, 4].contains(&self.element_bytes) {
            return Err(format!("element_bytes is {}, neither 2 nor 4", self.element_bytes));
        }
        ensure_least(&[
            ("rows", self.rows, 0),
            ("buffer_rows", self.buffer_rows, 0),
            ("width", self.width, 1),
            ("row_stride", self.row_stride, 0),
        ])?;
        ensure_aligned("source", self.source, self.element_bytes as u64)?;
        ensure_aligned("staged", self.staged, self.element_bytes as u64)?;
        ensure_aligned("list", self.list, 8)
    }

    fn row_bytes(&self) -> i64 {
        self.width * self.element_bytes
    }

    fn list(&self) -> Access {
        Access::read(self.list, self.rows as u64 * 8)
    }

    fn row(&self, index: i64) -> Access {
        let address = self.source as i64 + index * self.row_stride * self.element_bytes;
        Access::read(address as u64, self.row_bytes() as u64)
    }

    fn indices(&self, memory: &Memory) -> Option<Vec<i64>> {
        values(memory, self.list, self.rows as u64)
    }

    fn is_there(&self, index: i64) -> bool {
        (0..self.buffer_rows).contains(&index)
    }

    /// Each row once, however often it is listed.
    fn rows_read(&self, memory: &Memory) -> Option<Vec<Access>> {
        let mut indices = self.indices(memory)?;
        indices.retain(|index| self.is_there(*index));
        indices.sort_unstable();
        indices.dedup();
        Some(indices.into_iter().map(|index| self.row(index)).collect())
    }

    /// A row of what stands for one that is not there.
    fn nan(&self) -> Vec<u8> {
        let element = i32::MAX.to_le_bytes();
        let element = &element[4 - self.element_bytes as usize..];
        element.repeat(self.width as usize)
    }

    fn run(&self, memory: &Memory) -> Option<()> {
        let bytes = self.row_bytes() as usize;
        let nan = self.nan();
        for (row, index) in self.indices(memory)?.into_iter().enumerate() {
            let target = memory.bytes(self.staged + (row * bytes) as u64, bytes as u64)?;
            let source = match self.is_there(index) {
                true => memory.bytes(self.row(index).address, bytes as u64)?.cast_const(),
                false => nan.as_ptr(),
            };
            // SAFETY: both have as many bytes.
            unsafe { target.copy_from(source, bytes) };
        }
        Some(())
    }
}
