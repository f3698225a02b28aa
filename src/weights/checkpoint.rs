//! A Hugging Face folder: which family it is, where each tensor lies, and this rank's bytes of it.

use super::family::Family;
use super::safetensors_file::{SafetensorsFile, Tensor, read_small};
use super::{Change, Kind, Place, Update, convert, json};
use crate::error::{Error, Status, ensure};
use crate::spec::{Part, Parts, Spec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A checkpoint whose configuration and file headers were read.
pub struct Checkpoint {
    directory: PathBuf,
    config: Value,
    family: &'static Family,
    prefix: &'static str,
    files: Vec<SafetensorsFile>,
    /// With an index, the file of each tensor that a projection may want.
    index: Option<BTreeMap<String, usize>>,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.directory.display(), self.family.model_type)
    }
}

impl Checkpoint {
    /// Opens a folder: its configuration, and the files that hold cross-attention tensors.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let config_path = directory.join("config.json");
        let config: Value = json::parse(&read_small(&config_path)?, &config_path)?;
        let family = Family::find(config["model_type"].as_str().unwrap_or(""))?;
        let mut opened = Self {
            directory: directory.to_owned(),
            config,
            family,
            prefix: family.prefixes[0],
            files: Vec::new(),
            index: None,
        };
        opened.open_files()?;
        opened.prefix = opened.find_prefix();
        Ok(opened)
    }

    /// The spec that the configuration and the tensors' dtype make.
    pub fn spec(&self) -> Result<Spec, Error> {
        let family = self.family;
        let query_heads = self.config_integer(family.query_heads)?;
        let decoder_width = self.config_integer(family.decoder_width)?;
        ensure!(
            query_heads > 0 && decoder_width % query_heads == 0,
            CheckpointCorrupt,
            "{self}: {} {decoder_width} is not a multiple of {} {query_heads}",
            family.decoder_width,
            family.query_heads
        );
        let head_width = decoder_width / query_heads;
        let spec = Spec {
            layer_count: self.config_integer(family.layers)?,
            decoder_width,
            encoder_width: self.config_integer(family.encoder_width)?,
            query_heads,
            key_value_heads: self.config_integer(family.key_value_heads)?,
            head_width,
            value_head_width: head_width,
            weight_dtype: self.tensor(&self.name((0, Part::Query, Kind::Weight)))?.dtype()?,
            bias: family.bias,
            scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
        };
        spec.check()?;
        Ok(spec)
    }

    /// Puts this rank's tensors of all its layers into the update, all or none, and gives the
    /// bytes that were read for it.
    pub fn load(&self, update: &mut Update, convert: bool) -> Result<u64, Error> {
        self.ensure_layers(update.spec())?;
        let mut changes = Vec::new();
        let mut bytes = 0;
        let layers = update.shard().layers;
        for layer in layers.begin..layers.end() {
            for part in Part::ALL {
                self.ensure_bias(update.spec(), layer, part)?;
                for kind in [Kind::Weight, Kind::Bias] {
                    let place = (layer, part, kind);
                    if let Some((change, read)) = self.read(update, place, convert)? {
                        changes.push((place, change));
                        bytes += read;
                    }
                }
            }
        }
        update.stage(changes)?;
        Ok(bytes)
    }

    /// This rank's rows of one tensor, and how many bytes they were; None if it needs none.
    fn read(
        &self,
        update: &Update,
        place: Place,
        convert: bool,
    ) -> Result<Option<(Change, u64)>, Error> {
        let (spec, (_, part, kind)) = (update.spec(), place);
        let rows = update.shard().outputs(spec, part);
        if rows.count == 0 || kind == Kind::Bias && !spec.bias[part] {
            return Ok(None);
        }
        let name = self.name(place);
        let tensor = self.tensor(&name)?;
        let shape = [spec.outputs(part), spec.inputs(part)];
        tensor.ensure_shape(if kind == Kind::Weight { &shape } else { &shape[..1] })?;
        let dtype = tensor.dtype()?;
        ensure!(
            kind == Kind::Bias || convert || dtype == spec.weight_dtype,
            InvalidDtype,
            "tensor {name} is {}, this spec keeps {}; set the checkpoint's convert to 1 to round",
            dtype.name(),
            spec.weight_dtype.name()
        );
        let bytes = tensor.read_rows(rows)?;
        let read = bytes.len() as u64;
        let rows = || [&bytes[..]].into_iter();
        let change = match kind {
            Kind::Bias => Change::Bias(convert::widened(rows(), dtype)?),
            Kind::Weight if dtype != spec.weight_dtype => {
                Change::Weight(convert::packed(rows(), dtype, spec.weight_dtype)?)
            }
            Kind::Weight => Change::Weight(bytes),
        };
        Ok(Some((change, read)))
    }

    fn ensure_layers(&self, spec: &Spec) -> Result<(), Error> {
        let layers = self.config_integer(self.family.layers)?;
        ensure!(
            layers == spec.layer_count,
            CheckpointMismatch,
            "{self} has {layers} layers with cross-attention, the spec has {}; leave layers out by \
             the projection's layer_begin and layer_count",
            spec.layer_count
        );
        Ok(())
    }

    /// A bias that nobody asked for would be left out of every result in silence.
    fn ensure_bias(&self, spec: &Spec, layer: i64, part: Part) -> Result<(), Error> {
        let name = self.name((layer, part, Kind::Bias));
        ensure!(
            spec.bias[part] || !self.has(&name),
            CheckpointMismatch,
            "{self} has {name}, but the spec says there is no {} bias; set {}_bias to 1",
            part.name(),
            part.name()
        );
        Ok(())
    }

    fn config_integer(&self, key: &str) -> Result<i64, Error> {
        self.config[key].as_i64().ok_or_else(|| {
            let message = format!("{self}: config.json has no integer {key}");
            Error::new(Status::CheckpointCorrupt, message)
        })
    }

    fn name(&self, (layer, part, kind): Place) -> String {
        self.family.tensor_name(self.prefix, layer, part, kind)
    }

    /// The prefix that the first query weight has here.
    fn find_prefix(&self) -> &'static str {
        let first = |prefix: &&str| {
            self.has(&self.family.tensor_name(prefix, 0, Part::Query, Kind::Weight))
        };
        self.family.prefixes.iter().copied().find(first).unwrap_or(self.family.prefixes[0])
    }

    fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        match &self.index {
            Some(index) => index.get(name).map(|&file| &self.files[file]),
            None => self.files.first(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.file_of(name).is_some_and(|file| file.has(name))
    }

    fn tensor<'a>(&'a self, name: &'a str) -> Result<Tensor<'a>, Error> {
        self.file_of(name).and_then(|file| file.tensor(name)).ok_or_else(|| {
            let message = format!("{self} has no tensor {name}; is it complete?");
            Error::new(Status::CheckpointMissingTensor, message)
        })
    }

    fn open_files(&mut self) -> Result<(), Error> {
        match SafetensorsFile::open(&self.directory.join("model.safetensors")) {
            Ok(file) => self.files.push(file),
            Err(error) if error.status == Status::CheckpointNotFound => self.open_indexed()?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens the files that the index names for cross-attention tensors; others may be large, and
    /// are not touched.
    fn open_indexed(&mut self) -> Result<(), Error> {
        let path = self.directory.join("model.safetensors.index.json");
        let index: Value = json::parse(&read_small(&path)?, &path)?;
        let map = index["weight_map"].as_object().ok_or_else(|| {
            let message = format!("{} has no object weight_map", path.display());
            Error::new(Status::CheckpointCorrupt, message)
        })?;
        let mut numbers = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (tensor, file) in map.iter().filter(|(tensor, _)| is_wanted(self.family, tensor)) {
            let file = plain_name(file, &path)?;
            if !numbers.contains_key(file) {
                numbers.insert(file, self.files.len());
                self.files.push(SafetensorsFile::open(&self.directory.join(file))?);
            }
            wanted.insert(tensor.clone(), numbers[file]);
        }
        self.index = Some(wanted);
        Ok(())
    }
}

/// Whether a tensor's name is that of a cross-attention weight or bias of any layer.
fn is_wanted(family: &Family, tensor: &str) -> bool {
    let mut numbers = tensor.split('.').filter_map(|word| word.parse().ok());
    let Some(layer) = numbers.next() else {
        return false;
    };
    let is = |prefix: &str, part, kind| family.tensor_name(prefix, layer, part, kind) == tensor;
    let of_part = |prefix, part| is(prefix, part, Kind::Weight) || is(prefix, part, Kind::Bias);
    family.prefixes.iter().any(|prefix| Part::ALL.iter().any(|&part| of_part(prefix, part)))
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
