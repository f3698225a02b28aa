//! Streams: queues of work that run when the host has to see a result. Submitting decides what
//! comes before what; `schedule` decides when, as late and as out of order as that allows.

use crate::clock::{Clock, Point};
use crate::machine::Machine;
use crate::nccl::launch::Launch;
use crate::op::Op;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::sync::Arc;

/// What the host calls from a stream: a function and its argument.
#[derive(Clone, Copy)]
pub struct HostCall {
    pub function: unsafe extern "C" fn(*mut c_void),
    pub data: usize,
}

#[derive(Clone)]
pub enum Work {
    /// Only the order: an event's record, a wait.
    Nothing,
    Op(Op),
    /// An op that touches memory which it may not: it ends its context.
    Fault,
    Host(HostCall),
    /// A rank's part in what several ranks do together.
    Collective(Arc<Launch>),
}

pub struct Item {
    pub sequence: u64,
    /// Streams and how much of them must have run.
    pub after: Vec<(u64, u64)>,
    pub work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Made by cuStreamCreate, and whether it keeps order with the legacy stream.
    Created { blocking: bool },
    /// The NULL stream of a context.
    Legacy,
    /// The per-thread stream.
    Thread,
    /// A chain of nodes of a graph.
    Lane,
}

pub struct Stream {
    pub context: u64,
    pub role: Role,
    pub destroyed: bool,
    pub enqueued: u64,
    pub completed: u64,
    pub queue: VecDeque<Item>,
    pub clock: Clock,
    pub finish_ns: u64,
    /// When items ended that ran while a timeline was kept, by sequence.
    pub ends: BTreeMap<u64, u64>,
    /// The capture that records the stream's work.
    pub capture: Option<u64>,
}

impl Stream {
    pub fn new(context: u64, role: Role) -> Stream {
        Stream {
            context,
            role,
            destroyed: false,
            enqueued: 0,
            completed: 0,
            queue: VecDeque::new(),
            clock: Clock::new(),
            finish_ns: 0,
            ends: BTreeMap::new(),
            capture: None,
        }
    }

    /// Whether the stream keeps order with its context's legacy stream.
    pub fn blocking(&self) -> bool {
        matches!(self.role, Role::Created { blocking: true } | Role::Thread)
    }
}

impl Machine {
    /// The end of what was submitted to the stream.
    pub fn tail(&self, stream: u64) -> Option<Point> {
        let found = self.streams.get(&stream)?;
        let (sequence, clock) = (found.enqueued, found.clock.clone());
        Some(Point { stream, sequence, clock, finish_ns: found.finish_ns })
    }

    /// The tails that the rule of the legacy stream puts before the stream's next work.
    fn implicit(&self, stream: u64) -> Vec<Point> {
        let Some(found) = self.streams.get(&stream) else { return Vec::new() };
        let before = |other: &Stream| match found.role {
            Role::Legacy => other.blocking(),
            _ => found.blocking() && other.role == Role::Legacy,
        };
        let same = |other: &Stream| other.context == found.context && before(other);
        let streams = self.streams.iter().filter(|(_, other)| same(other));
        streams.filter_map(|(handle, _)| self.tail(*handle)).collect()
    }

    /// What the host waits for when it waits for the stream: for the legacy one, that is the
    /// blocking ones as well.
    pub fn host_points(&self, stream: u64) -> Vec<Point> {
        self.disturb(stream);
        let legacy = self.streams.get(&stream).is_some_and(|found| found.role == Role::Legacy);
        let mut points = if legacy { self.implicit(stream) } else { Vec::new() };
        points.extend(self.tail(stream));
        points
    }

    /// What work would come after at the stream's end, and after `points`.
    pub fn before(&self, stream: u64, points: &[Point]) -> Vec<Point> {
        let mut before = self.implicit(stream);
        before.extend_from_slice(points);
        before.extend(self.tail(stream));
        before
    }

    /// Puts work at the stream's end, after `points` as well. What the host knows to be over needs
    /// no place in the clock: nothing looks for races with it.
    pub fn submit(&mut self, stream: u64, points: &[Point], work: Work) -> Option<Point> {
        let mut before = self.implicit(stream);
        before.extend_from_slice(points);
        let found = self.streams.get_mut(&stream)?;
        found.enqueued += 1;
        for point in &before {
            found.clock.join(&point.clock);
            found.finish_ns = found.finish_ns.max(point.finish_ns);
        }
        found.clock.advance(stream, found.enqueued);
        found.finish_ns += match &work {
            Work::Op(op) => op.cost_ns,
            Work::Collective(launch) => launch.op.cost_ns,
            Work::Nothing | Work::Fault | Work::Host(_) => 0,
        };
        let after = before.iter().map(|point| (point.stream, point.sequence)).collect();
        found.queue.push_back(Item { sequence: found.enqueued, after, work });
        self.tail(stream)
    }

    /// Whether the stream has run that far; one that is gone has.
    pub fn has_run(&self, stream: u64, sequence: u64) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.completed >= sequence)
    }
}
