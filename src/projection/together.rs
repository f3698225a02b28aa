//! One call with transfers, from the division of the workspace to the last result in its view.

use super::collective::{Chunk, Collective, Sequence};
use super::group::Group;
use super::staging::{Cursor, Place, Staging};
use super::version::matrix_of;
use super::{Call, Projection};
use crate::backend::{
    self, Block, Columns, Job, Lane, Output, Side, WIRE_MARKS, WORKSPACE_ALIGNMENT, Weights,
};
use crate::comm::{Message, Transfer, Turn};
use crate::error::Error;
use crate::shard::{Piece, Range, Reach};
use crate::spec::Part;
use crate::stats::Counts;
use crate::view::{Rows, Shape, View};

/// A call, and how its work and the workspace are divided.
pub(super) struct Together<'a> {
    projection: &'a Projection,
    group: &'a Group,
    call: &'a Call<'a>,
    collective: &'a Collective<'a>,
    parts: Vec<Spread<'a>>,
    /// The call's, with what is left of the workspace.
    lane: Lane,
}

/// How the work of one part is spread.
struct Spread<'a> {
    part: Part,
    reach: Reach,
    view: &'a View<'a>,
    /// What this rank projects, in the order of plans.
    own: Vec<Own>,
    /// None where products write the view.
    staging: Option<Staging>,
}

/// A piece of this rank's, and where it is staged.
struct Own {
    piece: Piece,
    place: Option<usize>,
}

/// One product, or that of K and that of V.
pub(super) struct Product<'a> {
    /// Which of the plans is its.
    pub(super) plan: usize,
    name: &'static str,
    rows: Rows,
    outputs: [Option<(Part, Columns, View<'a>)>; 2],
}

/// Marks of the transfers of results; those of chunks are before them.
const QUERY_MARK: usize = WIRE_MARKS - 2;
const ENCODER_MARK: usize = WIRE_MARKS - 1;

impl<'a> Together<'a> {
    /// Divides the work and the workspace.
    pub(super) fn new(
        projection: &'a Projection,
        group: &'a Group,
        call: &'a Call<'a>,
        collective: &'a Collective<'a>,
    ) -> Self {
        let mut cursor = Cursor::new(call.lane.workspace);
        let mut this = Self {
            projection,
            group,
            call,
            collective,
            parts: Vec::new(),
            lane: call.lane,
        };
        (this.lane.wait_event, this.lane.signal_event) = (0, 0);
        if let Some(sequence) = &collective.sequence {
            cursor.take(sequence.row_count() as usize * sequence.row_bytes);
        }
        for (part, view) in call.outputs() {
            let spread = this.spread(&mut cursor, part, view);
            this.parts.push(spread);
        }
        this.lane.workspace += cursor.taken();
        this.lane.workspace_bytes = this.lane.workspace_bytes.saturating_sub(cursor.taken());
        this
    }

    /// The call.
    pub(super) fn call(&self) -> &'a Call<'a> {
        self.call
    }

    /// Bytes of workspace that the call takes with these plans.
    pub(super) fn needed_bytes(&self, plans: &[backend::Plan]) -> usize {
        let products = plans.iter().map(|plan| plan.minimum_bytes).max().unwrap_or(0);
        self.staged_bytes() + products.max(self.slot_bytes())
    }

    /// What all places are a multiple of at which rows and heads of a piece may begin.
    pub(super) fn part_alignment(&self) -> usize {
        let rows = self.call.rows().map(|(_, _, rows)| rows.row_stride() as usize * rows.dtype().bytes());
        let views = self.parts.iter().map(|spread| {
            let (view, width) = (spread.view, self.width(spread.part) as usize);
            let strides = view.strides();
            let direct = strides.row as usize | strides.head as usize;
            let elements = if spread.staging.is_some() { width } else { direct };
            elements * view.dtype().bytes()
        });
        1 << rows.chain(views).fold(WORKSPACE_ALIGNMENT, |bits, bytes| bits | bytes).trailing_zeros()
    }

    /// Bytes of the workspace that are divided before products get the rest.
    pub(super) fn staged_bytes(&self) -> usize {
        self.lane.workspace - self.call.lane.workspace
    }

    fn layers(&self) -> i64 {
        self.call.layer_count
    }

    fn width(&self, part: Part) -> i64 {
        self.projection.spec.width(part)
    }

    /// The uncut layer's head that a part's view begins with.
    fn first_head(&self, part: Part, reach: Reach) -> i64 {
        if reach.is_all() { 0 } else { self.projection.shard.heads(part).begin }
    }

    fn spread(&self, cursor: &mut Cursor, part: Part, view: &'a View<'a>) -> Spread<'a> {
        let reach = self.projection.reach(self.group, self.collective, part);
        let (rank, ranks) = (self.group.rank(), &self.group.ranks);
        let rows = view.shape().rows;
        let mut pieces = ranks.pieces(part, rows, reach);
        pieces.retain(|piece| piece.readers.contains(&rank));
        if reach == Reach::Holders && self.is_writable_in_parts(view) {
            let own = pieces.into_iter().map(|piece| Own { piece, place: None }).collect();
            return Spread { part, reach, view, own, staging: None };
        }
        let row = (self.width(part), view.dtype());
        let staging = Staging::new(cursor, pieces, ranks.count(), self.layers(), row);
        let own = staging.places.iter().filter(|place| place.piece.owner == rank);
        let own = own.map(|place| Own { piece: place.piece.clone(), place: Some(place.address) });
        Spread { part, reach, view, own: own.collect(), staging: Some(staging) }
    }

    /// Whether products of some rows may write a view: all rows come at once, or no row's place
    /// depends on others.
    fn is_writable_in_parts(&self, view: &View<'_>) -> bool {
        self.collective.sequence.is_none()
            || (view.slots().is_none() && view.group_rows().is_none())
    }

    /// The parts that come of a side's rows.
    fn side(&self, is_decoder: bool) -> impl Iterator<Item = &Spread<'a>> {
        self.parts.iter().filter(move |spread| (spread.part == Part::Query) == is_decoder)
    }

    /// This rank's products of some rows, which lie in `rows` and are those from `first` on.
    fn products(&self, is_decoder: bool, rows: &Rows, first: i64) -> Vec<Product<'a>> {
        let given = Range { begin: first, count: rows.count() };
        let product = |(at, own): (usize, &Own)| {
            let wanted = own.piece.rows.overlap(given);
            let output = |spread: &Spread<'a>| self.output(spread, &spread.own[at], wanted);
            let rows = || rows.part(from(wanted, first));
            (wanted.count > 0).then(|| self.product(is_decoder, at, rows(), output))
        };
        self.own(is_decoder).iter().enumerate().filter_map(product).collect()
    }

    /// One product for each plan, with as many rows as its side has: no call has more.
    pub(super) fn examples(&self) -> Vec<Product<'a>> {
        let decoder = self.call.decoder.as_ref().map(|side| (true, &side.rows));
        let encoder = self.call.encoder.as_ref().map(|side| (false, &side.rows));
        let of_side = |(is_decoder, rows): (bool, &Rows)| {
            let example = |at: usize| {
                let output = |spread: &Spread<'a>| self.example(spread, &spread.own[at]);
                self.product(is_decoder, at, rows.clone(), output)
            };
            (0..self.own(is_decoder).len()).map(example).collect::<Vec<_>>()
        };
        decoder.into_iter().chain(encoder).flat_map(of_side).collect()
    }

    fn product(
        &self,
        is_decoder: bool,
        at: usize,
        rows: Rows,
        output: impl Fn(&Spread<'a>) -> (Part, Columns, View<'a>),
    ) -> Product<'a> {
        let mut spreads = self.side(is_decoder);
        let outputs = [spreads.next().map(&output), spreads.next().map(&output)];
        let (name, first_plan) = match is_decoder {
            true => ("decoder", 0),
            false => ("encoder", self.own(true).len()),
        };
        Product { plan: first_plan + at, name, rows, outputs }
    }

    /// This rank's pieces of a side; of K and of V they are the same.
    fn own(&self, is_decoder: bool) -> &[Own] {
        self.side(is_decoder).next().map_or(&[], |spread| &spread.own)
    }

    /// Where some rows of a piece go: the product's matrix, its columns and the view.
    fn output(&self, spread: &Spread<'a>, own: &Own, rows: Range) -> (Part, Columns, View<'a>) {
        let heads = own.piece.heads;
        let view = match own.place {
            Some(address) => {
                let whole = self.staged(spread, own, address, own.piece.rows.count);
                whole.part(from(rows, own.piece.rows.begin), 0..heads.count as usize)
            }
            None => {
                let first = self.first_head(spread.part, spread.reach);
                spread.view.part(from(rows, 0), from(heads, first))
            }
        };
        // A view that cannot be cut is written whole.
        let view = view.unwrap_or_else(|| spread.view.clone());
        (spread.part, self.columns(spread.part, heads), view)
    }

    /// Where a piece goes if it has all rows of its side.
    fn example(&self, spread: &Spread<'a>, own: &Own) -> (Part, Columns, View<'a>) {
        let view = match own.place {
            Some(address) => self.staged(spread, own, address, spread.view.shape().rows),
            None => spread.view.clone(),
        };
        (spread.part, self.columns(spread.part, own.piece.heads), view)
    }

    fn staged(&self, spread: &Spread<'a>, own: &Own, address: usize, rows: i64) -> View<'static> {
        let (heads, width) = (own.piece.heads.count, self.width(spread.part));
        let shape = Shape { layers: self.call.layer_count, rows, heads, width };
        View::staged(address, shape, spread.view.dtype())
    }

    fn columns(&self, part: Part, heads: Range) -> Columns {
        let (held, width) = (self.projection.shard.heads(part).begin, self.width(part));
        let begin = ((heads.begin - held) * width) as usize;
        Columns { begin, count: (heads.count * width) as usize }
    }

    /// Refuses slots that are out of range or double before anything is written.
    pub(super) fn ensure_slots(&self) -> Result<(), Error> {
        let staged = self.parts.iter().filter(|spread| spread.staging.is_some());
        staged.into_iter().try_for_each(|spread| {
            let (view, name) = (spread.view, spread.part.name());
            // SAFETY: nothing is put anywhere.
            unsafe { self.projection.backend.scatter(&[], view, name, &self.lane) }
        })
    }

    /// Bytes behind what is staged that putting results at slots takes.
    fn slot_bytes(&self) -> usize {
        let staged = self.parts.iter().filter(|spread| spread.staging.is_some());
        let rows = staged.filter(|spread| spread.view.slots().is_some());
        let rows = rows.map(|spread| spread.view.shape().rows as usize);
        rows.max().unwrap_or(0) * size_of::<i64>()
    }

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
        self.group.wire.begin(&self.call.lane)?;
        // SAFETY: passed on.
        unsafe { run.all() }?;
        self.group.wire.end(&self.call.lane)?;
        Ok(run.counts)
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
    unsafe fn all(&mut self) -> Result<(), Error> {
        let this = self.this;
        let chunks = this.collective.sequence.as_ref().map_or(Vec::new(), Sequence::chunks);
        self.start_chunk(&chunks, 0)?;
        if let Some(side) = &this.call.decoder {
            self.products(true, &side.rows, 0)?;
        }
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
        this.parts.iter().try_for_each(|spread| this.scatter(spread))
    }

    fn start(&mut self, operation: &str, transfer: &Transfer<'_>, mark: usize) -> Result<(), Error> {
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

impl<'a> Together<'a> {
    /// How far the results of a side go, also where this rank has none.
    fn result_reach(&self, is_decoder: bool) -> Reach {
        let collective = self.collective;
        let (part, rows) = match is_decoder {
            true => (Part::Query, collective.decoder_rows),
            false => (Part::Key, collective.encoder_rows),
        };
        if rows == 0 {
            return Reach::Holders;
        }
        self.projection.reach(self.group, collective, part)
    }

    /// Where a chunk's rows are on this rank: the root sends them from where they lie.
    fn chunk_memory(&self, chunk: &Chunk) -> (usize, usize) {
        let Some(sequence) = &self.collective.sequence else { return (0, 0) };
        let row_bytes = sequence.row_bytes;
        let bytes = chunk.rows.count as usize * row_bytes;
        let first = match chunk.root == self.group.rank() {
            true => sequence.first_row(chunk.root),
            false => 0,
        };
        let base = match (&sequence.own, chunk.root == self.group.rank()) {
            (Some(own), true) => own.address(),
            _ => self.call.lane.workspace,
        };
        (base + (chunk.rows.begin - first) as usize * row_bytes, bytes)
    }

    /// What this rank sends to those who share its heads, and what it receives.
    fn messages(&self, is_decoder: bool) -> Vec<Message> {
        let rank = self.group.rank();
        let stagings = self.side(is_decoder).filter_map(|spread| spread.staging.as_ref());
        let mut messages = Vec::new();
        for Place { piece, address, bytes } in stagings.flat_map(|staging| &staging.places) {
            let is_sent = piece.owner == rank;
            let peers: &[usize] =
                if is_sent { &piece.readers } else { std::slice::from_ref(&piece.owner) };
            let others = peers.iter().filter(|&&peer| peer != rank);
            messages.extend(others.map(|&peer| Message {
                peer,
                address: *address,
                bytes: *bytes,
                is_sent,
            }));
        }
        messages
    }

    fn scatter(&self, spread: &Spread<'a>) -> Result<(), Error> {
        let blocks = self.blocks(spread);
        if blocks.is_empty() {
            return Ok(());
        }
        let backend = &self.projection.backend;
        // SAFETY: the blocks are in the workspace, and the view was checked.
        unsafe { backend.scatter(&blocks, spread.view, spread.part.name(), &self.lane) }
    }

    fn blocks(&self, spread: &Spread<'a>) -> Vec<Block> {
        let first = self.first_head(spread.part, spread.reach);
        let (layers, width) = (self.layers(), self.width(spread.part));
        let places = spread.staging.iter().flat_map(|staging| &staging.places);
        places.map(|place| place.block(layers, width, first)).collect()
    }

    /// The backend's job for a product.
    pub(super) fn job<'b>(&'b self, product: &'b Product<'a>, weights: &'b Weights) -> Job<'b> {
        let output = |output: &'b Option<(Part, Columns, View<'a>)>| {
            output.as_ref().map(|(part, columns, view)| Output {
                name: part.name(),
                matrix: matrix_of(*part),
                columns: *columns,
                view,
            })
        };
        let [first, second] = &product.outputs;
        let outputs = [output(first), output(second)];
        let side = Side { name: product.name, rows: &product.rows, outputs };
        Job {
            form: &self.projection.form,
            weights,
            layer: (self.call.layer - self.projection.shard.layers.begin) as usize,
            layer_count: self.call.layer_count as usize,
            sides: [Some(side), None],
            lane: &self.lane,
        }
    }
}

fn result_words(is_decoder: bool) -> (&'static str, usize) {
    if is_decoder { ("the results of Q", QUERY_MARK) } else { ("the results of K and V", ENCODER_MARK) }
}

/// A range as places behind a first one.
fn from(range: Range, first: i64) -> std::ops::Range<usize> {
    (range.begin - first) as usize..(range.end() - first) as usize
}
