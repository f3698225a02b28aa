//! Ranks that are processes, one of which is killed or stopped at each of its steps: every other
//! one is told so in time, keeps its weights, and ends by itself.
//!
//! A step is a call of one of the collectives that the engine gave, or a place between the
//! library's own calls, so nothing in the library knows of the test. This file is both the parent
//! and, started again with a rank to be, the ranks.

#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/library.rs"]
mod library;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/sockets.rs"]
mod sockets;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/tensors.rs"]
mod tensors;

use library::{Checkpoint, Comm, Context, Outcome, Projection, balanced, call};
use sockets::Mesh;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use xqkv::capi::collectives::{xqkv_collectives, xqkv_message};
use xqkv::capi::forward::ForwardFlag;
use xqkv::capi::projection::ProjectionFlag;
use xqkv::dtype::Dtype;

const RANKS: usize = 3;
const DEADLINE: Duration = Duration::from_millis(1000);
/// What a rank may take beyond its deadline: a fifth of it, and as much as other tests of this
/// machine may hold it up. The record has what it took on an idle one.
const GRACE: Duration = Duration::from_millis(700);
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mllama");
const ROWS: [usize; RANKS] = [5, 0, 8];

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

/// What a rank did: a line for each of its calls.
#[derive(Debug)]
struct Said {
    call: String,
    answer: String,
    took: Duration,
}

/// One case: who ends at which step, and how.
#[derive(Clone, Copy, Debug)]
struct Fault {
    rank: usize,
    step: u64,
    signal: i32,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn numbers(text: &str) -> Vec<i64> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

/// Does nothing unless this process was started as a rank.
#[test]
fn rank() {
    let Some(rank) = variable("XQKV_FAULTS_RANK").map(|rank| rank.parse().unwrap()) else { return };
    let fault = numbers(&variable("XQKV_FAULTS_FAULT").unwrap_or_default());
    if let [step, signal] = fault[..] {
        LAST_STEP.store(step as u64, Relaxed);
        SIGNAL.store(signal as u64, Relaxed);
    }
    let sockets = numbers(&variable("XQKV_FAULTS_SOCKETS").unwrap());
    let sockets: Vec<RawFd> = sockets.into_iter().map(|socket| socket as RawFd).collect();
    // SAFETY: left by the parent.
    let mesh = unsafe { Mesh::inherited(rank, &sockets) }.unwrap();
    live(rank, &mesh);
    println!("\n@steps\t{}\t0", STEPS.load(Relaxed));
}

/// A rank's whole life.
fn live(rank: usize, mesh: &Mesh) {
    step();
    let collectives = xqkv_collectives {
        all_gather: Some(all_gather),
        broadcast: Some(broadcast),
        exchange: Some(exchange),
        ..mesh.collectives()
    };
    let comm = Comm::collectives(&collectives, (rank, RANKS), DEADLINE.as_millis() as i64).unwrap();
    let projection = said("create and commit", || load(rank, &comm));
    if let Ok(projection) = &projection {
        let before = said("decode", || decode(projection));
        let _ = said("forward", || forward(rank, projection));
        let after = said("decode again", || decode(projection));
        assert_eq!(before, after, "weights are as they were");
        assert!(before.is_ok());
    }
    step();
    drop(projection);
    drop(comm);
    step();
}

/// Makes a call and prints what it answered and how long it took.
fn said<T>(name: &str, make: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let begin = Instant::now();
    let outcome = make();
    let answer = outcome.as_ref().map_or_else(String::as_str, |_| "OK").replace('\n', " ");
    println!("\n@{name}\t{answer}\t{}", begin.elapsed().as_millis());
    outcome
}

fn load(rank: usize, comm: &Comm) -> Outcome<Projection> {
    let checkpoint = Checkpoint::new(Path::new(FIXTURE))?;
    let spec = checkpoint.spec()?;
    let mut options = balanced(&spec, rank as i64, RANKS as i64)?;
    options.comm = comm.handle();
    options.flags = ProjectionFlag::ShareReplicas as u64;
    Projection::load(&Context::new(1)?, &spec, &options, |update| update.read(&checkpoint))
}

/// Rows of hidden states; any will do.
fn states(rows: usize, width: usize) -> Vec<f32> {
    (0..rows * width).map(|at| (at % 17) as f32 - 8.0).collect()
}

/// A call without transfers: Q of two rows.
fn decode(projection: &Projection) -> Outcome<Vec<u32>> {
    let shard = projection.shard()?;
    let spec = Checkpoint::new(Path::new(FIXTURE))?.spec()?;
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
/// heads to all ranks; and one in which only sharers exchange.
fn forward(rank: usize, projection: &Projection) -> Outcome<()> {
    let spec = Checkpoint::new(Path::new(FIXTURE))?.spec()?;
    let shard = projection.shard()?;
    let rows: usize = ROWS.iter().sum();
    let encoder = states(ROWS[rank], spec.encoder_width as usize);
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
            if ROWS[rank] == 0 { std::ptr::null() } else { encoder.as_ptr().cast() };
        (forward.encoder.rows, forward.encoder.dtype) = (ROWS[rank] as i64, Dtype::F32 as i32);
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

fn start(rank: usize, mesh: &Mesh, fault: Option<Fault>) -> Child {
    let descriptors = mesh.descriptors();
    let listed: Vec<String> = descriptors.iter().map(|socket: &RawFd| socket.to_string()).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["rank", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("XQKV_FAULTS_RANK", rank.to_string());
    command.env("XQKV_FAULTS_SOCKETS", listed.join(","));
    if let Some(fault) = fault.filter(|fault| fault.rank == rank) {
        command.env("XQKV_FAULTS_FAULT", format!("{},{}", fault.step, fault.signal));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only fcntl is called.
    unsafe {
        command.pre_exec(move || {
            descriptors.iter().for_each(|&socket| {
                libc::fcntl(socket, libc::F_SETFD, 0);
            });
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// What a rank printed; that it ended by itself, and well.
fn hear(child: Child) -> Vec<Said> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let said = text.lines().filter_map(|line| line.strip_prefix('@'));
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let took = Duration::from_millis(fields[2].parse().unwrap());
        Said { call: fields[0].into(), answer: fields[1].into(), took }
    };
    said.map(parse).collect()
}

/// Runs all ranks; gives what those said that had no fault.
fn run(fault: Option<Fault>) -> Vec<(usize, Vec<Said>)> {
    let meshes = Mesh::all(RANKS).unwrap();
    let start = |(rank, mesh)| (rank, start(rank, mesh, fault));
    let children: Vec<(usize, Child)> = meshes.iter().enumerate().map(start).collect();
    drop(meshes);
    let is_victim = |rank: usize| fault.is_some_and(|fault| fault.rank == rank);
    let (victims, others): (Vec<_>, Vec<_>) =
        children.into_iter().partition(|(rank, _)| is_victim(*rank));
    let said = others.into_iter().map(|(rank, child)| (rank, hear(child))).collect();
    for (_, mut victim) in victims {
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    said
}

/// What is wrong with how the others took a fault; and the longest wait, as a part of the deadline.
fn judge(fault: Fault, said: &[(usize, Vec<Said>)]) -> (Vec<String>, f64) {
    let (mut wrong, mut longest, mut is_named) = (Vec::new(), Duration::ZERO, false);
    let mut failures = 0;
    for (rank, said) in said {
        let failed = said.iter().filter(|said| said.call != "steps" && said.answer != "OK");
        for Said { call, answer, took } in failed {
            failures += 1;
            longest = longest.max(*took);
            is_named |= answer.contains(&format!("rank {} ", fault.rank));
            let is_known = ["PEER_LOST", "TIMED_OUT", "MISMATCH", "COMM_POISONED"]
                .iter()
                .any(|status| answer.starts_with(&format!("XQKV_STATUS_{status}")));
            if !is_known || !answer.contains("rank ") || *took > DEADLINE.mul_f64(1.2) + GRACE {
                wrong.push(format!("{fault:?}: rank {rank}, {call}: {answer} after {took:?}"));
            }
        }
    }
    if failures > 0 && !is_named {
        wrong.push(format!("{fault:?}: nobody names the rank: {said:?}"));
    }
    (wrong, longest.as_secs_f64() / DEADLINE.as_secs_f64())
}

/// Every rank at every step, killed and stopped.
fn faults() -> VecDeque<Fault> {
    let said = run(None);
    let mut faults = VecDeque::new();
    for (rank, said) in said {
        assert!(said.iter().all(|said| said.call == "steps" || said.answer == "OK"), "{said:?}");
        let steps = said.iter().find(|said| said.call == "steps").unwrap();
        for step in 1..=steps.answer.parse().unwrap() {
            faults.extend([libc::SIGKILL, libc::SIGSTOP].map(|signal| Fault {
                rank,
                step,
                signal,
            }));
        }
    }
    faults
}

#[test]
fn a_rank_that_is_killed_or_stopped_at_any_step_is_an_error_in_time_for_the_others() {
    let faults = faults();
    let count = faults.len();
    assert!(count >= RANKS * 2 * 10, "{count} steps");
    let (queue, judged) = (Mutex::new(faults), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let next = || queue.lock().unwrap().pop_front();
                while let Some(fault) = next() {
                    let verdict = judge(fault, &run(Some(fault)));
                    judged.lock().unwrap().push((fault, verdict));
                }
            });
        }
    });
    let judged = judged.into_inner().unwrap();
    assert_eq!(judged.len(), count);
    print_table(&judged);
    let wrong: Vec<&String> = judged.iter().flat_map(|(_, (wrong, _))| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The longest wait at each step, as a part of the deadline.
fn print_table(judged: &[(Fault, (Vec<String>, f64))]) {
    println!("| rank | step | killed | stopped |\n|---|---|---|---|");
    let mut places: Vec<(usize, u64)> =
        judged.iter().map(|(fault, _)| (fault.rank, fault.step)).collect();
    places.sort_unstable();
    places.dedup();
    for (rank, step) in places {
        let longest = |signal: i32| {
            let is_it =
                |fault: &Fault| (fault.rank, fault.step, fault.signal) == (rank, step, signal);
            let found = judged.iter().find(|(fault, _)| is_it(fault));
            found.map_or(0.0, |(_, (_, longest))| *longest)
        };
        println!(
            "| {rank} | {step} | {:.3} | {:.3} |",
            longest(libc::SIGKILL),
            longest(libc::SIGSTOP)
        );
    }
}
