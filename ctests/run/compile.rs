//! Compiling and linking the C programs.

use std::path::{Path, PathBuf};
use std::process::Command;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Which library a program is linked to.
#[derive(Clone, Copy, PartialEq)]
pub enum Library {
    Shared,
    Static,
}

/// Where outputs go.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// The program that a variable names, or the default; None, and a line, if it is not there.
pub fn tool(variable: &str, default: &str) -> Option<String> {
    let name = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let is_there = Command::new(&name).arg("--version").output().is_ok();
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(is_there || !in_ci, "{name} is not there, and in CI it must be");
    if !is_there {
        println!("NOT RUN: {name} is not there");
    }
    is_there.then_some(name)
}

/// The names of the test programs.
pub fn programs() -> Vec<String> {
    let names = std::fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap().file_name());
    let tests = names.filter_map(|name| {
        let name = name.to_str()?.strip_suffix(".c")?;
        name.starts_with("test_").then(|| name.to_owned())
    });
    let mut tests: Vec<String> = tests.collect();
    tests.sort();
    assert!(tests.len() >= 18, "only {} programs found", tests.len());
    tests
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ctests")
}

/// The library's folder: cargo puts it beside this test's own executable.
pub fn library_folder() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The name that programs linked to the shared library look for, made a link to it.
pub fn soname_link() -> PathBuf {
    let version: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').collect();
    let version = if version[0] == "0" { version[..2].join(".") } else { version[0].to_owned() };
    let link = folder().join(format!("libxqkv.so.{version}"));
    let library = library_folder().join("libxqkv.so");
    if std::fs::read_link(&link).is_ok_and(|target| target == library) {
        return link;
    }
    let unique = folder().join(format!("link_{:?}", std::thread::current().id()));
    let _ = std::fs::remove_file(&unique);
    std::os::unix::fs::symlink(library, &unique).unwrap();
    std::fs::rename(unique, &link).unwrap();
    link
}

/// Compiles and links one program.
pub fn program(name: &str, library: Library, flags: &[&str]) -> PathBuf {
    let kind = if library == Library::Shared { "shared" } else { "static" };
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let program = folder().join(format!("{}_{kind}_{thread}", name.replace('/', "_")));
    let mut command = Command::new(tool("CC", "cc").expect("a C compiler"));
    command.args(["-std=gnu11", "-g", "-O1"]).args(WARNINGS).args(flags).arg("-I").arg(include());
    command.arg(sources().join(format!("{name}.c"))).arg("-o").arg(&program);
    match library {
        Library::Shared => {
            let rpath = format!("-Wl,-rpath,{}", folder().display());
            command.arg(soname_link()).arg(rpath)
        }
        Library::Static => command.arg(library_folder().join("libxqkv.a")).args(["-ldl"]),
    };
    succeed(command.args(["-lpthread", "-lm", "-ldl"]));
    program
}

/// The simulated GPU's shared object, built where this test was.
pub fn simulator() -> PathBuf {
    let target = folder().parent().expect("the target folder").to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "gpusim", "--target-dir"]).arg(&target);
    succeed(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    target.join("debug/libgpusim.so")
}

/// Compiles the two users of the header and links them together.
pub fn header(compiler: &str, standard: &str) {
    let language = if standard.contains("++") { "c++" } else { "c" };
    let strict: &[&str] = if language == "c" { &["-Wstrict-prototypes"] } else { &[] };
    let program = folder().join(format!("header_{}_{standard}", compiler.replace('/', "_")));
    let mut command = Command::new(compiler);
    command.arg(standard).args(WARNINGS).args(strict).arg("-I").arg(include());
    command.args(["-x", language]).arg(sources().join("header_first.c"));
    command.arg(sources().join("header_second.c")).args(["-x", "none"]).arg(soname_link());
    succeed(command.arg(format!("-Wl,-rpath,{}", folder().display())).arg("-o").arg(&program));
    succeed(&mut Command::new(program));
}

/// Compiles and runs the tests of the C++ wrapper.
pub fn wrapper(compiler: &str, standard: &str, flags: &[&str]) {
    let name = format!("wrapper_{compiler}_{standard}_{}", flags.len()).replace('/', "_");
    let units = [sources().join("cpp/test_wrapper.cc"), sources().join("cpp/second_unit.cc")];
    let program = cpp(compiler, &[&[standard], flags].concat(), &units, &name);
    succeed(&mut Command::new(program));
}

/// Compiles examples/cpp/demo.cc and runs it on a checkpoint.
pub fn cpp_example(compiler: &str, checkpoint: &str) {
    let unit = include().join("../examples/cpp/demo.cc");
    let program = cpp(compiler, &["-std=c++17"], &[unit], "cpp_example");
    succeed(Command::new(program).arg(checkpoint));
}

fn cpp(compiler: &str, flags: &[&str], units: &[PathBuf], name: &str) -> PathBuf {
    let program = folder().join(name);
    let mut command = Command::new(compiler);
    command.args(flags).args(WARNINGS).args(["-Wshadow", "-Wconversion", "-O1"]);
    command.arg("-I").arg(include()).args(units).arg(soname_link());
    command.arg(format!("-Wl,-rpath,{}", folder().display())).arg("-o").arg(&program);
    succeed(&mut command);
    program
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
}
