//! `cublasLtMatmul`: the last checks, then an op for the stream.

use super::algorithm::Algorithm;
use super::handle;
use super::heuristic::search;
use super::kernel::{Launch, Scalar};
use super::overlap;
use super::preference::Preference;
use super::problem::{PointerMode, Problem};
use super::status::{EXECUTION_FAILED, INTERNAL_ERROR, INVALID_VALUE, NOT_SUPPORTED, answer};
use crate::machine::{Memory, Op, enqueue};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

const NAME: &str = "cublasLtMatmul";
/// The documentation's alignment of the workspace.
const WORKSPACE_ALIGNMENT: u64 = 256;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: *mut c_void,
    operation: *const c_void,
    alpha: *const c_void,
    a: *const c_void,
    a_layout: *const c_void,
    b: *const c_void,
    b_layout: *const c_void,
    beta: *const c_void,
    c: *const c_void,
    c_layout: *const c_void,
    d: *mut c_void,
    d_layout: *const c_void,
    algorithm: *const c_void,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> c_int {
    answer(NAME, || {
        check_device(handle)?;
        let layouts = [a_layout, b_layout, c_layout, d_layout];
        // SAFETY: the caller's descriptors, as the header asks.
        let problem = unsafe { Problem::read(operation, layouts)? };
        // SAFETY: the caller's scalars, as the header asks.
        let (alpha, beta) = unsafe { (scalar(&problem, alpha)?, scalar(&problem, beta)?) };
        let [a, b, c, d] = [a, b, c, d.cast_const()].map(|pointer| pointer as u64);
        let bytes = workspace_bytes as u64;
        // SAFETY: NULL or the caller's 64 bytes.
        let algorithm = unsafe { choose(&problem, algorithm, bytes, [a, b, c, d])? };
        let workspace = workspace as u64;
        let launch = Launch { problem, algorithm, alpha, beta, a, b, c, d, workspace };
        check_pointers(&launch)?;
        check_workspace(&launch, bytes)?;
        overlap::check(&launch);
        start(launch, stream)
    })
}

fn check_device(handle: *const c_void) -> Result<(), c_int> {
    let device = handle::device(handle)?;
    match handle::current_device() {
        Some(current) if current == device => Ok(()),
        Some(_) => Err(INTERNAL_ERROR),
        // No context, or one that an earlier error has ended.
        None => Err(EXECUTION_FAILED),
    }
}

unsafe fn scalar(problem: &Problem, pointer: *const c_void) -> Result<Scalar, c_int> {
    if pointer.is_null() {
        return Err(INVALID_VALUE);
    }
    match problem.pointer_mode {
        // SAFETY: not NULL; on the host it is one f32, since the scale type is.
        PointerMode::Host => Ok(Scalar::Value(unsafe { pointer.cast::<f32>().read_unaligned() })),
        PointerMode::Device => Ok(Scalar::Device(pointer as u64)),
    }
}

/// The caller's algorithm, or without one the heuristic's first for these addresses.
unsafe fn choose(
    problem: &Problem,
    given: *const c_void,
    workspace_bytes: u64,
    addresses: [u64; 4],
) -> Result<Algorithm, c_int> {
    if given.is_null() {
        let preference = Preference::of_launch(workspace_bytes, addresses);
        return search(problem, &preference).first().copied().ok_or(NOT_SUPPORTED);
    }
    // SAFETY: not NULL, so 64 bytes.
    let algorithm = unsafe { Algorithm::read(given)? };
    algorithm.check(problem)?;
    Ok(algorithm)
}

fn check_pointers(launch: &Launch) -> Result<(), c_int> {
    let addresses = [launch.a, launch.b, launch.c, launch.d];
    for (matrix, address) in launch.problem.matrices().into_iter().zip(addresses) {
        let alignment = launch.algorithm.alignment(matrix.format.bytes());
        if address == 0 || !address.is_multiple_of(alignment) {
            return Err(INVALID_VALUE);
        }
    }
    let Problem { biased, operation, c, d, .. } = &launch.problem;
    // In place, the documentation wants one layout for both.
    let placed = launch.c != launch.d || c.layout == d.layout;
    match placed && (!biased || operation.bias != 0) {
        true => Ok(()),
        false => Err(INVALID_VALUE),
    }
}

fn check_workspace(launch: &Launch, given: u64) -> Result<(), c_int> {
    let needed = launch.algorithm.workspace_bytes(&launch.problem);
    let aligned = launch.workspace.is_multiple_of(WORKSPACE_ALIGNMENT);
    match aligned && (needed == 0 || (launch.workspace != 0 && needed <= given)) {
        true => Ok(()),
        false => Err(INVALID_VALUE),
    }
}

fn start(launch: Launch, stream: *mut c_void) -> Result<(), c_int> {
    let run = Arc::new(move |memory: &Memory| launch.run(memory));
    let op = Op {
        matmuls: 1,
        multiply_adds: launch.problem.multiply_adds(),
        cost_ns: launch.algorithm.cost_ns(&launch.problem),
        ..Op::kernel(NAME, launch.accesses(), run)
    };
    match enqueue(NAME, stream, op) {
        0 => Ok(()),
        _ => Err(EXECUTION_FAILED),
    }
}
