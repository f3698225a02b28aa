//! That header_first.c and header_second.c leave out nothing that the header declares.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|byte: char| !byte.is_alphanumeric() && byte != '_').collect()
}

/// The header without its comments, line by line.
fn code(header: &str) -> impl Iterator<Item = &str> {
    header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']))
}

/// Constants of the header's enumerations.
fn constants(header: &str) -> Vec<&str> {
    code(header).filter_map(|line| Some(line.trim().split_once(" = ")?.0)).collect()
}

/// Fields of the header's structs, as the line that pins them: `AT(struct, field,`.
fn fields(header: &str) -> Vec<String> {
    let (mut owner, mut found) = (None, Vec::new());
    for line in code(header) {
        if let Some(begun) = line.strip_prefix("typedef struct ") {
            owner = begun.strip_suffix(" {");
        } else if line.starts_with('}') {
            owner = None;
        } else if let (Some(owner), Some(declared)) = (owner, line.strip_suffix(';')) {
            let name = declared.rsplit([' ', '*']).next().unwrap_or(declared);
            let name = name.split('[').next().unwrap_or(name);
            found.push(format!("AT({owner}, {name},"));
        }
    }
    found
}

#[test]
fn every_constant_of_the_header_is_pinned() {
    let (header, user) = (read("include/xqkv.h"), read("ctests/header_second.c"));
    let (constants, used) = (constants(&header), words(&user));
    assert!(constants.len() > 60, "only {} constants found", constants.len());
    let missing: Vec<_> = constants.iter().filter(|name| !used.contains(**name)).collect();
    assert!(missing.is_empty(), "ctests/header_second.c does not have {missing:?}");
}

#[test]
fn every_field_of_the_header_is_pinned() {
    let (header, user) = (read("include/xqkv.h"), read("ctests/header_first.c"));
    let fields = fields(&header);
    assert!(fields.len() > 100, "only {} fields found", fields.len());
    let missing: Vec<_> = fields.iter().filter(|field| !user.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "ctests/header_first.c does not have {missing:?}");
}

#[test]
fn every_function_is_called_by_some_program() {
    let programs = super::programs();
    let sources: String = programs.iter().map(|name| read(&format!("ctests/{name}.c"))).collect();
    // NCCL's programs run on simulated GPUs only (tests/cuda.rs).
    let others = ["fixture.h", "check.h", "device.h", "cuda/nccl.h", "cuda/nccl.c"];
    let all = sources + &others.map(|name| read(&format!("ctests/{name}"))).concat();
    // CHECK_SIZES puts the name of an init function together.
    let sizes =
        |name: &str| name.strip_suffix("_init").map(|plain| format!("CHECK_SIZES({plain},"));
    let is_called = |name: &str| {
        all.contains(&format!("{name}(")) || sizes(name).is_some_and(|call| all.contains(&call))
    };
    let symbols = read("ctests/symbols.txt");
    let missing: Vec<_> = symbols.lines().filter(|name| !is_called(name)).collect();
    assert!(missing.is_empty(), "no C test calls {missing:?}");
}
