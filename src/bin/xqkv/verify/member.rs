//! One rank of a group: it loads its own shard, and makes the calls together with the others.

use super::calls::input;
use super::elements::{Elements, POISON};
use super::finishes::Finishes;
use super::group::calls;
use super::layer::{Call, Layer, Source};
use super::lent::{Lent, alignment};
use super::ranks::Rank;
use super::{Arguments, chosen_layers, splits};
use crate::library::{Checkpoint, Comm, Context, Outcome, Projection, Update, call};
use crate::memory::{Kept, Memory};
use crate::tensors::Archive;
use xqkv::capi::forward::{ForwardFlag, xqkv_forward};
use xqkv::capi::projection::ProjectionFlag;
use xqkv::capi::view::xqkv_view;
use xqkv::dtype::Dtype;

/// What one call did on one rank.
pub struct Ran {
    pub executed: i64,
    pub transfers: i64,
    pub received_bytes: i64,
    /// Bytes that changed beside the results.
    pub bytes_touched: i64,
    /// Of Q, K and V, packed [layers, rows, heads, width]; None if it was not run.
    pub results: [Option<Vec<u8>>; 3],
}

/// What all calls of this rank have in common.
struct Member<'a> {
    arguments: &'a Arguments,
    rank: Rank,
    rank_count: usize,
    memory: &'a Memory,
    rows: Dtype,
    out: Dtype,
}

/// Bytes on either side of results that must stay as they are.
const FENCE: usize = 64;

/// Makes all calls as one of so many ranks, which it joins by a communicator.
pub fn run(
    arguments: &Arguments,
    rank: usize,
    rank_count: usize,
    join: impl FnOnce(&Context) -> Outcome<Comm>,
) -> Outcome<Vec<Ran>> {
    let directory = &arguments.directory;
    let checkpoint = Checkpoint::new(directory)?;
    let mut spec = checkpoint.spec()?;
    let found = &checkpoint.report(&spec)?;
    arguments.choices.apply(&mut spec);
    let (spec, finishes) = (&spec, &Finishes::new(directory, found, &spec)?);
    let (context, memory) = arguments.open(arguments.group.device_of(rank))?;
    let comm = join(&context)?;
    let mut options = splits(arguments, spec)?[rank];
    options.comm = comm.handle();
    if arguments.group.share_replicas {
        options.flags = ProjectionFlag::ShareReplicas as u64;
    }
    let fill = |update: &Update| finishes.fill(update, &checkpoint, directory, found);
    let rank = Rank::new(rank, Projection::load(&context, spec, &options, fill)?)?;
    let io = arguments.io.clone().unwrap_or_else(|| directory.join("io.safetensors"));
    let source = Source { directory, io: &Archive::open(&io)?, found, spec, finishes };
    let numbers = chosen_layers(arguments, spec, found)?;
    let layers = numbers.into_iter().map(|number| source.layer(number));
    let layers = layers.collect::<Outcome<Vec<_>>>()?;
    let (rows, out) = (arguments.rows_dtype(spec)?, arguments.out_dtype.into());
    let member = Member { arguments, rank, rank_count, memory: &memory, rows, out };
    let calls = calls(&layers, arguments.layers_at_once);
    calls.into_iter().map(|(kind, layers)| member.call(kind, layers)).collect()
}

impl Member<'_> {
    fn call(&self, kind: Call, layers: &[Layer]) -> Outcome<Ran> {
        let first = &layers[0];
        let mut decoder = Elements::rounded(&first.decoder, self.rows);
        let mut encoder = Elements::rounded(&first.encoder, self.rows);
        let runs = kind.runs();
        let mut forward = call(first.number);
        forward.layer_count = layers.len() as i64;
        let inputs = [self.memory.hold(&mut decoder.bytes)?, self.memory.hold(&mut encoder.bytes)?];
        if runs[0] {
            forward.decoder = input(&inputs[0], self.rows, first.decoder.rows);
        }
        if runs[1] {
            forward.encoder = input(&inputs[1], self.rows, first.encoder.rows);
        }
        let rank_rows = self.rank_rows(first.encoder.rows);
        if runs[1] && self.arguments.group.encoder_sharded {
            self.shard_rows(&mut forward, &rank_rows, first);
        }
        if self.arguments.group.gather {
            forward.flags = ForwardFlag::GatherQuery as u32 | ForwardFlag::GatherKeyValue as u32;
        }
        self.finish(runs, layers, &mut forward)
    }

    /// Lends memory for results and runs the call.
    fn finish(
        &self,
        runs: [bool; 3],
        layers: &[Layer],
        forward: &mut xqkv_forward,
    ) -> Outcome<Ran> {
        let mut outputs = Vec::new();
        for (part, runs) in runs.into_iter().enumerate() {
            let output = runs.then(|| self.output(part, layers)).transpose()?;
            let view = [&mut forward.query, &mut forward.key, &mut forward.value];
            if let Some(output) = &output {
                self.place(output, view.into_iter().nth(part).expect("three views"));
            }
            outputs.push(output);
        }
        let views = [&forward.query, &forward.key, &forward.value].map(|view| view.data);
        let alignment = alignment(forward, views.into_iter());
        let lent = Lent::new(&self.rank, forward, alignment, self.memory)?;
        forward.plan = lent.plan.handle();
        // SAFETY: inputs and outputs are as long as their shapes say, and alive.
        let done = unsafe { self.rank.projection.forward(forward) }?;
        let mut ran = Ran {
            executed: done.multiply_adds,
            transfers: done.transfers,
            received_bytes: done.received_bytes,
            bytes_touched: 0,
            results: [None, None, None],
        };
        for (part, output) in outputs.into_iter().enumerate() {
            let Some(mut output) = output else { continue };
            output.fetch()?;
            let end = output.bytes.len() - FENCE;
            let fences = output.bytes[..FENCE].iter().chain(&output.bytes[end..]);
            ran.bytes_touched += fences.filter(|&&byte| byte != POISON).count() as i64;
            ran.results[part] = Some(output.bytes[FENCE..end].to_vec());
        }
        Ok(ran)
    }

    /// Poisoned room for a part's results, with a fence on either side.
    fn output(&self, part: usize, layers: &[Layer]) -> Outcome<Kept<'_>> {
        let of = &layers[0].parts[part];
        let heads = if self.arguments.group.gather { of.heads } else { self.rank.heads()[part] };
        let elements = layers.len() * layers[0].rows()[part] * heads * of.width;
        self.memory.keep(vec![POISON; elements * self.out.bytes() + 2 * FENCE])
    }

    fn place(&self, output: &Kept<'_>, view: &mut xqkv_view) {
        view.data = output.address().wrapping_add(FENCE).cast();
        view.dtype = self.out as i32;
    }

    /// Uneven parts, and none on rank 1 of three or more.
    fn rank_rows(&self, rows: usize) -> Vec<i64> {
        let (count, mut left) = (self.rank_count, rows as i64);
        let share = |rank: usize| {
            let share = match rank {
                rank if rank + 1 == count => left,
                1 => 0,
                _ => left / 3,
            };
            left -= share;
            share
        };
        (0..count).map(share).collect()
    }

    /// Gives the call this rank's rows only.
    fn shard_rows(&self, forward: &mut xqkv_forward, rank_rows: &[i64], layer: &Layer) {
        let own = self.rank.number;
        let row_bytes = layer.encoder.elements.len() / layer.encoder.rows * self.rows.bytes();
        let before = rank_rows[..own].iter().sum::<i64>() as usize * row_bytes;
        let data = forward.encoder.data.cast::<u8>().wrapping_add(before);
        forward.encoder.data = if rank_rows[own] == 0 { std::ptr::null() } else { data.cast() };
        forward.encoder.rows = rank_rows[own];
        forward.encoder_rank_rows = rank_rows.as_ptr();
        forward.chunk_rows = self.arguments.group.chunk_rows;
    }
}
