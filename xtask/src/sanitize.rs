//! The C suite with the library compiled for a sanitizer, which sees reads and writes on both
//! sides of the boundary. The compiler's switch is not stable, so it is asked for by name; the
//! runtimes come with the stable toolchain.

use crate::run::{Run, root, target};
use std::path::{Path, PathBuf};
use std::process::Command;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// One sanitizer, and what it is told.
struct Sanitizer {
    name: &'static str,
    flags: &'static str,
    /// What a program has if the sanitizer is really in it.
    symbol: &'static str,
    /// What is compiled with each program.
    beside: &'static [&'static str],
    options: (&'static str, &'static str),
}

const ADDRESS: Sanitizer = Sanitizer {
    name: "address",
    flags: "-Zsanitizer=address",
    symbol: "__asan_init",
    beside: &[],
    options: ("ASAN_OPTIONS", "detect_leaks=1"),
};

const THREAD: Sanitizer = Sanitizer {
    name: "thread",
    flags: "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
    symbol: "__tsan_init",
    beside: &["ctests/thread_sanitizer.c", "-fno-builtin"],
    options: ("TSAN_OPTIONS", "suppressions=ctests/thread_sanitizer.supp"),
};

/// Every C program under the address sanitizer.
pub fn address() -> Result<(), String> {
    let names = std::fs::read_dir(root().join("ctests")).map_err(|error| error.to_string())?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut programs: Vec<String> =
        names.filter(|name| name.starts_with("test_") && name.ends_with(".c")).collect();
    programs.sort();
    run(&ADDRESS, &programs)
}

/// The programs with threads under the thread sanitizer. Those whose ranks wait for each other are
/// not: they do so in the standard library, which was compiled without it.
pub fn thread() -> Result<(), String> {
    run(&THREAD, &["test_threads.c", "test_parallel.c"].map(str::to_owned))
}

fn run(sanitizer: &Sanitizer, programs: &[String]) -> Result<(), String> {
    let folder = target().join(format!("sanitize-{}", sanitizer.name));
    Run::cargo(&[
        "build",
        "--quiet",
        "--package",
        "xqkv",
        "--lib",
        "--target",
        TRIPLE,
        "--target-dir",
    ])
    .arg(&folder)
    .env("RUSTC_BOOTSTRAP", "1")
    .env("RUSTFLAGS", sanitizer.flags)
    .succeed()?;
    let library = folder.join(TRIPLE).join("debug/libxqkv.a");
    for source in programs {
        let program = compile(sanitizer, source, &library, &folder)?;
        ensure_linked(sanitizer, &program)?;
        let scratch = folder.join("scratch");
        std::fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
        let (variable, options) = sanitizer.options;
        let test = Run::new(&program, &["examples/whisper"]).arg(scratch).env(variable, options);
        test.env("XQKV_TEST_IS_SLOW", "1").succeed()?;
        println!("{} sanitizer: {source} ok", sanitizer.name);
    }
    Ok(())
}

fn compile(
    sanitizer: &Sanitizer,
    source: &str,
    library: &Path,
    folder: &Path,
) -> Result<PathBuf, String> {
    let program = folder.join(source.trim_end_matches(".c"));
    let switch = format!("-fsanitize={}", sanitizer.name);
    Run::new("gcc", &["-std=gnu11", "-g", "-O1", "-Iinclude", &switch])
        .arg(format!("ctests/{source}"))
        .args(&sanitizer.beside.iter().map(|beside| beside.to_string()).collect::<Vec<_>>())
        .arg(library)
        .args(&["-ldl", "-lpthread", "-lm", "-o"].map(str::to_owned))
        .arg(&program)
        .succeed()?;
    Ok(program)
}

/// A program that silently lost its sanitizer would pass everything.
fn ensure_linked(sanitizer: &Sanitizer, program: &Path) -> Result<(), String> {
    let output = Command::new("nm").arg(program).output().map_err(|error| error.to_string())?;
    let symbols = String::from_utf8_lossy(&output.stdout);
    match symbols.contains(sanitizer.symbol) {
        true => Ok(()),
        false => Err(format!("{} has no {}", program.display(), sanitizer.symbol)),
    }
}
