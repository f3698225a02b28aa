//! `cargo xtask overhead`: the library's own time for a planned forward on CUDA, measured over a
//! driver and a cuBLASLt that do nothing.

use crate::demo;
use crate::run::{Run, target};
use std::path::Path;

/// Compiles both programs and runs the measurement.
pub fn run() -> Result<(), String> {
    let library = demo::library()?;
    let folder = target().join("overhead");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let (nothing, program) = (folder.join("libnothing.so"), folder.join("forward"));
    compile("benches/overhead/nothing.c", &["-shared", "-fPIC"], &nothing, None)?;
    compile("benches/overhead/forward.c", &["-Iinclude"], &program, Some(&library))?;
    Run::new(program, &[])
        .env("XQKV_CUDA_LIBRARY", &nothing)
        .env("XQKV_CUBLASLT_LIBRARY", &nothing)
        .succeed()
}

fn compile(
    source: &str,
    flags: &[&str],
    output: &Path,
    library: Option<&Path>,
) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let common = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"];
    let mut command = Run::new(compiler, &[&common[..], flags].concat()).arg(source);
    if let Some(folder) = library {
        let search =
            [format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display())];
        command = command.args(&search).args(&["-lxqkv".to_owned()]);
    }
    command.arg("-o").arg(output).succeed()
}
