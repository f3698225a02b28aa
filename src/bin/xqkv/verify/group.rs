//! The same calls by ranks that have a communicator: rows that each has a part of, results that each
//! gets all of, and work that they share, held against the plain calls' results.

use super::calls::Plain;
use super::layer::{Call, Layer};
use super::member::Ran;
use super::processes;
use super::ranks::Rank;
use super::{Arguments, member};
use crate::library::{Comm, Outcome};
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
}

#[derive(clap::Args)]
pub struct GroupChoices {
    /// Make the calls again by ranks that have a communicator
    #[arg(long, value_enum)]
    pub comm: Option<Medium>,
    /// Give each rank only its part of the encoder's rows: uneven parts, and none on rank 1 of three
    /// or more
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
    /// Which rank this process is; for processes that the command starts itself
    #[arg(long, hide = true)]
    pub member: Option<usize>,
    /// Sockets to the other ranks, in their order; for the same
    #[arg(long, hide = true, value_delimiter = ',')]
    pub sockets: Vec<i32>,
}

/// What one rank's calls did.
pub struct GroupLine {
    rank: usize,
    calls: usize,
    executed: i64,
    transfers: i64,
    received_bytes: i64,
    bits_differing: u64,
    bytes_touched: i64,
}

/// All ranks' calls.
pub struct GroupVerdict {
    medium: Medium,
    lines: Vec<GroupLine>,
    /// What the ranks together must execute.
    necessary: i64,
    /// Multiply-adds of the uncut layers in the same calls.
    uncut: i64,
}

/// Runs all ranks, and compares with what the plain calls gave.
pub fn verify(
    arguments: &Arguments,
    medium: Medium,
    ranks: &[Rank],
    plains: &[Plain],
    out: Dtype,
) -> Outcome<GroupVerdict> {
    let count = ranks.len();
    let ran = match medium {
        Medium::Threads => threads(arguments, count)?,
        Medium::Processes => processes::run(count)?,
    };
    let calls = calls(plains, arguments.layers_at_once);
    let line = |rank: &Rank| line(arguments, rank, &ran[rank.number], &calls, out);
    let lines = ranks.iter().map(line).collect::<Outcome<Vec<_>>>()?;
    let is_once = arguments.group.gather || arguments.group.share_replicas;
    let uncut = of_layers(&calls, |layer, kind| layer.uncut(kind.runs()));
    let by_rank = |rank: &Rank| {
        of_layers(&calls, |layer, kind| layer.necessary(rank, layer.rows(), kind.runs()))
    };
    let necessary = if is_once { uncut } else { ranks.iter().map(by_rank).sum() };
    Ok(GroupVerdict { medium, lines, necessary, uncut })
}

fn threads(arguments: &Arguments, count: usize) -> Outcome<Vec<Vec<Ran>>> {
    let comms = Comm::threads(count)?;
    thread::scope(|scope| {
        let start = |(rank, comm)| scope.spawn(move || member::run(arguments, rank, count, &comm));
        let threads: Vec<_> = comms.into_iter().enumerate().map(start).collect();
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
    let compare = |(ran, (_, plains)): (&Ran, &(Call, &[Plain]))| {
        (0..3).map(|part| differing(arguments, rank, ran, plains, part, out)).sum::<u64>()
    };
    Ok(GroupLine {
        rank: rank.number,
        calls: ran.len(),
        executed: ran.iter().map(|ran| ran.executed).sum(),
        transfers: ran.iter().map(|ran| ran.transfers).sum(),
        received_bytes: ran.iter().map(|ran| ran.received_bytes).sum(),
        bits_differing: ran.iter().zip(calls).map(compare).sum(),
        bytes_touched: ran.iter().map(|ran| ran.bytes_touched).sum(),
    })
}

/// Bits of one part's results that are not the plain calls'.
fn differing(
    arguments: &Arguments,
    rank: &Rank,
    ran: &Ran,
    plains: &[Plain],
    part: usize,
    out: Dtype,
) -> u64 {
    let Some(results) = &ran.results[part] else { return 0 };
    let mut expected = Vec::new();
    for plain in plains {
        let of = &plain.layer.parts[part];
        let head_bytes = of.width * out.bytes();
        let (first, heads) = match arguments.group.gather {
            true => (0, of.heads),
            false => (rank.first_heads()[part], rank.heads()[part]),
        };
        for row in plain.results[part].bytes.chunks_exact(of.heads * head_bytes) {
            expected.extend_from_slice(&row[first * head_bytes..(first + heads) * head_bytes]);
        }
    }
    let bits = results.iter().zip(&expected).map(|(one, other)| (one ^ other).count_ones());
    let missing = results.len().abs_diff(expected.len()) as u64 * 8;
    bits.map(u64::from).sum::<u64>() + missing
}

impl GroupVerdict {
    pub fn passes(&self) -> bool {
        let is_good = |line: &GroupLine| line.bits_differing == 0 && line.bytes_touched == 0;
        self.executed() == self.necessary && self.lines.iter().all(is_good)
    }

    fn executed(&self) -> i64 {
        self.lines.iter().map(|line| line.executed).sum()
    }

    pub fn print(&self) {
        println!(
            "\n{:<11} rank calls {:>14} {:>9} {:>14} {:>11} {:>13}",
            "comm", "executed", "transfers", "bytes received", "bits differ", "canaries"
        );
        for line in &self.lines {
            println!(
                "{:<11} {:>4} {:>5} {:>14} {:>9} {:>14} {:>11} {:>13}",
                self.name(),
                line.rank,
                line.calls,
                grouped(line.executed),
                line.transfers,
                grouped(line.received_bytes),
                grouped(line.bits_differing as i64),
                if line.bytes_touched == 0 { "intact" } else { "TOUCHED" }
            );
        }
        println!(
            "group: executed {}, necessary {}, ratio {:.3}; uncut layers {}, ratio {:.3}",
            grouped(self.executed()),
            grouped(self.necessary),
            ratio(self.necessary, self.executed()),
            grouped(self.uncut),
            ratio(self.uncut, self.executed())
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
                "bits_differing": line.bits_differing,
                "bytes_touched": line.bytes_touched,
            })
        };
        json!({
            "comm": self.name(),
            "pass": self.passes(),
            "multiply_adds_executed": self.executed(),
            "multiply_adds_necessary": self.necessary,
            "multiply_adds_uncut": self.uncut,
            "ratio_to_uncut": ratio(self.uncut, self.executed()),
            "ranks": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }

    fn name(&self) -> &'static str {
        match self.medium {
            Medium::Threads => "threads",
            Medium::Processes => "processes",
        }
    }
}
