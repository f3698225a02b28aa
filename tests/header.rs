//! include/xqkv.h is generated from src/capi; this test holds the two together.

use std::path::Path;

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("include/cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    let builder = cbindgen::Builder::new().with_crate(root).with_config(config);
    builder.generate().expect("cbindgen reads src").write(&mut header);
    String::from_utf8(header).unwrap()
}

/// Lines of the header that begin a declaration, without the comments between them.
fn code(header: &str) -> impl Iterator<Item = &str> {
    header.lines().filter(|line| !line.starts_with([' ', '*', '/', '#']))
}

#[test]
fn every_typedef_has_the_library_s_prefix() {
    let header = generated();
    let names: Vec<_> = code(&header).filter_map(typedef_name).collect();
    assert!(names.len() > 30, "only {names:?} found");
    let foreign: Vec<_> = names.iter().filter(|name| !name.starts_with("xqkv_")).collect();
    assert!(foreign.is_empty(), "{foreign:?} would be global names of every program");
}

/// The name that a line defines: of a plain type, of a pointer to a function, or of a struct.
fn typedef_name(line: &str) -> Option<&str> {
    if let Some(name) = line.strip_prefix("} ") {
        return name.strip_suffix(';');
    }
    let defined = line.strip_prefix("typedef ")?;
    if let Some((_, pointer)) = defined.split_once("(*") {
        return pointer.split(')').next();
    }
    defined.strip_suffix(';')?.rsplit([' ', '*']).next()
}

#[test]
fn every_macro_has_the_library_s_prefix() {
    let header = generated();
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define "));
    let foreign: Vec<_> = defined.filter(|name| !name.starts_with("XQKV_")).collect();
    assert!(foreign.is_empty(), "{foreign:?} would be macros of every program");
}

#[test]
fn every_function_that_takes_a_struct_may_find_it_misaligned() {
    let header = generated();
    let comments: Vec<_> = header.split("/**").filter_map(|text| text.split("*/").next()).collect();
    let sized: Vec<_> = comments.iter().filter(|text| text.contains(SIZE_REFUSED)).collect();
    assert!(sized.len() > 15, "only {} functions found", sized.len());
    let silent: Vec<_> = sized.iter().filter(|text| !text.contains("MISALIGNED")).collect();
    assert!(silent.is_empty(), "no MISALIGNED in {silent:?}");
}

/// How a list of statuses names the one of structs.
const SIZE_REFUSED: &str = "NULL_ARGUMENT, INVALID_STRUCT_SIZE";

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/xqkv.h");
    let generated = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/xqkv.h is stale; run `cargo xtask header`");
}
