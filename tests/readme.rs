//! The README's C program compiles as it stands.

use std::path::Path;
use std::process::Command;

#[test]
fn the_c_program_in_the_readme_compiles_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let program = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme.c");
    std::fs::write(&source, program).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"];
    let include = root.join("include");
    let status = Command::new(compiler).args(flags).arg("-I").arg(include).arg(source).status();
    assert!(status.unwrap().success());
}
