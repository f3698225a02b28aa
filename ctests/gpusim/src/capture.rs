//! Stream capture: recording a graph from what is launched, and refusing what cannot be recorded.

use crate::graph::{Graph, Node};
use crate::handle::Noun;
use crate::machine::{Machine, thread};
use crate::status::*;
use crate::stream::{Role, Work};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::thread::ThreadId;

/// `CUstreamCaptureMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Global = 0,
    ThreadLocal = 1,
    Relaxed = 2,
}

impl Mode {
    pub fn from(number: c_int) -> Status<Mode> {
        match number {
            0 => Ok(Mode::Global),
            1 => Ok(Mode::ThreadLocal),
            2 => Ok(Mode::Relaxed),
            _ => Err(INVALID_VALUE),
        }
    }
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Sets the calling thread's mode and returns the old one.
pub fn exchange_mode(mode: Mode) -> Mode {
    MODE.replace(mode)
}

pub struct Capture {
    mode: Mode,
    thread: ThreadId,
    origin: u64,
    invalid: bool,
    nodes: Vec<Node>,
    /// For each stream of the capture, the nodes that its next one comes after.
    tails: BTreeMap<u64, Vec<usize>>,
}

impl Machine {
    /// The capture that records the stream's work, if any does. The legacy stream cannot be used
    /// while a blocking stream of its context captures.
    pub fn capturing(&mut self, stream: u64) -> Status<Option<u64>> {
        let found = &self.streams[&stream];
        if let Some(capture) = found.capture {
            let invalid = self.captures.get(&capture).is_none_or(|capture| capture.invalid);
            return if invalid { Err(CAPTURE_INVALIDATED) } else { Ok(Some(capture)) };
        }
        match self.implicit_capture(stream) {
            Some(capture) => Err(self.invalidate(capture, CAPTURE_IMPLICIT)),
            None => Ok(None),
        }
    }

    /// The capture on which use of the stream, if it is a legacy one, would depend.
    pub fn implicit_capture(&self, stream: u64) -> Option<u64> {
        let found = self.streams.get(&stream).filter(|found| found.role == Role::Legacy)?;
        let mut others = self.streams.values().filter(|other| other.context == found.context);
        others.find(|other| other.blocking() && other.capture.is_some())?.capture
    }

    /// Marks the capture as failed; returns the status for the caller.
    pub fn invalidate(&mut self, capture: u64, status: c_int) -> c_int {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
        status
    }

    /// Refuses a call that stream capture calls potentially unsafe, where a capture forbids it.
    pub fn forbid_in_capture(&mut self) -> Status {
        let (own_thread, own_mode) = (thread(), MODE.get());
        let forbids = |capture: &Capture| match own_mode {
            Mode::Relaxed => false,
            Mode::ThreadLocal => capture.thread == own_thread && capture.mode != Mode::Relaxed,
            Mode::Global if capture.thread == own_thread => capture.mode != Mode::Relaxed,
            Mode::Global => capture.mode == Mode::Global,
        };
        let mut answer = Ok(());
        for capture in self.captures.values_mut().filter(|capture| forbids(capture)) {
            capture.invalid = true;
            answer = Err(CAPTURE_UNSUPPORTED);
        }
        answer
    }

    /// Refuses to wait for a stream that captures.
    pub fn forbid_captured(&mut self, stream: u64) -> Status {
        self.capturing(stream)?
            .map_or(Ok(()), |capture| Err(self.invalidate(capture, CAPTURE_UNSUPPORTED)))
    }

    pub fn begin_capture(&mut self, handle: u64, mode: Mode) -> Status {
        let stream = self.stream(handle)?;
        if self.streams[&stream].role == Role::Legacy {
            return Err(CAPTURE_UNSUPPORTED);
        }
        if self.capturing(stream)?.is_some() {
            return Err(INVALID_VALUE);
        }
        let (thread, tails) = (thread(), BTreeMap::from([(stream, Vec::new())]));
        let origin = stream;
        let capture = Capture { mode, thread, origin, invalid: false, nodes: Vec::new(), tails };
        let handle = self.new_handle(Noun::Capture);
        self.captures.insert(handle, capture);
        self.set_capture(stream, Some(handle));
        Ok(())
    }

    fn set_capture(&mut self, stream: u64, capture: Option<u64>) {
        if let Some(found) = self.streams.get_mut(&stream) {
            found.capture = capture;
        }
    }

    /// Adds a node at the stream's end.
    pub fn record(&mut self, capture: u64, stream: u64, work: Work) {
        self.disturb(stream);
        let Some(capture) = self.captures.get_mut(&capture) else { return };
        let index = capture.nodes.len();
        let after = capture.tails.insert(stream, vec![index]).unwrap_or_default();
        capture.nodes.push(Node { work, after });
    }

    pub fn capture_tails(&self, capture: u64, stream: u64) -> Vec<usize> {
        let tails = self.captures.get(&capture).and_then(|capture| capture.tails.get(&stream));
        tails.cloned().unwrap_or_default()
    }

    /// A wait for an event that was recorded in a capture: the stream becomes a part of it.
    pub fn join(&mut self, own: Option<u64>, capture: u64, stream: u64, nodes: &[usize]) -> Status {
        if let Some(own) = own.filter(|own| *own != capture) {
            self.invalidate(own, CAPTURE_MERGE);
            return Err(self.invalidate(capture, CAPTURE_MERGE));
        }
        let found = self.captures.get_mut(&capture).ok_or(CAPTURED_EVENT)?;
        if found.invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        let tails = found.tails.entry(stream).or_default();
        tails.extend_from_slice(nodes);
        tails.sort_unstable();
        tails.dedup();
        self.set_capture(stream, Some(capture));
        Ok(())
    }

    /// Ends the capture that began on the stream and makes its graph.
    pub fn end_capture(&mut self, handle: u64) -> Status<u64> {
        let stream = self.stream(handle)?;
        let capture = self.streams[&stream].capture.ok_or(INVALID_VALUE)?;
        let found = self.captures.get(&capture).ok_or(INVALID_VALUE)?;
        if found.origin != stream {
            return Err(self.invalidate(capture, CAPTURE_UNMATCHED));
        }
        if found.mode != Mode::Relaxed && found.thread != thread() {
            return Err(self.invalidate(capture, CAPTURE_WRONG_THREAD));
        }
        let found = self.captures.remove(&capture).ok_or(INVALID_VALUE)?;
        found.tails.keys().for_each(|stream| self.set_capture(*stream, None));
        if found.invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        if !found.joined() {
            return Err(CAPTURE_UNJOINED);
        }
        let context = self.streams[&stream].context;
        Ok(self.add_graph(Graph { context, nodes: found.nodes.into() }))
    }

    /// A stream that is destroyed while it captures ends the capture.
    pub fn abandon_capture(&mut self, stream: u64) {
        if let Some(capture) = self.streams.get(&stream).and_then(|stream| stream.capture) {
            self.invalidate(capture, CAPTURE_INVALIDATED);
        }
    }
}

impl Capture {
    /// Whether the origin comes after the ends of all the capture's streams.
    fn joined(&self) -> bool {
        let mut before = BTreeSet::new();
        let mut open = self.tails[&self.origin].clone();
        while let Some(node) = open.pop() {
            if before.insert(node) {
                open.extend_from_slice(&self.nodes[node].after);
            }
        }
        self.tails.values().flatten().all(|node| before.contains(node))
    }
}
