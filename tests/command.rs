//! The `xqkv` command, run as a person would.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Folder, family, query heads, key/value heads, and the checkpoint's numbers of its layers.
const CHECKPOINTS: [(&str, &str, i64, i64, [i64; 2]); 4] = [
    ("examples/whisper", "whisper", 6, 6, [0, 1]),
    ("tests/data/bart", "bart", 8, 8, [0, 1]),
    ("tests/data/t5", "t5", 6, 6, [0, 1]),
    ("tests/data/mllama", "mllama", 8, 2, [1, 3]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn xqkv(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
    command.current_dir(root()).args(arguments).output().unwrap()
}

fn verified(arguments: &[&str]) -> Value {
    verdict_of(xqkv(&[&["verify"], arguments, &["--json"]].concat()))
}

fn verdict_of(output: Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(output.status.success(), verdict["pass"] == true, "{verdict}");
    verdict
}

/// A copy of a checkpoint whose file was changed.
fn changed(folder: &str, file: &str, change: impl Fn(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = copy.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
    copy
}

/// The simulated GPU, built where this test was.
fn simulator() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "gpusim", "--target-dir"]).arg(target);
    assert!(command.current_dir(root()).status().unwrap().success());
    target.join("debug/libgpusim.so")
}

/// A verdict of the simulated GPU's, and what the device itself counted.
fn verified_on_simulator(library: &Path, arguments: &[&str]) -> (Value, Value) {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
    command.current_dir(root()).arg("verify").args(arguments).args(["--json", "--backend", "cuda"]);
    command.env("XQKV_CUDA_LIBRARY", library).env("XQKV_CUBLASLT_LIBRARY", library);
    command.env("XQKV_NCCL_LIBRARY", library).env("GPUSIM_DEVICES", "8");
    let verdict = verdict_of(command.env("GPUSIM_REPORT", report.path()).output().unwrap());
    let seen: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    assert!(seen["violations"].as_array().unwrap().is_empty(), "{arguments:?}: {seen}");
    let live = seen["live"].as_object().unwrap();
    assert!(live.values().all(|count| count == 0), "{arguments:?}: {seen}");
    (verdict, seen)
}

#[test]
fn every_family_passes_on_the_simulated_gpu() {
    let library = simulator();
    for (folder, ..) in CHECKPOINTS {
        for ranks in ["1", "2", "3", "5", "8"] {
            let (verdict, seen) = verified_on_simulator(&library, &[folder, "--ranks", ranks]);
            assert!(verdict["pass"] == true && verdict["ratio"] == 1.0, "{folder}: {verdict}");
            let executed = &verdict["multiply_adds_executed"];
            assert_eq!(&seen["multiply_adds"], executed, "by the device's own count");
        }
    }
}

/// What ranks with a communicator are asked for: whether that does all work once, and how.
const TOGETHER: [(bool, &[&str]); 5] = [
    (false, &[]),
    (true, &["--gather"]),
    (true, &["--share-replicas", "--layers-at-once"]),
    (false, &["--encoder-sharded", "--chunk-rows", "20"]),
    (true, &["--encoder-sharded", "--gather", "--share-replicas", "--layers-at-once"]),
];

/// The group's part of a verdict, held against what all of them have.
fn group_of<'a>(verdict: &'a Value, is_once: bool, arguments: &[&str]) -> &'a Value {
    let group = &verdict["group"];
    assert_eq!(verdict["pass"], true, "{arguments:?}: {verdict}");
    assert!(!is_once || group["ratio_to_uncut"] == 1.0, "{arguments:?}: {group}");
    let ranks = group["ranks"].as_array().unwrap();
    // Without flags no call has transfers.
    for rank in ranks.iter().filter(|_| arguments.len() == 5) {
        assert_eq!((&rank["bytes_received"], &rank["transfers"]), (&json!(0), &json!(0)));
    }
    group
}

#[test]
fn ranks_together_give_the_plain_calls_bits_by_threads_and_by_processes() {
    for (folder, ..) in CHECKPOINTS {
        for (is_once, flags) in TOGETHER {
            for (medium, counts) in [("threads", &["1", "3", "7"][..]), ("processes", &["2"][..])] {
                for ranks in counts {
                    let arguments = [folder, "--ranks", ranks, "--comm", medium];
                    let arguments = [&arguments, flags].concat();
                    let verdict = verified(&arguments);
                    let group = group_of(&verdict, is_once, &arguments);
                    for rank in group["ranks"].as_array().unwrap() {
                        assert_eq!(rank["bits_differing"], 0, "{arguments:?}: {group}");
                    }
                }
            }
        }
    }
}

#[test]
fn ranks_with_a_simulated_gpu_each_are_joined_by_nccl() {
    let library = simulator();
    for (folder, ..) in CHECKPOINTS {
        for (is_once, flags) in TOGETHER {
            let arguments = [folder, "--ranks", "4", "--comm", "nccl"];
            let arguments = [&arguments, flags].concat();
            let (verdict, _) = verified_on_simulator(&library, &arguments);
            group_of(&verdict, is_once, &arguments);
        }
    }
}

#[test]
fn the_environment_names_the_instruction_set() {
    let info = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
        command.arg("info").env("XQKV_ISA", name).output().unwrap()
    };
    let forced = String::from_utf8(info("portable").stdout).unwrap();
    assert!(forced.contains("XQKV_INSTRUCTION_SET_PORTABLE: in use"), "{forced}");
    let refused = info("sse9");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("XQKV_ISA is \"sse9\""), "{words}");
    assert!(words.contains("avx512_bf16, avx512, avx2, neon, portable"), "{words}");
}

/// Two ranks on one simulated GPU, which plays this version of NCCL.
fn on_one_gpu(version: &str, enabled: &str, flags: &[&str]) -> Output {
    let library = simulator();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
    command.current_dir(root()).args(["verify", "examples/whisper", "--json", "--backend", "cuda"]);
    command.args(["--comm", "nccl", "--ranks", "2", "--devices", "1"]).args(flags);
    for name in ["XQKV_CUDA_LIBRARY", "XQKV_CUBLASLT_LIBRARY", "XQKV_NCCL_LIBRARY"] {
        command.env(name, &library);
    }
    command.env("NCCL_MULTI_RANK_GPU_ENABLE", enabled).env("GPUSIM_NCCL_VERSION", version);
    command.output().unwrap()
}

#[test]
fn two_ranks_share_a_gpu_where_nccl_can() {
    for (is_once, flags) in TOGETHER {
        group_of(&verdict_of(on_one_gpu("23003", "1", flags)), is_once, flags);
    }
    for (version, enabled) in [("23003", "0"), ("22907", "1")] {
        let refused = on_one_gpu(version, enabled, &[]);
        let words = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && words.contains("shares a GPU"), "{words}");
    }
}

/// Runs of the command that change what is asked of each layout.
const VARIANTS: [&[&str]; 3] = [
    &["--layers-at-once"],
    &["--row-list", "--out-dtype", "bf16"],
    &["--layers-at-once", "--row-list", "--scale=0.5,-3,0.3"],
];

/// The sum of a field of all layouts on all ranks.
fn sum_of_layouts(verdict: &Value, field: &str) -> i64 {
    let lines = verdict["per_layout"].as_array().unwrap();
    lines.iter().map(|line| line[field].as_i64().unwrap()).sum()
}

#[test]
fn every_layout_gives_the_plain_calls_bits_and_touches_nothing_else() {
    for (folder, ..) in CHECKPOINTS {
        for ranks in [1, 2, 3, 5, 8] {
            for variant in VARIANTS {
                let ranks_given = ranks.to_string();
                let arguments = [folder, "--layout", "all", "--ranks", &ranks_given];
                let verdict = verified(&[&arguments, variant].concat());
                assert_eq!(verdict["pass"], true, "{folder} {ranks} {variant:?}: {verdict}");
                assert_eq!(verdict["per_layout"].as_array().unwrap().len(), 7 * ranks);
                for field in ["bits_differing", "bytes_touched"] {
                    assert_eq!(sum_of_layouts(&verdict, field), 0, "{verdict}");
                }
                let executed = sum_of_layouts(&verdict, "multiply_adds_executed");
                assert_eq!(executed, sum_of_layouts(&verdict, "multiply_adds_necessary"));
            }
        }
    }
}

#[test]
fn every_layout_passes_on_the_simulated_gpu_by_its_own_counts() {
    let library = simulator();
    let variants = [
        &["--layers-at-once"][..],
        &["--row-list"],
        &["--layers-at-once", "--row-list", "--scale=0.5,-3,0.3", "--norm=first"],
    ];
    for (folder, ..) in CHECKPOINTS {
        for ranks in ["1", "2", "3", "5", "8"] {
            for variant in variants {
                let arguments = [folder, "--ranks", ranks, "--layout", "all"];
                let arguments = [&arguments[..], variant].concat();
                let (verdict, seen) = verified_on_simulator(&library, &arguments);
                assert_eq!(verdict["pass"], true, "{arguments:?}: {verdict}");
                for field in ["multiply_adds_executed", "matmuls"] {
                    let told = verdict[field].as_i64().unwrap() + sum_of_layouts(&verdict, field);
                    assert_eq!(seen[field.trim_end_matches("_executed")], told, "{arguments:?}");
                }
            }
        }
    }
}

/// What the first rank executes in a layout of t5's two layers, each with 5 decoder rows, 77
/// encoder rows and 384 columns over 256.
fn executed_by_t5(arguments: &[&str]) -> i64 {
    let verdict = verified(&[&["tests/data/t5"], arguments].concat());
    verdict["per_layout"][0]["multiply_adds_executed"].as_i64().unwrap()
}

#[test]
fn rows_that_are_not_listed_or_left_out_by_slots_are_not_executed() {
    // Two layers, in each a prefill, a decode step and a fill, so each side twice.
    let calls = |decoder: i64, encoder: i64| 2 * 2 * (decoder + 2 * encoder) * 256 * 384;
    assert_eq!(executed_by_t5(&["--layout", "per-layer"]), calls(5, 77));
    // Rows 1, 5, 9 and so on are not listed: of 5 rows 4 are, and of 77 rows 58; every sixth of
    // these is listed twice.
    assert_eq!(executed_by_t5(&["--row-list"]), calls(4 + 1, 58 + 10));
    // Of each 5 rows one is left out.
    assert_eq!(executed_by_t5(&["--layout", "paged"]), calls(4, 77 - 15));
}

#[test]
fn one_call_fills_all_layers() {
    let verdict = verified(&["tests/data/t5", "--layers-at-once", "--layout", "plain"]);
    let line = &verdict["per_layout"][0];
    // Two prefills, two decode steps, and one fill of both layers.
    assert_eq!((&line["calls"], &line["matmuls"]), (&5.into(), &(2 * 3 + 2 + 2 * 2).into()));
    assert_eq!(line["multiply_adds_executed"], verdict["multiply_adds_executed"]);
}

#[test]
fn scales_are_of_the_calls_and_not_of_the_models_results() {
    let verdict = verified(&["tests/data/bart", "--scale=0.5,1,-2"]);
    let matrices = verdict["per_layer"][0]["matrices"].as_array().unwrap();
    assert!(verdict["pass"] == true && matrices.iter().all(|m| m["agrees_with_model"] == true));
    for wrong in ["--scale=1,2", "--scale=one,2,3"] {
        assert_eq!(xqkv(&["verify", "tests/data/bart", wrong]).status.code(), Some(2));
    }
}

#[test]
fn heads_of_every_family_are_normed_in_every_layout() {
    for (folder, ..) in CHECKPOINTS {
        for norm in ["--norm=once", "--norm=first"] {
            for out in ["f32", "bf16"] {
                let arguments = [folder, "--ranks", "3", "--layout", "all", norm, "--scale"];
                let more = ["--layers-at-once", "--row-list", "--out-dtype", out];
                let verdict = verified(&[&arguments[..], &more].concat());
                assert_eq!(verdict["pass"], true, "{folder} {norm} {out}: {verdict}");
            }
        }
    }
}

/// A driver that has only what it needs to be asked for its version.
fn half_a_driver(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("half.c"), folder.join("libhalf.so"));
    std::fs::write(&source, "int cuInit(unsigned flags) { return (int)flags; }").unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(command.status().unwrap().success());
    library
}

#[test]
fn what_cuda_lacks_is_told() {
    let (simulator, folder) = (simulator(), tempfile::tempdir().unwrap());
    let (half, nowhere) = (half_a_driver(folder.path()), folder.path().join("nowhere.so"));
    for (driver, cublaslt, variable, value, status, word) in [
        (&nowhere, &simulator, "", "", "LIBRARY_MISSING", "XQKV_CUDA_LIBRARY"),
        (&simulator, &nowhere, "", "", "LIBRARY_MISSING", "XQKV_CUBLASLT_LIBRARY"),
        (&half, &simulator, "", "", "LIBRARY_UNSUITABLE", "has no cuDriverGetVersion"),
        (&simulator, &half, "", "", "LIBRARY_UNSUITABLE", "has no cublasLtCreate"),
        (&simulator, &simulator, "GPUSIM_DRIVER_VERSION", "11080", "LIBRARY_UNSUITABLE", "11080"),
        (
            &simulator,
            &simulator,
            "GPUSIM_CUBLASLT_VERSION",
            "111103",
            "LIBRARY_UNSUITABLE",
            "111103",
        ),
        (&simulator, &simulator, "GPUSIM_DEVICES", "0", "NO_DEVICE", "CUDA_ERROR_NO_DEVICE"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xqkv"));
        command.current_dir(root()).args(["verify", "tests/data/t5", "--backend", "cuda"]);
        command.env("XQKV_CUDA_LIBRARY", driver).env("XQKV_CUBLASLT_LIBRARY", cublaslt);
        if !variable.is_empty() {
            command.env(variable, value);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        let status = format!("XQKV_STATUS_{status}: ");
        assert!(told.contains(&status) && told.contains(word), "{status}{word}: {told}");
    }
}

#[test]
fn every_family_passes_on_any_number_of_ranks() {
    for (folder, family, query_heads, key_value_heads, _) in CHECKPOINTS {
        for ranks in [1, 2, 3, 5, 8, 11] {
            let verdict = verified(&[folder, "--ranks", &ranks.to_string()]);
            assert_eq!(verdict["pass"], true, "{verdict}");
            assert_eq!((&verdict["family"], &verdict["layers"]), (&family.into(), &2.into()));
            assert_eq!((&verdict["ranks"], &verdict["ratio"]), (&ranks.into(), &1.0.into()));
            let is_replicated = ranks > key_value_heads && query_heads > key_value_heads;
            let group_ratio = verdict["group_ratio"].as_f64().unwrap();
            assert_eq!(is_replicated, group_ratio < 1.0, "{verdict}");
            assert!(verdict["max_error_over_bound"].as_f64().unwrap() > 0.0, "{verdict}");
        }
    }
}

#[test]
fn executed_is_what_the_shapes_say() {
    let verdict = verified(&["tests/data/t5"]);
    let (decoder, encoder, width, outputs) = (5, 77, 256, 384);
    let calls = 2 * (decoder + 2 * encoder) * width * outputs;
    assert_eq!(verdict["multiply_adds_executed"], 2 * calls);
    assert_eq!(verdict["multiply_adds_necessary"], 2 * calls);
}

#[test]
fn rows_and_results_may_be_of_any_dtype() {
    for rows in ["f32", "bf16", "f16"] {
        for out in ["f32", "bf16", "f16"] {
            let arguments =
                ["tests/data/mllama", "--rows-dtype", rows, "--out-dtype", out, "--threads", "1"];
            assert_eq!(verified(&arguments)["pass"], true, "{rows} {out}");
        }
    }
}

#[test]
fn an_explicit_split_and_a_single_layer_may_be_asked_for() {
    for (folder, _, query_heads, _, layers) in CHECKPOINTS {
        let split = format!("{},0,1", query_heads - 1);
        let layer = layers[1].to_string();
        let verdict = verified(&[folder, "--split", &split, "--layer", &layer]);
        assert_eq!((&verdict["pass"], &verdict["ranks"]), (&true.into(), &3.into()));
        assert_eq!(verdict["per_layer"][0]["checkpoint_layer"], layers[1]);
        assert_eq!(verdict["layers"], 1);
    }
}

#[test]
fn a_wrong_expectation_or_weight_fails() {
    let flip_last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 0x04;
    for file in ["io.safetensors", "model.safetensors"] {
        let copy = changed("tests/data/t5", file, flip_last);
        let verdict = verified(&[copy.path().to_str().unwrap()]);
        // The last tensor of the model is no projection's, and is not looked at.
        assert_eq!(verdict["pass"], file == "model.safetensors", "{verdict}");
    }
    let everywhere = |bytes: &mut Vec<u8>| {
        let (header, _) = bytes.split_first_chunk::<8>().unwrap();
        let data = 8 + u64::from_le_bytes(*header) as usize;
        bytes[data + 3..].iter_mut().step_by(4 * 97).for_each(|byte| *byte ^= 0x04);
    };
    let copy = changed("tests/data/bart", "model.safetensors", everywhere);
    assert_eq!(verified(&[copy.path().to_str().unwrap()])["pass"], false);
}

#[test]
fn what_cannot_be_verified_is_told_in_one_line_with_status_2() {
    let missing = "/nonexistent";
    let cases: [&[&str]; 5] = [
        &["verify", missing],
        &["verify", "tests/data/t5", "--split", "3,4"],
        &["verify", "tests/data/mllama", "--layer", "0"],
        &["verify", "tests/data/t5", "--io", missing],
        &["inspect", "src"],
    ];
    for arguments in cases {
        let output = xqkv(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?} {message}");
    }
}

#[test]
fn inspect_lists_what_is_there_and_fails_when_a_tensor_is_missing() {
    let output = xqkv(&["inspect", "tests/data/mllama", "--ranks", "3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("family           mllama\n"), "{text}");
    assert!(text.contains("with cross-attention: 1, 3\n"), "{text}");
    assert!(text.contains("norm             of query and key heads, epsilon 1e-5\n"), "{text}");
    assert!(text.contains("unused         model.layers.1.cross_attn.o_proj.weight\n"), "{text}");
    assert!(!text.contains("q_norm"), "{text}");
    let copy = changed("tests/data/t5", "model.safetensors", |bytes| {
        let name = b"block.1.layer.1.EncDecAttention.v";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[at + name.len() - 1] = b'x';
    });
    let output = xqkv(&["inspect", copy.path().to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("missing        decoder.block.1.layer.1.EncDecAttention.v.weight"),
        "{text}"
    );
}

#[test]
fn info_tells_version_and_instruction_set() {
    let output = xqkv(&["info"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(concat!("version           ", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains("XQKV_INSTRUCTION_SET_"), "{text}");
}
