//! Tensors of safetensors files as f32, read apart from the library's own reader, so that one
//! checks the other.

use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xqkv::dtype::{Element, bf16, f16};

/// What a call gave, or why it did not.
pub type Outcome<T> = Result<T, String>;

/// One tensor.
pub struct Tensor {
    /// Its first extent; 1 for a scalar.
    pub rows: usize,
    /// Its elements, row-major.
    pub elements: Vec<f32>,
}

/// One file.
pub struct Archive {
    file: File,
    metadata: Metadata,
    data_begin: u64,
}

impl Archive {
    pub fn open(path: &Path) -> Outcome<Self> {
        let at = |error: String| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| at(error.to_string()))?;
        let header = read(&file, 0, 8).map_err(at)?;
        let length = u64::from_le_bytes(header.try_into().unwrap_or_default());
        let header = read(&file, 8, usize::try_from(length).unwrap_or(usize::MAX)).map_err(at)?;
        let metadata = serde_json::from_slice(&header).map_err(|error| at(error.to_string()))?;
        Ok(Self { file, metadata, data_begin: 8 + length })
    }

    pub fn tensor(&self, name: &str) -> Outcome<Tensor> {
        let info = self.metadata.info(name).ok_or_else(|| format!("there is no tensor {name}"))?;
        let (begin, end) = info.data_offsets;
        let bytes = read(&self.file, self.data_begin + begin as u64, end - begin)?;
        let elements = match info.dtype {
            Dtype::F32 => widened::<f32>(&bytes),
            Dtype::F16 => widened::<f16>(&bytes),
            Dtype::BF16 => widened::<bf16>(&bytes),
            other => return Err(format!("tensor {name} is {other:?}")),
        };
        Ok(Tensor { rows: info.shape.first().copied().unwrap_or(1), elements })
    }
}

fn read(file: &File, offset: u64, length: usize) -> Outcome<Vec<u8>> {
    let end = file.metadata().map_err(|error| error.to_string())?.len();
    if offset.checked_add(length as u64).is_none_or(|last| last > end) {
        return Err(format!("{length} bytes at {offset} are beyond the file's {end}"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn widened<E: Element>(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(size_of::<E>()).map(|element| E::from_bytes(element).widen()).collect()
}

/// A tensor of a checkpoint, in its one file or the one that the index names.
pub fn of_checkpoint(directory: &Path, name: &str) -> Outcome<Tensor> {
    let single = directory.join("model.safetensors");
    if single.exists() {
        return Archive::open(&single)?.tensor(name);
    }
    let path = directory.join("model.safetensors.index.json");
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let index: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let file = index["weight_map"][name].as_str();
    let file = file.ok_or_else(|| format!("the index has no tensor {name}"))?;
    Archive::open(&directory.join(file))?.tensor(name)
}
