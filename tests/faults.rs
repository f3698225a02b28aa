//! Ranks that are processes, one of which is killed or stopped at each of its steps: every other
//! one is told so in time, keeps its weights, joins a new communicator and ends by itself.
//!
//! A step is a call of one of the collectives that the engine gave, or a place between the
//! library's own calls, so nothing in the library knows of the test. This file is the parent and
//! says what is right; started again with a rank to be, it is the ranks.

#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/library.rs"]
mod library;
#[path = "faults/member.rs"]
mod member;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/sockets.rs"]
mod sockets;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/tensors.rs"]
mod tensors;

use member::Member;
use sockets::Mesh;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const RANKS: usize = 3;
const DEADLINE: Duration = Duration::from_millis(1000);
/// What a rank may take beyond its deadline: a fifth of it, and as much as other tests of this
/// machine may hold it up. The record has what it took.
const GRACE: Duration = Duration::from_millis(700);
/// A layer of which ranks hold the same heads, whose work they share.
const SHARED: &str = "mllama";
/// One whose heads are each on one rank, so that a new process can take a lost one's seat.
const APART: &str = "t5";

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

fn numbers(name: &str) -> Option<Vec<i64>> {
    let numbers = |text: String| text.split(',').map(|number| number.parse().unwrap()).collect();
    variable(name).map(numbers)
}

/// The mesh that the parent left to this rank.
fn inherited(rank: usize, name: &str) -> Option<Mesh> {
    let sockets = numbers(name)?.into_iter().map(|socket| socket as RawFd);
    // SAFETY: left by the parent.
    Some(unsafe { Mesh::inherited(rank, &sockets.collect::<Vec<_>>()) }.unwrap())
}

/// Does nothing unless this process was started as a rank.
#[test]
fn rank() {
    let Some(rank) = variable("XQKV_FAULTS_RANK").map(|rank| rank.parse().unwrap()) else { return };
    if let Some([step, signal]) = numbers("XQKV_FAULTS_FAULT").as_deref() {
        member::end_at(*step as u64, *signal as u64);
    }
    let member = Member { rank, fixture: &variable("XQKV_FAULTS_FIXTURE").unwrap() };
    let [mesh, spare] =
        ["XQKV_FAULTS_SOCKETS", "XQKV_FAULTS_SPARE"].map(|name| inherited(rank, name));
    match mesh {
        Some(mesh) => member.live(&mesh, spare.as_ref()),
        None => member.replace(&spare.unwrap()),
    }
    println!("\n@steps\t{}\t0", member::steps());
}

/// A rank's process, and what it printed so far.
struct Started {
    child: Child,
    output: BufReader<ChildStdout>,
    text: String,
}

impl Started {
    /// Starts a rank, which inherits the sockets that the variables name.
    fn new(member: &Member<'_>, meshes: &[(&str, &Mesh)], fault: Option<Fault>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["rank", "--exact", "--nocapture", "--test-threads=1"]);
        command.env("XQKV_FAULTS_RANK", member.rank.to_string());
        command.env("XQKV_FAULTS_FIXTURE", member.fixture);
        if let Some(fault) = fault.filter(|fault| fault.rank == member.rank) {
            command.env("XQKV_FAULTS_FAULT", format!("{},{}", fault.step, fault.signal));
        }
        for (name, mesh) in meshes {
            leave(&mut command, name, mesh);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, text: String::new() }
    }

    /// Listens until the rank waits for others to join anew, or has ended.
    fn hear_until_it_waits(&mut self) {
        while self.output.read_line(&mut self.text).unwrap() > 0 {
            if self.text.ends_with("@waits\tOK\t0\n") {
                return;
            }
        }
    }

    /// What a rank printed; that it ended by itself, and well.
    fn hear(mut self) -> Vec<Said> {
        while self.output.read_line(&mut self.text).unwrap() > 0 {}
        let output = self.child.wait_with_output().unwrap();
        let text = &self.text;
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let said = text.lines().filter_map(|line| line.strip_prefix('@'));
        let parse = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let took = Duration::from_millis(fields[2].parse().unwrap());
            Said { call: fields[0].into(), answer: fields[1].into(), took }
        };
        said.map(parse).collect()
    }
}

/// Leaves a mesh's sockets to a process, and tells it which they are.
fn leave(command: &mut Command, name: &str, mesh: &Mesh) {
    let descriptors = mesh.descriptors();
    let listed: Vec<String> = descriptors.iter().map(|socket: &RawFd| socket.to_string()).collect();
    command.env(name, listed.join(","));
    // SAFETY: between fork and exec only fcntl is called.
    unsafe {
        command.pre_exec(move || {
            descriptors.iter().for_each(|&socket| {
                libc::fcntl(socket, libc::F_SETFD, 0);
            });
            Ok(())
        });
    }
}

/// Runs all ranks; gives what those said that had no fault, and one that took another's seat.
fn run(fixture: &str, fault: Option<Fault>) -> Vec<(usize, Vec<Said>)> {
    let (meshes, spares) = (Mesh::all(RANKS).unwrap(), Mesh::all(RANKS).unwrap());
    let joins = fault.is_some_and(|fault| fault.joins_anew(fixture));
    let start = |rank: usize| {
        let meshes = [("XQKV_FAULTS_SOCKETS", &meshes[rank]), ("XQKV_FAULTS_SPARE", &spares[rank])];
        let meshes = if joins { &meshes[..] } else { &meshes[..1] };
        (rank, Started::new(&Member { rank, fixture }, meshes, fault))
    };
    let children: Vec<(usize, Started)> = (0..RANKS).map(start).collect();
    drop(meshes);
    let is_victim = |rank: usize| fault.is_some_and(|fault| fault.rank == rank);
    let (victims, mut others): (Vec<_>, Vec<_>) =
        children.into_iter().partition(|(rank, _)| is_victim(*rank));
    others.iter_mut().for_each(|(_, other)| other.hear_until_it_waits());
    for (rank, victim) in victims.iter().filter(|_| joins) {
        let mesh = [("XQKV_FAULTS_SPARE", &spares[*rank])];
        match fault {
            Some(Fault { signal: libc::SIGKILL, .. }) => {
                others.push((*rank, Started::new(&Member { rank: *rank, fixture }, &mesh, None)));
            }
            // SAFETY: a child that nobody has waited for.
            _ => _ = unsafe { libc::kill(victim.child.id() as i32, libc::SIGCONT) },
        }
    }
    drop(spares);
    let said = others.into_iter().map(|(rank, other)| (rank, other.hear())).collect();
    for (_, mut victim) in victims {
        victim.child.kill().unwrap();
        victim.child.wait().unwrap();
    }
    said
}

impl Fault {
    /// Whether all ranks can join anew: a stopped one goes on, and a lost one's seat can be taken
    /// by another process where weights do not lie as others' heads ask for.
    fn joins_anew(&self, fixture: &str) -> bool {
        self.signal == libc::SIGSTOP || fixture == APART
    }
}

/// What came of a fault.
struct Verdict {
    fault: Fault,
    wrong: Vec<String>,
    /// What was answered, and whether it names the rank that the fault is of.
    statuses: Vec<String>,
    /// The longest wait, as a part of the deadline.
    longest: f64,
    /// Ranks that made calls with transfers again.
    joined: usize,
}

/// How the others took a fault.
fn judge(fixture: &str, fault: Fault, said: &[(usize, Vec<Said>)]) -> Verdict {
    let (mut wrong, mut longest, mut statuses) = (Vec::new(), Duration::ZERO, Vec::new());
    let mut is_named = false;
    let made = |said: &&Said| !["steps", "join anew"].contains(&said.call.as_str());
    for (rank, said) in said {
        let failed = said.iter().filter(made).filter(|said| said.answer != "OK");
        for (at, said) in failed.enumerate() {
            let Said { call, answer, took } = said;
            longest = longest.max(*took);
            let names_it = answer.contains(&format!(": rank {} ", fault.rank));
            is_named |= names_it;
            let named = if names_it { "it" } else { "another" };
            statuses.push(format!("{} names {named}", status_of(answer)));
            if !is_well_said(said, at == 0) {
                wrong.push(format!("{fault:?}: rank {rank}, {call}: {answer} after {took:?}"));
            }
        }
    }
    if !statuses.is_empty() && !is_named {
        wrong.push(format!("{fault:?}: nobody names the rank: {said:?}"));
    }
    let joined = said.iter().filter(|(_, said)| is_ok(said, "join anew")).count();
    // A rank without a projection has nothing to join with.
    let survivors = said.iter().filter(|(rank, _)| *rank != fault.rank);
    let all_made = survivors.clone().all(|(_, said)| is_ok(said, "create and commit"));
    if all_made && fault.joins_anew(fixture) && joined != said.len() {
        wrong.push(format!("{fault:?}: not all joined anew: {said:?}"));
    }
    let longest = longest.as_secs_f64() / DEADLINE.as_secs_f64();
    Verdict { fault, wrong, statuses, longest, joined }
}

fn is_ok(said: &[Said], call: &str) -> bool {
    said.iter().any(|said| said.call == call && said.answer == "OK")
}

/// Whether a rank's first failure says that another was lost, and those after it that there is no
/// communicator any more; in time.
fn is_well_said(said: &Said, is_first: bool) -> bool {
    let allowed = if is_first { &["PEER_LOST", "TIMED_OUT"][..] } else { &["COMM_POISONED"] };
    let status = status_of(&said.answer);
    let is_known = allowed.contains(&status.trim_start_matches("XQKV_STATUS_"));
    is_known && said.answer.contains(": rank ") && said.took <= DEADLINE.mul_f64(1.2) + GRACE
}

/// The status that a message begins with.
fn status_of(answer: &str) -> String {
    answer.chars().take_while(|&letter| letter == '_' || letter.is_ascii_uppercase()).collect()
}

/// Every rank at every step, killed and stopped.
fn faults(fixture: &str) -> VecDeque<Fault> {
    let said = run(fixture, None);
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

/// Lets each fault happen, four at a time.
fn suffer(fixture: &str, faults: VecDeque<Fault>) -> Vec<Verdict> {
    let count = faults.len();
    let (queue, judged) = (Mutex::new(faults), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let next = || queue.lock().unwrap().pop_front();
                while let Some(fault) = next() {
                    let verdict = judge(fixture, fault, &run(fixture, Some(fault)));
                    judged.lock().unwrap().push(verdict);
                }
            });
        }
    });
    let mut judged = judged.into_inner().unwrap();
    assert_eq!(judged.len(), count);
    judged.sort_by_key(|verdict| (verdict.fault.rank, verdict.fault.step, verdict.fault.signal));
    print_table(&judged);
    let wrong: Vec<&String> = judged.iter().flat_map(|verdict| &verdict.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    judged
}

#[test]
fn a_rank_that_is_killed_or_stopped_at_any_step_is_an_error_in_time_for_the_others() {
    let faults = faults(SHARED);
    assert!(faults.len() >= RANKS * 2 * 12, "{} faults", faults.len());
    let judged = suffer(SHARED, faults);
    // At its last two steps a rank has done all that others wait for.
    let unfelt = judged.iter().filter(|verdict| verdict.statuses.is_empty()).count();
    assert_eq!(unfelt, RANKS * 2 * 2);
    assert!(judged.iter().filter(|verdict| verdict.joined == RANKS - 1).count() >= RANKS * 8);
}

#[test]
fn a_new_process_takes_the_seat_of_one_that_was_killed() {
    let mut faults = faults(APART);
    faults.retain(|fault| fault.signal == libc::SIGKILL && fault.step % 3 == 0);
    let judged = suffer(APART, faults);
    assert!(judged.iter().filter(|verdict| verdict.joined == RANKS).count() >= RANKS * 2);
}

/// The longest wait at each step, as a part of the deadline, and how many joined anew.
fn print_table(judged: &[Verdict]) {
    println!(
        "| rank | step | signal | longest wait / deadline | joined anew |\n|---|---|---|---|---|"
    );
    let mut statuses = BTreeMap::new();
    for Verdict { fault, longest, joined, statuses: answered, .. } in judged {
        let Fault { rank, step, signal } = fault;
        let signal = if *signal == libc::SIGKILL { "killed" } else { "stopped" };
        println!("| {rank} | {step} | {signal} | {longest:.3} | {joined} |");
        answered.iter().for_each(|status| *statuses.entry(status).or_insert(0) += 1);
    }
    println!("{} faults; {statuses:?}", judged.len());
}
