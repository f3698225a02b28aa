//! `cargo xtask kernels`: the CUDA backend's kernels, compiled to the PTX that is checked in. It
//! needs no GPU, but some of NVIDIA's packages.

use crate::python;
use crate::run::{Run, root};
use std::fs;

const SOURCE: &str = "src/backend/cuda/kernels/xqkv.cu";
const TEXT: &str = "src/backend/cuda/kernels/xqkv.ptx";

/// Compiles them anew.
pub fn run() -> Result<(), String> {
    fs::write(root().join(TEXT), compile()?).map_err(|error| format!("{TEXT}: {error}"))
}

/// Fails if what is checked in is not what the source compiles to.
pub fn check() -> Result<(), String> {
    let text = fs::read_to_string(root().join(TEXT)).map_err(|error| format!("{TEXT}: {error}"))?;
    match text == compile()? {
        true => Ok(()),
        false => Err(format!("{TEXT} is not what {SOURCE} compiles to; run cargo xtask kernels")),
    }
}

fn compile() -> Result<String, String> {
    let python = python::interpreter("kernels", "xtask/kernels/requirements.txt")?;
    Run::new(python, &["xtask/kernels/compile.py", SOURCE]).output()
}
