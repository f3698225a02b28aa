//! Nothing is read before or behind a caller's rows, or written before or behind its views: the
//! pages there cannot be touched at all.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;

use case::{Case, Random, host, square};
use xqkv::backend::InstructionSet;
use xqkv::dtype::Dtype;
use xqkv::projection::{Call, DecoderSide};
use xqkv::view::{Rows, Shape, Strides, View};

/// Memory with untouchable pages on both sides; what is in it lies at its very end or beginning.
struct Guarded {
    mapping: *mut u8,
    inside: usize,
}

const PAGE: usize = 4096;

impl Guarded {
    fn new(bytes: usize) -> Self {
        let inside = bytes.next_multiple_of(PAGE);
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, of which the middle is then made accessible.
        let mapping = unsafe {
            let mapping =
                libc::mmap(std::ptr::null_mut(), inside + 2 * PAGE, protection, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let middle = mapping.byte_add(PAGE);
            assert_eq!(libc::mprotect(middle, inside, libc::PROT_READ | libc::PROT_WRITE), 0);
            mapping.cast::<u8>()
        };
        Self { mapping, inside }
    }

    /// The last or the first so many bytes.
    fn bytes(&mut self, count: usize, at_end: bool) -> &mut [u8] {
        let offset = PAGE + if at_end { self.inside - count } else { 0 };
        // SAFETY: inside the accessible middle.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.add(offset), count) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: this object's own mapping.
        unsafe { libc::munmap(self.mapping.cast(), self.inside + 2 * PAGE) };
    }
}

fn run(set: InstructionSet, dtype: Dtype, rows: i64, inner: i64, head_width: i64, at_end: bool) {
    let Some(backend) = host(1, Some(set)) else {
        return;
    };
    let case = Case::new(square(inner, 1, head_width, dtype), 1);
    let projection = case.whole(&backend);
    let (row_bytes, out_bytes) =
        (inner as usize * dtype.bytes(), head_width as usize * dtype.bytes());
    let mut input = Guarded::new(rows as usize * row_bytes);
    let mut output = Guarded::new(rows as usize * out_bytes);
    let numbers = Random::new(2).numbers((rows * inner) as usize);
    let bytes = case::Elements::rounded(&numbers, dtype).bytes;
    let given = input.bytes(bytes.len(), at_end);
    given.copy_from_slice(&bytes);
    let address = given.as_ptr().expose_provenance();
    let written = output.bytes(rows as usize * out_bytes, at_end);
    written.fill(0xff);
    let shape = Shape { layers: 1, rows, heads: 1, width: head_width };
    let place = written.as_mut_ptr().expose_provenance();
    let query = View::new("query", shape, case::target(place, dtype, Strides::default())).unwrap();
    let rows = Rows::new("decoder", address, dtype, rows, inner, 0, None).unwrap();
    let decoder = Some(DecoderSide { rows, query });
    let lane = xqkv::backend::Lane::default();
    let call = Call { layer: 0, layer_count: 1, decoder, encoder: None, lane, collective: None };
    // SAFETY: mapped memory of these shapes.
    unsafe { projection.forward(&call, None) }.unwrap();
    let last = &output.bytes(out_bytes, at_end)[out_bytes - dtype.bytes()..];
    assert!(last.iter().any(|&byte| byte != 0xff), "the last element was not written");
}

#[test]
fn nothing_outside_of_rows_and_views_is_touched() {
    for set in InstructionSet::all() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for (rows, inner, head_width) in [(1, 1, 1), (3, 7, 33), (5, 257, 36), (70, 31, 64)] {
                for at_end in [true, false] {
                    run(set, dtype, rows, inner, head_width, at_end);
                }
            }
        }
    }
}
