//! The heuristic: what it refuses, what it leaves out, and in which order it answers.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod cublaslt;

use cublaslt::*;
use gpusim::cublaslt::capability::*;
use gpusim::cublaslt::handle::*;
use gpusim::cublaslt::heuristic::*;
use gpusim::cublaslt::status::*;
use std::ffi::c_int;
use std::ptr::null_mut;

/// A name, and what makes the descriptors wrong.
type Change = (&'static str, fn(&mut Descriptors));

fn projection() -> Descriptors {
    Descriptors::projection(BF16, 64, 32, 1024)
}

fn attribute(algorithm: &[u64; 8], id: c_int) -> u32 {
    let (mut value, from) = (0u32, algorithm.as_ptr().cast());
    let to = (&raw mut value).cast();
    assert_eq!(
        unsafe { cublasLtMatmulAlgoConfigGetAttribute(from, id, to, 4, null_mut()) },
        SUCCESS
    );
    value
}

fn capability(algorithm: &[u64; 8], id: c_int) -> u32 {
    let (mut value, from) = (0u32, algorithm.as_ptr().cast());
    let to = (&raw mut value).cast();
    assert_eq!(unsafe { cublasLtMatmulAlgoCapGetAttribute(from, id, to, 4, null_mut()) }, SUCCESS);
    value
}

fn splits(results: &[HeuristicResult]) -> Vec<u32> {
    results.iter().map(|result| attribute(&result.algorithm, 2)).collect()
}

#[test]
fn descriptors_that_contradict_each_other_are_invalid() {
    let _sim = sim();
    let changes: [Change; 8] = [
        ("k of A and B", |all| set_layout(&mut all.b, 2, &1025u64)),
        ("n of B and D", |all| set_layout(&mut all.b, 3, &31u64)),
        ("m of A and D", |all| set_layout(&mut all.a, 3, &63u64)),
        ("shapes of C and D", |all| set_layout(&mut all.c, 3, &31u64)),
        ("a leading stride below the rows", |all| set_layout(&mut all.d, 4, &63i64)),
        ("another batch", |all| set_layout(&mut all.b, 5, &2i32)),
        ("an empty batch", |all| set_layout(&mut all.d, 5, &0i32)),
        ("a scale without a narrow format", |all| set_operation(&mut all.operation, 17, &256u64)),
    ];
    assert_eq!(projection().status(), SUCCESS);
    for (what, change) in changes {
        let mut descriptors = projection();
        change(&mut descriptors);
        assert_eq!(descriptors.status(), INVALID_VALUE, "{what}");
    }
}

#[test]
fn what_no_algorithm_can_do_is_not_supported() {
    let _sim = sim();
    let changes: [Change; 10] = [
        ("a transposed C", |all| set_operation(&mut all.operation, 5, &1i32)),
        ("a triangle", |all| set_operation(&mut all.operation, 6, &1i32)),
        ("the epilogue GELU", |all| set_operation(&mut all.operation, 7, &32u32)),
        ("vectors of alpha", |all| set_operation(&mut all.operation, 2, &2i32)),
        ("conjugation", |all| set_operation(&mut all.operation, 3, &3i32)),
        ("f16 scalars", |all| set_operation(&mut all.operation, 1, &2i32)),
        ("another order", |all| set_layout(&mut all.d, 1, &2i32)),
        ("C and D of two orders", |all| set_layout(&mut all.c, 1, &1i32)),
        ("pointer arrays", |all| set_layout(&mut all.a, 8, &1u32)),
        ("planes", |all| set_layout(&mut all.a, 7, &64i64)),
    ];
    for (what, change) in changes {
        let mut descriptors = projection();
        change(&mut descriptors);
        assert_eq!(descriptors.status(), NOT_SUPPORTED, "{what}");
    }
}

#[test]
fn types_are_those_of_the_documented_table() {
    let _sim = sim();
    let status = |compute: c_int, [a, b, c, d]: [c_int; 4]| {
        let mut all = projection();
        set_operation(&mut all.operation, 0, &compute);
        for (layout, kind) in [(&mut all.a, a), (&mut all.b, b), (&mut all.c, c), (&mut all.d, d)] {
            set_layout(layout, 0, &kind);
        }
        all.status()
    };
    for kinds in [[BF16; 4], [F16; 4], [F32; 4], [BF16, BF16, F32, F32], [F16, F16, F32, F32]] {
        assert_eq!(status(COMPUTE_32F, kinds), SUCCESS, "{kinds:?}");
    }
    assert_eq!(status(COMPUTE_TF32, [F32; 4]), SUCCESS);
    for kinds in [[BF16, F16, F32, F32], [BF16, BF16, F16, F16], [F32, F32, BF16, BF16]] {
        assert_eq!(status(COMPUTE_32F, kinds), NOT_SUPPORTED, "{kinds:?}");
    }
    assert_eq!(status(COMPUTE_32F, [BF16, BF16, F32, BF16]), NOT_SUPPORTED);
    assert_eq!(status(COMPUTE_TF32, [BF16; 4]), NOT_SUPPORTED);
    assert_eq!(status(64, [F16; 4]), NOT_SUPPORTED);
}

#[test]
fn a_bias_needs_d_in_column_order_and_ds_type() {
    let _sim = sim();
    let mut biased = projection();
    set_operation(&mut biased.operation, 7, &EPILOGUE_BIAS);
    assert_eq!(biased.status(), SUCCESS);
    let mut other = biased;
    set_operation(&mut other.operation, 26, &F32);
    assert_eq!(other.status(), NOT_SUPPORTED);
    let mut rows = biased;
    rows.c = Shape::row(BF16, 64, 32).words(1);
    rows.d = rows.c;
    assert_eq!(rows.status(), NOT_SUPPORTED);
    set_operation(&mut rows.operation, 7, &1u32);
    assert_eq!(rows.status(), SUCCESS);
}

#[test]
fn weak_alignment_leaves_only_algorithms_that_need_no_more() {
    let _sim = sim();
    let vectorised = |preference: &Words, descriptors: &Descriptors| {
        let (status, found) = descriptors.search(preference, 32);
        let needs = found.iter().map(|result| capability(&result.algorithm, 16));
        (status, needs.filter(|bytes| *bytes == 16).count())
    };
    let all = vectorised(&preference(), &projection());
    assert!(all.0 == SUCCESS && all.1 > 0);
    for id in 5..=8 {
        let mut weak = preference();
        set_preference(&mut weak, id, &2u32);
        assert_eq!(vectorised(&weak, &projection()), (SUCCESS, 0), "preference {id}");
        set_preference(&mut weak, id, &1u32);
        assert_eq!(vectorised(&weak, &projection()), (NOT_SUPPORTED, 0), "preference {id}");
    }
    let mut odd = projection();
    set_layout(&mut odd.d, 4, &65i64);
    assert_eq!(vectorised(&preference(), &odd), (SUCCESS, 0));
    let mut biased = projection();
    set_operation(&mut biased.operation, 7, &EPILOGUE_BIAS);
    set_operation(&mut biased.operation, 8, &0x1002u64);
    assert_eq!(vectorised(&preference(), &biased), (SUCCESS, 0));
}

#[test]
fn splits_need_workspace_and_a_reduction_that_is_allowed() {
    let _sim = sim();
    let (_, found) = projection().search(&preference(), 32);
    assert!(splits(&found).contains(&8) && splits(&found)[0] > 1, "{:?}", splits(&found));
    let eight = found.iter().find(|result| attribute(&result.algorithm, 2) == 8).expect("eight");
    assert_eq!(eight.workspace_bytes, 64 * 32 * 4 * 8);

    let mut whole = preference();
    set_preference(&mut whole, 3, &0u32);
    let (_, found) = projection().search(&whole, 32);
    assert!(!found.is_empty() && splits(&found).iter().all(|splits| *splits == 1));

    let mut small = preference();
    set_preference(&mut small, 1, &(64u64 * 32 * 4 * 2));
    let (_, found) = projection().search(&small, 32);
    assert_eq!(splits(&found).iter().max(), Some(&2));
}

#[test]
fn at_most_the_requested_algorithms_come_fastest_first() {
    let _sim = sim();
    let (_, all) = projection().search(&preference(), 32);
    let (_, three) = projection().search(&preference(), 3);
    assert_eq!((three.len(), &three[..]), (3, &all[..3]));
    let (_, large) = Descriptors::projection(BF16, 4096, 4096, 1024).search(&preference(), 32);
    assert_eq!(splits(&large)[0], 1);
    assert!(large.iter().all(|result| result.state == SUCCESS && result.waves > 0.0));
}

#[test]
fn waves_implementations_and_ids_can_be_limited() {
    let _sim = sim();
    let large = Descriptors::projection(BF16, 4096, 4096, 64);
    let mut few = preference();
    set_preference(&mut few, 9, &8.0f32);
    let (_, found) = large.search(&few, 32);
    assert!(!found.is_empty() && found.iter().all(|result| result.waves <= 8.0));
    let mut plain = preference();
    set_preference(&mut plain, 12, &!2u64);
    let (_, found) = large.search(&plain, 32);
    assert!(!found.is_empty());
    assert!(found.iter().all(|result| capability(&result.algorithm, 16) == 2));
    let mut unknown = preference();
    set_preference(&mut unknown, 0, &2u32);
    assert_eq!(large.search(&unknown, 1).0, NOT_SUPPORTED);
}

#[test]
fn the_heuristics_own_arguments_are_checked() {
    let _sim = sim();
    let (handle, all, wanted) = (handle(), projection(), preference());
    let [operation, a, b, c, d] = all.pointers();
    let (mut returned, mut result) = (0, [0u64; 12]);
    let to = result.as_mut_ptr().cast::<HeuristicResult>();
    let mut ask = |handle, count, to| unsafe {
        let wanted = pointer(&wanted);
        cublasLtMatmulAlgoGetHeuristic(
            handle,
            operation,
            a,
            b,
            c,
            d,
            wanted,
            count,
            to,
            &mut returned,
        )
    };
    assert_eq!(ask(handle, 0, to), INVALID_VALUE);
    assert_eq!(ask(handle, 1, null_mut()), INVALID_VALUE);
    assert_eq!(ask(null_mut(), 1, to), NOT_INITIALIZED);
    assert_eq!(ask(handle, 1, to), SUCCESS);
    assert_eq!(cublasLtDestroy(handle), SUCCESS);
    assert_eq!((ask(handle, 1, to), gpusim::violation::count()), (NOT_INITIALIZED, 1));
}

#[test]
fn an_algorithm_is_checked_against_the_problem() {
    let _sim = sim();
    let handle = handle();
    let (_, found) = projection().search(&preference(), 1);
    let mut result = found[0];
    let mut check = |all: &Descriptors, algorithm: &[u64; 8]| unsafe {
        let ([operation, a, b, c, d], given) = (all.pointers(), algorithm.as_ptr().cast());
        cublasLtMatmulAlgoCheck(handle, operation, a, b, c, d, given, &mut result)
    };
    let good = found[0].algorithm;
    assert_eq!(check(&projection(), &good), SUCCESS);
    assert_eq!(check(&projection(), &[0; 8]), INVALID_VALUE);
    assert_eq!(check(&Descriptors::projection(F16, 64, 32, 1024), &good), INVALID_VALUE);
    let mut biased = projection();
    set_operation(&mut biased.operation, 7, &EPILOGUE_BIAS);
    assert_eq!(check(&biased, &good), INVALID_VALUE);
    let mut odd = projection();
    set_layout(&mut odd.a, 4, &1025i64);
    assert_eq!(check(&odd, &good), NOT_SUPPORTED);
    assert_eq!(cublasLtDestroy(handle), SUCCESS);
}

#[test]
fn every_listed_id_makes_an_algorithm() {
    let _sim = sim();
    let (handle, mut ids, mut count) = (handle(), [0; 16], 0);
    let (to, returned) = (ids.as_mut_ptr(), &raw mut count);
    let listed = unsafe {
        cublasLtMatmulAlgoGetIds(handle, 68, 0, BF16, BF16, BF16, BF16, 16, to, returned)
    };
    assert_eq!((listed, count), (SUCCESS, 5));
    for id in &ids[..count as usize] {
        let mut algorithm = [0u64; 8];
        let to = &mut algorithm;
        let made =
            unsafe { cublasLtMatmulAlgoInit(handle, 68, 0, BF16, BF16, BF16, BF16, *id, to) };
        assert_eq!((made, attribute(to, 0)), (SUCCESS, *id as u32));
        let mixed =
            unsafe { cublasLtMatmulAlgoInit(handle, 68, 0, BF16, F16, BF16, BF16, *id, to) };
        assert_eq!(mixed, NOT_SUPPORTED);
    }
    assert_eq!(cublasLtDestroy(handle), SUCCESS);
}

#[test]
fn a_layout_of_another_kind_is_found() {
    let _sim = sim();
    let mut all = projection();
    all.a = all.operation;
    assert_eq!((all.status(), gpusim::violation::count()), (INVALID_VALUE, 1));
}
