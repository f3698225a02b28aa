//! The bindings' own tests, against the release build of the shared library.

use crate::demo;
use crate::python;
use crate::run::{Run, root, target};
use std::path::PathBuf;
use std::process::Command;

const REQUIREMENTS: &str = "tests/python/requirements.txt";

/// The example's data against numpy.
pub fn example_data() -> Result<(), String> {
    let python = python::interpreter("python", REQUIREMENTS)?;
    Run::new(python, &["tests/python/check_whisper_data.py"]).succeed()
}

/// The Python package: types, tests and the sample.
pub fn python() -> Result<(), String> {
    let library = demo::library()?;
    let python = python::interpreter("python", REQUIREMENTS)?;
    // torch's own types are not here.
    let types = ["-m", "mypy", "--strict", "--exclude", "torch_", "bindings/python/xqkv"];
    Run::new(&python, &types).succeed()?;
    let test = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "bindings/python/tests"];
    let simulator = simulator()?;
    Run::new(&python, &test)
        .env("XQKV_LIBRARY_PATH", library.join("libxqkv.so"))
        .env("XQKV_CUDA_LIBRARY", &simulator)
        .env("XQKV_CUBLASLT_LIBRARY", &simulator)
        .env("XQKV_NCCL_LIBRARY", &simulator)
        .succeed()?;
    Run::new(&python, &["bindings/python/sample.py", "tests/data/t5"])
        .env("XQKV_LIBRARY_PATH", library.join("libxqkv.so"))
        .env("PYTHONPATH", "bindings/python")
        .succeed()
}

/// The simulated GPU's shared object, built.
pub fn simulator() -> Result<PathBuf, String> {
    Run::cargo(&["build", "--quiet", "--package", "gpusim"]).succeed()?;
    Ok(target().join("debug/libgpusim.so"))
}

/// The Python package with torch in its environment, none of whose tests may be skipped but those
/// of the simulated GPU, and the example that swaps the projections of transformers' models.
pub fn torch() -> Result<(), String> {
    let library = demo::library()?;
    let python = python::interpreter("torch", "tests/python/requirements-torch.txt")?;
    Run::new(&python, &["-c", "import torch"]).succeed()?;
    let test = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "bindings/python/tests"];
    let library = library.join("libxqkv.so");
    Run::new(&python, &test).env("XQKV_LIBRARY_PATH", &library).succeed()?;
    Run::new(&python, &["-m", "mypy", "--strict", "bindings/python/xqkv"]).succeed()?;
    Run::new(&python, &["examples/python/swap_transformers.py"])
        .env("XQKV_LIBRARY_PATH", &library)
        .env("PYTHONPATH", "bindings/python")
        .succeed()
}

/// The Go package: format, vet, tests under the race detector, the pointer checks and with the
/// static library, the sample.
pub fn go() -> Result<(), String> {
    let library = demo::library()?;
    let folder = library.display();
    let flags = format!("-L{folder} -Wl,-rpath,{folder}");
    ensure_formatted()?;
    let go = |arguments: &[&str]| {
        Run::new("go", arguments).folder("bindings/go").env("CGO_LDFLAGS", &flags)
    };
    go(&["vet", "./..."]).succeed()?;
    go(&["test", "-count=1", "-race", "./..."]).succeed()?;
    go(&["test", "-count=1", "./..."]).env("GOEXPERIMENT", "cgocheck2").succeed()?;
    let static_folder = format!("-L{}", target().join("release").display());
    let with_static = ["test", "-count=1", "-tags", "xqkv_static", "./..."];
    go(&with_static).env("CGO_LDFLAGS", static_folder).succeed()?;
    go(&["run", "./sample", "../../tests/data/t5"]).succeed()
}

/// gofmt is beside the go command's own files, not always on the path.
fn ensure_formatted() -> Result<(), String> {
    let place = printed(Command::new("go").args(["env", "GOROOT"]))?;
    let gofmt = PathBuf::from(place.trim()).join("bin/gofmt");
    let listed = printed(Command::new(gofmt).args(["-l", "."]))?;
    match listed.is_empty() {
        true => Ok(()),
        false => Err(format!("gofmt would change {}", listed.trim())),
    }
}

fn printed(command: &mut Command) -> Result<String, String> {
    let output = command.current_dir(root().join("bindings/go")).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
