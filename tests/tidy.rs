//! Habits that a reviewer would forget to check.

mod sources;

use sources::Source;

/// The exported functions of a source: name, documentation, and body.
fn exported(source: &Source) -> Vec<(String, String, String)> {
    let mut functions = Vec::new();
    for (at, _) in source.text.match_indices("#[unsafe(no_mangle)]") {
        let before = source.text[..at].lines().rev().take_while(|line| line.starts_with("///"));
        let documentation: Vec<&str> = before.collect();
        let item = &source.text[at..];
        let name = item.split("fn ").nth(1).unwrap().split('(').next().unwrap();
        let body = item.split("{\n").nth(1).map(|_| item.split_once("{\n").unwrap().1).unwrap();
        let body = body.split("\n}\n").next().unwrap();
        functions.push((name.to_owned(), documentation.join("\n"), body.to_owned()));
    }
    functions
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn every_exported_body_is_one_call_of_the_boundary() {
    let mut count = 0;
    for source in sources::all().iter().filter(|source| source.module == "capi") {
        for (name, _, body) in exported(source) {
            let code: Vec<&str> = body.lines().filter(|line| !is_comment(line)).collect();
            let is_call = code[0].trim().trim_start_matches("super::").starts_with("boundary::");
            let statements =
                code.iter().filter(|line| line.starts_with("    ") && line.as_bytes()[4] != b' ');
            let is_one = statements.filter(|line| !line.trim().starts_with('}')).count() == 1;
            assert!(
                is_call && is_one,
                "{}: {name} must be one boundary::call or value",
                source.path
            );
            count += 1;
        }
    }
    assert!(count >= 34, "only {count} exported functions found");
}

#[test]
fn every_exported_function_says_what_it_returns_and_for_which_threads() {
    for source in sources::all() {
        for (name, documentation, _) in exported(&source) {
            assert!(source.module == "capi", "{name} is exported outside of capi");
            let says_threads = documentation.contains("thread") || name.ends_with("_init");
            assert!(says_threads, "{name}: for which threads?");
            let body = source.text.split(&format!("fn {name}(")).nth(1).unwrap();
            let is_fallible = body.split('{').next().unwrap().contains("Status");
            assert!(!is_fallible || documentation.contains("Returns"), "{name}: which statuses?");
        }
    }
}

#[test]
fn nothing_prints_exits_or_reads_the_environment() {
    const BANNED: [&str; 8] = [
        "println!",
        "eprintln!",
        "dbg!",
        "process::exit",
        "process::abort",
        "env::var",
        "env::set_var",
        "todo!",
    ];
    for source in sources::all() {
        // The places that ask, documented at xqkv_backend and xqkv_instruction_set: which file a
        // vendor's library is, and which instructions the host's kernels use.
        let asks = ["src/library.rs", "src/backend/host/kernel/set.rs"].contains(&&*source.path);
        let may_ask = |banned: &str| banned == "env::var" && asks;
        for banned in BANNED.into_iter().filter(|banned| !may_ask(banned)) {
            assert!(!source.code.contains(banned), "{} has {banned}", source.path);
        }
    }
}

#[test]
fn files_and_lines_are_short() {
    for source in sources::all() {
        let lines = source.text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines; which two things does it do?", source.path);
        for (number, line) in source.text.lines().enumerate() {
            assert!(line.chars().count() <= 100, "{}:{} is too long", source.path, number + 1);
        }
    }
}
