//! The same calls by ranks that have a communicator: rows that each has a part of, results that
//! each gets all of, and work that they share, held against the plain calls' results.

use super::calls::Plain;
use super::elements::widen;
use super::layer::{Call, Layer};
use super::member::Ran;
use super::mpi::Mpi;
use super::processes;
use super::ranks::Rank;
use super::{Arguments, member};
use crate::library::{Comm, Context, Outcome, unique_id};
use crate::numbers::{grouped, ratio};
use serde_json::{Value, json};
use std::thread;
use xqkv::dtype::Dtype;

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Medium {
    /// Threads of this process
    Threads,
    /// Processes of this machine, over collectives on Unix sockets
    Processes,
    /// Threads of this process with a CUDA device each, over NCCL; processes with --devices
    Nccl,
    /// Processes that mpirun started, by the plug-in that XQKV_MPI_PLUGIN names
    Mpi,
}

#[derive(clap::Args)]
pub struct GroupChoices {
    /// Make the calls again by ranks that have a communicator
    #[arg(long, value_enum)]
    pub comm: Option<Medium>,
    /// Give each rank only its part of the encoder's rows: uneven parts, and none on rank 1 of
    /// three or more
    #[arg(long, requires = "comm")]
    pub encoder_sharded: bool,
    /// Give every rank all heads of Q, K and V
    #[arg(long, requires = "comm")]
    pub gather: bool,
    /// Let ranks that hold the same key/value head share its work
    #[arg(long, requires = "comm")]
    pub share_replicas: bool,
    /// Most rows of one transfer; 0 leaves it to the library
    #[arg(long, requires = "encoder_sharded", default_value_t = 0)]
    pub chunk_rows: i64,
    /// CUDA devices, which the ranks get in turn; without it each rank has one of its own. NCCL 2.30
    /// puts two ranks on one device if NCCL_MULTI_RANK_GPU_ENABLE is 1
    #[arg(long, requires = "comm", value_parser = clap::value_parser!(i32).range(1..))]
    pub devices: Option<i32>,
    /// Which rank this process is; for processes that the command starts itself
    #[arg(long, hide = true)]
    pub member: Option<usize>,
    /// Sockets to the other ranks, in their order; for the same
    #[arg(long, hide = true, value_delimiter = ',')]
    pub sockets: Vec<i32>,
}

impl GroupChoices {
    /// The device of a rank.
    pub fn device_of(&self, rank: usize) -> i32 {
        self.devices.map_or(rank as i32, |devices| rank as i32 % devices)
    }
}

/// What one rank's calls did.
pub struct GroupLine {
    rank: usize,
    calls: usize,
    executed: i64,
    transfers: i64,
    received_bytes: i64,
    bits_differing: u64,
    error_over_bound: f64,
    bytes_touched: i64,
}

/// All ranks' calls.
pub struct GroupVerdict {
    medium: Medium,
    /// Of the ranks that this process ran.
    lines: Vec<GroupLine>,
    /// By all ranks together.
    executed: i64,
    /// What the ranks together must execute.
    necessary: i64,
    /// Multiply-adds of the uncut layers in the same calls.
    uncut: i64,
    /// Whether the backend promises the plain calls' bits.
    promises_bits: bool,
}

/// Runs all ranks, and compares with what the plain calls gave.
pub fn verify(
    arguments: &Arguments,
    medium: Medium,
    ranks: &[Rank],
    plains: &[Plain],
    out: Dtype,
) -> Outcome<GroupVerdict> {
    let calls = calls(plains, arguments.layers_at_once);
    let line = |rank: &Rank, ran: &[Ran]| line(arguments, rank, ran, &calls, out);
    let mpi = (medium == Medium::Mpi).then(|| Mpi::open(ranks.len())).transpose()?;
    let lines = match &mpi {
        Some(mpi) => vec![line(&ranks[mpi.rank], &mpi.run(arguments)?)?],
        None => {
            let ran = run(arguments, medium, ranks.len())?;
            ranks.iter().zip(&ran).map(|(rank, ran)| line(rank, ran)).collect::<Outcome<_>>()?
        }
    };
    let executed = lines.iter().map(|line| line.executed).sum();
    let executed = mpi.as_ref().map_or(executed, |mpi| mpi.sum(executed));
    let is_once = arguments.group.gather || arguments.group.share_replicas;
    let uncut = of_layers(&calls, |layer, kind| layer.uncut(kind.runs()));
    let by_rank = |rank: &Rank| {
        of_layers(&calls, |layer, kind| layer.necessary(rank, layer.rows(), kind.runs()))
    };
    let necessary = if is_once { uncut } else { ranks.iter().map(by_rank).sum() };
    let promises_bits = medium != Medium::Nccl;
    Ok(GroupVerdict { medium, lines, executed, necessary, uncut, promises_bits })
}

/// What each of the ranks did that this process runs.
fn run(arguments: &Arguments, medium: Medium, count: usize) -> Outcome<Vec<Vec<Ran>>> {
    match medium {
        Medium::Processes => processes::run(count, None),
        // Ranks that share a device in one process would wait for each other in the driver: an
        // allocation of one waits for the other's transfer, and that for the one.
        Medium::Nccl if arguments.group.devices.is_some() => {
            processes::run(count, Some(&unique_id()?))
        }
        Medium::Nccl => nccl(arguments, count),
        Medium::Threads | Medium::Mpi => threads(arguments, count),
    }
}

fn threads(arguments: &Arguments, count: usize) -> Outcome<Vec<Vec<Ran>>> {
    let comms = Comm::threads(count)?.into_iter();
    on_threads(
        comms
            .enumerate()
            .map(|(rank, comm)| move || member::run(arguments, rank, count, |_| Ok(comm))),
    )
}

fn nccl(arguments: &Arguments, count: usize) -> Outcome<Vec<Vec<Ran>>> {
    let id = &unique_id()?;
    let member = |rank| {
        let join = move |context: &Context| Comm::nccl(context, id, (rank, count));
        move || member::run(arguments, rank, count, join)
    };
    on_threads((0..count).map(member))
}

/// Lets all ranks run at the same time.
fn on_threads(
    members: impl Iterator<Item = impl FnOnce() -> Outcome<Vec<Ran>> + Send>,
) -> Outcome<Vec<Vec<Ran>>> {
    thread::scope(|scope| {
        let threads: Vec<_> = members.map(|member| scope.spawn(member)).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a rank's thread panicked".into()))
        };
        threads.into_iter().map(end).collect()
    })
}

/// The calls in the order in which ranks make them, with the layers of each.
pub fn calls<T>(layers: &[T], fills_at_once: bool) -> Vec<(Call, &[T])> {
    let mut calls = Vec::new();
    for layer in layers.chunks(1) {
        calls.extend([(Call::Prefill, layer), (Call::Decode, layer)]);
    }
    let fills = if fills_at_once { layers.len() } else { 1 };
    calls.extend(layers.chunks(fills.max(1)).map(|layers| (Call::Fill, layers)));
    calls
}

fn of_layers(calls: &[(Call, &[Plain])], count: impl Fn(&Layer, Call) -> i64) -> i64 {
    let of_call = |(kind, layers): &(Call, &[Plain])| {
        layers.iter().map(|plain| count(&plain.layer, *kind)).sum::<i64>()
    };
    calls.iter().map(of_call).sum()
}

fn line(
    arguments: &Arguments,
    rank: &Rank,
    ran: &[Ran],
    calls: &[(Call, &[Plain])],
    out: Dtype,
) -> Outcome<GroupLine> {
    if ran.len() != calls.len() {
        return Err(format!("rank {} made {} of {} calls", rank.number, ran.len(), calls.len()));
    }
    let (mut bits_differing, mut error_over_bound) = (0, 0.0_f64);
    for (ran, (_, plains)) in ran.iter().zip(calls) {
        for part in 0..3 {
            let (bits, error) = compare(arguments, rank, ran, plains, part, out);
            bits_differing += bits;
            error_over_bound = error_over_bound.max(error);
        }
    }
    Ok(GroupLine {
        rank: rank.number,
        calls: ran.len(),
        executed: ran.iter().map(|ran| ran.executed).sum(),
        transfers: ran.iter().map(|ran| ran.transfers).sum(),
        received_bytes: ran.iter().map(|ran| ran.received_bytes).sum(),
        bits_differing,
        error_over_bound,
        bytes_touched: ran.iter().map(|ran| ran.bytes_touched).sum(),
    })
}

/// Bits of one part's results that are not the plain calls', and the largest error.
fn compare(
    arguments: &Arguments,
    rank: &Rank,
    ran: &Ran,
    plains: &[Plain],
    part: usize,
    out: Dtype,
) -> (u64, f64) {
    let Some(results) = &ran.results[part] else { return (0, 0.0) };
    let mut left = results.chunks_exact(out.bytes());
    let (mut bits, mut error) = (0, 0.0_f64);
    for plain in plains {
        for index in held(arguments, rank, plain, part) {
            let Some(element) = left.next() else { return (u64::MAX, f64::MAX) };
            let expected = &plain.results[part].bytes[index * out.bytes()..];
            let differing = element.iter().zip(expected).map(|(one, other)| one ^ other);
            bits += differing.map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            let value = f64::from(widen(element, out));
            error = error.max(plain.exact[part].error_over_bound(index, value, out));
        }
    }
    if left.next().is_none() { (bits, error) } else { (u64::MAX, f64::MAX) }
}

/// Where a rank's results stand among those of all heads, in order.
fn held(
    arguments: &Arguments,
    rank: &Rank,
    plain: &Plain,
    part: usize,
) -> impl Iterator<Item = usize> {
    let of = &plain.layer.parts[part];
    let (first, heads) = match arguments.group.gather {
        true => (0, of.heads),
        false => (rank.first_heads()[part], rank.heads()[part]),
    };
    let (row, begin, count) = (of.heads * of.width, first * of.width, heads * of.width);
    (0..plain.layer.rows()[part])
        .flat_map(move |at| (0..count).map(move |lane| at * row + begin + lane))
}

impl GroupVerdict {
    pub fn passes(&self) -> bool {
        let has_bits = |line: &GroupLine| line.bits_differing == 0 || !self.promises_bits;
        let is_good = |line: &GroupLine| {
            has_bits(line) && line.error_over_bound <= 1.0 && line.bytes_touched == 0
        };
        self.executed == self.necessary && self.lines.iter().all(is_good)
    }

    pub fn print(&self) {
        println!(
            "\n{:<9} rank calls {:>14} {:>9} {:>14} error/bound {:>11} {:>9}",
            "comm", "executed", "transfers", "bytes received", "bits differ", "canaries"
        );
        for line in &self.lines {
            println!(
                "{:<9} {:>4} {:>5} {:>14} {:>9} {:>14} {:>11.3} {:>11} {:>9}",
                self.name(),
                line.rank,
                line.calls,
                grouped(line.executed),
                line.transfers,
                grouped(line.received_bytes),
                line.error_over_bound,
                self.bits(line),
                if line.bytes_touched == 0 { "intact" } else { "TOUCHED" }
            );
        }
        println!(
            "group: executed {}, necessary {}, ratio {:.3}; uncut layers {}, ratio {:.3}",
            grouped(self.executed),
            grouped(self.necessary),
            ratio(self.necessary, self.executed),
            grouped(self.uncut),
            ratio(self.uncut, self.executed)
        );
    }

    pub fn to_json(&self) -> Value {
        let line = |line: &GroupLine| {
            json!({
                "rank": line.rank,
                "calls": line.calls,
                "multiply_adds_executed": line.executed,
                "transfers": line.transfers,
                "bytes_received": line.received_bytes,
                "max_error_over_bound": line.error_over_bound.min(f64::MAX),
                "bits_differing": line.bits_differing,
                "bytes_touched": line.bytes_touched,
            })
        };
        json!({
            "comm": self.name(),
            "pass": self.passes(),
            "multiply_adds_executed": self.executed,
            "multiply_adds_necessary": self.necessary,
            "multiply_adds_uncut": self.uncut,
            "ratio_to_uncut": ratio(self.uncut, self.executed),
            "ranks": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }

    /// In brackets where nothing is promised.
    fn bits(&self, line: &GroupLine) -> String {
        let bits = grouped(line.bits_differing as i64);
        if self.promises_bits { bits } else { format!("({bits})") }
    }

    fn name(&self) -> &'static str {
        match self.medium {
            Medium::Threads => "threads",
            Medium::Processes => "processes",
            Medium::Nccl => "nccl",
            Medium::Mpi => "mpi",
        }
    }
}
