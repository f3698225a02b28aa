//! Modules: PTX text whose entry points are looked up among the simulator's own kernels.

use crate::handle::Noun;
use crate::kernels;
use crate::machine::Machine;
use crate::status::{INVALID_IMAGE, INVALID_PTX, NOT_FOUND, Status, UNSUPPORTED_PTX};

/// The newest PTX that the simulated driver of CUDA 13.0 knows.
const NEWEST_PTX: (u32, u32) = (9, 0);

pub struct Module {
    pub context: u64,
    entries: Vec<String>,
}

impl Machine {
    pub fn load_module(&mut self, image: &str) -> Status<u64> {
        let context = self.current()?;
        let newest = version(image).ok_or(INVALID_IMAGE)?;
        if newest > NEWEST_PTX {
            return Err(UNSUPPORTED_PTX);
        }
        let entries = entries(image);
        if !entries.iter().all(|entry| kernels::find(entry).is_some()) {
            return Err(INVALID_PTX);
        }
        let handle = self.new_handle(Noun::Module);
        self.modules.insert(handle, Module { context, entries });
        Ok(handle)
    }

    pub fn function(&mut self, module: u64, name: &str) -> Status<u64> {
        let found = self.modules.get(&module);
        let found = found.ok_or_else(|| crate::launch::stale(Noun::Module, "module", module))?;
        if !found.entries.iter().any(|entry| entry == name) {
            return Err(NOT_FOUND);
        }
        let handle = self.new_handle(Noun::Function);
        self.functions.insert(handle, (module, name.to_owned()));
        Ok(handle)
    }
}

/// The `.version` of PTX text.
fn version(image: &str) -> Option<(u32, u32)> {
    let line = image.lines().find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The names behind `.entry`.
fn entries(image: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().split(|c: char| !is_name(c)).next().map(str::to_owned);
    image.split(".entry").skip(1).filter_map(name).collect()
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '$'
}
