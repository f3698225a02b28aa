//! One safetensors file. The header is parsed by the safetensors crate, from its own bytes; the
//! file's length and doubled keys, which it cannot see then, are checked here. Tensors are read
//! with pread: a mapped file that shrinks would kill the process with SIGBUS.

use super::convert::with_room;
use super::json;
use crate::dtype::Dtype;
use crate::error::{Error, Status, ensure};
use crate::shard::Range;
use safetensors::tensor::{Metadata, TensorInfo};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The largest header that the format allows (safetensors' own MAX_HEADER_SIZE).
const LARGEST_HEADER: u64 = 100_000_000;
/// Bytes of the header's length.
const LENGTH: u64 = 8;

/// An open file whose header is sound.
pub(super) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_begin: u64,
}

/// One tensor of a file.
pub(super) struct Tensor<'a> {
    file: &'a SafetensorsFile,
    name: &'a str,
    info: &'a TensorInfo,
}

impl SafetensorsFile {
    /// Opens a file and checks its header.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let (file, length) = open_regular(path)?;
        let header = header_bytes(&file, length, path)?;
        let data_begin = LENGTH + header.len() as u64;
        let metadata: Metadata = json::parse(&header, path)?;
        let described = data_begin + metadata.data_len() as u64;
        ensure!(
            described == length,
            CheckpointCorrupt,
            "{} has {length} bytes, its header describes {described}; was it copied completely?",
            path.display()
        );
        Ok(Self { path: path.to_owned(), file, metadata, data_begin })
    }

    /// A tensor by name.
    pub(super) fn tensor<'a>(&'a self, name: &'a str) -> Option<Tensor<'a>> {
        let info = self.metadata.info(name)?;
        Some(Tensor { file: self, name, info })
    }

    /// Names of all its tensors, in their order in the file.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }
}

impl Tensor<'_> {
    /// What its elements are, if a projection can have them.
    pub(super) fn dtype(&self) -> Result<Dtype, Error> {
        match self.info.dtype {
            safetensors::Dtype::F32 => Ok(Dtype::F32),
            safetensors::Dtype::F16 => Ok(Dtype::F16),
            safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
            other => {
                let message = format!(
                    "tensor {} is {other:?}; this version takes F32, F16 and BF16",
                    self.name
                );
                Err(Error::new(Status::InvalidDtype, message))
            }
        }
    }

    /// Its extents.
    pub(super) fn shape(&self) -> Vec<i64> {
        self.info.shape.iter().map(|&extent| extent as i64).collect()
    }

    /// Refuses another shape than this.
    pub(super) fn ensure_shape(&self, shape: &[i64]) -> Result<(), Error> {
        let given = self.shape();
        ensure!(
            given == shape,
            InvalidShape,
            "tensor {} is {given:?}, the spec needs {shape:?}; was the spec read from this \
             checkpoint?",
            self.name
        );
        Ok(())
    }

    /// The bytes of some of its rows; the shape was checked to have them.
    pub(super) fn read_rows(&self, rows: Range) -> Result<Vec<u8>, Error> {
        let (begin, end) = self.info.data_offsets;
        let row_bytes = (end - begin) / self.info.shape[0].max(1);
        let bytes = rows.count as usize * row_bytes;
        let offset = self.file.data_begin + (begin + rows.begin as usize * row_bytes) as u64;
        read_at(&self.file.file, offset, bytes, &self.file.path)
    }
}

/// A whole small file.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, Error> {
    let (file, length) = open_regular(path)?;
    ensure!(
        length <= LARGEST_HEADER,
        CheckpointCorrupt,
        "{} has {length} bytes; more than {LARGEST_HEADER} is not what it should be",
        path.display()
    );
    read_at(&file, 0, length as usize, path)
}

/// Opens a regular file; a pipe or a device would block or never end.
fn open_regular(path: &Path) -> Result<(File, u64), Error> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    ensure!(
        metadata.is_file(),
        CheckpointUnreadable,
        "{} is not a regular file; name a folder with a checkpoint",
        path.display()
    );
    Ok((file, metadata.len()))
}

fn header_bytes(file: &File, length: u64, path: &Path) -> Result<Vec<u8>, Error> {
    ensure!(
        length >= LENGTH,
        CheckpointCorrupt,
        "{} has {length} bytes, too few for a safetensors file",
        path.display()
    );
    let mut prefix = [0; LENGTH as usize];
    file.read_exact_at(&mut prefix, 0).map_err(|error| unreadable(path, &error))?;
    let header = u64::from_le_bytes(prefix);
    ensure!(
        header <= LARGEST_HEADER && header <= length - LENGTH,
        CheckpointCorrupt,
        "{} says that its header has {header} bytes, but the file has {length}; is it a \
         safetensors file?",
        path.display()
    );
    read_at(file, LENGTH, header as usize, path)
}

fn read_at(file: &File, offset: u64, bytes: usize, path: &Path) -> Result<Vec<u8>, Error> {
    let mut read = with_room(bytes)?;
    read.resize(bytes, 0);
    file.read_exact_at(&mut read, offset).map_err(|error| unreadable(path, &error))?;
    Ok(read)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let status = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Status::CheckpointNotFound,
        io::ErrorKind::UnexpectedEof => Status::CheckpointCorrupt,
        _ => Status::CheckpointUnreadable,
    };
    Error::new(status, format!("{} cannot be read: {error}", path.display()))
}
