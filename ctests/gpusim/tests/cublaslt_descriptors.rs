//! Descriptors: the attributes have the ids, sizes and defaults that the real library answers
//! without a driver, and descriptors are plain bytes.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod cublaslt;

use cublaslt::*;
use gpusim::cublaslt::layout::*;
use gpusim::cublaslt::operation::*;
use gpusim::cublaslt::preference::*;
use gpusim::cublaslt::status::*;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};

type Set = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int;
type Get = unsafe extern "C" fn(*const c_void, c_int, *mut c_void, usize, *mut usize) -> c_int;
/// (id, bytes, default), as libcublasLt 13.4 answers them.
type Row = (c_int, usize, u64);

/// A layout of type bf16, 3 rows, 4 columns, leading 5.
const LAYOUT: [Row; 14] = [
    (0, 4, 14),
    (1, 4, 0),
    (2, 8, 3),
    (3, 8, 4),
    (4, 8, 5),
    (5, 4, 1),
    (6, 8, 0),
    (7, 8, 0),
    (8, 4, 0),
    (9, 8, 0),
    (10, 8, 0),
    (11, 8, 0),
    (12, 4, 0),
    (13, 4, 0),
];
const OPERATION: [Row; 36] = [
    (0, 4, 68),
    (1, 4, 0),
    (2, 4, 0),
    (3, 4, 0),
    (4, 4, 0),
    (5, 4, 0),
    (6, 4, 2),
    (7, 4, 1),
    (8, 8, 0),
    (10, 8, 0),
    (11, 8, 0),
    (12, 8, 0),
    (13, 8, 0),
    (14, 8, 0),
    (15, 4, 0),
    (16, 4, 0),
    (17, 8, 0),
    (18, 8, 0),
    (19, 8, 0),
    (20, 8, 0),
    (21, 8, 0),
    (22, 4, 0xFFFF_FFFF),
    (23, 8, 0),
    (24, 8, 0),
    (25, 1, 0),
    (26, 4, 0xFFFF_FFFF),
    (31, 4, 0),
    (32, 4, 0),
    (33, 4, 0),
    (34, 4, 0),
    (35, 4, 0),
    (36, 8, 0),
    (37, 4, 0),
    (38, 8, 0),
    (39, 8, 0),
    (40, 8, 0),
];
const PREFERENCE: [Row; 12] = [
    (0, 4, 0),
    (1, 8, 0),
    (3, 4, 7),
    (5, 4, 256),
    (6, 4, 256),
    (7, 4, 256),
    (8, 4, 256),
    (9, 4, 0),
    (12, 8, u64::MAX),
    (13, 8, 0),
    (14, 8, 0),
    (15, 8, 0),
];

fn made() -> [*mut c_void; 3] {
    let mut made = [null_mut(); 3];
    unsafe {
        assert_eq!(cublasLtMatrixLayoutCreate(&mut made[0], BF16, 3, 4, 5), 0);
        assert_eq!(cublasLtMatmulDescCreate(&mut made[1], COMPUTE_32F, F32), 0);
        assert_eq!(cublasLtMatmulPreferenceCreate(&mut made[2]), 0);
    }
    made
}

fn destroy(made: [*mut c_void; 3]) {
    assert_eq!(cublasLtMatrixLayoutDestroy(made[0]), 0);
    assert_eq!(cublasLtMatmulDescDestroy(made[1]), 0);
    assert_eq!(cublasLtMatmulPreferenceDestroy(made[2]), 0);
}

fn kinds() -> [(Set, Get, &'static [Row]); 3] {
    [
        (cublasLtMatrixLayoutSetAttribute, cublasLtMatrixLayoutGetAttribute, &LAYOUT),
        (cublasLtMatmulDescSetAttribute, cublasLtMatmulDescGetAttribute, &OPERATION),
        (cublasLtMatmulPreferenceSetAttribute, cublasLtMatmulPreferenceGetAttribute, &PREFERENCE),
    ]
}

#[test]
fn attributes_have_the_real_librarys_defaults() {
    let _sim = sim();
    let descriptors = made();
    for (descriptor, (_, get, rows)) in descriptors.into_iter().zip(kinds()) {
        for (id, bytes, initial) in rows {
            let (mut value, mut written) = (0u64, 0);
            let to = (&raw mut value).cast();
            assert_eq!(unsafe { get(descriptor, *id, to, *bytes, &mut written) }, 0, "{id}");
            assert_eq!((value, written), (*initial, *bytes), "{id}");
            let asked = unsafe { get(descriptor, *id, null_mut(), 0, &mut written) };
            assert_eq!((asked, written), (0, *bytes), "{id}");
        }
    }
    destroy(descriptors);
}

#[test]
fn only_an_attributes_own_size_sets_or_gets_it() {
    let _sim = sim();
    let descriptors = made();
    for (descriptor, (set, get, rows)) in descriptors.into_iter().zip(kinds()) {
        for id in -1..64 {
            let own = rows.iter().find(|row| row.0 == id).map(|row| row.1);
            for bytes in 1..=16 {
                let (mut buffer, mut written) = ([0u64; 2], 0);
                let expected = if own == Some(bytes) { 0 } else { INVALID_VALUE };
                let to = buffer.as_mut_ptr().cast();
                let got = unsafe { get(descriptor, id, to, bytes, &mut written) };
                let done = unsafe { set(descriptor, id, buffer.as_ptr().cast(), bytes) };
                assert_eq!((got, done), (expected, expected), "attribute {id}, {bytes} bytes");
            }
        }
    }
    destroy(descriptors);
}

#[test]
fn values_are_not_looked_at_when_they_are_set() {
    let _sim = sim();
    let descriptors = made();
    for (descriptor, (set, get, rows)) in descriptors.into_iter().zip(kinds()) {
        for (id, bytes, _) in rows {
            let (wild, mut back) = ([0x5Au8; 8], [0u8; 8]);
            let to = back.as_mut_ptr().cast();
            assert_eq!(unsafe { set(descriptor, *id, wild.as_ptr().cast(), *bytes) }, 0);
            assert_eq!(unsafe { get(descriptor, *id, to, *bytes, null_mut()) }, 0);
            assert_eq!(back[..*bytes], wild[..*bytes], "attribute {id}");
        }
    }
    destroy(descriptors);
}

#[test]
fn nulls_are_invalid_and_destroying_null_is_nothing() {
    let _sim = sim();
    let descriptors = made();
    let value = 0u64;
    for (descriptor, (set, get, rows)) in descriptors.into_iter().zip(kinds()) {
        let (id, bytes, from) = (rows[1].0, rows[1].1, (&raw const value).cast());
        assert_eq!(unsafe { set(null_mut(), id, from, bytes) }, INVALID_VALUE);
        assert_eq!(unsafe { set(descriptor, id, null(), bytes) }, INVALID_VALUE);
        assert_eq!(unsafe { get(descriptor, id, null_mut(), bytes, null_mut()) }, INVALID_VALUE);
        assert_eq!(unsafe { get(descriptor, id, null_mut(), 0, null_mut()) }, INVALID_VALUE);
    }
    assert_eq!(unsafe { cublasLtMatrixLayoutCreate(null_mut(), 0, 1, 1, 1) }, INVALID_VALUE);
    destroy([null_mut(); 3]);
    destroy(descriptors);
}

#[test]
fn init_refuses_too_little_room_and_writes_no_more_than_it_has() {
    let _sim = sim();
    let mut memory = [0xEEu8; 256];
    let to = memory.as_mut_ptr().cast();
    let init = |bytes| unsafe { cublasLtMatrixLayoutInit_internal(to, bytes, 0, 3, 4, 3) };
    assert_eq!(init(63), ALLOC_FAILED);
    assert_eq!(init(64), 0);
    assert!(memory[64..].iter().all(|byte| *byte == 0xEE));
    let to = memory.as_mut_ptr().cast();
    assert_eq!(unsafe { cublasLtMatmulDescInit_internal(to, 183, 68, 0) }, ALLOC_FAILED);
    assert_eq!(unsafe { cublasLtMatmulPreferenceInit_internal(to, 63) }, ALLOC_FAILED);
}

#[test]
fn an_older_headers_layout_lacks_the_newer_attributes() {
    let _sim = sim();
    let mut words = [0u64; 32];
    let (to, value) = (words.as_mut_ptr().cast(), 0u64);
    assert_eq!(unsafe { cublasLtMatrixLayoutInit_internal(to, 64, 0, 3, 4, 3) }, 0);
    let set =
        |id| unsafe { cublasLtMatrixLayoutSetAttribute(to, id, (&raw const value).cast(), 8) };
    assert_eq!((set(6), set(9)), (0, INVALID_VALUE));
}

#[test]
fn copies_of_a_descriptors_bytes_are_descriptors() {
    let _sim = sim();
    let original = Descriptors::projection(BF16, 8, 4, 16);
    let mut copy = original;
    set_layout(&mut copy.b, 2, &17u64);
    assert_eq!(original.status(), 0);
    assert_eq!(copy.status(), INVALID_VALUE);
}

#[test]
fn created_descriptors_are_counted_until_they_are_destroyed() {
    let _sim = sim();
    let live = || unsafe { gpusim::control::gpusim_live(c"descriptors".as_ptr()) };
    let before = live();
    let descriptors = made();
    assert_eq!(live(), before + 3);
    destroy(descriptors);
    assert_eq!(live(), before);
}

#[test]
fn a_destroyed_descriptor_is_found_when_it_is_used() {
    let _sim = sim();
    let descriptors = made();
    destroy(descriptors);
    let (set, _, _) = kinds()[0];
    let value = 1u32;
    let status = unsafe { set(descriptors[0], 1, (&raw const value).cast(), 4) };
    assert_eq!((status, gpusim::violation::count()), (INVALID_VALUE, 1));
    assert_eq!(cublasLtMatrixLayoutDestroy(descriptors[0]), INVALID_VALUE);
    assert_eq!(gpusim::violation::count(), 2);
}

#[test]
fn statuses_have_the_real_librarys_names_and_texts() {
    let name = |status| unsafe { CStr::from_ptr(cublasLtGetStatusName(status)) };
    let text = |status| unsafe { CStr::from_ptr(cublasLtGetStatusString(status)) };
    assert_eq!(name(15), c"CUBLAS_STATUS_NOT_SUPPORTED");
    assert_eq!(text(1), c"the library was not initialized");
    assert_eq!((name(999), text(2)), (c"unrecognized status", c"unrecognized status"));
}
