//! `xqkv verify`: a checkpoint's projections on given inputs, by any number of ranks, against
//! exact ones.

mod calls;
mod report;

use crate::library::{Checkpoint, Context, Outcome, Projection, balanced, whole};
use crate::memory::{Device, Memory};
use crate::tensors::Archive;
use calls::{Layer, Rank};
use serde_json::Value;
use std::path::PathBuf;
use xqkv::capi::projection::{SplitChoice, xqkv_projection_options};
use xqkv::capi::spec::{Norm, xqkv_spec};
use xqkv::dtype::Dtype;

#[derive(clap::Args)]
pub struct Arguments {
    /// A Hugging Face folder with config.json and safetensors files
    directory: PathBuf,
    /// Inputs and expected outputs [default: DIRECTORY/io.safetensors]
    #[arg(long)]
    io: Option<PathBuf>,
    /// How many ranks share the heads, as evenly as they can
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=4096))]
    ranks: i64,
    /// Query heads of each rank instead, such as 3,2,1
    #[arg(long, value_delimiter = ',', conflicts_with = "ranks")]
    split: Option<Vec<i64>>,
    /// Threads of the host backend; 0 is one for each CPU
    #[arg(long, default_value_t = 0)]
    threads: i32,
    /// Only this layer, by its number in the checkpoint
    #[arg(long)]
    layer: Option<i64>,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Backend::Host)]
    backend: Backend,
    /// What the rows are given in; the exact results are then of the rounded rows [default: f32 on
    /// the host, on CUDA what the weights are in]
    #[arg(long, value_enum)]
    rows_dtype: Option<RowDtype>,
    /// What the results are written in
    #[arg(long, value_enum, default_value_t = RowDtype::F32)]
    out_dtype: RowDtype,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A backend as it is named on the command line.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Backend {
    Host,
    Cuda,
}

/// A dtype as it is named on the command line.
#[derive(Clone, Copy, clap::ValueEnum)]
enum RowDtype {
    F32,
    Bf16,
    F16,
}

impl From<RowDtype> for Dtype {
    fn from(dtype: RowDtype) -> Dtype {
        match dtype {
            RowDtype::F32 => Dtype::F32,
            RowDtype::Bf16 => Dtype::Bf16,
            RowDtype::F16 => Dtype::F16,
        }
    }
}

/// Runs every layer and prints the verdict; true if all is as it must be.
pub fn run(arguments: &Arguments) -> Outcome<bool> {
    let checkpoint = Checkpoint::new(&arguments.directory)?;
    let spec = without_norm(checkpoint.spec()?);
    let found = checkpoint.report(&spec)?;
    let (context, memory) = match arguments.backend {
        Backend::Host => (Context::new(arguments.threads)?, Memory::Host),
        Backend::Cuda => (Context::on_cuda()?, Memory::Cuda(Device::open()?)),
    };
    let ranks = splits(arguments, &spec)?
        .iter()
        .map(|options| Rank::new(Projection::load(&context, &spec, options, &checkpoint)?))
        .collect::<Outcome<Vec<Rank>>>()?;
    let io = arguments.io.clone().unwrap_or_else(|| arguments.directory.join("io.safetensors"));
    let io = Archive::open(&io)?;
    let dtypes = (arguments.rows_dtype(&spec)?, arguments.out_dtype.into());
    let mut verdicts = Vec::new();
    for layer in chosen_layers(arguments, &spec, &found)? {
        let inputs = Layer::read(&arguments.directory, &io, &found, &spec, layer)?;
        verdicts.push(inputs.verify(&ranks, dtypes, &memory)?);
    }
    let family = found["family"].as_str().unwrap_or("unknown");
    let verdict = report::Verdict { family, ranks: ranks.len(), layers: verdicts };
    match arguments.json {
        true => println!("{}", verdict.to_json()),
        false => verdict.print(),
    }
    Ok(verdict.passes())
}

impl Arguments {
    fn rows_dtype(&self, spec: &xqkv_spec) -> Outcome<Dtype> {
        match (self.rows_dtype, self.backend) {
            (Some(dtype), _) => Ok(dtype.into()),
            (None, Backend::Host) => Ok(Dtype::F32),
            (None, Backend::Cuda) => Dtype::from_integer(spec.weight_dtype, "weight_dtype")
                .map_err(|error| error.message),
        }
    }
}

/// Each rank's options.
/// The recorded results and the exact ones are those before a norm.
fn without_norm(spec: xqkv_spec) -> xqkv_spec {
    xqkv_spec { norm: Norm::None as i32, norm_epsilon: 0.0, norm_rounds_first: 0, ..spec }
}

fn splits(arguments: &Arguments, spec: &xqkv_spec) -> Outcome<Vec<xqkv_projection_options>> {
    match &arguments.split {
        None => (0..arguments.ranks).map(|rank| balanced(spec, rank, arguments.ranks)).collect(),
        Some(counts) => explicit(counts, spec),
    }
}

/// Options that give each rank so many query heads, and the key/value heads these attend to.
fn explicit(counts: &[i64], spec: &xqkv_spec) -> Outcome<Vec<xqkv_projection_options>> {
    if counts.iter().any(|&count| count < 0) || counts.iter().sum::<i64>() != spec.query_heads {
        return Err(format!(
            "--split {counts:?} does not add up to {} query heads",
            spec.query_heads
        ));
    }
    let group = spec.query_heads / spec.key_value_heads;
    let mut begin = 0;
    let options = counts.iter().map(|&count| {
        let mut options = whole();
        let end = begin + count;
        options.split = SplitChoice::Explicit as i32;
        (options.query_head_begin, options.query_head_count) = (begin, count);
        options.key_value_head_begin = begin / group;
        options.key_value_head_count =
            if count == 0 { 0 } else { (end - 1) / group + 1 - begin / group };
        begin = end;
        options
    });
    Ok(options.collect())
}

/// The layers to run, by position; all, or the one with the checkpoint's number asked for.
fn chosen_layers(arguments: &Arguments, spec: &xqkv_spec, found: &Value) -> Outcome<Vec<i64>> {
    let Some(number) = arguments.layer else {
        return Ok((0..spec.layer_count).collect());
    };
    let used = found["used"].as_array().into_iter().flatten();
    let of_number = |tensor: &&Value| tensor["checkpoint_layer"].as_i64() == Some(number);
    let layer = used.clone().find(of_number).and_then(|tensor| tensor["layer"].as_i64());
    layer.map(|layer| vec![layer]).ok_or_else(|| {
        let mut numbers: Vec<_> =
            used.filter_map(|tensor| tensor["checkpoint_layer"].as_i64()).collect();
        numbers.dedup();
        format!("--layer {number} has no cross-attention; {numbers:?} have")
    })
}
