//! The kernels' source for the device does what the simulated kernels do, to the bit: it is
//! compiled for the host, and run on the same numbers in several grids and orders of threads.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod support;

use gpusim::driver::{context::*, copy::*, memory::*, module::*};
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::*;

const PTX: &str = include_str!("../../../src/backend/cuda/kernels/xqkv.ptx");
const GATHER: [u32; 2] = [256, 1];
const STORE: [u32; 2] = [32, 8];

/// The parameter of xqkv_store, as its source has it: staged, destination, slots, norm_weight;
/// rows, first_row, slot_count, heads, width, strides of staged row, row, head and width,
/// group_rows, group_stride; scale, epsilon; staged_dtype, dtype, round_dtype, accumulate.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Store {
    addresses: [u64; 4],
    numbers: [i64; 11],
    factors: [f32; 2],
    modes: [i32; 4],
}

/// The parameter of xqkv_gather_rows: source, list, staged; rows, buffer_rows, width, row_stride,
/// element_bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Gather {
    addresses: [u64; 3],
    numbers: [i64; 5],
}

/// A kernel's parameter, whose first fields are addresses.
trait Call: Copy + std::fmt::Debug {
    const IS_STORE: bool;
    const BLOCK: [u32; 2];
    fn addresses(&mut self) -> &mut [u64];
}

impl Call for Store {
    const IS_STORE: bool = true;
    const BLOCK: [u32; 2] = STORE;
    fn addresses(&mut self) -> &mut [u64] {
        &mut self.addresses
    }
}

impl Call for Gather {
    const IS_STORE: bool = false;
    const BLOCK: [u32; 2] = GATHER;
    fn addresses(&mut self) -> &mut [u64] {
        &mut self.addresses
    }
}

type Run = unsafe extern "C" fn(bool, *const c_void, *const u32, *const u32, bool);

/// The source's kernels on the host; None where there is no compiler.
fn compiled() -> Option<Run> {
    static RUN: OnceLock<Option<Run>> = OnceLock::new();
    *RUN.get_or_init(compile)
}

fn compile() -> Option<Run> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "{compiler} is not there, and in CI it must be");
        println!("NOT RUN: {compiler} is not there");
        return None;
    }
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libkernels.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/host.cpp");
    let mut command = Command::new(compiler);
    command.args(["-std=c++11", "-O1", "-ffp-contract=off", "-fPIC", "-shared"]);
    command.args(["-Wall", "-Wextra", "-Werror"]).arg(&source);
    assert!(command.arg("-o").arg(&library).status().unwrap().success());
    let name = CString::new(library.to_str().unwrap()).unwrap();
    unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        let run = libc::dlsym(handle, c"run".as_ptr());
        assert!(!run.is_null());
        Some(std::mem::transmute::<*mut c_void, Run>(run))
    }
}

/// The output's bytes after a launch on the simulated device. Buffers that are empty are NULL.
fn simulated<C: Call>(mut call: C, buffers: &[Vec<u8>], output: usize) -> Vec<u8> {
    let places: Vec<u64> = buffers.iter().map(|bytes| upload(bytes)).collect();
    call.addresses().copy_from_slice(&places);
    let (mut module, mut function, text) = (0, 0, CString::new(PTX).unwrap());
    let name = if C::IS_STORE { c"xqkv_store" } else { c"xqkv_gather_rows" };
    let (at, [x, y]) = ((&raw const call).cast::<c_void>(), C::BLOCK);
    unsafe {
        ok(cuModuleLoadData(&mut module, text.as_ptr()));
        ok(cuModuleGetFunction(&mut function, module, name.as_ptr()));
        ok(cuLaunchKernel(function, 1, 1, 1, x, y, 1, 0, 0, &at, std::ptr::null()));
        let answer = read(places[output], buffers[output].len());
        places.iter().for_each(|place| ok(cuMemFree_v2(*place)));
        ok(cuModuleUnload(module));
        answer
    }
}

fn upload(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    let address = alloc(bytes.len());
    unsafe {
        ok(cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len()));
        ok(cuCtxSynchronize());
    }
    address
}

/// The same by the source, on the host's memory.
fn by_source<C: Call>(
    run: Run,
    mut call: C,
    buffers: &[Vec<u8>],
    output: usize,
    (blocks, falls): ([u32; 2], bool),
) -> Vec<u8> {
    // Words, so that every buffer is aligned.
    let words = |bytes: &Vec<u8>| -> Vec<u64> {
        let whole = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        whole.collect()
    };
    let mut memory: Vec<Vec<u64>> = buffers.iter().map(words).collect();
    for (address, words) in call.addresses().iter_mut().zip(&mut memory) {
        *address = if words.is_empty() { 0 } else { words.as_mut_ptr() as u64 };
    }
    let place = (&raw const call).cast();
    unsafe { run(C::IS_STORE, place, blocks.as_ptr(), C::BLOCK.as_ptr(), falls) };
    let bytes: Vec<u8> = memory[output].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes[..buffers[output].len()].to_vec()
}

/// Compares both in several grids; elements that are NaN in both are alike.
fn agree<C: Call>(
    run: Run,
    call: C,
    buffers: &[Vec<u8>],
    output: usize,
    is_nan: fn(&[u8]) -> bool,
    size: usize,
) {
    let expected = simulated(call, buffers, output);
    for grid in [([1, 1], false), ([3, 2], true)] {
        let grid = if C::IS_STORE { ([grid.0[0], 1], grid.1) } else { grid };
        let found = by_source(run, call, buffers, output, grid);
        let pairs = found.chunks_exact(size).zip(expected.chunks_exact(size)).enumerate();
        for (at, (found, expected)) in pairs {
            let alike = found == expected || (is_nan(found) && is_nan(expected));
            assert!(alike, "{call:?}, {grid:?}: element {at} is {found:x?}, not {expected:x?}");
        }
    }
}

fn is_nan_f32(bytes: &[u8]) -> bool {
    f32::from_ne_bytes(bytes.try_into().unwrap()).is_nan()
}

fn is_nan_f16(bytes: &[u8]) -> bool {
    half::f16::from_ne_bytes(bytes.try_into().unwrap()).is_nan()
}

fn is_nan_bf16(bytes: &[u8]) -> bool {
    half::bf16::from_ne_bytes(bytes.try_into().unwrap()).is_nan()
}

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 24
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Values of every magnitude that a 16-bit format tells apart, ties, and what is no number.
    fn values(&mut self, count: usize) -> Vec<u8> {
        let value = |random: &mut Self| match random.next() % 4 {
            0 => random.next() as u32,
            1 => (random.next() as u32) & !0xFFF,
            2 => ((random.next() % 2001) as f32 * 2f32.powi(-24)).to_bits(),
            _ => ((random.next() % 4001) as f32 / 16.0 - 125.0).to_bits(),
        };
        (0..count).flat_map(|_| value(self).to_ne_bytes()).collect()
    }

    fn small(&mut self, count: usize) -> Vec<u8> {
        let value = |random: &mut Self| (random.next() % 4001) as f32 / 64.0 - 31.0;
        (0..count).flat_map(|_| value(self).to_ne_bytes()).collect()
    }
}

#[test]
fn the_source_gathers_as_the_simulated_kernel_does() {
    let _sim = sim();
    let Some(run) = compiled() else { return };
    let mut random = Random(1);
    for (rows, width, bytes) in [(1, 1, 2), (7, 300, 2), (5, 257, 4), (70, 3, 4)] {
        let (buffer_rows, stride) = (9i64, width + 2);
        let list = (0..rows).flat_map(|_| (random.next() as i64 % 12 - 1).to_ne_bytes()).collect();
        let source = random.bytes((buffer_rows * stride * bytes) as usize);
        let buffers = [source, list, vec![0; (rows * width * bytes) as usize]];
        let numbers = [rows, buffer_rows, width, stride, bytes];
        let call = Gather { addresses: [0; 3], numbers };
        agree(run, call, &buffers, 2, |_| false, bytes as usize);
    }
}

/// Places of a view beyond the staged rows'.
const SPARE: i64 = 3;

/// One shape in one view: strides of row, head and width, group_rows and group_stride.
fn stores_agree(run: Run, random: &mut Random, shape: [i64; 3], view: [i64; 5]) {
    let [rows, heads, width] = shape;
    for ((dtype, is_nan), normed) in
        [(1, is_nan_f32 as fn(&[u8]) -> bool), (2, is_nan_f16), (3, is_nan_bf16)]
            .into_iter()
            .flat_map(|dtype| [(dtype, false), (dtype, true)])
    {
        let size = if dtype == 1 { 4 } else { 2 };
        let (first_row, has_slots) = (random.next() as i64 % 3, random.next().is_multiple_of(2));
        let pitch = heads * width + random.next() as i64 % 3;
        let staged_dtype = (random.next() % 3) as i32 + 1;
        let slot = |row: i64| if row % 4 == 3 { -1 - row } else { rows + SPARE - 1 - row };
        let slots = (0..first_row + rows).flat_map(|row| slot(row).to_ne_bytes());
        let slots = slots.take(if has_slots { usize::MAX } else { 0 }).collect();
        let staged = match (staged_dtype, normed) {
            (1, true) => random.small((rows * pitch) as usize),
            (1, false) => random.values((rows * pitch) as usize),
            _ => random.bytes((rows * pitch * 2) as usize),
        };
        let weight = random.small(if normed { width as usize } else { 0 });
        let groups = if view[3] == 0 { 0 } else { (rows + SPARE) / view[3] };
        let places = if view[3] == 0 { rows + SPARE } else { view[3] };
        let last = groups * view[4] + places * view[0] + heads * view[1] + width * view[2];
        let view_bytes = random.bytes(((last + 1) * size) as usize);
        let buffers = [staged, view_bytes, slots, weight];
        let modes = [staged_dtype, dtype, (random.next() % 4) as i32, (random.next() % 2) as i32];
        let [row, head, lane, group_rows, group] = view;
        let strides = [pitch, row, head, lane, group_rows, group];
        let mut numbers = [rows, first_row, rows + SPARE, heads, width, 0, 0, 0, 0, 0, 0];
        numbers[5..].copy_from_slice(&strides);
        let call = Store { addresses: [0; 4], numbers, factors: [0.75, 1e-6], modes };
        agree(run, call, &buffers, 1, is_nan, size as usize);
    }
}

#[test]
fn the_source_stores_as_the_simulated_kernel_does() {
    let _sim = sim();
    let Some(run) = compiled() else { return };
    let mut random = Random(2);
    for shape in [[1, 1, 1], [33, 2, 64], [40, 3, 33], [5, 2, 200], [2, 1, 1024]] {
        let [rows, heads, width] = shape;
        let places = rows + SPARE;
        for view in [
            [heads * width, width, 1, 0, 0],
            [width, places * width, 1, 0, 0],
            [1, places * width, places, 0, 0],
            [1, 4 * width, 4, 4, heads * 4 * width],
        ] {
            stores_agree(run, &mut random, shape, view);
        }
    }
}
