//! The same programs on the CUDA backend, against the simulated GPU.

use super::compile::folder;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the simulated GPU; cargo holds no lock while tests run.
pub fn library() -> PathBuf {
    let target = folder().parent().unwrap().to_owned();
    let mut command = Command::new(std::env::var_os("CARGO").expect("cargo runs this test"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("CARGO_BUILD_TARGET");
    command.args(["build", "--quiet", "--package", "gpusim", "--target-dir"]).arg(&target);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    target.join("debug/libgpusim.so")
}

/// The command that runs a program on it, and has a report written.
pub fn command(program: &Path, library: &Path) -> Command {
    let report = report_of(program);
    let _ = std::fs::remove_file(&report);
    let mut command = Command::new(program);
    command.env("XQKV_TEST_BACKEND", "cuda").env("GPUSIM_REPORT", report);
    command.env("XQKV_CUDA_LIBRARY", library).env("XQKV_CUBLASLT_LIBRARY", library);
    command
}

/// What the report of a program that ended complains of: violations, and things that live. A
/// program that never asked for a device writes none.
pub fn complaint(program: &Path) -> Option<String> {
    let report = std::fs::read_to_string(report_of(program)).ok()?;
    let report: serde_json::Value = serde_json::from_str(report.trim_end()).unwrap();
    let (violations, live) = (&report["violations"], &report["live"]);
    let is_clean = violations.as_array().unwrap().is_empty()
        && live.as_object().unwrap().values().all(|count| count == 0);
    (!is_clean).then(|| format!("{}: {violations}, alive {live}", program.display()))
}

/// Whether a program launched a product.
pub fn has_multiplied(program: &Path) -> bool {
    let report = std::fs::read_to_string(report_of(program)).unwrap_or_default();
    !report.is_empty() && !report.contains("\"matmuls\":0,")
}

fn report_of(program: &Path) -> PathBuf {
    program.with_extension("gpusim.json")
}
