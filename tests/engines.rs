//! Engines by name: each program of `ctests/engines` runs on the host and on the simulated GPU,
//! and shows the code that `docs/engines.md` prints.

#[path = "../ctests/run/compile.rs"]
#[allow(dead_code, reason = "the C suite uses more of it")]
mod compile;
#[path = "../ctests/run/simulated.rs"]
mod simulated;

use compile::Library;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn engines() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("ctests/engines")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_program = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "c");
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = paths.filter(is_program).map(stem).collect();
    names.sort();
    names
}

/// Compiles and runs every program; each succeeds and prints nothing.
fn all_pass(run: impl Fn(&Path) -> Command) {
    let failures: Vec<String> = engines().iter().filter_map(|name| failure(name, &run)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn failure(name: &str, run: &impl Fn(&Path) -> Command) -> Option<String> {
    let program = compile::program(&format!("engines/{name}"), Library::Shared, &[]);
    let output = run(&program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.is_empty() {
        return simulated::check_report(program.to_str().expect("a path in UTF-8")).err();
    }
    Some(format!("{name}: {}\n{text}", output.status))
}

#[test]
fn every_engine_finds_its_results_where_it_reads_them_on_the_host() {
    all_pass(|program| Command::new(program));
}

#[test]
fn every_engine_finds_its_results_where_it_reads_them_on_the_simulated_gpu() {
    let simulator = compile::simulator();
    all_pass(|program| simulated::command(program, &simulator));
}

/// What stands between each `start` line, which ends in a name, and the next `end` line.
fn marked(text: &str, start: (&str, &str), end: &str) -> Vec<(String, String)> {
    let after = text.split(start.0).skip(1);
    let named = after.map(|rest| rest.split_once(start.1).expect("a marker that ends"));
    named.map(|(name, rest)| (name.to_owned(), until(rest, end))).collect()
}

fn until(text: &str, end: &str) -> String {
    text.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind a snippet")).0.to_owned()
}

#[test]
fn the_page_of_engines_shows_the_code_that_is_tested() {
    let page = std::fs::read_to_string(root().join("docs/engines.md")).unwrap();
    let shown = marked(&page, ("<!-- ", " -->\n```c\n"), "```\n");
    let mut tested = Vec::new();
    for name in engines() {
        let path = format!("ctests/engines/{name}.c");
        let program = std::fs::read_to_string(root().join(&path)).unwrap();
        assert!(page.contains(&format!("(../{path})")), "docs/engines.md has no link to {path}");
        tested.extend(marked(&program, ("/* snippet: ", " */\n"), "/* end of snippet */"));
    }
    assert!(tested.len() >= 9, "only {} snippets found", tested.len());
    for (name, code) in &tested {
        let twin = shown.iter().find(|(other, _)| other == name);
        let (_, twin) = twin.unwrap_or_else(|| panic!("docs/engines.md does not show {name}"));
        assert_eq!(twin, code, "docs/engines.md and the test differ in {name}");
    }
    assert_eq!(shown.len(), tested.len(), "docs/engines.md shows code that no test has");
}
