//! The CUDA backend on the simulated GPU: programs in C that see what no caller of the library
//! sees, such as which driver functions a call makes. Each runs in a process of its own.

#[path = "../ctests/run/compile.rs"]
#[allow(dead_code, reason = "the C suite uses more of it")]
mod compile;

use compile::{Library, folder};
use std::path::PathBuf;
use std::process::Command;

/// Compiles a program that is linked to the same simulator as the library loads.
fn program(name: &str) -> PathBuf {
    let simulator = compile::simulator();
    std::fs::create_dir_all(folder().join("cuda")).unwrap();
    let simulator = simulator.to_str().expect("a path in UTF-8");
    compile::program(&format!("cuda/{name}"), Library::Shared, &["-Wl,--no-as-needed", simulator])
}

/// Runs a program on the simulator; it succeeds, and prints nothing.
fn passes(name: &str) {
    let simulator = compile::simulator();
    let mut command = Command::new(program(name));
    command.env("XQKV_TEST_BACKEND", "cuda").env("XQKV_CUDA_LIBRARY", &simulator);
    succeeds(command.env("XQKV_CUBLASLT_LIBRARY", &simulator));
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.is_empty(), "{}\n{out}{err}", output.status);
}

#[test]
fn planned_calls_do_what_they_say_and_nothing_else() {
    passes("plan");
}

#[test]
fn planned_calls_are_captured_and_replayed() {
    passes("capture");
}

#[test]
fn work_is_ordered_by_events_and_the_callers_context_stays() {
    passes("streams");
}

#[test]
fn weights_take_what_was_told_and_go_when_nobody_reads_them() {
    passes("weights");
}
