//! `xqkv verify`: a checkpoint's projections on given inputs, by any number of ranks, against
//! exact ones.

mod arena;
mod calls;
pub mod elements;
mod finishes;
mod group;
mod layer;
mod layouts;
mod lent;
mod member;
mod mpi;
mod placed;
mod processes;
mod ranks;
mod report;
mod rows;
mod tally;

use crate::library::{Checkpoint, Context, Outcome, Projection, Update, balanced, whole};
use crate::memory::{Device, Memory};
use crate::tensors::Archive;
use calls::Plain;
use finishes::{Choices, Finishes};
use layer::{Call, Source};
use layouts::{Layout, Layouts};
use placed::Placed;
use ranks::Rank;
use report::Verdict;
use serde_json::Value;
use std::path::PathBuf;
use tally::{Line, Tally};
use xqkv::capi::projection::{SplitChoice, xqkv_projection_options};
use xqkv::capi::spec::xqkv_spec;
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
    /// Make the calls again, by plans, into memory laid out as engines' caches: each rank's own,
    /// poisoned with NaN and fenced with canaries. Results must be within the bound, on the host
    /// the plain calls' bits, and nothing else may change. (L layers, T rows, H heads of d lanes,
    /// B sequences, S rows of capacity, P pages)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Layouts::parser())]
    layout: Vec<Layouts>,
    /// In the layouts' calls, fill K and V of all layers by one call [layout: plain, if none is
    /// given]
    #[arg(long, conflicts_with = "layer")]
    layers_at_once: bool,
    /// In the layouts' calls, take rows by a list, out of order, some twice and some not, from a
    /// buffer that is NaN elsewhere [layout: plain, if none is given]
    #[arg(long)]
    row_list: bool,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    group: group::GroupChoices,
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
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum RowDtype {
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

/// What all calls have in common.
pub struct Setting<'a> {
    pub ranks: &'a [Rank],
    pub memory: &'a Memory,
    /// What rows are given in.
    pub rows: Dtype,
    /// What results are written in.
    pub out: Dtype,
    /// Whether layouts' calls take rows by a list.
    pub lists_rows: bool,
}

/// Runs every layer and prints the verdict; true if all is as it must be.
pub fn run(arguments: &Arguments) -> Outcome<bool> {
    if let Some(rank) = arguments.group.member {
        return processes::run_member(arguments, rank);
    }
    arguments.ensure_devices()?;
    let directory = &arguments.directory;
    let checkpoint = Checkpoint::new(directory)?;
    let mut spec = checkpoint.spec()?;
    let found = &checkpoint.report(&spec)?;
    arguments.choices.apply(&mut spec);
    let (spec, finishes) = (&spec, &Finishes::new(directory, found, &spec)?);
    let (context, memory) = arguments.open(0)?;
    let fill = |update: &Update| finishes.fill(update, &checkpoint, directory, found);
    let ranks = &arguments.load_ranks(&context, spec, fill)?;
    let io = arguments.io.clone().unwrap_or_else(|| directory.join("io.safetensors"));
    let source = Source { directory, io: &Archive::open(&io)?, found, spec, finishes };
    let setting = Setting {
        ranks,
        memory: &memory,
        rows: arguments.rows_dtype(spec)?,
        out: arguments.out_dtype.into(),
        lists_rows: arguments.row_list,
    };
    let verdict = arguments.verdict(&source, &setting)?;
    match arguments.json {
        true => println!("{}", verdict.to_json()),
        false => verdict.print(),
    }
    Ok(verdict.passes())
}

impl Arguments {
    fn ensure_devices(&self) -> Outcome<()> {
        match self.group.devices {
            Some(devices) if self.backend == Backend::Host => {
                Err(format!("--devices {devices} is of CUDA; pass --backend cuda, or leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// The backend, on this of several devices.
    fn open(&self, device: i32) -> Outcome<(Context, Memory)> {
        Ok(match self.backend {
            Backend::Host => (Context::new(self.threads)?, Memory::Host),
            Backend::Cuda => (Context::on_cuda(device)?, Memory::Cuda(Device::open(device)?)),
        })
    }

    fn load_ranks(
        &self,
        context: &Context,
        spec: &xqkv_spec,
        fill: impl Fn(&Update) -> Outcome<()>,
    ) -> Outcome<Vec<Rank>> {
        let load = |(number, options)| {
            Rank::new(number, Projection::load(context, spec, &options, &fill)?)
        };
        splits(self, spec)?.into_iter().enumerate().map(load).collect()
    }

    /// Runs the plain calls of every layer, then the layouts'.
    fn verdict<'a>(&self, source: &Source<'a>, setting: &Setting<'_>) -> Outcome<Verdict<'a>> {
        let (mut layers, mut plains) = (Vec::new(), Vec::new());
        let layouts = self.layouts();
        for number in chosen_layers(self, source.spec, source.found)? {
            let (layer, plain) = calls::verify(source.layer(number)?, setting)?;
            layers.push(layer);
            if !layouts.is_empty() || self.group.comm.is_some() {
                plains.push(plain);
            }
        }
        let mut lines = Vec::new();
        for layout in layouts {
            for rank in setting.ranks {
                lines.push(self.line(layout, rank, &plains, setting)?);
            }
        }
        let run = |medium| group::verify(self, medium, setting.ranks, &plains, setting.out);
        let group = self.group.comm.map(run).transpose()?;
        let family = source.found["family"].as_str().unwrap_or("unknown");
        Ok(Verdict { family, ranks: setting.ranks.len(), layers, lines, group })
    }

    fn layouts(&self) -> Vec<Layout> {
        if self.layout.is_empty() && (self.layers_at_once || self.row_list) {
            return vec![Layout::Plain];
        }
        self.layout.iter().flat_map(|layouts| layouts.0.clone()).collect()
    }

    /// Runs the three calls of every layer in a layout on one rank; the fill of all at once if it
    /// shall be.
    fn line(
        &self,
        layout: Layout,
        rank: &Rank,
        plains: &[Plain],
        setting: &Setting<'_>,
    ) -> Outcome<Line> {
        let mut tally = Tally::default();
        let mut run = |kind, layers| -> Outcome<()> {
            let placed = Placed { setting, layout, rank, layers, kind };
            let name = |error| format!("layout {}, rank {}: {error}", layout.name(), rank.number);
            tally.add(placed.run().map_err(name)?);
            Ok(())
        };
        for layer in plains.chunks(1) {
            run(Call::Prefill, layer)?;
            run(Call::Decode, layer)?;
        }
        let fills = if self.layers_at_once { plains.len() } else { 1 };
        plains.chunks(fills.max(1)).try_for_each(|layers| run(Call::Fill, layers))?;
        let promises_bits = matches!(setting.memory, Memory::Host);
        Ok(Line { layout, rank: rank.number, tally, promises_bits })
    }

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
