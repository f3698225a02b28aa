//! The C suite: every program of this folder against the shared and the static library, and once
//! under valgrind; the header in every language standard; the exported symbols.

#[path = "run/compile.rs"]
mod compile;
#[path = "run/names.rs"]
mod names;
#[path = "run/simulated.rs"]
mod simulated;
#[path = "run/symbols.rs"]
mod symbols;

use compile::{Library, folder, programs, tool};
use std::path::Path;
use std::process::Command;

/// Runs every program, also behind one that failed, so that no failure hides another.
fn run_all(library: Library, kind: &str, command: impl Fn(&Path) -> Command) {
    run_these(&programs(), library, kind, command);
}

fn run_these(sources: &[String], library: Library, kind: &str, command: impl Fn(&Path) -> Command) {
    let run_one = |source: &String| {
        let program = compile::program(source, library, &[]);
        run(command(&program), &format!("{}_{kind}", source.replace('/', "_"))).err()
    };
    let failures: Vec<String> = sources.iter().filter_map(run_one).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs a program with the folders it may need; it succeeds, and prints nothing.
fn run(mut command: Command, name: &str) -> Result<(), String> {
    let scratch = folder().join(format!("scratch_{name}"));
    std::fs::create_dir_all(&scratch).unwrap();
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/whisper");
    let output = command.arg(checkpoint).arg(&scratch).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let is_silent = out.is_empty() && err.is_empty();
    let report = || format!("{name}: {}\n{out}{err}", output.status);
    (output.status.success() && is_silent).then_some(()).ok_or_else(report)?;
    simulated::check_report(&command.get_program().to_string_lossy())
}

#[test]
fn every_program_passes_with_the_shared_library() {
    run_all(Library::Shared, "shared", |program| Command::new(program));
}

#[test]
fn every_program_passes_on_the_simulated_gpu() {
    let simulator = compile::simulator();
    run_all(Library::Shared, "gpusim", |program| simulated::command(program, &simulator));
}

#[test]
fn every_program_passes_with_the_static_library() {
    run_all(Library::Static, "static", |program| Command::new(program));
}

#[test]
fn valgrind_finds_no_error_and_no_leak() {
    let Some(valgrind) = tool("valgrind", "valgrind") else {
        return;
    };
    run_all(Library::Shared, "valgrind", |program| {
        let mut command = Command::new(&valgrind);
        // Under valgrind a program is slow; it knows to do less of the same then.
        command.env("XQKV_TEST_IS_SLOW", "1").args(["--quiet", "--error-exitcode=9"]);
        command.args(["--leak-check=full", "--errors-for-leak-kinds=definite,indirect,possible"]);
        command.arg("--child-silent-after-fork=yes").arg(program);
        command
    });
}

#[test]
fn the_header_is_c99_to_c17_and_cpp11_to_cpp20() {
    let c = ["-std=c99", "-std=c11", "-std=c17"];
    let cpp = ["-std=c++11", "-std=c++14", "-std=c++17", "-std=c++20"];
    for (variable, default, standards) in [
        ("CC", "cc", &c[..]),
        ("CXX", "c++", &cpp[..]),
        ("", "clang", &c[..]),
        ("", "clang++", &cpp[..]),
    ] {
        if let Some(compiler) = tool(variable, default) {
            standards.iter().for_each(|standard| compile::header(&compiler, standard));
        }
    }
}

#[test]
fn the_cpp_wrapper_passes_with_and_without_exceptions() {
    for (variable, default) in [("CXX", "c++"), ("", "clang++")] {
        let Some(compiler) = tool(variable, default) else {
            continue;
        };
        for standard in ["-std=c++17", "-std=c++20"] {
            for flags in [&[][..], &["-fno-exceptions", "-fno-rtti"]] {
                compile::wrapper(&compiler, standard, flags);
            }
        }
    }
}

#[test]
fn the_cpp_example_runs_on_a_checkpoint() {
    if let Some(compiler) = tool("CXX", "c++") {
        compile::cpp_example(&compiler, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/t5"));
    }
}
