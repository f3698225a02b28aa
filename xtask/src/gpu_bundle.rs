//! `cargo xtask gpu-bundle`: packs gpu/bundle, a folder that a machine with a GPU, and nothing to
//! build with, can run: gpu/run.sh with the built libraries, C tests and fixtures.

use crate::demo::{library, soname_version};
use crate::run::{Run, root, target};
use std::fs;
use std::path::{Path, PathBuf};

const MOST_BYTES: u64 = 60_000_000;
const FIXTURES: [&str; 4] =
    ["examples/whisper", "tests/data/bart", "tests/data/mllama", "tests/data/t5"];
const FLAGS: [&str; 7] =
    ["-std=gnu11", "-g", "-O1", "-Wall", "-Wl,-rpath,$ORIGIN/../lib", "-Iinclude", "-Ictests"];

/// Packs the bundle anew, and says how large it is.
pub fn run() -> Result<(), String> {
    pack().map(drop)
}

/// Packs it, holds its size against the limit, and runs it on the simulated GPU.
pub fn check() -> Result<(), String> {
    let bundle = pack()?;
    let record = target().join("gpu-bundle-record");
    Run::new(bundle.join("run.sh"), &["--simulate"]).env("OUT", record).succeed()
}

fn pack() -> Result<PathBuf, String> {
    let bundle = root().join("gpu/bundle");
    if bundle.exists() {
        fs::remove_dir_all(&bundle).map_err(|error| format!("{}: {error}", bundle.display()))?;
    }
    copy_libraries(&bundle)?;
    compile_tests(&bundle)?;
    copy_sources(&bundle)?;
    for fixture in FIXTURES {
        let name = Path::new(fixture).file_name().expect("a fixture has a name");
        copy_all(&root().join(fixture), &bundle.join("fixtures").join(name), |_| true)?;
    }
    match bytes_of(&bundle)? {
        bytes @ 0..MOST_BYTES => {
            println!("{}: {:.1} MB", bundle.display(), bytes as f64 / 1e6);
            Ok(bundle)
        }
        bytes => Err(format!("the bundle has {bytes} bytes, and {MOST_BYTES} is the limit")),
    }
}

/// The library as it is released; the command and the simulated GPU as the tests have them.
fn copy_libraries(bundle: &Path) -> Result<(), String> {
    library()?;
    let command = ["build", "--package", "xqkv", "--bin", "xqkv", "--features", "cli"];
    Run::cargo(&command).succeed()?;
    Run::cargo(&["build", "--package", "gpusim"]).succeed()?;
    let released = target().join("release/libxqkv.so");
    copy(&released, &bundle.join("lib/libxqkv.so"))?;
    copy(&released, &bundle.join(format!("lib/libxqkv.so.{}", soname_version())))?;
    for (from, to) in [("libgpusim.so", "lib/libgpusim.so"), ("xqkv", "bin/xqkv")] {
        copy(&target().join("debug").join(from), &bundle.join(to))?;
        // Symbols of dependencies would be most of the size. Without strip they stay.
        Run::new("strip", &["--strip-debug"]).arg(bundle.join(to)).can_run();
    }
    Ok(())
}

/// The C suite, and the engines' programs. Those of ctests/cuda stay at home: they ask the
/// simulator what was called.
fn compile_tests(bundle: &Path) -> Result<(), String> {
    let folder = bundle.join("ctests");
    create(&folder)?;
    for source in [c_sources("ctests", "test_")?, c_sources("ctests/engines", "")?].concat() {
        compile(&source, &folder.join(stem(&source)), bundle)?;
    }
    Ok(())
}

fn compile(source: &Path, program: &Path, bundle: &Path) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    Run::new(compiler, &FLAGS)
        .arg(source)
        .arg(bundle.join("lib/libxqkv.so"))
        .args(&["-lpthread", "-lm", "-ldl", "-o"].map(str::to_owned))
        .arg(program)
        .succeed()
}

/// What is run there is copied from where it is kept, the Python binding included.
fn copy_sources(bundle: &Path) -> Result<(), String> {
    copy_all(&root().join("gpu"), bundle, |name| name != "bundle" && name != "__pycache__")?;
    let binding = root().join("bindings/python/xqkv");
    copy_all(&binding, &bundle.join("python/xqkv"), |name| name.ends_with(".py"))
}

/// C files of a folder by the start of their names; none where there is no such folder.
fn c_sources(folder: &str, prefix: &str) -> Result<Vec<PathBuf>, String> {
    let folder = root().join(folder);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut sources = entries(&folder)?;
    sources.retain(|path| {
        let name = name_of(path);
        name.starts_with(prefix) && name.ends_with(".c")
    });
    sources.sort();
    Ok(sources)
}

fn copy_all(from: &Path, to: &Path, is_wanted: fn(&str) -> bool) -> Result<(), String> {
    let wanted = entries(from)?.into_iter().filter(|path| is_wanted(name_of(path)));
    wanted.filter(|path| path.is_file()).try_for_each(|path| copy(&path, &to.join(name_of(&path))))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    create(to.parent().expect("a file lies in a folder"))?;
    fs::copy(from, to).map(drop).map_err(|error| format!("{}: {error}", from.display()))
}

fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = fs::read_dir(folder).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
    read.map_err(|error: std::io::Error| format!("{}: {error}", folder.display()))
}

fn bytes_of(path: &Path) -> Result<u64, String> {
    if path.is_dir() {
        return entries(path)?.iter().map(|inner| bytes_of(inner)).sum();
    }
    path.metadata().map(|found| found.len()).map_err(|error| format!("{}: {error}", path.display()))
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|name| name.to_str()).unwrap_or_default()
}
