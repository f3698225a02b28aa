//! Which algorithms fit a problem, and in which order: the heuristic, the check of one algorithm,
//! and the lists of ids.

use super::algorithm::{Algorithm, FAMILIES, REDUCTION_NONE, pack_types};
use super::handle;
use super::preference::Preference;
use super::problem::Problem;
use super::status::{INVALID_VALUE, NOT_SUPPORTED, SUCCESS, answer};
use crate::reference::Format;
use std::ffi::{c_int, c_void};
use std::ptr;

const SEARCH_BEST_FIT: u32 = 0;
const SEARCH_LIMITED_BY_ALGO_ID: u32 = 1;

/// The header's cublasLtMatmulHeuristicResult_t.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeuristicResult {
    pub algorithm: [u64; 8],
    pub workspace_bytes: usize,
    pub state: c_int,
    pub waves: f32,
    pub reserved: [c_int; 4],
}

impl HeuristicResult {
    fn of(algorithm: &Algorithm, problem: &Problem) -> HeuristicResult {
        HeuristicResult {
            algorithm: algorithm.to_words(),
            workspace_bytes: algorithm.workspace_bytes(problem) as usize,
            state: SUCCESS,
            waves: algorithm.waves(problem),
            reserved: [0; 4],
        }
    }
}

/// The algorithms that the preference allows, the one expected to be fastest first.
pub fn search(problem: &Problem, preference: &Preference) -> Vec<Algorithm> {
    let allowed = |algorithm: &Algorithm| allows(preference, algorithm, problem);
    let mut found: Vec<Algorithm> = Algorithm::all(problem).filter(allowed).collect();
    found.sort_by_key(|algorithm| algorithm.estimate_ns(problem));
    found
}

fn allows(preference: &Preference, algorithm: &Algorithm, problem: &Problem) -> bool {
    let mut alignments = problem.matrices().into_iter().zip(preference.min_alignment_bytes);
    let aligned = alignments.all(|(matrix, given)| {
        u64::from(given).is_multiple_of(algorithm.alignment(matrix.format.bytes())) && given > 0
    });
    let reduced = algorithm.reduction == REDUCTION_NONE
        || algorithm.reduction & preference.reduction_scheme_mask != 0;
    let waves = preference.max_waves_count;
    aligned
        && reduced
        && algorithm.suits(problem)
        && algorithm.workspace_bytes(problem) <= preference.max_workspace_bytes
        && (waves == 0.0 || algorithm.waves(problem) <= waves)
        && algorithm.numerics() & !preference.implementation_mask == 0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: *mut c_void,
    operation: *const c_void,
    a: *const c_void,
    b: *const c_void,
    c: *const c_void,
    d: *const c_void,
    preference: *const c_void,
    requested: c_int,
    results: *mut HeuristicResult,
    returned: *mut c_int,
) -> c_int {
    answer("cublasLtMatmulAlgoGetHeuristic", || {
        handle::device(handle)?;
        if requested <= 0 || results.is_null() || returned.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not NULL, so writable, as the header asks.
        unsafe { *returned = 0 };
        // SAFETY: the caller's descriptors, as the header asks.
        let problem = unsafe { Problem::read(operation, [a, b, c, d])? };
        // SAFETY: as above.
        let preference = unsafe { Preference::read(preference)? };
        // SAFETY: the array has at least one element.
        let only = unsafe { wanted_id(&preference, results)? };
        let mut found = search(&problem, &preference);
        found.retain(|algorithm| only.is_none_or(|id| algorithm.id == id));
        found.truncate(requested as usize);
        // SAFETY: the array has as many elements as were requested.
        unsafe { write(&found, &problem, results, returned) };
        if found.is_empty() { Err(NOT_SUPPORTED) } else { Ok(()) }
    })
}

/// With the search limited by id, the id that the caller left in the first result.
unsafe fn wanted_id(
    preference: &Preference,
    results: *const HeuristicResult,
) -> Result<Option<c_int>, c_int> {
    match preference.search_mode {
        SEARCH_BEST_FIT => Ok(None),
        SEARCH_LIMITED_BY_ALGO_ID => {
            // SAFETY: the caller's array begins with an algorithm.
            let given = unsafe { Algorithm::read(results.cast())? };
            Ok(Some(given.id))
        }
        _ => Err(NOT_SUPPORTED),
    }
}

unsafe fn write(
    found: &[Algorithm],
    problem: &Problem,
    results: *mut HeuristicResult,
    returned: *mut c_int,
) {
    for (index, algorithm) in found.iter().enumerate() {
        let result = HeuristicResult::of(algorithm, problem);
        // SAFETY: the array has at least as many elements as were found.
        unsafe { results.add(index).write_unaligned(result) };
    }
    // SAFETY: not NULL, so writable.
    unsafe { *returned = found.len() as c_int };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoCheck(
    handle: *mut c_void,
    operation: *const c_void,
    a: *const c_void,
    b: *const c_void,
    c: *const c_void,
    d: *const c_void,
    algorithm: *const c_void,
    result: *mut HeuristicResult,
) -> c_int {
    answer("cublasLtMatmulAlgoCheck", || {
        // SAFETY: the caller's descriptors, as the header asks.
        let problem = unsafe { Problem::read(operation, [a, b, c, d])? };
        if result.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's 64 bytes.
        let algorithm = unsafe { Algorithm::read(algorithm)? };
        handle::device(handle)?;
        algorithm.check(&problem)?;
        let found = HeuristicResult::of(&algorithm, &problem);
        // SAFETY: not NULL; the algorithm in the result is never updated.
        unsafe {
            let kept = ptr::read_unaligned(result.cast::<[u64; 8]>());
            result.write_unaligned(HeuristicResult { algorithm: kept, ..found });
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoInit(
    handle: *mut c_void,
    compute: c_int,
    scale: c_int,
    a: c_int,
    b: c_int,
    c: c_int,
    d: c_int,
    id: c_int,
    algorithm: *mut [u64; 8],
) -> c_int {
    answer("cublasLtMatmulAlgoInit", || {
        handle::device(handle)?;
        let known = FAMILIES.iter().any(|family| family.id == id);
        if algorithm.is_null() || !known {
            return Err(INVALID_VALUE);
        }
        let matrices = [a, b, c, d].map(|kind| kind as u32);
        check_types(compute, scale, matrices)?;
        let types = pack_types(compute, scale, matrices);
        let made = Algorithm { id, splits: 1, reduction: REDUCTION_NONE, types, epilogue: 0 };
        // SAFETY: not NULL, so 64 writable bytes.
        unsafe { algorithm.write_unaligned(made.to_words()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetIds(
    handle: *mut c_void,
    compute: c_int,
    scale: c_int,
    a: c_int,
    b: c_int,
    c: c_int,
    d: c_int,
    requested: c_int,
    ids: *mut c_int,
    returned: *mut c_int,
) -> c_int {
    answer("cublasLtMatmulAlgoGetIds", || {
        handle::device(handle)?;
        if requested <= 0 || ids.is_null() || returned.is_null() {
            return Err(INVALID_VALUE);
        }
        check_types(compute, scale, [a, b, c, d].map(|kind| kind as u32))?;
        let count = FAMILIES.len().min(requested as usize);
        for (index, family) in FAMILIES.iter().take(count).enumerate() {
            // SAFETY: the array has as many elements as were requested.
            unsafe { *ids.add(index) = family.id };
        }
        // SAFETY: not NULL, so writable.
        unsafe { *returned = count as c_int };
        Ok(())
    })
}

fn check_types(compute: c_int, scale: c_int, matrices: [u32; 4]) -> Result<(), c_int> {
    let format = |kind| Format::from_cuda(kind).ok_or(NOT_SUPPORTED);
    let [a, b, c, d] = matrices;
    super::problem::check_types(compute, scale, [format(a)?, format(b)?, format(c)?, format(d)?])
}
