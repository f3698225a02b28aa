//! The planner against the committed table, and against what every output must be.

#[path = "table.rs"]
mod table;

use super::*;
use std::collections::BTreeMap;
use table::{Extents, Place, Weights, places};

const INPUTS: i64 = 5;

/// A side, and where its weights lie.
struct Scene {
    side: SideShape,
    extents: Extents,
    places: [Place; 2],
    /// For each part and layer, in elements.
    weights: [Vec<i64>; 2],
}

/// What a scene is made of.
#[derive(Clone, Copy, Debug)]
struct Kind {
    axes: &'static str,
    is_value_first: bool,
    is_query: bool,
    extents: Extents,
    weights: Weights,
    bias: [bool; 2],
    scales_differ: bool,
    dtypes_differ: bool,
    /// What the table says of it beside.
    but: &'static str,
}

impl Kind {
    fn scene(&self) -> Scene {
        let extents = self.extents;
        let places = places(self.axes, self.is_value_first, &extents);
        let weights = [0, 1].map(|part| self.weight_places(part));
        let parts = [0, 1].map(|part| self.part(part, &places[part], &weights[part]));
        let distance = places[1].offset - places[0].offset;
        let is_behind = !self.is_query && distance >= 0 && self.but != "layers apart";
        let is_stacked = !self.is_query && matches!(self.weights, Weights::Ours | Weights::Stacked);
        let side = SideShape {
            inputs: INPUTS as usize,
            row_stride: INPUTS,
            has_list: self.but == "listed",
            layers: extents.layers as usize,
            parts: [Some(parts[0]), (!self.is_query).then_some(parts[1])],
            stack_rows: is_stacked.then(|| self.outputs(0)),
            relation: if is_behind { Relation::Behind(distance) } else { Relation::Apart },
        };
        Scene { side, extents, places, weights }
    }

    fn outputs(&self, part: usize) -> i64 {
        self.extents.heads * self.extents.widths[part]
    }

    /// V's rows behind K's in each layer, or matrices that have nothing to do with each other.
    fn weight_places(&self, part: usize) -> Vec<i64> {
        let sizes = [0, 1].map(|part| self.outputs(part) * INPUTS);
        let before = if part == 1 { sizes[0] } else { 0 };
        let stacked = sizes[0] + sizes[1] + 32;
        let begin = |layer: i64| match self.weights {
            Weights::Ours => layer * stacked + before,
            Weights::Stacked => layer * (stacked + layer * 3) + before,
            Weights::Apart => layer * (stacked + layer * 3) + before + part as i64 * 7,
            Weights::Even => layer * sizes[part] + part as i64 * 1_000_000,
        };
        (0..self.extents.layers).map(begin).collect()
    }

    fn part(&self, number: usize, place: &Place, weights: &[i64]) -> PartShape {
        let is_wide = self.dtypes_differ && number == 1;
        let stride = weights.get(1).map_or(0, |second| second - weights[0]);
        let is_even = weights.windows(2).all(|pair| pair[1] - pair[0] == stride);
        PartShape {
            heads: self.extents.heads as usize,
            width: self.extents.widths[number] as usize,
            strides: Strides {
                layer: place.layer,
                row: place.row,
                head: place.head,
                width: place.width,
                ..Strides::default()
            },
            has_layer_stride: self.but != "layers apart",
            is_scattered: matches!(self.but, "slots" | "groups"),
            has_norm: self.but == "normed" && number == 0,
            accumulates: self.but == "added",
            dtype: if is_wide { Dtype::F32 } else { Dtype::Bf16 },
            has_bias: self.bias[number],
            scale: if self.scales_differ && number == 1 { 2.0 } else { 1.0 },
            bias_offset: number as i64 * self.outputs(0),
            bias_layer_stride: self.outputs(0) + self.outputs(1) + 3,
            weight_row_stride: INPUTS,
            weight_layer_stride: is_even.then_some(stride),
            weight_alignment: 2,
        }
    }
}

#[test]
fn the_table_has_the_planner_s_calls_and_batches() {
    let rows = table::rows();
    assert!(rows.len() >= 40, "only {} rows were read", rows.len());
    for row in &rows {
        let kind = Kind {
            axes: row.views.strip_prefix("Q ").unwrap_or(&row.views).to_owned().leak(),
            is_value_first: row.but == "V before K",
            is_query: row.is_query(),
            extents: row.extents(),
            weights: row.weights,
            bias: row.bias,
            scales_differ: row.scales_differ,
            dtypes_differ: row.but == "V in f32",
            but: row.but.clone().leak(),
        };
        assert_eq!(kind.scene().places, row.places());
        let matmuls = matmuls(&kind.scene().side);
        let calls: usize = matmuls.iter().map(|matmul| matmul.starts.len()).sum();
        assert_eq!(calls, row.calls, "calls of {row:?}");
        let staged = matmuls.iter().filter(|matmul| matmul.is_staged);
        let kernels: usize = staged.map(|matmul| matmul.starts.len()).sum();
        assert_eq!(kernels + usize::from(row.but == "listed"), row.kernels, "kernels of {row:?}");
        for matmul in matmuls {
            assert_eq!(matmul.batch_count(), row.batch, "batch of {row:?}");
        }
    }
}

/// A row of the tables of calls in docs/waves.md, and its number of launches.
fn modelled(line: &str) -> Option<(Kind, usize)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let number = |place: usize| cells.get(place)?.parse::<i64>().ok();
    let is_query = match *cells.get(2)? {
        "Q" => true,
        "K and V" => false,
        _ => return None,
    };
    let [layers, heads, rows, outputs, launches] = [3, 4, 5, 6, 7].map(number);
    let width = outputs? / heads? / if is_query { 1 } else { 2 };
    let has_bias = cells[0].starts_with("whisper");
    let kind = Kind {
        axes: if is_query { "[T, H, d]" } else { "[L, T, 2, H, d]" },
        is_value_first: false,
        is_query,
        extents: Extents { layers: layers?, rows: rows?, heads: heads?, widths: [width; 2] },
        weights: Weights::Ours,
        bias: [has_bias && is_query, has_bias],
        scales_differ: false,
        dtypes_differ: false,
        but: "",
    };
    Some((kind, launches? as usize))
}

#[test]
fn the_wave_model_s_launches_are_the_planner_s() {
    let document = include_str!("../../../../docs/waves.md");
    let rows: Vec<_> = document.lines().filter_map(modelled).collect();
    assert!(rows.len() >= 54, "only {} rows were read", rows.len());
    for (kind, launches) in rows {
        let matmuls = matmuls(&kind.scene().side);
        let calls: usize = matmuls.iter().map(|matmul| matmul.starts.len()).sum();
        assert_eq!(calls, launches, "{kind:?}");
    }
}

/// What an element of a view is made from: its row, the weights' row, its bias and its scale.
type Recipe = (i64, i64, Option<i64>, u32);

impl Scene {
    fn bias_layer_stride(&self) -> i64 {
        self.side.parts[0].map_or(0, |part| part.bias_layer_stride)
    }

    /// Biases that a part does not have are zeros in the stack: as good as none.
    fn bias_at(&self, place: i64) -> Option<i64> {
        let within = place % self.bias_layer_stride();
        let of = |part: &&PartShape| {
            (part.bias_offset..part.bias_offset + part.outputs() as i64).contains(&within)
        };
        let part = self.side.parts.iter().flatten().find(of).expect("a bias of this side");
        part.has_bias.then_some(place)
    }

    /// From the views alone: every element's address and recipe.
    fn necessary(&self) -> BTreeMap<i64, Recipe> {
        let mut necessary = BTreeMap::new();
        for (number, part) in self.side.parts.iter().enumerate() {
            let Some(part) = part else { continue };
            let (place, width) = (&self.places[number], part.width as i64);
            for layer in 0..self.extents.layers {
                for row in 0..self.extents.rows {
                    for output in 0..part.outputs() as i64 {
                        let (head, lane) = (output / width, output % width);
                        let to = place.offset + layer * place.layer + row * place.row;
                        let weight = self.weights[number][layer as usize] + output * INPUTS;
                        let bias = layer * part.bias_layer_stride + part.bias_offset + output;
                        let bias = part.has_bias.then_some(bias);
                        let recipe = (row, weight, bias, part.scale.to_bits());
                        necessary.insert(to + head * place.head + lane, recipe);
                    }
                }
            }
        }
        necessary
    }

    /// The same with some of the heads, which lie where they did.
    fn cut(mut self, first: usize, count: usize) -> Scene {
        let begins = [0, 1].map(|part| first as i64 * self.extents.widths[part]);
        for (number, part) in self.side.parts.iter_mut().enumerate() {
            let Some(part) = part else { continue };
            part.heads = count;
            part.bias_offset += begins[number];
            self.places[number].offset += first as i64 * part.strides.head;
            self.weights[number].iter_mut().for_each(|row| *row += begins[number] * INPUTS);
        }
        self.side.stack_rows = self.side.stack_rows.map(|rows| rows - begins[0] + begins[1]);
        if let Relation::Behind(distance) = &mut self.side.relation {
            *distance = self.places[1].offset - self.places[0].offset;
        }
        self
    }

    /// What cuBLASLt would write, from the planner's matmuls and the launch's addresses.
    fn executed(&self) -> (BTreeMap<i64, Recipe>, usize) {
        let (mut written, mut count) = (BTreeMap::new(), 0);
        for matmul in matmuls(&self.side) {
            count += matmul.outputs * matmul.batch_count() * matmul.starts.len();
            for start in &matmul.starts {
                for batch in 0..matmul.batch_count() {
                    self.execute(&matmul, start, batch as i64, &mut written);
                }
            }
        }
        (written, count)
    }

    fn execute(
        &self,
        matmul: &Matmul,
        start: &Start,
        batch: i64,
        written: &mut BTreeMap<i64, Recipe>,
    ) {
        let none = Axis { count: 1, weight: 0, bias: 0, view: 0, kind: super::Kind::Head };
        let axis = matmul.batch.unwrap_or(none);
        let a = self.weights[start.part][start.layer] + start.weight + batch * axis.weight;
        let d = self.places[start.part].offset + start.view + batch * axis.view;
        let bias = start.bias + batch * axis.bias;
        for row in 0..self.extents.rows {
            for output in 0..matmul.outputs as i64 {
                let weight = a + output * matmul.weight_row_stride;
                let bias = matmul.has_bias.then(|| self.bias_at(bias + output)).flatten();
                let to = d + row * matmul.view_row_stride + output;
                let before = written.insert(to, (row, weight, bias, matmul.scale.to_bits()));
                assert_eq!(before, None, "{to} is written twice");
            }
        }
    }
}

const VIEWS: [(&str, bool); 12] = [
    ("[L, T, H, d]", false),
    ("[L, T, H, d]", true),
    ("[T, L, H, d]", false),
    ("[L, T, 2, H, d]", false),
    ("[T, L, 2, H, d]", false),
    ("[L, 2, H, T, d]", false),
    ("[L, 2, T, H, d]", false),
    ("[2, L, H, T, d]", false),
    ("[L, H, T, d]", false),
    ("[L, H, T, d]", true),
    ("[L, T, H, 2, d]", false),
    ("[L, T, H, p]", false),
];

/// Every kind of these views and extents.
fn kinds(axes: &'static str, is_value_first: bool, extents: Extents) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for weights in [Weights::Ours, Weights::Stacked, Weights::Apart, Weights::Even] {
        for bias in [[false, false], [true, false], [false, true], [true, true]] {
            for (scales_differ, is_query) in [(false, false), (true, false), (false, true)] {
                let dtypes_differ = false;
                kinds.push(Kind {
                    axes,
                    is_value_first,
                    is_query,
                    extents,
                    weights,
                    bias,
                    scales_differ,
                    dtypes_differ,
                    but: "",
                });
            }
        }
    }
    kinds
}

fn all_extents() -> Vec<Extents> {
    let mut all = Vec::new();
    for layers in 1..4 {
        for heads in 1..4 {
            for (rows, widths) in [(1, [2, 2]), (3, [1, 1]), (3, [2, 2]), (2, [2, 3])] {
                all.push(Extents { layers, rows, heads, widths });
            }
        }
    }
    all
}

#[test]
fn every_output_is_written_once_from_its_own_weights_bias_and_scale() {
    for (axes, is_value_first) in VIEWS {
        for kind in all_extents().into_iter().flat_map(|e| kinds(axes, is_value_first, e)) {
            let scene = kind.scene();
            let (necessary, (written, outputs)) = (scene.necessary(), scene.executed());
            assert_eq!(written, necessary, "{kind:?}");
            assert_eq!(outputs as i64 * kind.extents.rows, necessary.len() as i64, "{kind:?}");
        }
    }
}

#[test]
fn some_heads_are_written_once_from_their_own_weights_and_biases() {
    for (axes, is_value_first) in VIEWS {
        for extents in all_extents().into_iter().filter(|extents| extents.heads == 3) {
            for (kind, (first, count)) in kinds(axes, is_value_first, extents)
                .into_iter()
                .flat_map(|kind| [(0, 1), (0, 2), (1, 2), (2, 1)].map(|cut| (kind, cut)))
            {
                let scene = kind.scene().cut(first, count);
                let (necessary, (written, outputs)) = (scene.necessary(), scene.executed());
                assert_eq!(written, necessary, "{kind:?}");
                assert_eq!(outputs as i64 * extents.rows, necessary.len() as i64, "{kind:?}");
            }
        }
    }
}

#[test]
fn some_heads_of_key_and_value_are_still_one_batch() {
    let extents = Extents { layers: 1, rows: 3, heads: 3, widths: [2, 2] };
    let kind = kinds("[L, T, 2, H, d]", false, extents)[0];
    let [whole, cut] = [kind.scene(), kind.scene().cut(1, 2)].map(|scene| matmuls(&scene.side));
    let calls = |matmuls: &[Matmul]| (matmuls[0].starts.len(), matmuls[0].batch_count());
    assert_eq!((whole.len(), calls(&whole)), (1, (1, 1)));
    assert_eq!((cut.len(), calls(&cut)), (1, (1, 2)));
}

/// The largest power of two up to `most` that all of these bytes are a multiple of.
fn alignment_of(most: usize, elements: impl Iterator<Item = i64>, dtype: Dtype) -> usize {
    let bytes: Vec<usize> = elements.map(|element| element as usize * dtype.bytes()).collect();
    let fits = |&size: &usize| bytes.iter().all(|bytes| bytes % size == 0);
    (0..).map(|power| most >> power).find(fits).expect("one divides all")
}

/// How far from its part's own address each matrix of a matmul begins, by a step along the batch.
fn distances(matmul: &Matmul, begin: fn(&Start) -> i64, step: i64) -> Vec<i64> {
    let of = |start| (0..matmul.batch_count() as i64).map(move |at| begin(start) + at * step);
    matmul.starts.iter().flat_map(of).collect()
}

#[test]
fn alignments_are_what_all_addresses_of_a_matmul_have_in_common() {
    let wide = [8, 16].map(|width| Extents { layers: 3, rows: 3, heads: 3, widths: [width; 2] });
    for (axes, is_value_first) in VIEWS {
        for extents in all_extents().into_iter().chain(wide) {
            for kind in kinds(axes, is_value_first, extents) {
                for matmul in matmuls(&kind.scene().side) {
                    check_alignments(&matmul);
                }
            }
        }
    }
}

fn check_alignments(matmul: &Matmul) {
    let step = |of: fn(&Axis) -> i64| matmul.batch.as_ref().map_or(0, of);
    let weights = distances(matmul, |start| start.weight, step(|axis| axis.weight));
    let biases = distances(matmul, |start| start.bias, step(|axis| axis.bias));
    // A pair's second view has an address of its own, as aligned as the first one's.
    let view_step = if matmul.batches_pair() { 0 } else { step(|axis| axis.view) };
    let views = distances(matmul, |start| start.view, view_step);
    let matrices = Matmul { weight_alignment: 64, ..matmul.clone() };
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let expected = alignment_of(64, weights.iter().copied(), dtype);
        assert_eq!(matrices.weight_alignment_with(dtype), expected, "{matmul:?}");
    }
    let expected = alignment_of(256, biases.into_iter(), matmul.dtype);
    assert_eq!(matmul.bias_alignment(), expected, "{matmul:?}");
    for most in [2, 16, 256] {
        let expected = alignment_of(most, views.iter().copied(), matmul.dtype);
        assert_eq!(matmul.view_alignment_with(most), expected, "{matmul:?}");
    }
}
