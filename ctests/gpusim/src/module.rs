//! Modules: PTX text whose entry points are looked up among the simulator's own kernels.

use crate::handle::Noun;
use crate::kernels;
use crate::machine::Machine;
use crate::status::{INVALID_IMAGE, INVALID_PTX, NOT_FOUND, Status, UNSUPPORTED_PTX};

/// The newest PTX that the simulated driver of CUDA 13.0 knows.
const NEWEST_PTX: (u32, u32) = (9, 0);

pub struct Module {
    pub context: u64,
    entries: Vec<Entry>,
}

/// A kernel as the text has it, by name and the bytes of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub parameter_bytes: Vec<usize>,
}

impl Machine {
    pub fn load_module(&mut self, image: &str) -> Status<u64> {
        let context = self.current()?;
        let newest = version(image).ok_or(INVALID_IMAGE)?;
        if newest > NEWEST_PTX {
            return Err(UNSUPPORTED_PTX);
        }
        let entries = entries(image);
        if !entries.iter().all(|entry| kernels::find(&entry.name).is_some()) {
            return Err(INVALID_PTX);
        }
        let handle = self.new_handle(Noun::Module);
        self.modules.insert(handle, Module { context, entries });
        Ok(handle)
    }

    pub fn function(&mut self, module: u64, name: &str) -> Status<u64> {
        let found = self.modules.get(&module);
        let found = found.ok_or_else(|| crate::launch::stale(Noun::Module, "module", module))?;
        let entry = found.entries.iter().find(|entry| entry.name == name).ok_or(NOT_FOUND)?;
        let function = (module, entry.clone());
        let handle = self.new_handle(Noun::Function);
        self.functions.insert(handle, function);
        Ok(handle)
    }
}

/// The `.version` of PTX text.
fn version(image: &str) -> Option<(u32, u32)> {
    let line = image.lines().find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What stands behind each `.entry`.
fn entries(image: &str) -> Vec<Entry> {
    image.split(".entry").skip(1).filter_map(entry).collect()
}

fn entry(text: &str) -> Option<Entry> {
    let name = text.trim_start().split(|c: char| !is_name(c)).next()?.to_owned();
    let list = text.split_once('(')?.1.split_once(')')?.0;
    let parameter_bytes = list.split(',').filter_map(parameter_bytes).collect();
    Some(Entry { name, parameter_bytes })
}

/// The bytes of `.param .u64 name` or `.param .align 8 .b8 name[16]`.
fn parameter_bytes(text: &str) -> Option<usize> {
    let is_type = |word: &&str| word.starts_with(['u', 's', 'f', 'b']);
    let kind = text.split_whitespace().filter_map(|word| word.strip_prefix('.')).find(is_type)?;
    let bits: usize = kind[1..].parse().ok()?;
    let count = text.split_once('[').and_then(|(_, rest)| rest.split(']').next());
    Some(bits / 8 * count.map_or(Some(1), |count| count.parse().ok())?)
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '$'
}
