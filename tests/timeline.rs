//! What is on the wire while products run, on the simulated devices' made-up clock: of the
//! encoder's rows that ranks send each other, at most one transfer is waited for with nothing to
//! do.

// The types are at the places that the functions go to.
#![allow(clippy::missing_transmute_annotations)]

#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/library.rs"]
mod library;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/memory.rs"]
mod memory;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/simulated.rs"]
mod simulated;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/tensors.rs"]
mod tensors;

use library::{Checkpoint, Comm, Context, Projection, balanced, call, unique_id};
use memory::{Device, Memory};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::Barrier;
use xqkv::capi::nccl::xqkv_unique_id;
use xqkv::dtype::Dtype;
use xqkv::library::Library;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/whisper");
const RANKS: usize = 4;
const ROWS: i64 = 512;
const CHUNK_ROWS: i64 = 64;
const DECODER_ROWS: i64 = 64;

/// gpusim_traced_entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    name: *const c_char,
    stream: u64,
    start_ns: u64,
    end_ns: u64,
    matmuls: u64,
    bytes: u64,
    device: c_int,
    collective: c_int,
}

/// The simulated devices' own functions.
struct Clock {
    wire: unsafe extern "C" fn(u64, u64),
    trace: unsafe extern "C" fn(c_int),
    traced: unsafe extern "C" fn(u64, *mut Entry) -> c_int,
    exposed: unsafe extern "C" fn(c_int) -> u64,
}

impl Clock {
    fn new(library: &Library) -> Self {
        let symbol = |name| library.symbol(name).map_err(|error| error.message).unwrap();
        // SAFETY: the header has the functions under these names with these arguments.
        unsafe {
            Self {
                wire: std::mem::transmute::<*mut c_void, _>(symbol(c"gpusim_wire")),
                trace: std::mem::transmute::<*mut c_void, _>(symbol(c"gpusim_trace")),
                traced: std::mem::transmute::<*mut c_void, _>(symbol(c"gpusim_traced")),
                exposed: std::mem::transmute::<*mut c_void, _>(symbol(c"gpusim_exposed_ns")),
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let next = |index: &mut u64| {
            let mut entry = std::mem::MaybeUninit::uninit();
            // SAFETY: a place for the entry, which is there if it says so.
            let is_there = unsafe { (self.traced)(*index, entry.as_mut_ptr()) } != 0;
            *index += 1;
            // SAFETY: as above.
            is_there.then(|| unsafe { entry.assume_init() })
        };
        let mut index = 0;
        std::iter::from_fn(|| next(&mut index)).collect()
    }
}

/// One rank: its call once to have all plans, and once on the clock.
fn rank(number: usize, id: &xqkv_unique_id, chunk_rows: i64, turns: &Barrier) {
    let memory = Memory::Cuda(Device::open(number as i32).unwrap());
    let context = Context::on_cuda(number as i32).unwrap();
    let comm = Comm::nccl(&context, id, (number, RANKS)).unwrap();
    let checkpoint = Checkpoint::new(Path::new(FIXTURE)).unwrap();
    let spec = checkpoint.spec().unwrap();
    let mut options = balanced(&spec, number as i64, RANKS as i64).unwrap();
    options.comm = comm.handle();
    let fill = |update: &library::Update| update.read(&checkpoint);
    let projection = Projection::load(&context, &spec, &options, fill).unwrap();
    let shard = projection.shard().unwrap();
    let room =
        |rows: i64, columns: i64| memory.keep(vec![0; (rows * columns * 4) as usize]).unwrap();
    let decoder = room(DECODER_ROWS, spec.decoder_width);
    let encoder = room(ROWS / RANKS as i64, spec.encoder_width);
    let query = room(DECODER_ROWS, shard.query_columns);
    let key = room(ROWS, shard.key_columns);
    let mut value = room(ROWS, shard.value_columns);
    let workspace = memory.keep(vec![0; 16 << 20]).unwrap();
    let rank_rows = [ROWS / RANKS as i64; RANKS];
    let mut forward = call(0);
    forward.decoder.data = decoder.address().cast();
    (forward.decoder.rows, forward.decoder.dtype) = (DECODER_ROWS, spec.weight_dtype);
    forward.encoder.data = encoder.address().cast();
    (forward.encoder.rows, forward.encoder.dtype) = (rank_rows[number], spec.weight_dtype);
    forward.encoder_rank_rows = rank_rows.as_ptr();
    forward.chunk_rows = chunk_rows;
    for (view, place) in [
        (&mut forward.query, query.address()),
        (&mut forward.key, key.address()),
        (&mut forward.value, value.address()),
    ] {
        (view.data, view.dtype) = (place.cast(), Dtype::F32 as i32);
    }
    forward.workspace = workspace.address().cast();
    forward.workspace_bytes = 16 << 20;
    let plan = projection.plan(&forward, 16).unwrap();
    forward.plan = plan.handle();
    for _ in 0..2 {
        turns.wait();
        turns.wait();
        // SAFETY: the device's memory is as long as the shapes say.
        let stats = unsafe { projection.forward(&forward) }.unwrap();
        assert!(stats.transfers > 0);
        value.fetch().unwrap();
        turns.wait();
    }
}

/// The longest time that any device has a transfer and nothing else, the longest transfer, and the
/// sum of a device's transfers.
fn exposed(clock: &Clock, chunk_rows: i64) -> (u64, u64, u64) {
    let (id, turns) = (unique_id().unwrap(), Barrier::new(RANKS + 1));
    std::thread::scope(|scope| {
        for number in 0..RANKS {
            let (id, turns) = (&id, &turns);
            scope.spawn(move || {
                let run = || rank(number, id, chunk_rows, turns);
                // The others would wait for this one for ever.
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                ran.unwrap_or_else(|_| std::process::abort());
            });
        }
        for is_traced in [0, 1] {
            turns.wait();
            // SAFETY: no work is under way.
            unsafe { (clock.trace)(is_traced) };
            turns.wait();
            turns.wait();
        }
    });
    let entries = clock.entries();
    // SAFETY: ends the timeline, whose numbers stay.
    let longest = (0..RANKS as c_int).map(|device| unsafe { (clock.exposed)(device) }).max();
    let transfers = entries.iter().filter(|entry| entry.collective != 0 && entry.device == 0);
    let took = |entry: &Entry| entry.end_ns - entry.start_ns;
    let longest_transfer = transfers.clone().map(took).max().unwrap();
    (longest.unwrap(), longest_transfer, transfers.map(took).sum())
}

#[test]
fn at_most_one_chunk_is_waited_for_with_nothing_to_do() {
    simulated::choose();
    // SAFETY: no other thread reads the environment now.
    unsafe { std::env::set_var("GPUSIM_DEVICES", RANKS.to_string()) };
    let library = Library::open(&simulated::NAMES).map_err(|error| error.message).unwrap();
    let clock = Clock::new(&library);
    // SAFETY: no work is under way.
    unsafe { (clock.wire)(200, 400_000) };
    let (exposed, transfer, sum) = exposed(&clock, CHUNK_ROWS);
    assert!(sum >= 6 * transfer, "{sum} ns of transfers, the longest {transfer}");
    assert!(exposed <= transfer, "{exposed} ns exposed, a transfer takes {transfer}");
}
