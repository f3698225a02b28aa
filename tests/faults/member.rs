//! What a rank does, from its communicator to its end, and the steps that it can be ended at.

use super::library::{Checkpoint, Comm, Context, Outcome, Projection, balanced, call};
use super::sockets::{self, Mesh};
use super::{DEADLINE, RANKS};
use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use xqkv::capi::collectives::{xqkv_collectives, xqkv_message};
use xqkv::capi::forward::ForwardFlag;
use xqkv::capi::projection::ProjectionFlag;
use xqkv::dtype::Dtype;

const ROWS: [usize; RANKS] = [5, 0, 8];
/// A rank that joins anew waits for one that goes on or starts only then.
const LONG_DEADLINE_MS: i64 = 60_000;

/// Steps that this process has come to, the one to end at, and the signal.
static STEPS: AtomicU64 = AtomicU64::new(0);
static LAST_STEP: AtomicU64 = AtomicU64::new(u64::MAX);
static SIGNAL: AtomicU64 = AtomicU64::new(0);

fn step() {
    if STEPS.fetch_add(1, Relaxed) + 1 == LAST_STEP.load(Relaxed) {
        // SAFETY: that is the test.
        unsafe { libc::raise(SIGNAL.load(Relaxed) as i32) };
    }
}

unsafe extern "C" fn all_gather(
    buffer: *mut c_void,
    bytes: *const i64,
    rank_count: i64,
    stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    step();
    // SAFETY: passed on.
    unsafe { sockets::all_gather(buffer, bytes, rank_count, stream, user) }
}

unsafe extern "C" fn broadcast(
    buffer: *mut c_void,
    bytes: i64,
    root: i64,
    stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    step();
    // SAFETY: passed on.
    unsafe { sockets::broadcast(buffer, bytes, root, stream, user) }
}

unsafe extern "C" fn exchange(
    messages: *const xqkv_message,
    count: i64,
    stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    step();
    // SAFETY: passed on.
    unsafe { sockets::exchange(messages, count, stream, user) }
}

/// Rows of hidden states; any will do.
fn states(rows: usize, width: usize) -> Vec<f32> {
    (0..rows * width).map(|at| (at % 17) as f32 - 8.0).collect()
}

/// A seat among the ranks, and what it holds.
pub struct Member<'a> {
    pub rank: usize,
    /// A folder of the fixtures.
    pub fixture: &'a str,
}

/// How many steps this process came to.
pub fn steps() -> u64 {
    STEPS.load(Relaxed)
}

/// Ends this process with the signal when it comes to the step.
pub fn end_at(step: u64, signal: u64) {
    LAST_STEP.store(step, Relaxed);
    SIGNAL.store(signal, Relaxed);
}

/// Makes a call and prints what it answered and how long it took.
fn said<T>(name: &str, make: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let begin = Instant::now();
    let outcome = make();
    let answer = outcome.as_ref().map_or_else(String::as_str, |_| "OK").replace('\n', " ");
    println!("\n@{name}\t{answer}\t{}", begin.elapsed().as_millis());
    outcome
}

impl Member<'_> {
    /// A rank's whole life; with a mesh to spare it joins the others anew, whatever happened.
    pub fn live(&self, mesh: &Mesh, spare: Option<&Mesh>) {
        step();
        let collectives = xqkv_collectives {
            all_gather: Some(all_gather),
            broadcast: Some(broadcast),
            exchange: Some(exchange),
            ..mesh.collectives()
        };
        let seat = (self.rank, RANKS);
        let comm = Comm::collectives(&collectives, seat, DEADLINE.as_millis() as i64).unwrap();
        let projection = said("create and commit", || self.load(Some(&comm)));
        if let Ok(projection) = &projection {
            let before = said("decode", || self.decode(projection));
            let _ = said("forward", || self.forward(projection));
            let committed = said("commit again", || self.commit(projection)).is_ok();
            assert_eq!(projection.weights_version(), Ok(1 + i64::from(committed)));
            let after = said("decode again", || self.decode(projection));
            assert_eq!(before, after, "weights are as they were");
            assert!(before.is_ok());
            spare.inspect(|spare| self.join_anew(projection, spare));
        }
        step();
        drop(projection);
        drop(comm);
        step();
    }

    /// The life of one that takes the seat of a rank that is gone.
    pub fn replace(&self, spare: &Mesh) {
        let projection = self.load(None).unwrap();
        self.join_anew(&projection, spare);
    }

    /// Joins the others over new sockets, with the weights that all were to have by now.
    fn join_anew(&self, projection: &Projection, spare: &Mesh) {
        println!("\n@waits\tOK\t0");
        let seat = (self.rank, RANKS);
        let comm = Comm::collectives(&spare.collectives(), seat, LONG_DEADLINE_MS).unwrap();
        let _ = said("join anew", || {
            projection.set_comm(None)?;
            if projection.weights_version()? == 1 {
                self.commit(projection)?;
            }
            projection.set_comm(Some(&comm))?;
            self.forward(projection)?;
            projection.set_comm(None)
        });
    }

    fn checkpoint(&self) -> Outcome<Checkpoint> {
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
        Checkpoint::new(&fixtures.join(self.fixture))
    }

    fn load(&self, comm: Option<&Comm>) -> Outcome<Projection> {
        let checkpoint = self.checkpoint()?;
        let spec = checkpoint.spec()?;
        let mut options = balanced(&spec, self.rank as i64, RANKS as i64)?;
        if self.fixture == super::SHARED {
            options.flags = ProjectionFlag::ShareReplicas as u64;
        }
        options.comm = comm.map_or(std::ptr::null(), Comm::handle);
        Projection::load(&Context::new(1)?, &spec, &options, |update| update.read(&checkpoint))
    }

    fn commit(&self, projection: &Projection) -> Outcome<()> {
        let checkpoint = self.checkpoint()?;
        projection.update(|update| update.read(&checkpoint))
    }

    /// A call without transfers: Q of two rows.
    fn decode(&self, projection: &Projection) -> Outcome<Vec<u32>> {
        let shard = projection.shard()?;
        let spec = self.checkpoint()?.spec()?;
        let rows = states(2, spec.decoder_width as usize);
        let mut query = vec![f32::NAN; 2 * shard.query_columns as usize];
        let mut forward = call(0);
        forward.decoder.data = rows.as_ptr().cast();
        (forward.decoder.rows, forward.decoder.dtype) = (2, Dtype::F32 as i32);
        (forward.query.data, forward.query.dtype) = (query.as_mut_ptr().cast(), Dtype::F32 as i32);
        // SAFETY: inputs and outputs are as long as their shapes say.
        let stats = unsafe { projection.forward(&forward) }?;
        assert_eq!(stats.transfers, 0);
        assert!(query.iter().all(|element| !element.is_nan()));
        Ok(query.into_iter().map(f32::to_bits).collect())
    }

    /// A call with every kind of transfer: rows that each rank has a part of, shared work, and all
    /// to all ranks; and one in which only sharers exchange.
    fn forward(&self, projection: &Projection) -> Outcome<()> {
        let spec = self.checkpoint()?.spec()?;
        let shard = projection.shard()?;
        let rows: usize = ROWS.iter().sum();
        let encoder = states(ROWS[self.rank], spec.encoder_width as usize);
        let rank_rows = ROWS.map(|rows| rows as i64);
        let mut workspace = vec![0_u64; 1 << 20];
        for (flags, heads) in [
            (ForwardFlag::GatherKeyValue as u32, spec.key_value_heads),
            (0, shard.key_value_head_count),
        ] {
            let mut outputs = [spec.head_width, spec.value_head_width]
                .map(|width| vec![f32::NAN; rows * (heads * width) as usize]);
            let mut forward = call(0);
            forward.flags = flags;
            forward.encoder_rank_rows = rank_rows.as_ptr();
            forward.encoder.data =
                if ROWS[self.rank] == 0 { std::ptr::null() } else { encoder.as_ptr().cast() };
            (forward.encoder.rows, forward.encoder.dtype) =
                (ROWS[self.rank] as i64, Dtype::F32 as i32);
            let [key, value] = outputs.each_mut().map(|output| output.as_mut_ptr());
            (forward.key.data, forward.key.dtype) = (key.cast(), Dtype::F32 as i32);
            (forward.value.data, forward.value.dtype) = (value.cast(), Dtype::F32 as i32);
            let begin = workspace.as_mut_ptr().cast::<u8>();
            let offset = begin.align_offset(256);
            forward.workspace = begin.wrapping_add(offset).cast();
            forward.workspace_bytes = (workspace.len() * 8 - offset) as i64;
            // SAFETY: inputs, outputs and workspace are as long as their shapes say.
            unsafe { projection.forward(&forward) }?;
            assert!(outputs.iter().flatten().all(|element| !element.is_nan()));
        }
        Ok(())
    }
}
