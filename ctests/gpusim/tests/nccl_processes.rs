//! Ranks that are processes: each is this program again, told its rank by the environment.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]

mod ranks;
mod support;

use gpusim::nccl::{end::*, init::*, query::*};
use ranks::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use support::*;

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(30);

fn digits(id: &UniqueId) -> String {
    let bytes = (id as *const UniqueId).cast::<[u8; 128]>();
    unsafe { *bytes }.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(digits: &str) -> UniqueId {
    let byte = |at: usize| u8::from_str_radix(&digits[at * 2..][..2], 16).unwrap_or(0);
    let bytes: [u8; 128] = std::array::from_fn(byte);
    unsafe { std::mem::transmute::<[u8; 128], UniqueId>(bytes) }
}

/// A rank in a process of its own, and what it says.
struct Other {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Other {
    fn start(id: &UniqueId, role: &str, extra: &[(&str, &str)]) -> Other {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--ignored", "--exact", "--nocapture", role]);
        command.env("TEST_ID", digits(id)).envs(extra.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Other { child, lines }
    }

    /// Waits until it says the word.
    fn says(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert!(self.lines.read_line(&mut line).expect("text") > 0, "it ended before {word}");
        }
    }

    fn signal(&self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    fn succeed(mut self) {
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process's seat beside the other one.
fn seat(id: UniqueId, rank: usize) -> Rank {
    enter_device(rank);
    let (result, comm) = init(id, 2, rank, &config(0));
    assert_eq!(result, IN_PROGRESS);
    Rank { comm, rank, ranks: 2, stream: 0 }
}

fn joined(mut rank: Rank) -> Rank {
    ok(poll(rank.comm));
    rank.stream = stream(1);
    rank
}

fn told_id() -> UniqueId {
    id_of(&std::env::var("TEST_ID").expect("run by the test beside it"))
}

#[test]
fn two_processes_gather_again_and_again() {
    let _sim = machine();
    let id = unique_id();
    let other = Other::start(&id, "a_gathering_rank", &[]);
    gather_often(&joined(seat(id, 0)));
    other.succeed();
    clean();
}

#[test]
#[ignore = "run by the test beside it"]
fn a_gathering_rank() {
    let _sim = machine();
    gather_often(&joined(seat(told_id(), 1)));
    clean();
}

fn gather_often(rank: &Rank) {
    for turn in 0..100 {
        let own = turn * 2 + rank.rank as i32;
        let (send, receive) = (upload(&[own; 3000]), alloc(24000));
        ok(rank.all_gather(send, receive, 3000));
        sync(rank.stream);
        let expected = [[turn * 2; 3000], [turn * 2 + 1; 3000]].concat();
        assert!(download(receive, 6000) == expected, "turn {turn}");
    }
    let finalized = ncclCommFinalize(rank.comm);
    ok(rank.settle(finalized));
    rank.destroy();
}

/// A device works on while its host does something else.
#[test]
fn a_process_need_not_wait_for_its_work_for_the_others_to_go_on() {
    let _sim = machine();
    let id = unique_id();
    let mut other = Other::start(&id, "a_rank_that_launches_and_sleeps", &[]);
    let rank = joined(seat(id, 0));
    rank.connect();
    other.says("launched");
    let receive = alloc(8);
    ok(rank.all_gather(upload(&[1]), receive, 1));
    sync(rank.stream);
    assert_eq!(download(receive, 2), [1, 2]);
    rank.destroy();
    clean();
}

#[test]
#[ignore = "run by the test beside it"]
fn a_rank_that_launches_and_sleeps() {
    let _sim = machine();
    let rank = joined(seat(told_id(), 1));
    rank.connect();
    ok(rank.all_gather(upload(&[2]), alloc(8), 1));
    println!("launched");
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn a_killed_rank_leaves_the_other_hanging_and_is_named() {
    lose(libc::SIGKILL, "is dead");
}

#[test]
fn a_stopped_rank_leaves_the_other_hanging_and_is_named() {
    lose(libc::SIGSTOP, "is stopped");
}

fn lose(signal: i32, said: &str) {
    let _sim = machine();
    let id = unique_id();
    let mut other = Other::start(&id, "a_rank_that_joins_and_sleeps", &[]);
    let rank = joined(seat(id, 0));
    rank.connect();
    other.says("joined");
    other.signal(signal);
    std::thread::sleep(SHORT);
    ok(rank.all_gather(upload(&[1]), alloc(8), 1));
    assert!(!is_over_within(rank.stream, SHORT));
    let mut state = -1;
    ok(unsafe { ncclCommGetAsyncError(rank.comm, &mut state) });
    assert_eq!(state, 0, "nobody tells");
    ok(ncclCommAbort(rank.comm));
    assert!(is_over_within(rank.stream, LONG));
    let hangs = gpusim::machine::lock().hangs.clone();
    assert!(hangs.len() == 1 && hangs[0].to_string_lossy().contains(said), "{hangs:?}");
    clean();
}

#[test]
#[ignore = "run by the test beside it"]
fn a_rank_that_joins_and_sleeps() {
    let _sim = machine();
    joined(seat(told_id(), 1)).connect();
    println!("joined");
    std::thread::sleep(Duration::from_secs(20));
}

/// Both are of one device, which is one GPU or not.
#[test]
fn version_2_30_has_two_ranks_on_a_gpu_if_told_to_and_older_ones_have_not() {
    let _sim = machine();
    let allow = ("NCCL_MULTI_RANK_GPU_ENABLE", "1");
    let old = ("GPUSIM_NCCL_VERSION", "22907");
    for (expected, extra) in [("0", &[allow][..]), ("5", &[allow, old]), ("5", &[])] {
        let id = unique_id();
        let start = |rank| {
            let own = [("TEST_STATE", expected), ("TEST_RANK", rank)];
            Other::start(&id, "a_rank_of_device_0", &[&own[..], extra].concat())
        };
        ["0", "1"].map(start).into_iter().for_each(Other::succeed);
    }
}

/// An old version's rank that shares no GPU is not told, and waits.
#[test]
fn before_2_30_only_those_that_share_a_gpu_are_told() {
    let _sim = machine();
    let id = unique_id();
    let start = |(rank, state, first)| {
        let own = [("TEST_RANK", rank), ("TEST_STATE", state), ("TEST_RANKS", "3")];
        let more = [("GPUSIM_FIRST_DEVICE", first), ("GPUSIM_NCCL_VERSION", "22907")];
        Other::start(&id, "a_rank_of_device_0", &[&own[..], &more].concat())
    };
    let ranks = [("0", "5", "0"), ("1", "5", "0"), ("2", "7", "1")];
    ranks.map(start).into_iter().for_each(Other::succeed);
}

#[test]
fn processes_may_say_that_their_first_devices_are_two_gpus() {
    let _sim = machine();
    let id = unique_id();
    let start = |rank, first| {
        let extra = [("TEST_STATE", "0"), ("TEST_RANK", rank), ("GPUSIM_FIRST_DEVICE", first)];
        Other::start(&id, "a_rank_of_device_0", &extra)
    };
    [start("0", "0"), start("1", "1")].into_iter().for_each(Other::succeed);
}

#[test]
#[ignore = "run by the test beside it"]
fn a_rank_of_device_0() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let _sim = machine();
    let rank = number("TEST_RANK").expect("run by the test beside it");
    let (_, comm) = init(told_id(), number("TEST_RANKS").unwrap_or(2), rank, &config(0));
    let expected = number("TEST_STATE");
    let patience = if expected == Some(7) { 500 } else { 5000 };
    let state = poll_for(comm, Duration::from_millis(patience));
    ok(ncclCommAbort(comm));
    assert_eq!(Some(state as usize), expected);
}
