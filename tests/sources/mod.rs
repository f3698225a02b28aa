//! The library's own sources, for the tests that read them.

use std::path::{Path, PathBuf};

/// One file of src.
pub struct Source {
    /// Its path from the root of the project.
    pub path: String,
    /// The module directly under the crate that it belongs to.
    pub module: String,
    /// Its text.
    #[allow(dead_code, reason = "each test reads what it needs")]
    pub text: String,
    /// Its text without comments.
    #[allow(dead_code, reason = "each test reads what it needs")]
    pub code: String,
}

/// Every Rust file of the library; the command in src/bin is a user of it.
pub fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    assert!(paths.len() > 30, "only {} sources found", paths.len());
    paths.iter().map(|path| source(path.strip_prefix(root).unwrap(), path)).collect()
}

fn source(relative: &Path, path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let first = relative.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>();
    Source {
        path: relative.display().to_string(),
        module: first.trim_end_matches(".rs").to_owned(),
        code: code.join("\n"),
        text,
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("src/bin") => {}
            true => collect(&path, paths),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                paths.push(path)
            }
            false => {}
        }
    }
}
