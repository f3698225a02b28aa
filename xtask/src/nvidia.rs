//! `cargo xtask nvidia`: what the library and the simulated GPU take from NVIDIA's headers, held
//! against those headers; and the simulated cuBLASLt's answers, against the real one's. It needs no
//! GPU, but half a gigabyte of NVIDIA's packages.

mod names;
mod signatures;

use crate::run::{Run, root, target};
use crate::{bindings, python};
use names::Names;
use std::fs;
use std::path::{Path, PathBuf};

/// The sources whose numbers and functions are NVIDIA's. The first defines all of its own numbers.
const OWNERS: &[&str] = &["ctests/gpusim/src", "src/backend/cuda"];

/// Runs all of it, and then says what failed.
pub fn run() -> Result<(), String> {
    let packages = packages()?;
    let compiler = Compiler { headers: packages.join("include") };
    let simulator = bindings::simulator()?;
    let mut outcomes = vec![compiler.check(Path::new("tests/nvidia/layouts.c"))];
    let owners = OWNERS.iter().filter(|owner| root().join(owner).exists());
    outcomes.extend(owners.map(|owner| check_names(owner, &compiler)));
    outcomes.push(check_driver(&compiler, &simulator));
    let real = packages.join("lib/libcublasLt.so.13");
    outcomes.push(compare_answers(&compiler, &simulator, &real));
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// The folder of NVIDIA's headers and libraries.
fn packages() -> Result<PathBuf, String> {
    let python = python::interpreter("nvidia", "tests/nvidia/requirements.txt")?;
    let print = "import sysconfig; print(sysconfig.get_path('platlib'), end='')";
    let folder = Run::new(python, &["-c", print]).output()?;
    Ok(Path::new(&folder).join("nvidia/cu13"))
}

/// The compilers, with NVIDIA's headers.
struct Compiler {
    headers: PathBuf,
}

impl Compiler {
    fn command(&self, is_cpp: bool) -> Run {
        let (variable, default) = if is_cpp { ("CXX", "c++") } else { ("CC", "cc") };
        let standard = if is_cpp { "-std=c++17" } else { "-std=gnu11" };
        let program = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
        let include = [self.headers.clone(), self.headers.join("cccl")];
        let include = include.map(|folder| format!("-isystem{}", folder.display()));
        Run::new(program, &[standard, "-O1", "-Wall", "-Wextra", "-Werror", "-I."]).args(&include)
    }

    /// A source that has nothing but assertions.
    fn check(&self, source: &Path) -> Result<(), String> {
        let is_cpp = source.extension().is_some_and(|extension| extension == "cpp");
        self.command(is_cpp).arg("-fsyntax-only").arg(source).succeed()
    }

    fn program(&self, sources: &[&str], program: &Path) -> Result<(), String> {
        let sources = sources.iter().fold(self.command(false), Run::arg);
        sources.arg("-o").arg(program).arg("-ldl").succeed()
    }
}

/// Compiles an assertion for each name of NVIDIA's that a folder's sources have.
fn check_names(owner: &str, compiler: &Compiler) -> Result<(), String> {
    let names = Names::of(&root().join(owner))?;
    let source = folder()?.join(format!("{}.cpp", owner.replace('/', "_")));
    fs::write(&source, names.assertions()?).map_err(|error| error.to_string())?;
    println!("{owner}: {names}");
    compiler.check(&source)
}

fn folder() -> Result<PathBuf, String> {
    let folder = target().join("nvidia/checks");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Calls the simulated driver with what the header has.
fn check_driver(compiler: &Compiler, simulator: &Path) -> Result<(), String> {
    let program = folder()?.join("driver");
    compiler.program(&["tests/nvidia/driver.c"], &program)?;
    Run::new(&program, &[]).arg(simulator).succeed()
}

/// Asks both libraries the same, and fails at the lines that differ.
fn compare_answers(compiler: &Compiler, simulator: &Path, real: &Path) -> Result<(), String> {
    let program = folder()?.join("answers");
    let sources = ["tests/nvidia/answers.c", "tests/nvidia/descriptors.c"];
    compiler.program(&sources, &program)?;
    let expected = Run::new(&program, &[]).arg(real).output()?;
    let answered = Run::new(&program, &[]).arg(simulator).output()?;
    report(&expected, &answered)
}

fn report(expected: &str, answered: &str) -> Result<(), String> {
    let (mut differ, mut answers) = (0, answered.lines());
    for line in expected.lines() {
        let answer = answers.next().unwrap_or("nothing");
        if line != answer {
            println!("cuBLASLt  {line}\ngpusim    {answer}");
            differ += 1;
        }
    }
    differ += answers.count();
    println!("{} answers of cuBLASLt compared, {differ} differ", expected.lines().count());
    if differ == 0 { Ok(()) } else { Err("the simulated cuBLASLt answers differently".to_owned()) }
}
