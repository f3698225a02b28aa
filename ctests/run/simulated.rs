//! Programs on the simulated GPU, and what it reports of them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program on the simulated GPU, which is to report on it.
pub fn command(program: &Path, simulator: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("XQKV_TEST_BACKEND", "cuda").env("XQKV_CUDA_LIBRARY", simulator);
    command.env("XQKV_CUBLASLT_LIBRARY", simulator).env("GPUSIM_REPORT", report_of(program));
    command
}

/// Where the simulator is to tell what a program did; it adds to what is there.
fn report_of(program: &Path) -> PathBuf {
    let path = program.with_extension("report");
    let _ = std::fs::remove_file(&path);
    path
}

/// Nothing that real hardware would corrupt or crash on, and nothing left behind.
pub fn check_report(program: &str) -> Result<(), String> {
    let path = PathBuf::from(program).with_extension("report");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let is_clean = |line: &str| {
        let live = line.split("\"live\":{").nth(1).unwrap_or("1");
        line.contains("\"violations\":[]") && !live.contains(|byte| ('1'..='9').contains(&byte))
    };
    let bad: Vec<&str> = text.lines().filter(|line| !is_clean(line)).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("{program}: {}", bad.join("\n"))) }
}
