//! Checkpoints through the library's own loader: what each rank gets is what whole tensors would
//! give it, and no file, however damaged, does more than answer a status.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use xqkv::error::{Error, Status};
use xqkv::shard::{Range, Shard, Split};
use xqkv::spec::{Norm, Part, Spec};
use xqkv::weights::checkpoint::{Checkpoint, Location};
use xqkv::weights::report::Report;
use xqkv::weights::{Change, Data, Extent, FusedOrder, Kind, Layout, Numbers, Source, Update};

fn root(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn open(folder: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(Location { directory: folder.to_owned(), pattern: None })
}

/// Loads one rank's layers of a folder.
fn load(folder: &Path, spec: &Spec, split: Split, layers: Range) -> Result<(Update, u64), Error> {
    let shard = Shard::cut(spec, split, layers).unwrap();
    let mut update = Update::new(spec.clone(), shard);
    let bytes = open(folder)?.load(&mut update, false)?;
    Ok((update, bytes))
}

const FOLDERS: [&str; 4] =
    ["examples/whisper", "tests/data/bart", "tests/data/t5", "tests/data/mllama"];

#[test]
fn each_rank_gets_its_rows_of_the_whole() {
    let whole = Split::Even { rank: 0, rank_count: 1 };
    for folder in FOLDERS {
        let folder = root(folder);
        let spec = open(&folder).unwrap().spec().unwrap();
        let (all, _) = load(&folder, &spec, whole, Range::default()).unwrap();
        for rank in 0..2 {
            let layers = Range { begin: rank, count: 1 };
            let split = Split::Even { rank, rank_count: 2 };
            let (own, bytes) = load(&folder, &spec, split, layers).unwrap();
            let mut by_hand = Update::new(spec.clone(), *own.shard());
            for (&(layer, part, kind), change) in
                all.changes().iter().filter(|(place, _)| place.0 == rank)
            {
                put_whole(&mut by_hand, layer, part, kind, change);
            }
            assert!(own.changes() == by_hand.changes());
            let weights: usize = own.changes().values().map(stored_bytes(&spec)).sum();
            assert_eq!(bytes, weights as u64);
        }
    }
}

/// Bytes that a change was read from: weights and biases are stored in the same dtype here.
fn stored_bytes(spec: &Spec) -> impl Fn(&Change) -> usize {
    let element = spec.weight_dtype.bytes();
    move |change| match change {
        Change::Weight(bytes) => bytes.len(),
        Change::Vector(elements) => elements.len() * element,
        Change::Borrow(_) | Change::Clear => 0,
    }
}

fn put_whole(update: &mut Update, layer: i64, part: Part, kind: Kind, change: &Change) {
    let bias;
    let (data, dtype) = match change {
        Change::Weight(bytes) => (&bytes[..], update.spec().weight_dtype.element().unwrap()),
        Change::Vector(elements) => {
            bias = elements.iter().flat_map(|element| element.to_ne_bytes()).collect::<Vec<u8>>();
            (&bias[..], xqkv::dtype::Dtype::F32)
        }
        Change::Borrow(_) | Change::Clear => unreachable!("a load copies"),
    };
    let shape = kind.shape(update.spec(), part);
    let (rows, columns) = (shape[0], shape.get(1).copied().unwrap_or(1));
    let source = Source {
        numbers: Numbers::Plain(dtype),
        data: Data::Copied(data),
        rows,
        columns,
        row_stride: columns,
        layout: Layout::OutIn,
        order: FusedOrder::Concatenated,
        extent: Extent::Whole,
        convert: false,
    };
    update.put(layer, &[part], kind, &source).unwrap();
}

/// Bytes that this process has read from files so far.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_rank_reads_its_own_bytes_and_the_headers_only() {
    let folder = root("examples/whisper");
    let spec = open(&folder).unwrap().spec().unwrap();
    let config = fs::metadata(folder.join("config.json")).unwrap().len();
    let mut length = [0; 8];
    fs::File::open(folder.join("model.safetensors"))
        .unwrap()
        .read_exact_at(&mut length, 0)
        .unwrap();
    let asking = {
        let before = bytes_read();
        bytes_read() - before
    };
    for rank in 0..3 {
        let before = bytes_read();
        let split = Split::Even { rank, rank_count: 3 };
        let (_, bytes) = load(&folder, &spec, split, Range::default()).unwrap();
        let read = bytes_read() - before - asking;
        let headers = config + 8 + u64::from_le_bytes(length);
        // What asking costs differs by a few digits.
        assert!(read.abs_diff(headers + bytes) < 16, "{read} read, {headers} + {bytes} needed");
    }
}

/// A copy of the T5 checkpoint, with its weight file made by `change`.
fn damaged(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let original = root("tests/data/t5");
    fs::copy(original.join("config.json"), copy.path().join("config.json")).unwrap();
    let bytes = fs::read(original.join("model.safetensors")).unwrap();
    fs::write(copy.path().join("model.safetensors"), change(bytes)).unwrap();
    copy
}

/// The status of loading a whole folder.
fn outcome(folder: &Path) -> Result<(), Status> {
    let spec = open(&root("tests/data/t5")).unwrap().spec().unwrap();
    let whole = Split::Even { rank: 0, rank_count: 1 };
    load(folder, &spec, whole, Range::default()).map(|_| ()).map_err(|error| error.status)
}

fn with_header(bytes: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend_from_slice(header.as_bytes());
    changed.extend_from_slice(&bytes[8 + length..]);
    changed
}

const WEIGHT: &str = "decoder.block.1.layer.1.EncDecAttention.k.weight";

/// The header with this tensor's entry replaced in part.
fn with_entry(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    with_header(bytes, |header| {
        let at = header.find(WEIGHT).unwrap();
        let (before, entry) = header.split_at(at);
        format!("{before}{}", entry.replacen(from, to, 1))
    })
}

#[test]
fn named_damages_have_named_statuses() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Damage, Status); 15] = [
        ("empty", |_| Vec::new(), Status::CheckpointCorrupt),
        ("seven bytes", |bytes| bytes[..7].to_vec(), Status::CheckpointCorrupt),
        ("no header", |_| 0u64.to_le_bytes().to_vec(), Status::CheckpointCorrupt),
        (
            "header beyond the file",
            |bytes| [&(bytes.len() as u64).to_le_bytes(), &bytes[8..]].concat(),
            Status::CheckpointCorrupt,
        ),
        (
            "header of 2^64 - 1 bytes",
            |bytes| [&[0xff; 8], &bytes[8..]].concat(),
            Status::CheckpointCorrupt,
        ),
        ("one byte more", |bytes| [&bytes[..], &[0]].concat(), Status::CheckpointCorrupt),
        ("one byte less", |bytes| bytes[..bytes.len() - 1].to_vec(), Status::CheckpointCorrupt),
        (
            "not UTF-8",
            |mut bytes| {
                bytes[9] = 0xff;
                bytes
            },
            Status::CheckpointCorrupt,
        ),
        (
            "a key twice",
            |bytes| {
                with_header(&bytes, |header| {
                    header.replacen(
                        "block.0.layer.1.EncDecAttention.k",
                        "block.1.layer.1.EncDecAttention.k",
                        1,
                    )
                })
            },
            Status::CheckpointCorrupt,
        ),
        (
            "nested without end",
            |bytes| with_header(&bytes, |_| "[".repeat(1 << 20)),
            Status::CheckpointCorrupt,
        ),
        (
            "another shape of the same size",
            |bytes| with_entry(&bytes, "[384,256]", "[256,384]"),
            Status::InvalidShape,
        ),
        (
            "a shape that overflows",
            |bytes| with_entry(&bytes, "[384,256]", "[4611686018427387904,16]"),
            Status::CheckpointCorrupt,
        ),
        (
            "another dtype of the same size",
            |bytes| with_entry(&bytes, "\"F16\"", "\"I16\""),
            Status::InvalidDtype,
        ),
        (
            "a dtype nobody knows",
            |bytes| with_entry(&bytes, "\"F16\"", "\"F17\""),
            Status::CheckpointCorrupt,
        ),
        (
            "no such tensor",
            |bytes| with_entry(&bytes, "EncDecAttention.k", "EncDecAttention.K"),
            Status::CheckpointMissingTensor,
        ),
    ];
    for (name, damage, status) in cases {
        assert_eq!(outcome(damaged(damage).path()), Err(status), "{name}");
    }
}

#[test]
fn offsets_that_overlap_or_leave_holes_are_refused() {
    let original = fs::read(root("tests/data/t5/model.safetensors")).unwrap();
    let entry = with_entry(&original, "\"data_offsets\":[", "\"data_offsets\":[1");
    assert_eq!(outcome(damaged(|_| entry).path()), Err(Status::CheckpointCorrupt));
}

#[test]
fn truncation_at_any_byte_is_refused() {
    let length = fs::metadata(root("tests/data/t5/model.safetensors")).unwrap().len() as usize;
    for end in (0..3000).step_by(7).chain((3000..length).step_by(length / 40)) {
        let copy = damaged(|bytes| bytes[..end].to_vec());
        assert_eq!(outcome(copy.path()), Err(Status::CheckpointCorrupt), "{end}");
    }
}

/// A flipped byte is refused, or changes nothing that is taken: names of other tensors, say.
#[test]
fn a_flipped_byte_of_the_header_never_gives_other_weights() {
    let folder = root("tests/data/t5");
    let spec = open(&folder).unwrap().spec().unwrap();
    let whole = Split::Even { rank: 0, rank_count: 1 };
    let (good, _) = load(&folder, &spec, whole, Range::default()).unwrap();
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let copy = damaged(|bytes| bytes);
    let file =
        fs::OpenOptions::new().write(true).open(copy.path().join("model.safetensors")).unwrap();
    let mut accepted = 0;
    for at in 0..header {
        for flip in [0x01, 0x80] {
            file.write_all_at(&[bytes[at] ^ flip], at as u64).unwrap();
            if let Ok((loaded, _)) = load(copy.path(), &spec, whole, Range::default()) {
                assert!(loaded.changes() == good.changes(), "byte {at}");
                accepted += 1;
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
    }
    assert!(accepted < header / 4, "{accepted} of {header} flips were accepted");
}

#[test]
fn an_index_leads_nowhere_but_beside_itself() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root("tests/data/mllama")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let index = copy.path().join("model.safetensors.index.json");
    let good = fs::read_to_string(&index).unwrap();
    assert!(open(copy.path()).is_ok());
    let file = "model-00007-of-00021.safetensors";
    for (name, status) in [
        ("../t5/model.safetensors", Status::CheckpointCorrupt),
        ("/etc/passwd", Status::CheckpointCorrupt),
        ("..", Status::CheckpointCorrupt),
        ("", Status::CheckpointCorrupt),
        ("not-there.safetensors", Status::CheckpointNotFound),
    ] {
        fs::write(&index, good.replace(file, name)).unwrap();
        assert_eq!(open(copy.path()).err().map(|error| error.status), Some(status), "{name:?}");
    }
    fs::write(&index, "{\"weight_map\": []}").unwrap();
    assert_eq!(open(copy.path()).err().unwrap().status, Status::CheckpointCorrupt);
}

#[test]
fn configurations_that_make_no_spec_are_refused() {
    let copy = damaged(|bytes| bytes);
    let config = copy.path().join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    for (from, to) in [
        ("\"d_model\": 256", "\"d_model\": -256"),
        ("\"d_model\": 256", "\"d_model\": \"256\""),
        ("\"d_model\": 256", "\"d_model\": 1e300"),
        ("\"num_heads\": 6", "\"num_heads\": 0"),
        ("\"d_kv\": 64", "\"d_kv\": 9223372036854775807"),
        ("\"num_decoder_layers\": 2", "\"num_decoder_layers\": -1"),
        ("\"model_type\": \"t5\"", "\"model_type\": 5"),
        ("\"model_type\": \"t5\"", "\"model_type\": \"t5\", \"model_type\": \"t5\""),
    ] {
        fs::write(&config, good.replacen(from, to, 1)).unwrap();
        let spec = open(copy.path()).and_then(|checkpoint| checkpoint.spec());
        assert!(spec.is_err(), "{to}");
    }
    fs::write(&config, good).unwrap();
    assert!(open(copy.path()).and_then(|checkpoint| checkpoint.spec()).is_ok());
}

#[test]
fn a_bias_that_the_spec_denies_is_not_left_out_in_silence() {
    let folder = root("examples/whisper");
    let mut spec = open(&folder).unwrap().spec().unwrap();
    spec.bias.value = false;
    let whole = Split::Even { rank: 0, rank_count: 1 };
    let error = load(&folder, &spec, whole, Range::default()).err().unwrap();
    assert_eq!(error.status, Status::CheckpointMismatch);
    assert!(error.message.contains("v_proj.bias"), "{error}");
}

#[test]
fn mllamas_norms_are_loaded_or_left_to_the_caller_as_the_spec_says() {
    let folder = root("tests/data/mllama");
    let spec = open(&folder).unwrap().spec().unwrap();
    let whole = Split::Even { rank: 0, rank_count: 1 };
    let norms = |spec: &Spec| {
        let update = load(&folder, spec, whole, Range::default()).unwrap().0;
        let norms = update.changes().iter().filter(|((_, _, kind), _)| *kind == Kind::Norm);
        norms.map(|(place, change)| (*place, stored_bytes(spec)(change))).collect::<Vec<_>>()
    };
    assert_eq!(spec.norm, Some(Norm { epsilon: 1e-5, rounds_first: true }));
    let places = [0, 1].map(|at| [(at, Part::Query, Kind::Norm), (at, Part::Key, Kind::Norm)]);
    assert_eq!(
        norms(&spec),
        places.as_flattened().iter().map(|at| (*at, 2 * 64)).collect::<Vec<_>>()
    );
    assert_eq!(norms(&Spec { norm: None, ..spec.clone() }), []);
    let listed = |spec: &Spec| Report::new(&open(&folder).unwrap(), spec).unwrap().to_json();
    let found = r#""kind":"norm","layer":0,"name":"model.layers.1.cross_attn.q_norm.weight""#;
    assert!(listed(&spec).contains(found), "{}", listed(&spec));
    assert!(!listed(&Spec { norm: None, ..spec }).contains(found));
}

#[test]
fn a_norm_that_the_family_does_not_have_is_refused() {
    let folder = root("tests/data/bart");
    let mut spec = open(&folder).unwrap().spec().unwrap();
    spec.norm = Some(Norm { epsilon: 1e-5, rounds_first: false });
    let whole = Split::Even { rank: 0, rank_count: 1 };
    let error = load(&folder, &spec, whole, Range::default()).err().unwrap();
    assert_eq!(error.status, Status::CheckpointMismatch);
    assert!(error.message.contains("XQKV_NORM_NONE"), "{error}");
}

#[test]
fn a_spec_of_another_depth_is_refused() {
    let folder = root("tests/data/mllama");
    let mut spec = open(&folder).unwrap().spec().unwrap();
    spec.layer_count = 1 << 40;
    let layers = Range { begin: 0, count: 1 };
    let whole = Split::Even { rank: 0, rank_count: 1 };
    let error = load(&folder, &spec, whole, layers).err().unwrap();
    assert_eq!(error.status, Status::CheckpointMismatch);
}
