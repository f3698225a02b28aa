//! The weight files of a checkpoint: model.safetensors, or those that an index names.

use super::json;
use super::safetensors_file::{SafetensorsFile, Tensor, read_small};
use crate::error::{Error, Status, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Open files and what is in them.
pub(super) struct Files {
    files: Vec<SafetensorsFile>,
    /// The file of each tensor that was wanted.
    index: BTreeMap<String, usize>,
    /// Every tensor of the checkpoint.
    names: Vec<String>,
}

impl Files {
    /// Opens the files that have a wanted tensor; others may be large, and are not touched.
    pub(super) fn open(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Self, Error> {
        match SafetensorsFile::open(&directory.join("model.safetensors")) {
            Ok(file) => Ok(Self::of_one(file)),
            Err(error) if error.status == Status::CheckpointNotFound => {
                Self::of_index(directory, is_wanted)
            }
            Err(error) => Err(error),
        }
    }

    /// A tensor by name.
    pub(super) fn tensor<'a>(&'a self, name: &'a str) -> Option<Tensor<'a>> {
        let file = self.index.get(name)?;
        self.files[*file].tensor(name)
    }

    /// Names of all tensors of the checkpoint, opened or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    fn of_one(file: SafetensorsFile) -> Self {
        let names = file.names();
        let index = names.iter().map(|name| (name.clone(), 0)).collect();
        Self { files: vec![file], index, names }
    }

    fn of_index(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let path = directory.join("model.safetensors.index.json");
        let listing: Value = json::parse(&read_small(&path)?, &path)?;
        let map = listing["weight_map"].as_object().ok_or_else(|| {
            let message = format!("{} has no object weight_map", path.display());
            Error::new(Status::CheckpointCorrupt, message)
        })?;
        let names = map.keys().cloned().collect();
        let mut opened = Self { files: Vec::new(), index: BTreeMap::new(), names };
        let mut numbers = BTreeMap::new();
        for (tensor, file) in map.iter().filter(|(tensor, _)| is_wanted(tensor)) {
            let file = plain_name(file, &path)?;
            if !numbers.contains_key(file) {
                numbers.insert(file, opened.files.len());
                opened.files.push(SafetensorsFile::open(&directory.join(file))?);
            }
            opened.index.insert(tensor.clone(), numbers[file]);
        }
        Ok(opened)
    }
}

/// A file name of the index, which may not lead out of the folder.
fn plain_name<'a>(file: &'a Value, index: &Path) -> Result<&'a str, Error> {
    let name = file.as_str().unwrap_or("");
    let mut components = Path::new(name).components();
    let is_plain = matches!(components.next(), Some(Component::Normal(plain)) if plain == name);
    ensure!(
        is_plain && components.next().is_none() && !name.contains('\0'),
        CheckpointCorrupt,
        "{} names the file {file}; only files beside it are read",
        index.display()
    );
    Ok(name)
}
