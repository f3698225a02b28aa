//! One call with transfers, from the division of the workspace to the last result in its view.

use super::collective::{Chunk, Collective};
use super::group::Group;
use super::staging::{Cursor, Place, Staging};
use super::version::matrix_of;
use super::{Call, Projection};
use crate::backend::{self, Block, Columns, Job, Lane, Output, Side, WORKSPACE_ALIGNMENT, Weights};
use crate::comm::Message;
use crate::error::Error;
use crate::shard::{Piece, Range, Reach};
use crate::spec::Part;
use crate::view::{Rows, Shape, View};

/// A call, and how its work and the workspace are divided.
pub(super) struct Together<'a> {
    pub(super) projection: &'a Projection,
    pub(super) group: &'a Group,
    pub(super) call: &'a Call<'a>,
    pub(super) collective: &'a Collective<'a>,
    pub(super) parts: Vec<Spread<'a>>,
    /// The call's, with what is left of the workspace.
    pub(super) lane: Lane,
}

/// How the work of one part is spread.
pub(super) struct Spread<'a> {
    part: Part,
    reach: Reach,
    view: &'a View<'a>,
    /// What this rank projects, in the order of plans.
    own: Vec<Own>,
    /// None where products write the view.
    pub(super) staging: Option<Staging>,
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
    pub(super) rows: Rows,
    outputs: [Option<(Part, Columns, View<'a>)>; 2],
}

impl<'a> Together<'a> {
    /// Divides the work and the workspace.
    pub(super) fn new(
        projection: &'a Projection,
        group: &'a Group,
        call: &'a Call<'a>,
        collective: &'a Collective<'a>,
    ) -> Self {
        let mut cursor = Cursor::new(call.lane.workspace);
        let mut this =
            Self { projection, group, call, collective, parts: Vec::new(), lane: call.lane };
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
        let rows =
            self.call.rows().map(|(_, _, rows)| rows.row_stride() as usize * rows.dtype().bytes());
        let views = self.parts.iter().map(|spread| {
            let (view, width) = (spread.view, self.width(spread.part) as usize);
            let strides = view.strides();
            let direct = strides.row as usize | strides.head as usize;
            let elements = if spread.staging.is_some() { width } else { direct };
            elements * view.dtype().bytes()
        });
        1 << rows
            .chain(views)
            .fold(WORKSPACE_ALIGNMENT, |bits, bytes| bits | bytes)
            .trailing_zeros()
    }

    /// Whether this rank projects anything.
    pub(super) fn has_products(&self) -> bool {
        self.parts.iter().any(|spread| !spread.own.is_empty())
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
    pub(super) fn side(&self, is_decoder: bool) -> impl Iterator<Item = &Spread<'a>> {
        self.parts.iter().filter(move |spread| (spread.part == Part::Query) == is_decoder)
    }

    /// This rank's products of some rows, which lie in `rows` and are those from `first` on.
    pub(super) fn products(&self, is_decoder: bool, rows: &Rows, first: i64) -> Vec<Product<'a>> {
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

    /// Refuses row lists and slots that break their promise before anything is begun.
    pub(super) fn ensure_indices(&self) -> Result<(), Error> {
        let backend = &self.projection.backend;
        let decoder = self.call.decoder.iter().map(|side| (&side.rows, "decoder"));
        let encoder = self.call.encoder.iter().map(|side| (&side.rows, "encoder"));
        for (rows, name) in decoder.chain(encoder) {
            // SAFETY: the call's lists can be read.
            unsafe { backend.ensure_listed(rows, name) }?;
        }
        self.parts.iter().try_for_each(|spread| {
            let (view, name) = (spread.view, spread.part.name());
            // SAFETY: nothing is put anywhere.
            unsafe { backend.scatter(&[], view, name, &self.lane) }
        })
    }

    /// Bytes behind what is staged that putting results at slots takes.
    fn slot_bytes(&self) -> usize {
        let staged = self.parts.iter().filter(|spread| spread.staging.is_some());
        let rows = staged.filter(|spread| spread.view.slots().is_some());
        let rows = rows.map(|spread| spread.view.shape().rows as usize);
        rows.max().unwrap_or(0) * size_of::<i64>()
    }

    /// How far the results of a side go, also where this rank has none.
    pub(super) fn result_reach(&self, is_decoder: bool) -> Reach {
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
    pub(super) fn chunk_memory(&self, chunk: &Chunk) -> (usize, usize) {
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
    pub(super) fn messages(&self, is_decoder: bool) -> Vec<Message> {
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

    pub(super) fn scatter(&self, spread: &Spread<'a>) -> Result<(), Error> {
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

/// A range as places behind a first one.
pub(super) fn from(range: Range, first: i64) -> std::ops::Range<usize> {
    (range.begin - first) as usize..(range.end() - first) as usize
}
