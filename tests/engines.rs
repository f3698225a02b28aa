//! Engines by name: each program of `ctests/engines` runs on the host and on the simulated GPU,
//! and shows the code that `docs/engines.md` prints.

#[path = "../ctests/run/compile.rs"]
#[allow(dead_code, reason = "the C suite uses more of it")]
mod compile;

use compile::Library;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Engines some of whose views the CUDA backend refuses as not in this version.
const NOT_YET_ON_CUDA: [&str; 8] = [
    "ctranslate2",
    "hugging_face",
    "llama_cpp",
    "onnxruntime",
    "sglang",
    "tensorrt_llm",
    "vllm",
    "whisper_cpp",
];

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

/// Runs a program; None if it succeeds and prints nothing.
fn fails(name: &str, prepare: &impl Fn(&mut Command)) -> Option<String> {
    let mut command =
        Command::new(compile::program(&format!("engines/{name}"), Library::Shared, &[]));
    prepare(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let passes = output.status.success() && text.is_empty();
    (!passes).then(|| format!("{name}: {}\n{text}", output.status))
}

#[test]
fn every_engine_finds_its_results_where_it_reads_them_on_the_host() {
    let failures: Vec<String> = engines().iter().filter_map(|name| fails(name, &|_| ())).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn engines_that_cuda_has_views_for_find_their_results_on_the_simulated_gpu() {
    let simulator = compile::simulator();
    let on_simulator = |command: &mut Command| {
        command.env("XQKV_TEST_BACKEND", "cuda").env("XQKV_CUDA_LIBRARY", &simulator);
        command.env("XQKV_CUBLASLT_LIBRARY", &simulator);
    };
    for name in engines() {
        match (fails(&name, &on_simulator), NOT_YET_ON_CUDA.contains(&name.as_str())) {
            (Some(failure), false) => panic!("{failure}"),
            (Some(failure), true) => assert!(failure.contains("this version"), "{failure}"),
            (None, true) => panic!("{name} runs on CUDA now; take it from NOT_YET_ON_CUDA"),
            (None, false) => (),
        }
    }
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
