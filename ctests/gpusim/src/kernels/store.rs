//! `xqkv_store`: staged rows go through a norm and a scale to where a view has them. The order of
//! every sum and the place of every rounding are the device kernel's.

use super::{Launch, collides, ensure_aligned, ensure_least, structure, values};
use crate::memory::Memory;
use crate::op::{Access, Listed, Op};
use crate::reference::Format;
use crate::violation::violate;
use std::sync::Arc;

pub const NAME: &str = "xqkv_store";
pub const BYTES: usize = size_of::<Store>();

/// A block's threads: a warp along lanes, and eight of them.
const THREADS: [u32; 3] = [32, 8, 1];

/// The formats of what is staged and of the view, and the one that a norm rounds to.
#[derive(Clone, Copy)]
struct Formats {
    staged: Format,
    view: Format,
    rounds: Format,
}

/// The kernel's parameter.
#[repr(C)]
#[derive(Clone, Copy)]
struct Store {
    staged: u64,
    destination: u64,
    slots: u64,
    norm_weight: u64,
    rows: i64,
    first_row: i64,
    slot_count: i64,
    heads: i64,
    width: i64,
    staged_row_stride: i64,
    row_stride: i64,
    head_stride: i64,
    width_stride: i64,
    group_rows: i64,
    group_stride: i64,
    scale: f32,
    epsilon: f32,
    staged_dtype: i32,
    dtype: i32,
    round_dtype: i32,
    accumulate: i32,
}

pub fn launch(launch: &Launch) -> Result<Op, String> {
    // SAFETY: a struct of numbers.
    let call: Store = unsafe { structure(&launch.parameters[0]) };
    if launch.threads != THREADS || launch.blocks[1..] != [1, 1] {
        return Err(format!("a block is {THREADS:?} threads, and a grid has one dimension"));
    }
    let formats = call.check()?;
    let run = Arc::new(move |memory: &Memory| call.run(memory, formats).unwrap_or_default());
    let places = move |memory: &Memory| call.written(memory, formats).unwrap_or_default();
    let listed = Some(Listed { list: call.list(), accesses: Arc::new(places) });
    Ok(Op { listed, ..Op::kernel(NAME, call.reads(formats.staged), run) })
}

fn format(dtype: i32) -> Option<Format> {
    match dtype {
        1 => Some(Format::F32),
        2 => Some(Format::F16),
        3 => Some(Format::Bf16),
        _ => None,
    }
}

impl Store {
    fn check(&self) -> Result<Formats, String> {
        ensure_least(&[
            ("rows", self.rows, 0),
            ("first_row", self.first_row, 0),
            ("heads", self.heads, 1),
            ("width", self.width, 1),
            ("slot_count", self.slot_count, 0),
            ("staged_row_stride", self.staged_row_stride, 0),
            ("row_stride", self.row_stride, 0),
            ("head_stride", self.head_stride, 0),
            ("width_stride", self.width_stride, 0),
            ("group_rows", self.group_rows, 0),
            ("group_stride", self.group_stride, 0),
        ])?;
        let known = |name: &str, dtype| format(dtype).ok_or(format!("{name} is {dtype}"));
        let staged = known("staged_dtype", self.staged_dtype)?;
        let view = known("dtype", self.dtype)?;
        ensure_aligned("staged", self.staged, staged.bytes())?;
        ensure_aligned("destination", self.destination, view.bytes())?;
        ensure_aligned("slots", self.slots, 8)?;
        ensure_aligned("norm_weight", self.norm_weight, 4)?;
        let rounds = match self.round_dtype {
            0 => Format::F32,
            dtype => known("round_dtype", dtype)?,
        };
        match self.accumulate {
            0 | 1 => Ok(Formats { staged, view, rounds }),
            other => Err(format!("accumulate is {other}, neither 0 nor 1")),
        }
    }

    fn list(&self) -> Access {
        let rows = if self.slots == 0 { 0 } else { self.rows as u64 };
        Access::read(self.first_slot(), rows * 8)
    }

    /// Where the slot of the first staged row is.
    fn first_slot(&self) -> u64 {
        if self.slots == 0 { 0 } else { self.slots + self.first_row as u64 * 8 }
    }

    fn reads(&self, format: Format) -> Vec<Access> {
        let bytes = format.bytes();
        let row = Access::read(self.staged, (self.heads * self.width) as u64 * bytes);
        let rows = (self.rows as u64, self.staged_row_stride * bytes as i64);
        let staged = Access { dims: [rows, (1, 0), (1, 0)], ..row };
        let lanes = if self.norm_weight == 0 { 0 } else { self.width as u64 };
        vec![staged, self.list(), Access::read(self.norm_weight, lanes * 4)]
    }

    /// Where each row goes, or None for nowhere.
    fn places(&self, memory: &Memory) -> Option<Vec<Option<i64>>> {
        if self.slots == 0 {
            return Some((0..self.rows).map(|row| Some(self.first_row + row)).collect());
        }
        let slots = values::<i64>(memory, self.first_slot(), self.rows as u64)?;
        let known = |slot: i64| (0..self.slot_count).contains(&slot).then_some(slot);
        Some(slots.into_iter().map(known).collect())
    }

    /// Elements from the destination to a place's first lane.
    fn offset(&self, place: i64) -> i64 {
        match self.group_rows {
            0 => place * self.row_stride,
            rows => place / rows * self.group_stride + place % rows * self.row_stride,
        }
    }

    /// What the rows write. Places that follow each other in one group are one access.
    fn written(&self, memory: &Memory, formats: Formats) -> Option<Vec<Access>> {
        let places: Vec<i64> = self.places(memory)?.into_iter().flatten().collect();
        let group = |place: i64| place.checked_div(self.group_rows).unwrap_or(0);
        let follows = |a: &i64, b: &i64| *b == *a + 1 && group(*a) == group(*b);
        let runs = places.chunk_by(follows);
        let written: Vec<Access> =
            runs.map(|run| self.access(run[0], run.len() as u64, formats.view)).collect();
        if collides(&written, &self.reads(formats.staged)) {
            let place = self.destination;
            violate(format!("{NAME}: at {place:#x} it writes twice, or what it reads itself"));
        }
        Some(written)
    }

    fn access(&self, place: i64, rows: u64, format: Format) -> Access {
        let bytes = format.bytes() as i64;
        let address = self.destination as i64 + self.offset(place) * bytes;
        let dims = [
            (rows, self.row_stride * bytes),
            (self.heads as u64, self.head_stride * bytes),
            (self.width as u64, self.width_stride * bytes),
        ];
        Access { dims, ..Access::write(address as u64, bytes as u64) }
    }

    fn run(&self, memory: &Memory, formats: Formats) -> Option<()> {
        let weight = match self.norm_weight {
            0 => None,
            address => Some(values::<f32>(memory, address, self.width as u64)?),
        };
        for (row, place) in self.places(memory)?.into_iter().enumerate() {
            let Some(place) = place else { continue };
            for head in 0..self.heads {
                let start = self.offset(place) + head * self.head_stride;
                let lanes = self.lanes(memory, formats.staged, row as i64, head)?;
                let factor = weight.as_ref().map_or(1.0, |_| self.factor(&lanes));
                for (lane, value) in lanes.iter().enumerate() {
                    let value = match &weight {
                        Some(weight) => formats.rounds.round(value * factor) * weight[lane],
                        None => *value,
                    };
                    let element = start + lane as i64 * self.width_stride;
                    self.put(memory, formats.view, element, value * self.scale)?;
                }
            }
        }
        Some(())
    }

    /// A staged head's values.
    fn lanes(&self, memory: &Memory, format: Format, row: i64, head: i64) -> Option<Vec<f32>> {
        let (bytes, first) = (format.bytes(), row * self.staged_row_stride + head * self.width);
        let count = self.width as u64 * bytes;
        let source = memory.bytes(self.staged + first as u64 * bytes, count)?;
        // SAFETY: the memory has these bytes, and nothing else writes them while an op runs.
        let source = unsafe { std::slice::from_raw_parts(source, count as usize) };
        Some(source.chunks_exact(bytes as usize).map(|element| format.load(element)).collect())
    }

    /// 32 sums of every 32nd lane, which are then added in pairs 16, 8, 4, 2 and 1 apart.
    fn factor(&self, head: &[f32]) -> f32 {
        let mut sums = [0f32; 32];
        for (lane, value) in head.iter().enumerate() {
            sums[lane % 32] += value * value;
        }
        for distance in [16, 8, 4, 2, 1] {
            for at in 0..distance {
                sums[at] += sums[at + distance];
            }
        }
        1.0 / (sums[0] / self.width as f32 + self.epsilon).sqrt()
    }

    fn put(&self, memory: &Memory, format: Format, element: i64, value: f32) -> Option<()> {
        let bytes = format.bytes();
        let address = self.destination as i64 + element * bytes as i64;
        let target = memory.bytes(address as u64, bytes)?;
        // SAFETY: the memory has these bytes, and nothing else looks at them while an op runs.
        let target = unsafe { std::slice::from_raw_parts_mut(target, bytes as usize) };
        let there = if self.accumulate == 1 { format.load(target) } else { 0.0 };
        let value = if self.accumulate == 1 { there + value } else { value };
        format.store(value, target);
        Some(())
    }
}
