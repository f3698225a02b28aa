//! A call with transfers under way: what is started when, and what waits for it.

use super::collective::{Chunk, Phase, Sequence};
use super::staging::Staging;
use super::together::{Together, from};
use crate::backend::{self, WIRE_MARKS, Weights};
use crate::comm::{Transfer, Turn};
use crate::error::Error;
use crate::shard::Reach;
use crate::stats::Counts;
use crate::view::Rows;

/// Marks of the transfers of results; those of chunks are before them.
const QUERY_MARK: usize = WIRE_MARKS - 2;
const ENCODER_MARK: usize = WIRE_MARKS - 1;

impl Together<'_> {
    /// Does all of it, and gives what was executed.
    ///
    /// # Safety
    /// As for `Projection::forward`; the workspace is large enough.
    pub(super) unsafe fn run(
        &self,
        turn: &mut Turn<'_>,
        weights: Option<&Weights>,
        plans: &[backend::Plan],
    ) -> Result<Counts, Error> {
        let mut run = Run { this: self, turn, weights, plans, counts: Counts::default() };
        let (phase, mut lane) = (self.collective.phase, self.call.lane);
        if phase == Phase::Finish {
            lane.wait_event = 0;
        }
        if phase == Phase::Start {
            lane.signal_event = 0;
        }
        self.group.wire.begin(&lane)?;
        let done = match phase {
            Phase::Whole => run.all(),
            Phase::Start => run.first_half(),
            Phase::Finish => run.second_half(),
        };
        // Behind a failure as well: transfers that were started use the call's memory until their
        // stream is done, and the engine can wait for its own only.
        let ended = self.group.wire.end(&lane);
        done.and(ended).map(|()| run.counts)
    }
}

/// A call under way.
struct Run<'a, 'b, 't> {
    this: &'b Together<'a>,
    turn: &'b mut Turn<'t>,
    /// None on a rank that projects nothing.
    weights: Option<&'b Weights>,
    plans: &'b [backend::Plan],
    counts: Counts,
}

impl Run<'_, '_, '_> {
    fn all(&mut self) -> Result<(), Error> {
        let chunks = self.chunks();
        self.start_chunk(&chunks, 0)?;
        self.queries()?;
        self.start_results(true)?;
        self.own_rows()?;
        for (number, chunk) in chunks.iter().enumerate() {
            self.land("the encoder's rows", number % QUERY_MARK)?;
            self.start_chunk(&chunks, number + 1)?;
            self.chunk(chunk)?;
        }
        self.start_results(false)?;
        self.land_results()
    }

    /// Asks for all transfers; products come first where it is their results that are moved.
    fn first_half(&mut self) -> Result<(), Error> {
        let chunks = self.chunks();
        if !chunks.is_empty() {
            return (0..chunks.len()).try_for_each(|number| self.start_chunk(&chunks, number));
        }
        self.queries()?;
        self.start_results(true)?;
        self.own_rows()?;
        self.start_results(false)
    }

    /// The engine's group has ended, so the transfers are on their stream, all before one mark.
    fn second_half(&mut self) -> Result<(), Error> {
        const MARK: usize = 0;
        self.this.group.wire.mark(MARK)?;
        self.land("the transfers of an engine's group", MARK)?;
        let chunks = self.chunks();
        if !chunks.is_empty() {
            self.queries()?;
            self.own_rows()?;
        }
        chunks.iter().try_for_each(|chunk| self.chunk(chunk))?;
        self.scatter()
    }

    fn chunks(&self) -> Vec<Chunk> {
        self.this.collective.sequence.as_ref().map_or(Vec::new(), Sequence::chunks)
    }

    fn queries(&mut self) -> Result<(), Error> {
        match &self.this.call.decoder {
            Some(side) => self.products(true, &side.rows, 0),
            None => Ok(()),
        }
    }

    /// K and V of the rows that are here from the beginning.
    fn own_rows(&mut self) -> Result<(), Error> {
        let this = self.this;
        match (&this.collective.sequence, &this.call.encoder) {
            (Some(sequence), Some(_)) => match &sequence.own {
                Some(rows) => self.products(false, rows, sequence.first_row(this.group.rank())),
                None => Ok(()),
            },
            (None, Some(side)) => self.products(false, &side.rows, 0),
            (_, None) => Ok(()),
        }
    }

    /// K and V of rows that came from another rank.
    fn chunk(&mut self, chunk: &Chunk) -> Result<(), Error> {
        match &self.this.call.encoder {
            Some(side) if chunk.root != self.this.group.rank() => {
                let rows = side.rows.part(from(chunk.rows, 0));
                self.products(false, &rows, chunk.rows.begin)
            }
            _ => Ok(()),
        }
    }

    fn products(&mut self, is_decoder: bool, rows: &Rows, first: i64) -> Result<(), Error> {
        let Some(weights) = self.weights else { return Ok(()) };
        for product in self.this.products(is_decoder, rows, first) {
            let job = self.this.job(&product, weights);
            let plan = &self.plans[product.plan];
            // SAFETY: the call was checked, its memory is there, and so is all that was loaded.
            let counts = unsafe { self.this.projection.backend.run(plan, &job) }?;
            self.counts.add(&counts);
        }
        Ok(())
    }

    fn start_chunk(&mut self, chunks: &[Chunk], number: usize) -> Result<(), Error> {
        let Some(chunk) = chunks.get(number) else { return Ok(()) };
        let (buffer, bytes) = self.this.chunk_memory(chunk);
        let transfer = Transfer::Broadcast { buffer, bytes, root: chunk.root };
        self.start("the encoder's rows", &transfer, number % QUERY_MARK)
    }

    /// Starts the transfers of Q, or of K and V, once their products are done.
    fn start_results(&mut self, is_decoder: bool) -> Result<(), Error> {
        let this = self.this;
        let reach = this.result_reach(is_decoder);
        if reach == Reach::Holders {
            return Ok(());
        }
        this.group.wire.fork(&this.call.lane)?;
        let (operation, mark) = result_words(is_decoder);
        if reach == Reach::Sharers {
            let messages = this.messages(is_decoder);
            return self.start(operation, &Transfer::Exchange { messages: &messages }, mark);
        }
        for spread in this.side(is_decoder) {
            let Some(Staging { rank_bytes, begin, .. }) = &spread.staging else { continue };
            let transfer = Transfer::AllGather { buffer: *begin, bytes: rank_bytes };
            self.start(operation, &transfer, mark)?;
        }
        Ok(())
    }

    /// Waits for the results of others and puts all that was staged into the views.
    fn land_results(&mut self) -> Result<(), Error> {
        let this = self.this;
        for is_decoder in [true, false] {
            if this.result_reach(is_decoder) != Reach::Holders {
                let (operation, mark) = result_words(is_decoder);
                self.land(operation, mark)?;
            }
        }
        self.scatter()
    }

    fn scatter(&self) -> Result<(), Error> {
        self.this.parts.iter().try_for_each(|spread| self.this.scatter(spread))
    }

    fn start(
        &mut self,
        operation: &str,
        transfer: &Transfer<'_>,
        mark: usize,
    ) -> Result<(), Error> {
        let wire = &self.this.group.wire;
        // SAFETY: the memory is the call's, and products that need it come after `land`.
        unsafe { self.turn.start(operation, transfer, wire.stream()) }?;
        wire.mark(mark)
    }

    fn land(&mut self, operation: &str, mark: usize) -> Result<(), Error> {
        let wire = &self.this.group.wire;
        if !wire.is_streamed() {
            return self.turn.finish(operation);
        }
        self.turn.poll(operation)?;
        wire.join(&self.this.call.lane, mark)
    }
}

fn result_words(is_decoder: bool) -> (&'static str, usize) {
    if is_decoder {
        ("the results of Q", QUERY_MARK)
    } else {
        ("the results of K and V", ENCODER_MARK)
    }
}
