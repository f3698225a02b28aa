//! The source for the device has the fields that are passed to it, and was compiled as it is.

use super::super::{GATHER_THREADS, Gather, IMAGE, Store, TILE, WARPS};
use std::mem::offset_of;

const SOURCE: &str = include_str!("../xqkv.cu");

/// A struct's fields in the source, and where C has each; the size comes last.
fn layout(name: &str) -> Vec<(String, usize)> {
    let body = SOURCE.split_once(&format!("struct {name} {{")).unwrap().1;
    let (mut fields, mut end, mut widest) = (Vec::new(), 0, 1);
    for line in body.split_once("};").unwrap().0.split(';').map(str::trim) {
        let Some((kind, field)) = line.rsplit_once([' ', '*']) else { continue };
        let bytes = if matches!(kind, "int" | "float") { 4 } else { 8 };
        let at = usize::next_multiple_of(end, bytes);
        fields.push((field.to_owned(), at));
        (end, widest) = (at + bytes, widest.max(bytes));
    }
    fields.push(("size".to_owned(), end.next_multiple_of(widest)));
    fields
}

macro_rules! ours {
    ($kind:ident: $($field:ident)*) => {{
        let mut fields = vec![$((stringify!($field).to_owned(), offset_of!($kind, $field))),*];
        fields.push(("size".to_owned(), size_of::<$kind>()));
        fields
    }};
}

#[test]
fn the_structs_are_those_of_the_source() {
    let gather = ours!(Gather: source list staged rows buffer_rows width row_stride element_bytes);
    assert_eq!(layout("Gather"), gather);
    let store = ours!(Store: staged destination slots norm_weight rows first_row slot_count heads
        width staged_row_stride row_stride head_stride width_stride group_rows group_stride scale
        epsilon staged_dtype dtype round_dtype accumulate);
    assert_eq!(layout("Store"), store);
}

#[test]
fn the_compiled_text_takes_parameters_of_that_size() {
    for (name, bytes) in
        [("xqkv_gather_rows", size_of::<Gather>()), ("xqkv_store", size_of::<Store>())]
    {
        let parameter = format!(".param .align 8 .b8 {name}_param_0[{bytes}]");
        assert!(IMAGE.contains(&parameter), "{parameter}; run cargo xtask kernels");
    }
}

#[test]
fn the_text_is_for_every_driver_that_the_library_takes() {
    // PTX 8.0 came with CUDA 12.0, which is the oldest driver.
    assert!(IMAGE.contains("\n.version 8.0\n.target sm_70\n"));
    assert_eq!(IMAGE.find('\0'), Some(IMAGE.len() - 1));
}

#[test]
fn blocks_are_those_of_the_source() {
    assert!(SOURCE.contains(&format!("enum : int {{ TILE = {TILE}, WARPS = {WARPS} }};")));
    assert!(IMAGE.contains(&format!(".maxntid {}, 1, 1", TILE * WARPS)), "xqkv_store's bound");
    assert_eq!(GATHER_THREADS % TILE, 0);
}
