//! Groups: calls that a thread only notes until its outermost group ends, and the exclusive hold
//! that a call has on its communicator.

use super::init;
use super::launch::Request;
use super::outcome;
use super::status::{IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, Outcome, SUCCESS, fatal};
use crate::control::environment;
use crate::fault::enter;
use crate::machine::{Machine, lock, thread};
use crate::violation::violate;
use std::cell::RefCell;
use std::ffi::c_int;
use std::time::Duration;

/// A thread's open group.
#[derive(Default)]
struct Group {
    depth: u64,
    joins: Vec<u64>,
    requests: Vec<(u64, Request)>,
    /// The first failure of a call in it.
    error: c_int,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

pub fn is_open() -> bool {
    GROUP.with_borrow(|group| group.depth > 0)
}

/// Keeps the failure of a call for the group's end; a bad argument's is the call's alone.
pub fn remember(result: c_int) {
    GROUP.with_borrow_mut(|group| {
        if group.depth > 0 && group.error == 0 && fatal(result) {
            group.error = result;
        }
    });
}

/// Notes a call of the open group.
pub fn add(machine: &mut Machine, comm: u64, request: Request) -> Outcome {
    let blocking = machine.comm(comm)?.blocking;
    GROUP.with_borrow_mut(|group| {
        if !group.joins.is_empty() {
            return Err(mixed());
        }
        let first = group.requests.first().and_then(|(first, _)| machine.comms.get(first));
        if first.is_some_and(|first| first.blocking != blocking) {
            return Err(INVALID_ARGUMENT);
        }
        group.requests.push((comm, request));
        machine.comm_mut(comm)?.group = Some(thread());
        Ok(())
    })
}

/// Notes a communicator that joins when the open group ends.
pub fn add_join(comm: u64) -> Outcome {
    GROUP.with_borrow_mut(|group| {
        if !group.requests.is_empty() {
            return Err(mixed());
        }
        group.joins.push(comm);
        Ok(())
    })
}

fn mixed() -> c_int {
    violate("nccl: one group makes communicators and communicates".to_owned());
    INVALID_USAGE
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> c_int {
    if let Err(result) = enter("ncclGroupStart") {
        return result;
    }
    start();
    SUCCESS
}

pub fn start() {
    GROUP.with_borrow_mut(|group| group.depth += 1);
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> c_int {
    if !is_open() {
        violate("ncclGroupEnd: no group is open".to_owned());
        return enter("ncclGroupEnd").err().unwrap_or(INVALID_USAGE);
    }
    match enter("ncclGroupEnd") {
        Ok(_) => {}
        Err(IN_PROGRESS) => slow_down(),
        Err(result) => fail(result),
    }
    outcome(end())
}

/// Has the group's communicators that do not block take longer.
fn slow_down() {
    let mut machine = lock();
    GROUP.with_borrow(|group| {
        for (comm, _) in &group.requests {
            if let Some(comm) = machine.comms.get_mut(comm) {
                comm.slow = true;
            }
        }
    });
}

/// Has the outermost end answer this, and every communicator of the group end with it.
fn fail(result: c_int) {
    GROUP.with_borrow_mut(|group| group.error = result);
}

pub fn end() -> Outcome {
    let depth = GROUP.with_borrow_mut(|group| {
        group.depth -= 1;
        group.depth
    });
    if depth > 0 {
        return Ok(());
    }
    let group = GROUP.take();
    let mut comms: Vec<u64> = Vec::new();
    for (comm, _) in &group.requests {
        if !comms.contains(comm) {
            comms.push(*comm);
        }
    }
    comms.iter().for_each(|comm| close(*comm));
    if group.error != 0 {
        comms.iter().chain(&group.joins).for_each(|comm| spoil(*comm, group.error));
        return Err(group.error);
    }
    init::join_all(&group.joins)?;
    submit(&comms, &group.requests)
}

fn close(comm: u64) {
    if let Some(comm) = lock().comms.get_mut(&comm) {
        comm.group = None;
    }
}

fn spoil(comm: u64, error: c_int) {
    if let Some(comm) = lock().comms.get_mut(&comm).filter(|_| fatal(error)) {
        comm.fail(error, "the group of its calls failed".to_owned());
    }
}

/// One launch for each communicator. All of them are made, whatever comes of one.
fn submit(comms: &[u64], requests: &[(u64, Request)]) -> Outcome {
    let launch = |comm: &u64| {
        let of = requests.iter().filter(|(of, _)| of == comm);
        let own: Vec<Request> = of.map(|(_, request)| *request).collect();
        let hold = hold(*comm, "ncclGroupEnd", true)?;
        Ok((lock().submit_calls(*comm, own, true), hold))
    };
    let launched: Vec<Outcome<(Outcome, Hold)>> = comms.iter().map(launch).collect();
    let results = comms.iter().zip(launched).map(|(comm, launched)| {
        launched.and_then(|(result, _hold)| wait_if_blocking(*comm, result))
    });
    results.fold(Ok(()), worse)
}

/// A call on a communicator that may block is over once it is enqueued.
pub fn wait_if_blocking(comm: u64, result: Outcome) -> Outcome {
    let blocks = lock().comms.get(&comm).is_some_and(|comm| comm.blocking);
    if blocks && result == Err(IN_PROGRESS) { init::wait(comm) } else { result }
}

fn worse(left: Outcome, right: Outcome) -> Outcome {
    match (left, right) {
        (Err(IN_PROGRESS), Err(other)) => Err(other),
        (Ok(()), other) => other,
        (other, _) => other,
    }
}

/// A thread's hold on a communicator while it is in a call.
pub struct Hold(u64);

/// Holds the communicator for as long as a real call takes, so that a second thread is seen.
pub fn hold(comm: u64, function: &str, launches: bool) -> Outcome<Hold> {
    lock().occupy(comm, function, launches)?;
    let held = Hold(comm);
    std::thread::sleep(Duration::from_micros(environment("GPUSIM_NCCL_CALL_US", 10)));
    Ok(held)
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock().leave(self.0);
    }
}
