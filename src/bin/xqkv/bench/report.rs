//! Measurements for people, spreadsheets and programs.

use super::clock::quartiles;
use super::rotation::Rotation;
use super::{Case, DTYPES, Work};
use serde_json::{Value, json};
use xqkv::capi::context::{InstructionSetChoice, xqkv_context_info};
use xqkv::dtype::WeightDtype;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Format {
    /// A table
    Md,
    Csv,
    Json,
}

/// What was measured of a case.
pub struct Line {
    pub shape: String,
    pub dtype: WeightDtype,
    /// Q or KV.
    pub part: &'static str,
    pub rows: i64,
    pub seconds: f64,
    /// Between the quartiles, over the median.
    spread: f64,
    gigaflops: f64,
    gigabytes: f64,
    /// The median of each round's floor over its time.
    pub percent: f64,
    packed_ratio: f64,
    instructions: Option<f64>,
    /// The workaround's time over ours.
    workaround: Option<f64>,
}

/// Where it was measured.
pub struct Machine {
    cpu: String,
    threads: i32,
    instruction_set: String,
    huge_pages: String,
    /// Why instructions are not counted.
    remark: Option<String>,
}

const COLUMNS: [&str; 12] = [
    "shape",
    "dtype",
    "part",
    "rows",
    "us",
    "spread %",
    "GFLOP/s",
    "GB/s",
    "% of floor",
    "packed/necessary",
    "instructions/multiply-add",
    "workaround/ours",
];

impl Line {
    pub fn new(case: &Case, rotation: &Rotation) -> Self {
        let samples = &case.samples;
        let (part, rows) = match case.work {
            Work::Decode { rows } => ("Q", rows),
            Work::Prefill { rows } => ("KV", rows),
        };
        let necessary = rotation.necessary(case.work);
        let [low, seconds, high] = quartiles(samples.iter().map(|sample| sample.seconds));
        let share = |sample: &super::Sample| sample.floor_seconds / sample.seconds;
        let counted = samples.iter().filter_map(|sample| sample.instructions);
        let counted: Vec<f64> = counted.map(|count| count as f64).collect();
        let middle =
            |numbers: Vec<f64>| (!numbers.is_empty()).then(|| quartiles(numbers.into_iter())[1]);
        let slower =
            samples.iter().filter_map(|sample| Some(sample.workaround_seconds? / sample.seconds));
        Line {
            shape: rotation.shape.name.clone(),
            dtype: rotation.weights,
            part,
            rows,
            seconds,
            spread: 100.0 * (high - low) / seconds,
            gigaflops: 2e-9 * necessary.multiply_adds / seconds,
            gigabytes: 1e-9 * necessary.bytes / seconds,
            percent: 100.0 * quartiles(samples.iter().map(share))[1],
            packed_ratio: rotation.packed_ratio,
            instructions: middle(counted).map(|count| count / necessary.multiply_adds),
            workaround: middle(slower.collect()),
        }
    }

    fn cells(&self) -> [String; 12] {
        let maybe =
            |number: Option<f64>| number.map_or("-".into(), |number| format!("{number:.3}"));
        [
            self.shape.clone(),
            self.dtype_name().into(),
            self.part.into(),
            self.rows.to_string(),
            format!("{:.1}", 1e6 * self.seconds),
            format!("{:.1}", self.spread),
            format!("{:.1}", self.gigaflops),
            format!("{:.1}", self.gigabytes),
            format!("{:.1}", self.percent),
            format!("{:.3}", self.packed_ratio),
            maybe(self.instructions),
            maybe(self.workaround),
        ]
    }

    pub fn dtype_name(&self) -> &'static str {
        let named = DTYPES.iter().find(|(_, dtype)| *dtype == self.dtype);
        named.map_or("unknown", |(name, _)| name)
    }

    fn to_json(&self) -> Value {
        json!({
            "shape": self.shape, "dtype": self.dtype_name(), "part": self.part, "rows": self.rows,
            "seconds": self.seconds, "spread_percent": self.spread, "gigaflops": self.gigaflops,
            "gigabytes_per_second": self.gigabytes, "percent_of_floor": self.percent,
            "packed_over_necessary": self.packed_ratio,
            "instructions_per_multiply_add": self.instructions,
            "workaround_over_ours": self.workaround,
        })
    }
}

impl Machine {
    pub fn new(info: &xqkv_context_info, remark: Option<String>) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let named = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let pages = read("/sys/kernel/mm/transparent_hugepage/enabled");
        let chosen = pages.split(['[', ']']).nth(1).unwrap_or("unknown");
        let set = InstructionSetChoice::ALL.iter().find(|set| **set as i32 == info.instruction_set);
        Machine {
            cpu: named.map_or("unknown CPU".into(), |(_, name)| name.into()),
            threads: info.thread_count,
            instruction_set: set.map_or("?".into(), |set| set.name().replace("XQKV_", "")),
            huge_pages: chosen.into(),
            remark,
        }
    }

    pub fn title(&self) -> String {
        let Machine { cpu, threads, instruction_set, huge_pages, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "xqkv {version}, {cpu}, {threads} threads, {instruction_set}, huge pages {huge_pages}"
        )
    }
}

pub fn print(format: Format, machine: &Machine, lines: &[Line]) {
    match format {
        Format::Md => print_table(machine, lines),
        Format::Csv => {
            println!("{}", COLUMNS.join(","));
            lines.iter().for_each(|line| println!("{}", line.cells().join(",")));
        }
        Format::Json => {
            let cases: Vec<Value> = lines.iter().map(Line::to_json).collect();
            println!("{}", json!({ "machine": machine.title(), "cases": cases }));
        }
    }
}

fn print_table(machine: &Machine, lines: &[Line]) {
    let rows: Vec<[String; 12]> = lines.iter().map(Line::cells).collect();
    let width = |at: usize| {
        rows.iter().map(|row| row[at].len()).chain([COLUMNS[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let print = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
    };
    println!("{}\n", machine.title());
    print(&COLUMNS.map(str::to_owned));
    print(&widths.iter().map(|width| "-".repeat(*width - 1) + ":").collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
    machine.remark.iter().for_each(|remark| println!("\n{remark}"));
}
