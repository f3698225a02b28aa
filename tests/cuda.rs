//! The CUDA backend on the simulated GPU: programs in C that see what no caller of the library
//! sees, such as which driver functions a call makes. Each runs in a process of its own.

#[path = "../ctests/run/compile.rs"]
#[allow(dead_code, reason = "the C suite uses more of it")]
mod compile;

use compile::{Library, folder};
use std::path::{Path, PathBuf};
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
    command.env("XQKV_NCCL_LIBRARY", &simulator).env("GPUSIM_DEVICES", "4");
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
fn batch_invariant_rows_have_the_same_bits_in_every_batch() {
    passes("numerics");
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

#[test]
fn addresses_that_the_device_cannot_use_are_refused() {
    passes("pointers");
}

#[test]
fn every_call_that_fails_once_is_survived() {
    passes("faults");
}

#[test]
fn ranks_over_nccl_join_gather_and_are_lost() {
    passes("nccl");
}

#[test]
fn every_call_of_nccl_that_fails_once_is_survived() {
    passes("nccl_faults");
}

/// Asks for CUDA and for AUTO where these are the libraries and the environment.
fn loads(cuda: &Path, cublaslt: &Path, more: &[(&str, &str)], status: &str, word: &str) {
    std::fs::create_dir_all(folder().join("cuda")).unwrap();
    let mut command = Command::new(compile::program("cuda/loading", Library::Shared, &[]));
    command.env("XQKV_CUDA_LIBRARY", cuda).env("XQKV_CUBLASLT_LIBRARY", cublaslt);
    succeeds(command.envs(more.iter().copied()).args([status, word]));
}

/// A shared object of this source, as a driver that is not ours.
fn stub(name: &str, source: &str) -> PathBuf {
    let (text, library) = (folder().join(format!("{name}.c")), folder().join(format!("{name}.so")));
    std::fs::write(&text, source).unwrap();
    let mut command = Command::new(compile::tool("CC", "cc").expect("a C compiler"));
    succeeds(command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&text));
    library
}

#[test]
fn ranks_of_one_thread_and_ranks_in_captures_gather_over_nccl() {
    passes("nccl_group");
}

#[test]
fn a_device_that_answers_is_chosen() {
    let simulator = compile::simulator();
    loads(&simulator, &simulator, &[], "XQKV_STATUS_OK", "");
}

#[test]
fn a_missing_library_is_told_by_the_names_tried() {
    let (simulator, nowhere) = (compile::simulator(), Path::new("/nowhere/libnone.so"));
    let missing = "XQKV_STATUS_LIBRARY_MISSING";
    loads(nowhere, &simulator, &[], missing, "/nowhere/libnone.so");
    loads(&simulator, nowhere, &[], missing, "cuBLASLt was not found: /nowhere/libnone.so");
}

#[test]
fn a_library_that_lacks_a_function_or_is_too_old_is_unsuitable() {
    let simulator = compile::simulator();
    let unsuitable = "XQKV_STATUS_LIBRARY_UNSUITABLE";
    let lacking = stub("lacking", "int cuInit(unsigned flags) { return (int)flags; }");
    loads(&lacking, &simulator, &[], unsuitable, "has no cuDriverGetVersion");
    loads(&simulator, &lacking, &[], unsuitable, "has no cublasLt");
    let old = [("GPUSIM_DRIVER_VERSION", "11080")];
    loads(&simulator, &simulator, &old, unsuitable, "version 11080");
    let old = [("GPUSIM_CUBLASLT_VERSION", "110100")];
    loads(&simulator, &simulator, &old, unsuitable, "version 110100");
}

/// Asks for a unique id where this is NCCL; without one, where the loader finds none.
fn loads_nccl(nccl: Option<&Path>, more: &[(&str, &str)], status: &str, word: &str) {
    std::fs::create_dir_all(folder().join("cuda")).unwrap();
    let mut command = Command::new(compile::program("cuda/nccl_loading", Library::Shared, &[]));
    command.env_remove("XQKV_NCCL_LIBRARY").envs(nccl.map(|path| ("XQKV_NCCL_LIBRARY", path)));
    succeeds(command.envs(more.iter().copied()).args([status, word]));
}

#[test]
fn nccl_is_looked_for_when_it_is_needed_and_must_be_new_enough() {
    let simulator = compile::simulator();
    loads_nccl(Some(&simulator), &[], "XQKV_STATUS_OK", "");
    let oldest = [("GPUSIM_NCCL_VERSION", "21800")];
    loads_nccl(Some(&simulator), &oldest, "XQKV_STATUS_OK", "");
    let (missing, unsuitable) = ("XQKV_STATUS_LIBRARY_MISSING", "XQKV_STATUS_LIBRARY_UNSUITABLE");
    let nowhere = Path::new("/nowhere/libnone.so");
    loads_nccl(Some(nowhere), &[], missing, "NCCL was not found: /nowhere/libnone.so");
    let old = [("GPUSIM_NCCL_VERSION", "21704")];
    loads_nccl(Some(&simulator), &old, unsuitable, "version 21704");
    let lacking = stub("lacking_nccl", "int ncclGetVersion(int *at) { *at = 23003; return 0; }");
    loads_nccl(Some(&lacking), &[], unsuitable, "has no ncclGetUniqueId");
}

#[test]
fn no_device_is_told_and_the_host_takes_its_place() {
    let simulator = compile::simulator();
    let none = [("GPUSIM_DEVICES", "0")];
    loads(&simulator, &simulator, &none, "XQKV_STATUS_NO_DEVICE", "cuInit");
}
