//! The version comes from the environment, and with it which attributes there are. One test, since
//! the environment is the process's.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod cublaslt;

use cublaslt::*;
use gpusim::cublaslt::operation::cublasLtMatmulDescSetAttribute;
use gpusim::cublaslt::status::{INVALID_VALUE, cublasLtGetVersion};

#[test]
fn a_later_version_has_more_attributes_and_refuses_an_earlier_ones_algorithm() {
    let _sim = sim();
    let mut operation = operation(COMPUTE_32F, [true, false]);
    let mut set = || {
        let (to, value) = (operation.as_mut_ptr().cast(), 0u32);
        unsafe { cublasLtMatmulDescSetAttribute(to, 41, (&raw const value).cast(), 4) }
    };
    let (_, found) = Descriptors::projection(BF16, 8, 8, 64).search(&preference(), 1);
    assert_eq!((cublasLtGetVersion(), set()), (130_401, INVALID_VALUE));
    unsafe { std::env::set_var("GPUSIM_CUBLASLT_VERSION", "131000") };
    assert_eq!((cublasLtGetVersion(), set()), (131_000, 0));
    let arguments = Arguments {
        alpha: 1.0,
        beta: 0.0,
        a: 256,
        b: 256,
        c: 256,
        d: 256,
        algorithm: Some(found[0].algorithm),
        workspace: 0,
        workspace_bytes: 0,
        stream: 0,
    };
    let status = arguments.launch(handle(), &Descriptors::projection(BF16, 8, 8, 64));
    assert_eq!(status, INVALID_VALUE);
}
