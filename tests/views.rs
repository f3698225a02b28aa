//! Views as properties: what is accepted never maps two elements to one place, and two arrays that
//! are said to be disjoint are.

use proptest::prelude::*;
use std::collections::HashSet;
use xqkv::dtype::Dtype;
use xqkv::view::{Shape, Strides, View};

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
    (stride(), stride(), stride(), stride()).prop_map(|(layer, row, head, width)| Strides {
        layer,
        row,
        head,
        width,
    })
}

/// Every byte that a view's elements occupy, element by element.
fn bytes(view: &View) -> Vec<usize> {
    let (shape, strides) = (view.shape(), view.strides());
    let mut bytes = Vec::new();
    for layer in 0..shape.layers {
        for row in 0..shape.rows {
            for head in 0..shape.heads {
                for width in 0..shape.width {
                    let element = layer * strides.layer
                        + row * strides.row
                        + head * strides.head
                        + width * strides.width;
                    let first =
                        (view.address() as i64 + element * view.dtype().bytes() as i64) as usize;
                    bytes.extend(first..first + view.dtype().bytes());
                }
            }
        }
    }
    bytes
}

fn view(address: usize, dtype: Dtype, shape: Shape, strides: Strides) -> Option<View> {
    View::new("key", address, dtype, shape, strides).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_two_elements_share_a_place(shape in shapes(), strides in strides()) {
        if let Some(view) = view(BASE, Dtype::F16, shape, strides) {
            let bytes = bytes(&view);
            prop_assert_eq!(bytes.iter().collect::<HashSet<_>>().len(), bytes.len());
        }
    }

    #[test]
    fn arrays_that_are_said_to_be_disjoint_are(
        one in (shapes(), strides()),
        two in (shapes(), strides()),
        offset in 0usize..200,
        wide in any::<bool>(),
    ) {
        let dtype = if wide { Dtype::F32 } else { Dtype::F16 };
        let one = view(BASE, Dtype::F16, one.0, one.1);
        let two = view(BASE + offset * dtype.bytes(), dtype, two.0, two.1);
        if let (Some(one), Some(two)) = (one, two) {
            let said = one.footprint().is_disjoint_from(two.footprint());
            prop_assert_eq!(said, two.footprint().is_disjoint_from(one.footprint()));
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
        let key = view(BASE, Dtype::F16, shape, strides).unwrap();
        let value = view(BASE + 2 * columns as usize, Dtype::F16, shape, strides).unwrap();
        prop_assert!(key.footprint().is_disjoint_from(value.footprint()));
    }
}
