//! `xqkv bench`: how fast the host projects a model's shapes, beside what the machine could do at
//! the same moment. The floor is measured anew before each sample, since the speed of a machine's
//! memory drifts by two while others use it.

mod clock;
mod counters;
mod floor;
mod models;
mod plot;
mod report;
mod rotation;

use crate::library::{Context, Outcome};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use counters::Instructions;
use floor::Floor;
use models::{Model, Shape};
use report::{Line, Machine};
use rotation::Rotation;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use xqkv::dtype::WeightDtype;

#[derive(clap::Args)]
pub struct Arguments {
    /// Models whose shapes are run [default: whisper-base, whisper-large-v3, t5-xxl, mllama-11b]
    #[arg(long, value_enum, value_delimiter = ',')]
    model: Vec<Model>,
    /// A shape of your own instead: DECODER_WIDTH,ENCODER_WIDTH,HEADS,KEY_VALUE_HEADS,HEAD_WIDTH,
    /// ENCODER_ROWS,LAYERS
    #[arg(long, conflicts_with = "model")]
    shape: Option<Shape>,
    /// Decoder rows of the decode steps
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32, 64])]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=100_000))]
    rows: Vec<i64>,
    /// Encoder rows of the prefill, 0 for none [default: the model's]
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    encoder_rows: Option<i64>,
    /// Dtypes of weights, rows and results; int8 is of weights, whose rows and results are f32
    #[arg(long, value_parser = dtypes(), value_delimiter = ',', default_value = "f32,bf16,f16")]
    dtype: Vec<WeightDtype>,
    /// Threads; 0 is one for each CPU
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=1024))]
    threads: i32,
    /// Ranks that share the heads; what the first one does is run, whose part is the largest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=1024))]
    ranks: i64,
    /// All layers of a prefill in one call
    #[arg(long)]
    layers_at_once: bool,
    /// The same layer again and again, its weights in the caches; without it decode steps go
    /// through layers of eight times the last cache
    #[arg(long)]
    warm: bool,
    /// Time the workaround beside it: Q, K and V of all rows, what is not needed thrown away
    #[arg(long)]
    workaround: bool,
    /// About how long to measure, after all weights are packed
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    #[arg(long, value_enum, default_value = "md")]
    output: report::Format,
    /// Draw each case's percent of the floor in an SVG file
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// What weights are kept in, as it is named on the command line and in reports.
const DTYPES: [(&str, WeightDtype); 4] = [
    ("f32", WeightDtype::F32),
    ("bf16", WeightDtype::Bf16),
    ("f16", WeightDtype::F16),
    ("int8", WeightDtype::Int8),
];

/// Takes one of the names.
fn dtypes() -> impl TypedValueParser<Value = WeightDtype> {
    let named = |given: String| DTYPES.into_iter().find(|(name, _)| *name == given);
    PossibleValuesParser::new(DTYPES.map(|(name, _)| name))
        .map(move |given| named(given).expect("one of the possible values").1)
}

/// What is run again and again: a decode step's Q, or a prefill's K and V.
#[derive(Clone, Copy)]
enum Work {
    Decode { rows: i64 },
    Prefill { rows: i64 },
}

/// One kind of work of one shape, and what was measured.
struct Case {
    work: Work,
    /// Which rotation.
    at: usize,
    samples: Vec<Sample>,
}

/// What one round measured of a case: seconds of a call.
struct Sample {
    seconds: f64,
    floor_seconds: f64,
    instructions: Option<u64>,
    workaround_seconds: Option<f64>,
}

/// Measures, and prints.
pub fn run(arguments: &Arguments) -> Outcome<bool> {
    let instructions = Instructions::open();
    let context = Context::new(arguments.threads)?;
    let info = context.info()?;
    let rotations = rotations(arguments, &context)?;
    let mut cases = cases(arguments, &rotations);
    let floor = Floor::new(info.thread_count as usize, clock::rotation_bytes());
    measure(arguments, &rotations, &mut cases, &floor, instructions.as_ref().ok())?;
    let lines: Vec<Line> = cases.iter().map(|case| Line::new(case, &rotations[case.at])).collect();
    let machine = Machine::new(&info, instructions.err());
    report::print(arguments.output, &machine, &lines);
    match &arguments.plot {
        Some(path) => plot::draw(path, &machine, &lines).map(|()| true),
        None => Ok(true),
    }
}

fn rotations(arguments: &Arguments, context: &Context) -> Outcome<Vec<Rotation>> {
    let shapes = match (&arguments.shape, arguments.model.is_empty()) {
        (Some(shape), _) => vec![shape.clone()],
        (None, true) => Model::USUAL.iter().map(|model| model.shape()).collect(),
        (None, false) => arguments.model.iter().map(|model| model.shape()).collect(),
    };
    let mut rotations = Vec::new();
    for mut shape in shapes {
        shape.encoder_rows = arguments.encoder_rows.unwrap_or(shape.encoder_rows);
        for dtype in &arguments.dtype {
            progress(&format!("packing {} {dtype:?}", shape.name));
            rotations.push(Rotation::new(context, &shape, *dtype, arguments)?);
        }
    }
    Ok(rotations)
}

fn cases(arguments: &Arguments, rotations: &[Rotation]) -> Vec<Case> {
    let decodes = arguments.rows.iter().map(|rows| Work::Decode { rows: *rows });
    let works = |rotation: &Rotation| {
        let rows = rotation.shape.encoder_rows;
        let prefill = (rows > 0).then_some(Work::Prefill { rows });
        decodes.clone().chain(prefill).collect::<Vec<_>>()
    };
    let of = |(at, rotation)| {
        works(rotation).into_iter().map(move |work| Case { work, at, samples: Vec::new() })
    };
    rotations.iter().enumerate().flat_map(of).collect()
}

/// Round by round a sample of each case, until the time is over.
fn measure(
    arguments: &Arguments,
    rotations: &[Rotation],
    cases: &mut [Case],
    floor: &Floor,
    instructions: Option<&Instructions>,
) -> Outcome<()> {
    const LEAST_ROUNDS: usize = 3;
    let begun = Instant::now();
    let enough = Duration::from_secs_f64(arguments.seconds.clamp(0.0, 86_400.0));
    for round in 0.. {
        if round >= LEAST_ROUNDS && begun.elapsed() >= enough {
            break;
        }
        progress(&format!("round {}, {:.0} s", round + 1, begun.elapsed().as_secs_f64()));
        for case in &mut *cases {
            let rotation = &rotations[case.at];
            let now = floor.measure(rotation.weights);
            let mut sample = rotation.sample(case.work, instructions)?;
            sample.floor_seconds = now.seconds(rotation.necessary(case.work));
            case.samples.push(sample);
        }
    }
    Ok(())
}

/// Tells people who watch, not files.
fn progress(words: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("xqkv bench: {words}");
    }
}
