//! The layers hold: which module may import which. A new edge is a change of the design; it is
//! made here, in a commit of its own.

mod sources;

use sources::Source;
use std::collections::BTreeSet;

/// A module and what it may import, from the bottom up. Nothing imports capi.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("gate", &[]),
    ("dtype", &["error"]),
    ("library", &["error"]),
    ("thread", &["error"]),
    ("device", &["error"]),
    ("log", &["error"]),
    ("stats", &["error"]),
    ("view", &["dtype", "error"]),
    ("spec", &["dtype", "error"]),
    ("shard", &["spec", "error"]),
    ("backend", &["view", "device", "dtype", "library", "log", "stats", "thread", "error"]),
    ("comm", &["device", "library", "thread", "error"]),
    ("weights", &["spec", "shard", "backend", "dtype", "error"]),
    (
        "projection",
        &[
            "weights", "comm", "backend", "shard", "spec", "view", "stats", "log", "dtype", "gate",
            "error",
        ],
    ),
    (
        "capi",
        &[
            "projection",
            "weights",
            "comm",
            "backend",
            "shard",
            "spec",
            "view",
            "stats",
            "log",
            "dtype",
            "gate",
            "error",
        ],
    ),
];

/// The modules that a source names by `crate::`.
fn imported(source: &Source) -> BTreeSet<String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let after = source.code.split("crate::").skip(1);
    let word = |rest: &str| rest.chars().take_while(|&character| is_word(character)).collect();
    after.map(word).filter(|word: &String| !word.is_empty()).collect()
}

#[test]
fn no_module_imports_what_lies_above_it() {
    for source in sources::all().iter().filter(|source| source.module != "lib") {
        let row = MAY_IMPORT.iter().find(|(module, _)| *module == source.module);
        let (_, allowed) =
            row.unwrap_or_else(|| panic!("{} has no row in MAY_IMPORT", source.path));
        for module in imported(source) {
            assert!(
                module == source.module || allowed.contains(&module.as_str()),
                "{} imports {module}, but {} may import only {allowed:?}",
                source.path,
                source.module
            );
        }
    }
}

#[test]
fn the_table_names_the_modules_there_are_in_an_order_without_cycles() {
    let modules: BTreeSet<String> = sources::all()
        .into_iter()
        .map(|source| source.module)
        .filter(|module| module != "lib")
        .collect();
    let rows: BTreeSet<String> = MAY_IMPORT.iter().map(|(module, _)| module.to_string()).collect();
    assert_eq!(modules, rows);
    for (place, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        let below: Vec<&str> = MAY_IMPORT[..place].iter().map(|(module, _)| *module).collect();
        assert!(allowed.iter().all(|import| below.contains(import)), "{module} imports upward");
    }
}

#[test]
fn unsafe_code_is_only_where_memory_is_not_ours() {
    const MAY_BE_UNSAFE: [&str; 6] = ["library", "thread", "backend", "comm", "projection", "capi"];
    for source in sources::all().iter().filter(|source| !MAY_BE_UNSAFE.contains(&&*source.module)) {
        let words = source.code.split(|character: char| !character.is_ascii_alphanumeric());
        assert!(words.into_iter().all(|word| word != "unsafe"), "{} has unsafe code", source.path);
    }
}
