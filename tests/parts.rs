//! What ranks do with each other's results, on both backends: jobs of some heads of a matrix have
//! the bits of a job of all, staged results come to the places that a job writes itself, and
//! transfers run beside a stream, in a capture as well.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;
#[path = "common/scene.rs"]
mod scene;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/simulated.rs"]
mod simulated;

use case::host;
use scene::{HEADS, INPUTS, LAYERS, ROWS, SLOTS_AT, Scene, WAYS, WIDTH, Way, place};
use simulated::Device;
use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;
use xqkv::backend::{Backend, Block, Choice, Info, Lane, open};
use xqkv::dtype::Dtype;
use xqkv::error::Status;
use xqkv::log::{Level, Log};

const ALL: Range<usize> = 0..HEADS;

/// The only test of this file: it chooses the simulated GPU for the process.
#[test]
fn parts_of_the_work_are_the_whole_on_both_backends() {
    let device = Device::open(1024);
    for backend in [host(2, None).unwrap(), cuda()] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let scene = |is_exact| Scene::new(backend.clone(), dtype, is_exact);
            some_heads_and_rows_have_the_bits_of_all(&scene(false));
            let scene = scene(true);
            WAYS.iter().for_each(|&way| blocks_come_to_the_places_of_a_job(&scene, way));
            the_board_has_what_was_written(&scene);
        }
        let scene = Scene::new(backend.clone(), Dtype::Bf16, true);
        match backend.info() {
            Info::Host { .. } => bad_slots_are_refused_before_anything_is_written(&scene),
            Info::Cuda { .. } => {
                a_plan_is_for_its_heads(&scene);
                transfers_run_between_what_they_need_and_what_needs_them(&scene, &device);
            }
        }
        device.finish();
    }
}

fn cuda() -> Arc<dyn Backend> {
    let log = Log::new(Level::Error, |_, line| panic!("{line}"));
    open(Choice::Cuda { device: 0, context: 0, cublaslt: 0, allocator: None, log })
        .map_err(|error| error.message)
        .unwrap()
}

fn some_heads_and_rows_have_the_bits_of_all(scene: &Scene) {
    scene.poison();
    let lane = scene.lane();
    let [whole, part] = [[0, 1], [2, 3]].map(|places| places.map(|at| scene.staged(at)));
    scene.run(ALL, 0..ROWS, &whole, &lane);
    for (heads, rows) in [(0..1, 0..ROWS), (1..3, 0..2), (1..3, 2..ROWS)] {
        let views = part.each_ref().map(|view| view.part(rows.clone(), heads.clone()).unwrap());
        let counts = scene.run(heads.clone(), rows.clone(), &views, &lane);
        let necessary = 2 * LAYERS * rows.len() * heads.len() * WIDTH * INPUTS;
        assert_eq!(counts.multiply_adds, necessary as u64, "{heads:?} of {rows:?}");
    }
    assert_eq!(scene.read(2), scene.read(0), "K");
    assert_eq!(scene.read(3), scene.read(1), "V");
}

/// The staged results at a place, in blocks of some rows and some heads.
fn blocks(scene: &Scene, at: usize) -> Vec<Block> {
    let (row_stride, layer_stride) = (LAYERS * HEADS * WIDTH, HEADS * WIDTH);
    let block = |(rows, heads): (Range<usize>, Range<usize>)| {
        let elements = rows.start * row_stride + heads.start * WIDTH;
        let address = scene.address(place(at)) + elements * scene.dtype.bytes();
        Block { address, row_stride, layer_stride, rows, heads }
    };
    [(0..ROWS, 0..1), (0..3, 1..3), (3..ROWS, 1..3)].map(block).into()
}

fn scatter(scene: &Scene, way: Way, from: usize, to: usize, lane: &Lane) -> Result<(), Status> {
    let addresses = scene.layers(to);
    let view = scene.view(way, &addresses);
    // SAFETY: the blocks and the view are in the scene's memory.
    let done = unsafe { scene.backend.scatter(&blocks(scene, from), &view, "key", lane) };
    done.map_err(|error| error.status)
}

fn blocks_come_to_the_places_of_a_job(scene: &Scene, way: Way) {
    scene.poison();
    let lane = scene.lane();
    scene.run_key(&scene.staged(0), &lane);
    let addresses = scene.layers(1);
    scene.run_key(&scene.view(way, &addresses), &lane);
    scatter(scene, way, 0, 2, &lane).unwrap();
    let (expected, found) = (scene.read(1), scene.read(2));
    assert!(expected.iter().any(|byte| *byte != 0xFF), "{way:?}");
    assert_eq!(found, expected, "{way:?}, {:?}", scene.dtype);
}

fn the_board_has_what_was_written(scene: &Scene) {
    let wire = scene.backend.wire(16).unwrap();
    wire.write(0, &[7; 16]).unwrap();
    wire.write(5, &[1, 2, 3]).unwrap();
    assert_eq!(wire.read(9).unwrap(), [7, 7, 7, 7, 7, 1, 2, 3, 7]);
    assert_ne!(wire.board(), 0);
    assert!(wire.is_done().unwrap());
}

fn bad_slots_are_refused_before_anything_is_written(scene: &Scene) {
    for (slots, status) in [
        ([0, 1, 2, 3, 7], Status::InvalidArgument),
        ([0, -2, 2, 3, 4], Status::InvalidArgument),
        ([4, 1, 2, 3, 4], Status::Overlap),
    ] {
        scene.poison();
        let bytes: Vec<u8> = slots.iter().flat_map(|slot: &i64| slot.to_ne_bytes()).collect();
        scene.wire.write(SLOTS_AT, &bytes).unwrap();
        assert_eq!(scatter(scene, Way::Slots, 0, 2, &scene.lane()), Err(status), "{slots:?}");
        assert!(scene.read(2).iter().all(|byte| *byte == 0xFF), "{slots:?}");
    }
    let small = Lane { workspace_bytes: 8, ..scene.lane() };
    assert_eq!(scatter(scene, Way::Slots, 0, 2, &small), Err(Status::WorkspaceTooSmall));
}

fn a_plan_is_for_its_heads(scene: &Scene) {
    let lane = scene.lane();
    let rows = scene.rows(0..ROWS);
    let views = [0, 1].map(|at| scene.staged(at).part(0..ROWS, 1..2).unwrap());
    let first = scene.job(1..2, &rows, &views, &lane);
    let other = scene.job(2..3, &rows, &views, &lane);
    let plan = scene.plan(&first);
    scene.backend.ensure_suits(&plan, &first).unwrap();
    let refused = scene.backend.ensure_suits(&plan, &other).unwrap_err();
    assert_eq!(refused.status, Status::PlanMismatch, "{}", refused.message);
}

/// A function of the simulated GPU, as the type that it is assigned to.
macro_rules! function {
    ($device:expr, $name:literal) => {
        // SAFETY: cuda.h has the function under this name with the arguments of its use.
        unsafe { transmute::<*mut c_void, _>(symbol($device, $name)) }
    };
}

fn symbol(device: &Device, name: &CStr) -> *mut c_void {
    device.library.symbol(name).map_err(|error| error.message).unwrap()
}

type Copy = unsafe extern "C" fn(u64, u64, usize, *mut c_void) -> c_int;

/// A job's results go to another place by the wire, and from there into a view.
fn transferred(scene: &Scene, lane: &Lane, copy: Copy) {
    let wire = &scene.wire;
    let [from, to, aside] = [0, 1, 3].map(|at| scene.address(place(at)) as u64);
    wire.begin(lane).unwrap();
    let own = Lane { wait_event: 0, signal_event: 0, ..*lane };
    scene.run_key(&scene.staged(0), &own);
    wire.fork(&own).unwrap();
    // SAFETY: both places have so many bytes.
    assert_eq!(unsafe { copy(to, from, 4096, wire.stream() as *mut c_void) }, 0);
    wire.mark(3).unwrap();
    wire.join(&own, 3).unwrap();
    // Nothing of the lane waits for this one, but its end.
    // SAFETY: as above.
    assert_eq!(unsafe { copy(aside, to, 4096, wire.stream() as *mut c_void) }, 0);
    scatter(scene, Way::Groups, 1, 2, &own).unwrap();
    wire.end(lane).unwrap();
}

fn transfers_run_between_what_they_need_and_what_needs_them(scene: &Scene, device: &Device) {
    type Make = unsafe extern "C" fn(*mut *mut c_void, u32) -> c_int;
    type Begin = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    type End = unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int;
    type Instantiate = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, u64) -> c_int;
    type Launch = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
    let copy: Copy = function!(device, c"cuMemcpyDtoDAsync_v2");
    let make: Make = function!(device, c"cuStreamCreate");
    let begin: Begin = function!(device, c"cuStreamBeginCapture_v2");
    let end: End = function!(device, c"cuStreamEndCapture");
    let instantiate: Instantiate = function!(device, c"cuGraphInstantiateWithFlags");
    let launch: Launch = function!(device, c"cuGraphLaunch");
    let (mut stream, mut graph, mut ready) = (null_mut(), null_mut(), null_mut());
    scene.poison();
    // SAFETY: a place for the stream, which does not wait for the default one.
    assert_eq!(unsafe { make(&mut stream, 1) }, 0);
    let lane = Lane { stream: stream as usize, ..scene.lane() };
    transferred(scene, &lane, copy);
    device.finish();
    let expected = scene.read(2);
    assert!(expected.iter().any(|byte| *byte != 0xFF));
    scene.poison();
    // SAFETY: our own stream and graph.
    unsafe {
        assert_eq!(begin(stream, 0), 0);
        transferred(scene, &lane, copy);
        assert_eq!(end(stream, &mut graph), 0);
        assert!(scene.read(2).iter().all(|byte| *byte == 0xFF), "captured, and not run");
        assert_eq!(instantiate(&mut ready, graph, 0), 0);
        assert_eq!(launch(ready, stream), 0);
    }
    device.finish();
    assert_eq!(scene.read(2), expected);
}
