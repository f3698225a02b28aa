//! The project's own commands, the same for people and for CI.

mod bindings;
mod demo;
mod gpu_bundle;
mod kernels;
mod mpi;
mod nvidia;
mod overhead;
mod python;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../../src/bin/xqkv/reference.rs"]
mod reference;
mod run;
mod sanitize;
mod steps;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../../src/bin/xqkv/tensors.rs"]
mod tensors;
mod tools;

use clap::{Parser, Subcommand};
use run::Run;
use std::process::ExitCode;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the main job from C on a Whisper checkpoint, by one rank and by two
    Demo,
    /// Runs every check, and lists those whose tool is missing
    Test,
    /// Checks the Python package with torch, which is large, and so not part of test
    Torch,
    /// Holds the simulated GPU against NVIDIA's headers and cuBLASLt, which are large, and so not
    /// part of test
    Nvidia,
    /// Writes the PTX of the CUDA backend's kernels anew with NVIDIA's compiler, which is large,
    /// and so not part of test
    Kernels {
        /// Only check that it is current
        #[arg(long)]
        check: bool,
    },
    /// Measures the library's own time for a planned forward, over vendor libraries that do nothing
    Overhead,
    /// Runs ranks as processes over MPI: the adapter's tests and the example
    Mpi,
    /// Packs gpu/bundle for a machine with a GPU
    GpuBundle {
        /// Also run it on the simulated GPU
        #[arg(long)]
        check: bool,
    },
    /// Writes include/xqkv.h anew from src/capi
    Header {
        /// Only check that it is current
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test => steps::run(),
        Command::Torch => bindings::torch(),
        Command::Nvidia => nvidia::run(),
        Command::Kernels { check } if check => kernels::check(),
        Command::Kernels { .. } => kernels::run(),
        Command::Overhead => overhead::run(),
        Command::Mpi => mpi::run(),
        Command::GpuBundle { check } if check => gpu_bundle::check(),
        Command::GpuBundle { .. } => gpu_bundle::run(),
        Command::Header { check } => header(check),
    };
    outcome.map_or_else(
        |message| {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Generates the header where tests/header.rs compares it.
fn header(is_check: bool) -> Result<(), String> {
    let test = Run::cargo(&["test", "--quiet", "--test", "header"]);
    if is_check { test.succeed() } else { test.env("UPDATE_HEADER", "1").succeed() }
}
