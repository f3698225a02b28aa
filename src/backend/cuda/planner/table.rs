//! The table of docs/matmuls.md, read for the tests: a row's views as strides, and what it claims.

/// The document that the tests hold the planner against.
pub const TABLE: &str = include_str!("../../../../docs/matmuls.md");

/// Heads of each row of the table.
pub const HEADS: i64 = 20;

/// How many of each a case has; K and V may be of different widths.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    pub layers: i64,
    pub rows: i64,
    pub heads: i64,
    pub widths: [i64; 2],
}

/// Where a view lies in a buffer, in elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    pub offset: i64,
    pub layer: i64,
    pub row: i64,
    pub head: i64,
    pub width: i64,
}

/// How the weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// As the library lays them out: K's rows, then V's, all layers at one stride.
    Ours,
    /// Borrowed, V's rows behind K's, layers anywhere.
    Stacked,
    /// Borrowed, each matrix anywhere.
    Apart,
    /// Borrowed, each part's layers one behind the other.
    Even,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub views: String,
    pub but: String,
    pub scales_differ: bool,
    pub bias: [bool; 2],
    pub layers: i64,
    pub weights: Weights,
    pub calls: usize,
    pub batch: usize,
    pub kernels: usize,
}

/// All rows of the table.
pub fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| `"));
    lines.map(|line| row(line).unwrap_or_else(|| panic!("cannot be read: {line}"))).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [views, but, scales, bias, layers, weights, calls, batch, kernels] = cells[..] else {
        return None;
    };
    Some(Row {
        views: views.trim_matches('`').to_owned(),
        but: but.to_owned(),
        scales_differ: choice(scales, &[("one", false), ("two", true)])?,
        bias: choice(bias, &[("none", [false; 2]), ("all", [true; 2]), ("V", [false, true])])?,
        layers: layers.parse().ok()?,
        weights: choice(
            weights,
            &[
                ("ours", Weights::Ours),
                ("lent, stacked", Weights::Stacked),
                ("lent, apart", Weights::Apart),
                ("lent, even", Weights::Even),
            ],
        )?,
        calls: calls.parse().ok()?,
        batch: batch.parse().ok()?,
        kernels: kernels.parse().ok()?,
    })
}

fn choice<T: Copy>(word: &str, choices: &[(&str, T)]) -> Option<T> {
    choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

impl Row {
    /// Whether there is Q alone.
    pub fn is_query(&self) -> bool {
        self.views.starts_with("Q ")
    }

    /// A small case of this row's kind. Widths are multiples of what a vector load asks for.
    pub fn extents(&self) -> Extents {
        let value = if self.but == "V wider" { 16 } else { 8 };
        Extents { layers: self.layers, rows: 3, heads: HEADS, widths: [8, value] }
    }

    /// The views, the second one of no meaning for Q.
    pub fn places(&self) -> [Place; 2] {
        let axes = self.views.strip_prefix("Q ").unwrap_or(&self.views);
        places(axes, self.but == "V before K", &self.extents())
    }
}

/// Places of K and V in one buffer, from axes such as `[T, 2, H, d]`: layers L, rows T, heads H,
/// lanes d, padded lanes p, K and V 2, Q with K and V 3. Without 2 or 3 each has its own part of
/// the buffer.
pub fn places(axes: &str, is_value_first: bool, extents: &Extents) -> [Place; 2] {
    let (mut places, mut sizes, mut is_joint) = ([Place::default(); 2], [1; 2], false);
    for axis in axes.trim_matches(['[', ']']).split(", ").collect::<Vec<_>>().into_iter().rev() {
        if let "2" | "3" = axis {
            let before = if axis == "3" { sizes[0] } else { 0 };
            (places[0].offset, places[1].offset) = (before, before + sizes[0]);
            sizes = [before + sizes[0] + sizes[1]; 2];
            is_joint = true;
            continue;
        }
        for part in 0..2 {
            sizes[part] *= step(axis, &mut places[part], sizes[part], extents, part);
        }
    }
    const GAP: i64 = 16;
    match (is_joint, is_value_first) {
        (true, _) => {}
        (false, false) => places[1].offset = sizes[0] + GAP,
        (false, true) => places[0].offset = sizes[1] + GAP,
    }
    places
}

/// Notes an axis's stride and tells how many there are of it.
fn step(axis: &str, place: &mut Place, size: i64, extents: &Extents, part: usize) -> i64 {
    match axis {
        "d" => {
            place.width = size;
            extents.widths[part]
        }
        "p" => {
            place.width = size;
            extents.widths[part] + 8
        }
        "H" => {
            place.head = size;
            extents.heads
        }
        "T" => {
            place.row = size;
            extents.rows
        }
        "L" => {
            place.layer = size;
            extents.layers
        }
        _ => panic!("no axis {axis}"),
    }
}
