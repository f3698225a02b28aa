//! Names of NVIDIA's headers in Rust sources. A constant that is named as in the headers is found
//! with its number, so that each source is its own table and none is written a second time.

use super::signatures::{self, Signature};
use crate::run::Run;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

/// What sources take from the headers.
#[derive(Default)]
pub struct Names {
    /// Every number that a constant is given somewhere.
    numbers: BTreeMap<String, BTreeSet<i64>>,
    functions: Vec<Signature>,
    /// Types that have a second name.
    aliases: BTreeMap<String, String>,
}

impl Names {
    /// Those in a folder's sources. A constant without a number there is cudarc's.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let (mut names, mut used) = (Self::default(), BTreeSet::new());
        for source in sources(folder)? {
            let text = fs::read_to_string(source).map_err(|error| error.to_string())?;
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code: Vec<_> = code.collect();
            code.iter().for_each(|line| names.read(line, &mut used));
            names.functions.extend(signatures::of(&code.join("\n")));
            names.aliases.extend(signatures::aliases(&text));
        }
        used.retain(|name| !names.numbers.contains_key(name));
        if !used.is_empty() {
            names.look_up(&used)?;
        }
        Ok(names)
    }

    /// Notes the constants that one line has.
    fn read(&mut self, line: &str, used: &mut BTreeSet<String>) {
        for (at, word) in words(line).filter(|(_, word)| is_constant(word)) {
            let number = number_after(&line[at + word.len()..]);
            match number.or_else(|| number_before(&line[..at])) {
                Some(number) => self.note(word, number),
                None => _ = used.insert(word.to_owned()),
            }
        }
    }

    fn note(&mut self, name: &str, number: i64) {
        self.numbers.entry(name.to_owned()).or_default().insert(number);
    }

    /// Takes the numbers that cudarc has for these names, in any of its versions of CUDA.
    fn look_up(&mut self, used: &BTreeSet<String>) -> Result<(), String> {
        let Some(folder) = cudarc()? else { return Ok(()) };
        for library in ["driver", "cublaslt"] {
            let source = folder.join(format!("src/{library}/sys/mod.rs"));
            let text = fs::read_to_string(source).map_err(|error| error.to_string())?;
            for line in text.lines() {
                let words = words(line).filter(|(_, word)| used.contains(*word));
                for (at, word) in words {
                    if let Some(number) = number_after(&line[at + word.len()..]) {
                        self.note(word, number);
                    }
                }
            }
        }
        Ok(())
    }

    /// A C++ source that compiles if the headers agree.
    pub fn assertions(&self) -> Result<String, String> {
        let mut text = "#define __CUDA_API_VERSION_INTERNAL\n".to_owned();
        text += "#include \"tests/nvidia/signature.hpp\"\n";
        for (name, numbers) in &self.numbers {
            for number in numbers {
                let equal = format!("(long long)({name}) == {number}LL");
                _ = writeln!(text, "static_assert({equal}, \"{name} is not {number}\");");
            }
        }
        for function in &self.functions {
            _ = writeln!(text, "{}", function.assertion(&self.aliases)?);
        }
        Ok(text)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let functions: BTreeSet<_> = self.functions.iter().map(|function| &function.name).collect();
        let (numbers, functions) = (self.numbers.len(), functions.len());
        write!(formatter, "{numbers} constants and {functions} functions of NVIDIA's headers")
    }
}

/// The words of a text, with where they begin.
pub fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let pieces = line.split(move |letter| !is_word(letter)).filter(|piece| !piece.is_empty());
    pieces.map(move |piece| (piece.as_ptr() as usize - line.as_ptr() as usize, piece))
}

fn is_constant(word: &str) -> bool {
    let begins =
        ["CU_", "CUDA_", "CUBLAS_", "CUBLASLT_"].iter().any(|start| word.starts_with(start));
    begins && !word.chars().any(|letter| letter.is_ascii_lowercase() && letter != 'x')
}

/// The number in `: c_int = 4;` or ` = 4,`.
fn number_after(text: &str) -> Option<i64> {
    let (declared, value) = text.split_once('=')?;
    let is_declaration = declared.trim().is_empty() || declared.starts_with(':');
    let is_plain = !value.starts_with(['=', '>']) && !declared.contains([';', ',', '(', '"']);
    if is_declaration && is_plain { number(value.trim()) } else { None }
}

/// The number in `= 4, c"`, where a table gives a number a name in quotes.
fn number_before(text: &str) -> Option<i64> {
    let value = text.strip_suffix("c\"").or_else(|| text.strip_suffix('"'))?;
    let (_, value) = value.trim_end().strip_suffix(',')?.rsplit_once('=')?;
    number(value.trim())
}

fn number(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let digits = text[..end.unwrap_or(text.len())].replace('_', "");
    let digits = ["i32", "u32", "i64", "u64", "usize", "c_int"]
        .iter()
        .find_map(|kind| digits.strip_suffix(kind))
        .unwrap_or(&digits);
    let parsed = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    parsed.ok().map(|number| sign * number)
}

/// All Rust sources below a folder.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where cargo keeps cudarc's sources, if the project has it.
fn cudarc() -> Result<Option<PathBuf>, String> {
    let text = Run::cargo(&["metadata", "--format-version", "1", "--locked"]).output()?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let found = packages.rfind(|package| package["name"] == "cudarc");
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    Ok(manifest.and_then(|path| Path::new(path).parent()).map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Vec<(String, i64)>, Vec<String>) {
        let (mut names, mut used) = (Names::default(), BTreeSet::new());
        names.read(line, &mut used);
        let numbers = names.numbers.into_iter();
        let pairs =
            numbers.flat_map(|(name, all)| all.into_iter().map(move |one| (name.clone(), one)));
        (pairs.collect(), used.into_iter().collect())
    }

    #[test]
    fn declarations_give_their_number() {
        for (line, number) in [
            ("pub const CU_NAME: c_int = 4;", 4),
            ("    CU_NAME = 0x1_0,", 16),
            ("const CU_NAME: i32 = -1i32;", -1),
            ("    ANY = 700, c\"CU_NAME\",", 700),
        ] {
            assert_eq!(read(line), (vec![("CU_NAME".to_owned(), number)], vec![]), "{line}");
        }
    }

    #[test]
    fn uses_give_none() {
        for line in [
            "if status == sys::CU_NAME as c_int {",
            "CU_NAME => 4,",
            "let flags = CU_NAME; let other: i32 = 4;",
            "if CU_NAME == 4 {",
        ] {
            assert_eq!(read(line), (vec![], vec!["CU_NAME".to_owned()]), "{line}");
        }
    }

    #[test]
    fn words_of_ours_are_passed_over() {
        assert_eq!(read("const XQKV_CUDA_LIBRARY: i32 = 4; CUSTOM = 5"), (vec![], vec![]));
    }
}
