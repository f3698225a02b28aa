//! `bindings/mpi` and `examples/c/ranks.c`, as several processes of this machine.

use crate::bindings::simulator;
use crate::demo;
use crate::run::Run;
use std::path::{Path, PathBuf};

const WARNINGS: &[&str] =
    &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude", "-Ibindings/mpi"];
/// What every transfer of the tests exceeds.
const SMALL: &[&str] = &["-DXQKV_MPI_MOST_BYTES=5", "-DXQKV_MPI_MOST_STAGED_BYTES=64"];
/// MPI's own C++ interface, which is no more, has warnings.
const CPP: &[&str] = &["-std=c++11", "-xc++", "-DOMPI_SKIP_MPICXX", "-DMPICH_SKIP_MPICXX"];

/// The adapter's tests in C and C++, with large and small limits, and the example on both backends.
pub fn run() -> Result<(), String> {
    let folder = demo::library()?;
    let test = "bindings/mpi/tests/test_mpi.c";
    for (name, compiler, flags) in [
        ("test_mpi", "mpicc", [&["-std=c99"][..], &[]]),
        ("test_mpi_small", "mpicc", [&["-std=c17"], SMALL]),
        ("test_mpi_cpp", "mpicxx", [CPP, &[]]),
    ] {
        let program = compile(&folder, name, compiler, &flags.concat(), test)?;
        for processes in ["1", "2", "3", "4"] {
            launch(processes, &program).succeed()?;
        }
    }
    example(&folder)
}

/// The example: on the host over MPI, and on simulated GPUs over a simulated NCCL.
fn example(folder: &Path) -> Result<(), String> {
    let program = compile(folder, "ranks", "mpicc", &["-std=gnu11"], "examples/c/ranks.c")?;
    for processes in ["2", "3", "4"] {
        launch(processes, &program).arg("host").succeed()?;
    }
    let simulator = simulator()?;
    ["XQKV_CUDA_LIBRARY", "XQKV_CUBLASLT_LIBRARY", "XQKV_NCCL_LIBRARY"]
        .iter()
        .fold(launch("2", &program).arg("cuda"), |run, name| run.env(name, &simulator))
        .succeed()
}

fn compile(
    folder: &Path,
    name: &str,
    compiler: &str,
    flags: &[&str],
    source: &str,
) -> Result<PathBuf, String> {
    let program = folder.join(name);
    let link = [format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display())];
    Run::new(compiler, flags)
        .args(&WARNINGS.iter().map(ToString::to_string).collect::<Vec<_>>())
        .args(&["-O1", "-g"].map(str::to_owned))
        .arg(source)
        .args(&link)
        .args(&["-lxqkv", "-lpthread", "-lm", "-ldl", "-o"].map(str::to_owned))
        .arg(&program)
        .succeed()?;
    Ok(program)
}

/// So many processes, also as root, on fewer cores than processes, and in a container.
fn launch(processes: &str, program: &Path) -> Run {
    [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
        ("MPIEXEC_TIMEOUT", "120"),
    ]
    .iter()
    .fold(Run::new("mpirun", &["-n", processes]).arg(program), |run, (name, value)| {
        run.env(name, value)
    })
}
