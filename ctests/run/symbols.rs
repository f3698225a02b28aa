//! What the shared library exports and imports.

use super::compile::{library_folder, soname_link, tool};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn listed(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names of the library's dynamic symbols.
fn dynamic(kind: &str) -> Option<BTreeSet<String>> {
    let nm = tool("NM", "nm")?;
    let library = library_folder().join("libxqkv.so");
    let output =
        Command::new(nm).args(["-D", kind, "--format=posix"]).arg(library).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split([' ', '@']).next().unwrap_or("").to_owned();
    Some(text.lines().map(name).collect())
}

/// Names that the header declares as functions.
fn declared() -> BTreeSet<String> {
    let header = listed("include/xqkv.h");
    let code = header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
    let starts = code.filter_map(|line| {
        let before = line.split_once('(')?.0;
        let name = before.rsplit([' ', '*']).next()?;
        let is_function = !line.starts_with([' ', '#', '}']) && !line.starts_with("typedef");
        (is_function && name.starts_with("xqkv_")).then(|| name.to_owned())
    });
    starts.collect()
}

#[test]
fn exported_symbols_are_the_header_s_and_the_committed_list_s() {
    let committed: BTreeSet<String> =
        listed("ctests/symbols.txt").lines().map(str::to_owned).collect();
    assert_eq!(
        declared(),
        committed,
        "ctests/symbols.txt is stale: is the change of the ABI meant?"
    );
    if let Some(exported) = dynamic("--defined-only") {
        assert_eq!(exported, committed);
    }
}

#[test]
fn nothing_that_ends_prints_or_changes_the_process_is_imported() {
    // Not in the list: abort, which std calls for a panic that may not unwind, and getenv, with
    // which std asks for RUST_BACKTRACE when its own panic hook runs.
    const BANNED: [&str; 18] = [
        "exit",
        "_exit",
        "_Exit",
        "quick_exit",
        "atexit",
        "raise",
        "kill",
        "signal",
        "sigaction",
        "setenv",
        "unsetenv",
        "putenv",
        "clearenv",
        "system",
        "fork",
        "printf",
        "puts",
        "perror",
    ];
    if let Some(imported) = dynamic("--undefined-only") {
        assert!(imported.contains("malloc"), "no imports were read: {imported:?}");
        let found: Vec<_> = BANNED.iter().filter(|name| imported.contains(**name)).collect();
        assert!(found.is_empty(), "the library imports {found:?}");
    }
}

#[test]
fn the_soname_has_the_version() {
    let Some(readelf) = tool("READELF", "readelf") else {
        return;
    };
    let library = library_folder().join("libxqkv.so");
    let output = Command::new(readelf).arg("-d").arg(library).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let link = soname_link();
    let name = link.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(&format!("soname: [{name}]")), "{text}");
    assert!(text.contains("NODELETE"), "{text}");
}
