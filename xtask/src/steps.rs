//! `cargo xtask test`: every check, one after the other; the failed and the missing at the end.

use crate::run::Run;
use crate::tools::{TOOLS, has};
use crate::{bindings, demo, gpu_bundle, mpi, sanitize};
use std::time::Instant;

/// One check. What it needs must be there, or it is not run.
struct Step {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn() -> Result<(), String>,
}

const STEPS: &[Step] = &[
    Step { name: "format", needs: &["rustfmt"], run: format },
    Step { name: "lints", needs: &["cargo-clippy"], run: lints },
    Step { name: "tests", needs: &[], run: tests },
    Step { name: "demo", needs: &[], run: demo::run },
    Step { name: "example data", needs: &["python3"], run: bindings::example_data },
    Step { name: "gpu scripts", needs: &["python3"], run: gpu_scripts },
    Step { name: "gpu bundle", needs: &["python3"], run: gpu_bundle::check },
    Step { name: "python", needs: &["python3"], run: bindings::python },
    Step { name: "go", needs: &["go"], run: bindings::go },
    Step { name: "mpi", needs: &["mpicc", "mpicxx", "mpirun"], run: mpi::run },
    Step { name: "address sanitizer", needs: &["gcc", "nm"], run: sanitize::address },
    Step { name: "thread sanitizer", needs: &["gcc", "nm"], run: sanitize::thread },
];

fn format() -> Result<(), String> {
    Run::cargo(&["fmt", "--all", "--check"]).succeed()
}

fn lints() -> Result<(), String> {
    let scope = ["clippy", "--quiet", "--workspace", "--all-targets", "--features", "cli"];
    Run::cargo(&scope).args(&["--", "-D", "warnings"].map(str::to_owned)).succeed()
}

fn tests() -> Result<(), String> {
    Run::cargo(&["test", "--workspace", "--features", "cli", "--no-fail-fast"]).succeed()
}

fn gpu_scripts() -> Result<(), String> {
    Run::new("python3", &["gpu/bench.py", "--self-test"]).succeed()
}

/// Runs all steps; fails if one does, or in CI if one cannot be run.
pub fn run() -> Result<(), String> {
    let (mut lines, mut passed, mut failed) = (Vec::new(), 0, 0);
    for step in STEPS.iter().filter(|step| step.needs.iter().all(|tool| has(tool))) {
        println!("\n== {} ==", step.name);
        let begin = Instant::now();
        let outcome = (step.run)();
        let verdict =
            outcome.map_or_else(|message| format!("FAILED ({message})"), |()| "ok".to_owned());
        if verdict == "ok" {
            passed += 1
        } else {
            failed += 1
        }
        lines.push(format!(
            "{:<18} {:>6.1} s  {verdict}",
            step.name,
            begin.elapsed().as_secs_f64()
        ));
    }
    println!("\n== summary ==\n{}", lines.join("\n"));
    let missing = report_missing();
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    failed += if in_ci { missing } else { 0 };
    println!("\n{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err("see the summary".to_owned()) }
}

/// Lists checks that could not be run, and counts them.
fn report_missing() -> usize {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !tool.can_run()).collect();
    for tool in &missing {
        println!("NOT RUN            {}: no {}; {}", tool.checks, tool.name, tool.install);
    }
    missing.len()
}
