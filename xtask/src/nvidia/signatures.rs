//! Signatures of NVIDIA's functions as Rust sources have them, in definitions (`fn cuInit(flags:
//! c_uint)`) and in tables of functions to be loaded (`c"cuInit" (c_uint)`).

use super::names::words;
use std::collections::BTreeMap;

/// One function, and its arguments' types if they are given there.
pub struct Signature {
    pub name: String,
    arguments: Option<Vec<String>>,
}

/// All that one source has.
pub fn of(text: &str) -> Vec<Signature> {
    let functions = words(text).filter(|(_, word)| is_function(word));
    functions
        .filter_map(|(at, word)| signature(&text[..at], word, &text[at + word.len()..]))
        .collect()
}

fn is_function(word: &str) -> bool {
    let tail = word.strip_prefix("cublasLt").or_else(|| word.strip_prefix("cu"));
    tail.and_then(|tail| tail.chars().next()).is_some_and(|letter| letter.is_ascii_uppercase())
}

fn signature(before: &str, name: &str, after: &str) -> Option<Signature> {
    let is_definition = before.ends_with("extern \"C\" fn ");
    let is_loaded = before.ends_with("c\"") && after.starts_with('"');
    let rest = if is_loaded { after[1..].trim_start() } else { after };
    let list = rest.strip_prefix('(').map(list);
    let types = list.map(|list| list.into_iter().map(|one| kind(one, is_definition)).collect());
    let is_taken = is_definition || is_loaded;
    is_taken.then(|| Signature { name: name.to_owned(), arguments: types })
}

/// The parts of a list up to the bracket that closes it.
fn list(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        let ends_list = depth == 0 && letter == ')';
        if ends_list || (depth == 0 && letter == ',') {
            parts.push(text[begin..at].trim());
            begin = at + 1;
        }
        match letter {
            _ if ends_list => break,
            '(' | '[' | '<' => depth += 1,
            ')' | ']' => depth -= 1,
            '>' if !text[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn kind(argument: &str, is_definition: bool) -> String {
    let kind = if is_definition { argument.split_once(": ").map(|(_, kind)| kind) } else { None };
    kind.unwrap_or(argument).to_owned()
}

impl Signature {
    /// A C++ assertion that the header's function is like this one.
    pub fn assertion(&self, aliases: &BTreeMap<String, String>) -> Result<String, String> {
        let Self { name, arguments } = self;
        let Some(arguments) = arguments else {
            return Ok(format!("static_assert(sizeof(&{name}) == 8);"));
        };
        let mut sizes = Vec::new();
        for argument in arguments {
            let argument = resolve(argument, aliases);
            let size = size(argument).ok_or(format!("{name}: the size of {argument}?"))?;
            sizes.push(format!("{{{size}, {}}}", target(argument, aliases)));
        }
        let listed = arguments.join(", ").replace('"', "'");
        let taken = format!("takes(&{name}, {{{}}})", sizes.join(", "));
        Ok(format!("static_assert({taken}, \"{name} does not take ({listed})\");"))
    }
}

fn resolve<'a>(name: &'a str, aliases: &'a BTreeMap<String, String>) -> &'a str {
    aliases.get(name).map_or(name, String::as_str)
}

/// The bytes of a type that C has too.
fn size(name: &str) -> Option<usize> {
    let is_pointer = ["*", "&", "Option<"].iter().any(|start| name.starts_with(start));
    match name {
        "c_char" | "u8" | "i8" => Some(1),
        "c_int" | "c_uint" | "i32" | "u32" | "f32" => Some(4),
        "usize" | "u64" | "i64" | "f64" => Some(8),
        _ => is_pointer.then_some(8),
    }
}

/// The bytes of what a pointer points to, or 0 if that is not plain.
fn target(name: &str, aliases: &BTreeMap<String, String>) -> usize {
    let pointed = name.strip_prefix("*mut ").or_else(|| name.strip_prefix("*const "));
    pointed.and_then(|name| size(resolve(name, aliases))).unwrap_or(0)
}

/// The types to which a source gives other names.
pub fn aliases(text: &str) -> impl Iterator<Item = (String, String)> {
    let lines = text.lines().filter(|line| line.starts_with("type ") || line.starts_with("pub"));
    let pairs = lines.filter_map(|line| {
        let alias = line.split_once("type ")?.1.strip_suffix(';')?;
        alias.split_once(" = ")
    });
    pairs.map(|(name, kind)| (name.to_owned(), kind.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assertions(text: &str) -> Vec<String> {
        let aliases = aliases(text).collect();
        of(text).iter().map(|one| one.assertion(&aliases).unwrap()).collect()
    }

    #[test]
    fn definitions_and_tables_give_the_same_sizes() {
        let defined = "extern \"C\" fn cuMemAlloc_v2(\n    target: *mut u64,\n    bytes: usize,\n)";
        let loaded = "allocate = c\"cuMemAlloc_v2\"\n    (*mut u64, usize);";
        assert_eq!(assertions(defined), assertions(loaded));
        assert!(assertions(loaded)[0].contains("takes(&cuMemAlloc_v2, {{8, 8}, {8, 0}})"));
    }

    #[test]
    fn a_second_name_of_a_type_has_its_size() {
        let text = "pub(super) type Handle = *mut c_void;\nc\"cuEventDestroy_v2\" (Handle)";
        assert!(assertions(text)[0].contains("{{8, 0}}"));
    }

    #[test]
    fn a_function_among_arguments_is_one_argument() {
        let text =
            "extern \"C\" fn cuLaunchHostFunc(f: Option<unsafe extern \"C\" fn(*mut u8) -> u8>)";
        assert!(assertions(text)[0].contains("{{8, 0}}"));
    }

    #[test]
    fn a_type_of_unknown_size_is_an_error() {
        let signature = of("c\"cuInit\" (Flags)").remove(0);
        assert!(signature.assertion(&BTreeMap::new()).is_err());
    }

    #[test]
    fn what_is_loaded_without_arguments_must_still_exist() {
        assert_eq!(assertions("symbol(c\"cuInit\")?"), ["static_assert(sizeof(&cuInit) == 8);"]);
        assert!(assertions("check(\"cuInit\", status)").is_empty());
    }
}
