//! Small weights on a backend, and memory of its device for rows, views and staged results.

use super::case::{Elements, Random};
use std::ops::Range;
use std::sync::Arc;
use xqkv::backend::*;
use xqkv::dtype::Dtype;
use xqkv::stats::Counts;
use xqkv::view::{Base, Indices, Rows, Shape, Strides, Target, View};

pub const LAYERS: usize = 2;
pub const ROWS: usize = 5;
pub const INPUTS: usize = 72;
/// No panel and no tile is full.
pub const HEADS: usize = 3;
pub const WIDTH: usize = 5;
const OUTPUTS: usize = HEADS * WIDTH;
/// Places of a view with slots.
const PLACES: i64 = 7;
const SLOTS: [i64; ROWS] = [6, -1, 0, 3, 2];

/// Where the slots are in the memory, in bytes; the rows are before them.
pub const SLOTS_AT: usize = 4096;
const WORKSPACE_AT: usize = 8192;
const WORKSPACE_BYTES: usize = 1 << 16;
const PLACES_AT: usize = WORKSPACE_AT + WORKSPACE_BYTES;
const PLACE_BYTES: usize = 8192;
const PLACE_COUNT: usize = 4;

/// How a view lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    HeadMajor,
    Groups,
    Transposed,
    Slots,
    LayersApart,
}

pub const WAYS: [Way; 5] =
    [Way::HeadMajor, Way::Groups, Way::Transposed, Way::Slots, Way::LayersApart];

/// A backend with weights of K and V, and its memory: a wire's board.
pub struct Scene {
    pub backend: Arc<dyn Backend>,
    pub wire: Arc<dyn Wire>,
    pub dtype: Dtype,
    form: Form,
    weights: Weights,
}

/// Where a place begins in the memory, in bytes.
pub fn place(at: usize) -> usize {
    PLACES_AT + at * PLACE_BYTES
}

fn form(dtype: Dtype) -> Form {
    let matrix = MatrixForm {
        outputs: OUTPUTS,
        inputs: INPUTS,
        scale: 0.5,
        has_bias: true,
        norm: None,
        cut_width: WIDTH,
        stack: 1,
    };
    let numerics = Numerics { tensor_float: false, batch_invariant: true };
    Form {
        layer_count: LAYERS,
        dtype: dtype.into(),
        matrices: vec![matrix.clone(), matrix],
        numerics,
    }
}

impl Scene {
    /// With any numbers, or with those of -1, 0 and 1, of which all sums are exact.
    pub fn new(backend: Arc<dyn Backend>, dtype: Dtype, is_exact: bool) -> Self {
        let (form, mut random) = (form(dtype), Random::new(7));
        let mut numbers = |count| {
            let all = random.numbers(count).into_iter();
            all.map(|number| if is_exact { (number * 1.5).round() } else { number }).collect()
        };
        let vectors: Vec<(Vec<f32>, Vec<f32>)> =
            (0..2 * LAYERS).map(|_| (numbers(OUTPUTS * INPUTS), numbers(OUTPUTS))).collect();
        let vectors: Vec<_> = vectors
            .into_iter()
            .map(|(weight, bias)| (Elements::rounded(&weight, dtype), bias))
            .collect();
        let contents = vectors.iter().map(|(weight, bias)| Content {
            weight: WeightSource::Copied(&weight.bytes),
            bias: VectorSource::Copied(bias),
            norm: VectorSource::Absent,
        });
        let contents = contents.collect();
        let weights = backend.load(&Stock { form: &form, contents }, None).unwrap();
        let wire = backend.wire(place(PLACE_COUNT)).unwrap();
        let rows = Elements::rounded(&numbers(ROWS * INPUTS), dtype);
        wire.write(0, &rows.bytes).unwrap();
        Self { backend, wire, dtype, form, weights }
    }

    pub fn address(&self, offset: usize) -> usize {
        self.wire.board() + offset
    }

    pub fn lane(&self) -> Lane {
        let workspace = self.address(WORKSPACE_AT);
        Lane { workspace, workspace_bytes: WORKSPACE_BYTES, ..Lane::default() }
    }

    /// Makes all places NaN, and the slots good ones.
    pub fn poison(&self) {
        self.wire.write(PLACES_AT, &[0xFF; PLACE_COUNT * PLACE_BYTES]).unwrap();
        let slots: Vec<u8> = SLOTS.iter().flat_map(|slot| slot.to_ne_bytes()).collect();
        self.wire.write(SLOTS_AT, &slots).unwrap();
    }

    /// What a place has, after all that was put on the default stream.
    pub fn read(&self, at: usize) -> Vec<u8> {
        self.wire.fork(&Lane::default()).unwrap();
        self.wire.read(place(at + 1)).unwrap().split_off(place(at))
    }

    pub fn rows(&self, rows: Range<usize>) -> Rows {
        let (address, inputs) = (self.address(0), INPUTS as i64);
        let all = Rows::new("encoder", address, self.dtype, ROWS as i64, inputs, 0, None);
        all.unwrap().part(rows)
    }

    fn shape(&self) -> Shape {
        let [layers, rows, heads, width] = [LAYERS, ROWS, HEADS, WIDTH].map(|count| count as i64);
        Shape { layers, rows, heads, width }
    }

    pub fn staged(&self, at: usize) -> View<'static> {
        View::staged(self.address(place(at)), self.shape(), self.dtype)
    }

    /// Where the layers of a view at a place begin, if they have addresses of their own.
    pub fn layers(&self, at: usize) -> [usize; LAYERS] {
        [0, PLACE_BYTES / 2].map(|offset| self.address(place(at) + offset))
    }

    pub fn view<'a>(&self, way: Way, layers: &'a [usize; LAYERS]) -> View<'a> {
        let [rows, width] = [ROWS, WIDTH].map(|count| count as i64);
        let packed = Strides::default();
        let strides = match way {
            Way::HeadMajor => Strides { row: width, head: rows * width, ..packed },
            Way::Transposed => Strides { row: 1, width: rows, head: rows * width, ..packed },
            // Packed groups would only continue each other.
            Way::Groups => Strides { layer: 120, group: 40, ..packed },
            Way::Slots | Way::LayersApart => packed,
        };
        let slots = || {
            let address = self.address(SLOTS_AT);
            Indices::new("key", "slots", address, ROWS as i64, ("slot_count", PLACES)).unwrap()
        };
        let target = Target {
            base: match way {
                Way::LayersApart => Base::Each(layers),
                _ => Base::First(layers[0]),
            },
            dtype: self.dtype,
            strides,
            group_rows: if matches!(way, Way::Groups) { 2 } else { 0 },
            slots: matches!(way, Way::Slots).then(slots),
            accumulates: false,
        };
        View::new("key", self.shape(), target).unwrap()
    }

    fn output<'a>(&self, matrix: usize, heads: &Range<usize>, view: &'a View<'a>) -> Output<'a> {
        let columns = Columns { begin: heads.start * WIDTH, count: heads.len() * WIDTH };
        Output { name: ["key", "value"][matrix], matrix, columns, view }
    }

    /// A job of K, and of V if there is a second view.
    pub fn job<'a>(
        &'a self,
        heads: Range<usize>,
        rows: &'a Rows,
        views: &'a [View<'a>],
        lane: &'a Lane,
    ) -> Job<'a> {
        let output = |at: usize| views.get(at).map(|view| self.output(at, &heads, view));
        let side = Side { name: "encoder", rows, outputs: [output(0), output(1)] };
        let (form, weights) = (&self.form, &self.weights);
        Job { form, weights, layer: 0, layer_count: LAYERS, sides: [None, Some(side)], lane }
    }

    pub fn plan(&self, job: &Job<'_>) -> Plan {
        let alignment = self.dtype.bytes();
        let options = PlanOptions { workspace_limit: None, alignment, is_timed: false };
        self.backend.plan(job, &options).map_err(|error| error.message).unwrap()
    }

    /// Runs a job of some heads and rows.
    pub fn run(
        &self,
        heads: Range<usize>,
        rows: Range<usize>,
        views: &[View<'_>],
        lane: &Lane,
    ) -> Counts {
        let rows = self.rows(rows);
        let job = self.job(heads, &rows, views, lane);
        let plan = self.plan(&job);
        // SAFETY: rows and views are in the scene's memory.
        unsafe { self.backend.run(&plan, &job) }.map_err(|error| error.message).unwrap()
    }

    /// All of K.
    pub fn run_key(&self, view: &View<'_>, lane: &Lane) {
        self.run(0..HEADS, 0..ROWS, std::slice::from_ref(view), lane);
    }
}
