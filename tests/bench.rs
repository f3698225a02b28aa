//! The command's measurements: what is printed and drawn, never how fast it was.

use serde_json::Value;
use std::process::{Command, Output};

/// Two heads of 24 over rows of 64 and 40, warm, so that little is packed.
const SMALL: [&str; 9] = [
    "bench",
    "--shape",
    "64,40,2,2,24,30,3",
    "--rows",
    "1,5",
    "--warm",
    "--seconds",
    "0",
    "--threads=2",
];

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
    command.args(SMALL).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = bench(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_case_of_each_dtype_is_measured() {
    let report: Value =
        serde_json::from_str(&printed(&["--output", "json", "--dtype", "f32,bf16,f16,int8"]))
            .unwrap();
    let cases = report["cases"].as_array().unwrap();
    let named = |case: &Value| {
        let text = |field: &str| case[field].as_str().unwrap().to_owned();
        (text("dtype"), text("part"), case["rows"].as_i64().unwrap())
    };
    let found: Vec<_> = cases.iter().map(named).collect();
    let works = [("Q", 1), ("Q", 5), ("KV", 30)];
    let expected = ["f32", "bf16", "f16", "int8"]
        .into_iter()
        .flat_map(|dtype| works.map(|(part, rows)| (dtype.to_owned(), part.to_owned(), rows)));
    assert_eq!(found, expected.collect::<Vec<_>>());
    for case in cases {
        for field in ["seconds", "gigaflops", "gigabytes_per_second", "percent_of_floor"] {
            assert!(case[field].as_f64().unwrap() > 0.0, "{field}: {case}");
        }
        assert!(case["workaround_over_ours"].is_null(), "nobody asked for it: {case}");
    }
}

#[test]
fn packed_weights_of_a_model_are_no_larger_than_its_own() {
    let arguments = ["--model", "whisper-tiny", "--rows", "1", "--encoder-rows", "0", "--warm"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
    command.arg("bench").args(arguments).args(["--seconds", "0", "--output", "json"]);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    for case in report["cases"].as_array().unwrap() {
        let ratio = case["packed_over_necessary"].as_f64().unwrap();
        assert!((1.0..=1.02).contains(&ratio), "{case}");
    }
}

#[test]
fn tables_have_a_line_for_each_case_and_the_plot_is_svg() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plot.svg");
    let plot = ["--dtype", "bf16", "--layers-at-once", "--plot", file.to_str().unwrap()];
    assert_eq!(printed(&plot).lines().filter(|line| line.starts_with('|')).count(), 2 + 3);
    let drawn = std::fs::read_to_string(file).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("64x40x2x2x24x30x3 bf16 KV, 30 rows"));
    let lines = printed(&["--dtype", "f16", "--ranks", "2", "--output", "csv"]);
    assert_eq!(lines.lines().count(), 1 + 3);
    assert!(lines.lines().all(|line| line.split(',').count() == 12), "{lines}");
}

#[test]
fn the_workaround_is_timed_where_both_sides_are_as_wide() {
    let square =
        ["bench", "--shape", "64,64,2,2,32,30,3", "--rows", "1", "--warm", "--seconds", "0"];
    for layers in [&[][..], &["--layers-at-once"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
        command.args(square).args(["--workaround", "--output", "json"]).args(layers);
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cases = report["cases"].as_array().unwrap();
        assert!(cases.iter().all(|case| case["workaround_over_ours"].as_f64().unwrap() > 0.0));
        assert_eq!(cases.len(), 6);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_can() {
    for (arguments, words) in [
        (["--shape", "1,2"], "give seven numbers"),
        (["--model", "whisper"], "whisper-large-v3"),
        (["--rows", "0"], "1..=100000"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
        let output = command.arg("bench").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(words), "{arguments:?}: {errors}");
    }
}
