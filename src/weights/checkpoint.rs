//! A Hugging Face folder: which family it is, where each tensor lies, and this rank's bytes of it.

use super::family::{self, Family};
use super::files::Files;
use super::names::{LayerNumbers, Names};
use super::safetensors_file::{Tensor, read_small};
use super::{Change, Kind, Place, Update, convert, json};
use crate::error::{Error, Status, ensure};
use crate::shard::Range;
use crate::spec::{Part, Parts, Spec};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// Where a checkpoint is, and what its tensors are called if it is of no known family.
pub struct Location {
    /// The folder.
    pub directory: PathBuf,
    /// The caller's own names.
    pub pattern: Option<Pattern>,
}

/// Names of tensors in the caller's words.
pub struct Pattern {
    /// With places for {layer}, {part} and {kind}.
    pub tensor: String,
    /// What stands for {part}.
    pub parts: Parts<String>,
}

/// A checkpoint whose configuration and file headers were read.
pub struct Checkpoint {
    directory: PathBuf,
    /// The family and the part of the configuration that it goes by; None with a pattern.
    family: Option<(&'static Family, Value)>,
    names: Names,
    layers: LayerNumbers,
    files: Files,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.directory.display())
    }
}

impl Checkpoint {
    /// Opens a folder: its configuration, and the files that hold cross-attention tensors.
    pub fn open(location: Location) -> Result<Self, Error> {
        let Location { directory, pattern } = location;
        match pattern {
            Some(pattern) => Self::open_by_pattern(directory, pattern),
            None => Self::open_by_family(directory),
        }
    }

    fn open_by_family(directory: PathBuf) -> Result<Self, Error> {
        let path = directory.join("config.json");
        let config: Value = json::parse(&read_small(&path)?, &path)?;
        let family = Family::find(&config)?;
        let section = family.section(&config).clone();
        let layers = family.layer_numbers(&section)?;
        let candidates = family.prefixes.iter().map(|prefix| family.names(prefix)).collect();
        Self::open_named(directory, Some((family, section)), layers, candidates)
    }

    fn open_by_pattern(directory: PathBuf, pattern: Pattern) -> Result<Self, Error> {
        let Pattern { tensor, parts } = pattern;
        for place in ["{layer}", "{part}", "{kind}"] {
            ensure!(
                tensor.contains(place),
                InvalidArgument,
                "tensor_pattern is {tensor:?} without {place}; give a pattern such as \
                 decoder.{{layer}}.attention.{{part}}.{{kind}}"
            );
        }
        let names = Names { prefix: String::new(), tensor, parts, norms: None };
        Self::open_named(directory, None, LayerNumbers::Unknown, vec![names])
    }

    /// Opens the files and settles on the first of the candidates whose tensors are there.
    fn open_named(
        directory: PathBuf,
        family: Option<(&'static Family, Value)>,
        layers: LayerNumbers,
        candidates: Vec<Names>,
    ) -> Result<Self, Error> {
        let is_wanted = |tensor: &str| candidates.iter().any(|names| names.could_be(tensor));
        let files = Files::open(&directory, is_wanted)?;
        let first = layers.at(0);
        let has_first = |names: &&Names| {
            let name = |part| names.of(first, part, Kind::Weight);
            let has = |&part: &Part| name(part).is_some_and(|name| files.tensor(&name).is_some());
            Part::ALL.iter().any(has)
        };
        let names = candidates.iter().find(has_first).unwrap_or(&candidates[0]).clone();
        Ok(Self { directory, family, names, layers, files })
    }

    /// The spec that the configuration and the tensors' dtype make.
    pub fn spec(&self) -> Result<Spec, Error> {
        let Some((family, section)) = &self.family else {
            let message = "a checkpoint with a tensor_pattern has no known configuration; fill in \
                           the spec yourself";
            return Err(Error::new(Status::NotSupported, message));
        };
        let required =
            |keys: &[&str]| family::integer(section, keys)?.ok_or_else(|| family::absent(keys[0]));
        let (decoder_width, query_heads) =
            (required(family.decoder_width)?, required(family.query_heads)?);
        let head_width = match family::integer(section, family.head_width)? {
            Some(head_width) => head_width,
            None => divided(decoder_width, query_heads)?,
        };
        let key_value_heads = family::integer(section, family.key_value_heads)?;
        let first = self.name((0, Part::Query, Kind::Weight)).unwrap_or_default();
        let spec = Spec {
            layer_count: self.layers.count().unwrap_or_default(),
            decoder_width,
            encoder_width: required(family.encoder_width)?,
            query_heads,
            key_value_heads: key_value_heads.unwrap_or(query_heads),
            head_width,
            value_head_width: head_width,
            weight_dtype: self.tensor(&first)?.dtype()?.into(),
            bias: family.bias,
            scale: Parts { query: 1.0, key: 1.0, value: 1.0 },
            norm: family.norm_of(section)?,
        };
        spec.check()?;
        Ok(spec)
    }

    /// Puts this rank's tensors of all its layers into the update, all or none, and gives the
    /// bytes that were read for it.
    pub fn load(&self, update: &mut Update, convert: bool) -> Result<u64, Error> {
        self.ensure_layers(update.spec())?;
        self.ensure_norm(update.spec())?;
        let mut changes = Vec::new();
        let mut bytes = 0;
        let layers = update.shard().layers;
        for layer in layers.begin..layers.end() {
            for part in Part::ALL {
                self.ensure_bias(update.spec(), layer, part)?;
                for kind in Kind::ALL {
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
        let owned = update.shard().outputs(spec, part);
        if owned.count == 0 || !kind.is_in(spec, part) {
            return Ok(None);
        }
        let Some(name) = self.name(place) else {
            return Ok(None);
        };
        let tensor = self.tensor(&name)?;
        let shape = kind.shape(spec, part);
        tensor.ensure_shape(&shape)?;
        let dtype = tensor.dtype()?;
        ensure!(
            kind != Kind::Weight || convert || spec.weight_dtype == dtype.into(),
            InvalidDtype,
            "tensor {name} is {}, this spec keeps {}; set the checkpoint's convert to 1 to round",
            dtype.name(),
            spec.weight_dtype.name()
        );
        let rows = match kind {
            Kind::Weight | Kind::Bias => owned,
            Kind::Norm => Range { begin: 0, count: shape[0] },
        };
        let bytes = tensor.read_rows(rows)?;
        let read = bytes.len() as u64;
        let change =
            match kind {
                Kind::Bias | Kind::Norm => Change::Vector(convert::widened(&bytes, dtype)?),
                Kind::Weight if spec.weight_dtype != dtype.into() => Change::Weight(
                    convert::packed(&bytes, dtype, spec.weight_dtype, shape[1] as usize)?,
                ),
                Kind::Weight => Change::Weight(bytes),
            };
        Ok(Some((change, read)))
    }

    /// Refuses a spec of another number of layers, or of more than there can be.
    pub(super) fn ensure_layers(&self, spec: &Spec) -> Result<(), Error> {
        let most = self.files.names().count() as i64;
        let layers = self.layers.count().unwrap_or(spec.layer_count.min(most));
        ensure!(
            layers == spec.layer_count,
            CheckpointMismatch,
            "{self} has {layers} layers with cross-attention, the spec has {}; leave layers out by \
             the projection's layer_begin and layer_count",
            spec.layer_count
        );
        Ok(())
    }

    /// Refuses a norm that no tensor could be the weight of; with a pattern it is the caller's.
    pub(super) fn ensure_norm(&self, spec: &Spec) -> Result<(), Error> {
        ensure!(
            spec.norm.is_none() || self.family.is_none() || self.names.norms.is_some(),
            CheckpointMismatch,
            "{self} is of a family that has no norm of heads, but the spec has one; set norm to \
             XQKV_NORM_NONE"
        );
        Ok(())
    }

    /// A bias that nobody asked for would be left out of every result in silence.
    fn ensure_bias(&self, spec: &Spec, layer: i64, part: Part) -> Result<(), Error> {
        let name = self.name((layer, part, Kind::Bias)).unwrap_or_default();
        ensure!(
            spec.bias[part] || self.files.tensor(&name).is_none(),
            CheckpointMismatch,
            "{self} has {name}, but the spec says there is no {} bias; set {}_bias to 1",
            part.name(),
            part.name()
        );
        Ok(())
    }

    /// What a tensor is called here; None for a norm that has no name.
    pub fn name(&self, (layer, part, kind): Place) -> Option<String> {
        self.names.of(self.layers.at(layer), part, kind)
    }

    /// A layer's number here.
    pub fn layer_number(&self, layer: i64) -> i64 {
        self.layers.at(layer)
    }

    /// The family's `model_type`s; None with a pattern.
    pub fn family_name(&self) -> Option<&'static str> {
        self.family.as_ref().map(|(family, _)| family.model_types[0])
    }

    /// A tensor's shape, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.files.tensor(name).map(|tensor| tensor.shape())
    }

    /// Names of all tensors of the attention modules that the projections belong to.
    pub fn neighbours(&self) -> impl Iterator<Item = &str> {
        self.files.names().filter(|name| self.names.is_neighbour(name))
    }

    fn tensor<'a>(&'a self, name: &'a str) -> Result<Tensor<'a>, Error> {
        self.files.tensor(name).ok_or_else(|| {
            let message = format!("{self} has no tensor {name}; is it complete?");
            Error::new(Status::CheckpointMissingTensor, message)
        })
    }
}

fn divided(width: i64, heads: i64) -> Result<i64, Error> {
    ensure!(
        heads > 0 && width % heads == 0,
        CheckpointCorrupt,
        "config.json has {heads} heads for a width of {width}, which they do not divide"
    );
    Ok(width / heads)
}
