//! Views as properties: what is accepted never maps two elements to one place, and two arrays that
//! are said to be disjoint are.

use proptest::prelude::*;
use std::collections::HashSet;
use std::ops::Range;
use xqkv::dtype::Dtype;
use xqkv::view::{Base, Indices, Rows, Shape, Strides, Target, View};

const BASE: usize = 1 << 20;

fn shapes() -> impl Strategy<Value = Shape> {
    (1i64..3, 1i64..5, 1i64..4, 1i64..5).prop_map(|(layers, rows, heads, width)| Shape {
        layers,
        rows,
        heads,
        width,
    })
}

fn strides() -> impl Strategy<Value = Strides> {
    let stride = || prop_oneof![0i64..40, Just(60), Just(120), -3i64..0];
    (stride(), prop_oneof![Just(0i64), stride()], stride(), stride(), stride())
        .prop_map(|(layer, group, row, head, width)| Strides { layer, group, row, head, width })
}

/// Groups of so many rows, or none, and so many places for slots, or none.
fn places() -> impl Strategy<Value = (i64, Option<i64>)> {
    (0i64..4, prop_oneof![Just(None), (1i64..8).prop_map(Some)])
}

/// Every byte that a view's elements may occupy, element by element.
fn bytes(view: &View<'_>) -> Vec<usize> {
    let (shape, strides) = (view.shape(), view.strides());
    let places = view.slots().map_or(shape.rows, |slots| slots.bound());
    let group_rows = view.group_rows().unwrap_or(places);
    let mut bytes = Vec::new();
    for layer in 0..shape.layers {
        for place in 0..places {
            let row = place / group_rows * strides.group + place % group_rows * strides.row;
            for head in 0..shape.heads {
                for width in 0..shape.width {
                    let element = row + head * strides.head + width * strides.width;
                    let offset = element as usize * view.dtype().bytes();
                    let first = view.address(layer as usize) + offset;
                    bytes.extend(first..first + view.dtype().bytes());
                }
            }
        }
    }
    bytes
}

fn target(address: usize, dtype: Dtype, strides: Strides) -> Target<'static> {
    let base = Base::First(address);
    Target { base, dtype, strides, group_rows: 0, slots: None, accumulates: false }
}

fn view(
    address: usize,
    dtype: Dtype,
    shape: Shape,
    strides: Strides,
    (group_rows, places): (i64, Option<i64>),
) -> Option<View<'static>> {
    let indices = |places| Indices::new("key", "slots", 64, shape.rows, ("slot_count", places));
    let slots = places.map(|places| indices(places).unwrap());
    let target = Target { group_rows, slots, ..target(address, dtype, strides) };
    View::new("key", shape, target).ok()
}

fn are_disjoint(one: &View<'_>, two: &View<'_>) -> bool {
    one.footprints().all(|one| two.footprints().all(|two| one.is_disjoint_from(&two)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_two_elements_share_a_place(
        shape in shapes(), strides in strides(), places in places(),
    ) {
        if let Some(view) = view(BASE, Dtype::F16, shape, strides, places) {
            let bytes = bytes(&view);
            prop_assert_eq!(bytes.iter().collect::<HashSet<_>>().len(), bytes.len());
        }
    }

    #[test]
    fn arrays_that_are_said_to_be_disjoint_are(
        one in (shapes(), strides(), places()),
        two in (shapes(), strides(), places()),
        offset in 0usize..200,
        wide in any::<bool>(),
    ) {
        let dtype = if wide { Dtype::F32 } else { Dtype::F16 };
        let one = view(BASE, Dtype::F16, one.0, one.1, one.2);
        let two = view(BASE + offset * dtype.bytes(), dtype, two.0, two.1, two.2);
        if let (Some(one), Some(two)) = (one, two) {
            let said = are_disjoint(&one, &two);
            prop_assert_eq!(said, are_disjoint(&two, &one));
            let first: HashSet<usize> = bytes(&one).into_iter().collect();
            prop_assert!(!said || bytes(&two).iter().all(|byte| !first.contains(byte)));
        }
    }

    #[test]
    fn key_and_value_interleaved_at_any_common_stride_are_disjoint(
        shape in shapes(), gap in 0i64..5,
    ) {
        let shape = Shape { layers: 1, ..shape };
        let columns = shape.heads * shape.width;
        let strides = Strides { row: 2 * columns + gap, ..Strides::default() };
        let of = |address| View::new("key", shape, target(address, Dtype::F16, strides)).unwrap();
        prop_assert!(are_disjoint(&of(BASE), &of(BASE + 2 * columns as usize)));
    }

    #[test]
    fn key_and_value_in_one_page_are_disjoint(shape in shapes(), rows in 1i64..4, gap in 0i64..5) {
        let shape = Shape { layers: 1, ..shape };
        let half = rows * shape.heads * shape.width;
        let strides = Strides { group: 2 * half + gap, ..Strides::default() };
        let of = |address| {
            let target = Target { group_rows: rows, ..target(address, Dtype::F16, strides) };
            View::new("key", shape, target).unwrap()
        };
        prop_assert!(are_disjoint(&of(BASE), &of(BASE + 2 * half as usize)));
    }

    #[test]
    fn layers_that_lie_anywhere_are_told_apart(shape in shapes(), starts in offsets()) {
        let addresses: Vec<usize> = starts.iter().map(|start| BASE + 2 * start).collect();
        let shape = Shape { layers: 3, ..shape };
        let target = Target {
            base: Base::Each(&addresses[..3]),
            ..target(0, Dtype::F16, Strides::default())
        };
        let one = View::new("key", shape, target).unwrap();
        let two = view(addresses[3], Dtype::F16, Shape { layers: 1, ..shape }, Strides::default(),
            (0, None)).unwrap();
        let first: HashSet<usize> = bytes(&one).into_iter().collect();
        let shares = bytes(&two).iter().any(|byte| first.contains(byte));
        prop_assert_eq!(are_disjoint(&one, &two), !shares);
    }
}

/// Two numbers below a bound, as a range that is not empty.
fn within(bound: i64, one: usize, two: usize) -> Range<usize> {
    let (one, two) = (one % bound as usize, two % bound as usize);
    one.min(two)..one.max(two) + 1
}

/// The bytes of some rows and heads, taken from the list of all.
fn part_bytes(view: &View<'_>, rows: Range<usize>, heads: Range<usize>) -> Vec<usize> {
    let Shape { rows: row_count, heads: head_count, width, .. } = view.shape();
    let mut elements = Vec::new();
    for (number, element) in bytes(view).chunks_exact(view.dtype().bytes()).enumerate() {
        let head = number / width as usize % head_count as usize;
        let row = number / (width * head_count) as usize % row_count as usize;
        if rows.contains(&row) && heads.contains(&head) {
            elements.extend(element);
        }
    }
    elements
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_part_is_the_memory_of_its_rows_and_heads(
        shape in shapes(), strides in strides(), group_rows in 0i64..4, at in any::<[u8; 4]>(),
    ) {
        if let Some(view) = view(BASE, Dtype::F16, shape, strides, (group_rows, None)) {
            let [rows, heads] = [(shape.rows, 0), (shape.heads, 2)]
                .map(|(bound, n)| within(bound, at[n].into(), at[n + 1].into()));
            let part = view.part(rows.clone(), heads.clone());
            prop_assert_eq!(part.is_some(), at_start(&view, rows.start as i64));
            if let Some(part) = part {
                prop_assert_eq!(bytes(&part), part_bytes(&view, rows, heads));
                prop_assert!(!are_disjoint(&part, &view));
                prop_assert!(view.range().contains(&part.range().start));
                prop_assert!(part.range().end <= view.range().end);
            }
        }
    }
}

/// Whether a group begins with this row, which every row does without groups.
fn at_start(view: &View<'_>, row: i64) -> bool {
    view.group_rows().is_none_or(|group_rows| row % group_rows == 0)
}

#[test]
fn a_part_of_layers_that_lie_anywhere_lies_in_each() {
    let shape = Shape { layers: 2, rows: 3, heads: 2, width: 4 };
    let base = Base::Each(&[BASE, BASE + 400]);
    let target = Target { base, ..target(0, Dtype::F16, Strides::default()) };
    let view = View::new("key", shape, target).unwrap();
    let part = view.part(1..3, 1..2).unwrap();
    assert_eq!(bytes(&part), part_bytes(&view, 1..3, 1..2));
    assert_eq!(part.address_bits(), (BASE + 24) | (BASE + 424));
}

#[test]
fn rows_with_slots_are_cut_by_heads_only() {
    let shape = Shape { layers: 1, rows: 3, heads: 2, width: 4 };
    let view = view(BASE, Dtype::F16, shape, Strides::default(), (0, Some(7))).unwrap();
    assert!(view.part(0..2, 0..2).is_none() && view.part(1..3, 0..2).is_none());
    assert_eq!(view.part(0..3, 1..2).unwrap().address(0), BASE + 8);
}

#[test]
fn a_staged_row_has_all_layers_side_by_side() {
    let shape = Shape { layers: 2, rows: 3, heads: 2, width: 4 };
    let view = View::staged(BASE, shape, Dtype::F16);
    let mut written = bytes(&view);
    written.sort_unstable();
    assert_eq!(written, (BASE..BASE + 96).collect::<Vec<_>>());
    let second = View::staged(BASE, Shape { rows: 1, ..shape }, Dtype::F16).part(0..1, 1..2);
    assert_eq!(second.unwrap().address(1), BASE + 2 * (8 + 4));
}

#[test]
fn a_part_of_rows_begins_with_its_first_and_of_listed_rows_at_its_integer() {
    let rows = |list| Rows::new("encoder", BASE, Dtype::F16, 5, 4, 6, list).unwrap();
    let part = rows(None).part(2..5);
    assert_eq!((part.count(), part.range()), (3, BASE + 24..BASE + 24 + 32));
    let list = Indices::new("encoder", "row_list", 64, 5, ("buffer_rows", 9)).unwrap();
    let listed = rows(Some(list)).part(2..4);
    assert_eq!((listed.count(), listed.address()), (2, BASE));
    assert_eq!(listed.list().unwrap().range(), 80..96);
    assert_eq!(listed.range(), rows(listed.list().cloned()).range());
}

fn offsets() -> impl Strategy<Value = [usize; 4]> {
    prop::array::uniform4(0usize..300)
}
