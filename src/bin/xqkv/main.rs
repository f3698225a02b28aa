//! The `xqkv` command: what the library finds here, what a checkpoint holds, and whether the
//! library projects it exactly. It calls the exported C functions, as an engine would.

mod bench;
mod info;
mod inspect;
mod library;
mod memory;
mod numbers;
mod reference;
mod sockets;
mod tensors;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tensor-parallel cross-attention projection.
#[derive(Parser)]
#[command(name = "xqkv", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures how fast the host projects models' shapes, beside what the machine could do
    Bench(bench::Arguments),
    /// Tells the library's version, its backends and what they found on this machine
    Info,
    /// Tells a checkpoint's family, spec and tensors, and how ranks would share it
    Inspect(inspect::Arguments),
    /// Runs a checkpoint's projections on given inputs and compares with exact ones
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Info => info::run(),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xqkv: {message}");
            ExitCode::from(2)
        }
    }
}
