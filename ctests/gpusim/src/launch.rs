//! Launching: resolving the caller's stream, checking an op's addresses, and noting its accesses.

use crate::clock::Point;
use crate::context::top;
use crate::handle::Noun;
use crate::machine::{Machine, thread};
use crate::memory::{Allocation, Fault, Place};
use crate::op::{Access, Kind, Op};
use crate::schedule::Step;
use crate::status::{INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, Status};
use crate::stream::{Role, Stream, Work};
use crate::violation::violate;

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
const LEGACY: u64 = 1;
const PER_THREAD: u64 = 2;

impl Machine {
    /// The stream that the caller's handle means, in a context that works.
    pub fn stream(&mut self, handle: u64) -> Status<u64> {
        let stream = match handle {
            0 | LEGACY => self.legacy_stream()?,
            PER_THREAD => self.thread_stream()?,
            _ => self.created_stream(handle)?,
        };
        let context = self.streams[&stream].context;
        self.usable(context).map(|()| stream)
    }

    fn created_stream(&self, handle: u64) -> Status<u64> {
        top().ok_or(INVALID_CONTEXT)?;
        self.living_stream(handle)
    }

    fn living_stream(&self, handle: u64) -> Status<u64> {
        let known = |stream: &&Stream| !stream.destroyed && stream.role != Role::Lane;
        match self.streams.get(&handle).filter(known) {
            Some(_) => Ok(handle),
            None => Err(stale(Noun::Stream, "stream", handle)),
        }
    }

    /// The context of the caller's stream, which alone is told without a current one.
    pub fn context_of(&mut self, handle: u64) -> Status<u64> {
        let stream = match handle {
            0 | LEGACY | PER_THREAD => return self.current(),
            _ => self.living_stream(handle)?,
        };
        Ok(self.streams[&stream].context)
    }

    fn legacy_stream(&mut self) -> Status<u64> {
        let context = self.current()?;
        if let Some(stream) = self.legacy_streams.get(&context) {
            return Ok(*stream);
        }
        let stream = self.add_stream(context, Role::Legacy);
        self.legacy_streams.insert(context, stream);
        Ok(stream)
    }

    fn thread_stream(&mut self) -> Status<u64> {
        let key = (self.current()?, thread());
        if let Some(stream) = self.thread_streams.get(&key) {
            return Ok(*stream);
        }
        let stream = self.add_stream(key.0, Role::Thread);
        self.thread_streams.insert(key, stream);
        Ok(stream)
    }

    pub fn add_stream(&mut self, context: u64, role: Role) -> u64 {
        let handle = self.new_handle(Noun::Stream);
        self.streams.insert(handle, Stream::new(context, role));
        handle
    }

    /// Ends a stream's life once its work has run.
    pub fn retire_stream(&mut self, stream: u64) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.destroyed = true;
        if found.completed == found.enqueued {
            self.streams.remove(&stream);
        }
    }

    /// Launches the op on the caller's stream, or records it.
    pub fn launch(&mut self, handle: u64, op: Op) -> Status {
        let stream = self.stream(handle)?;
        let context = self.streams[&stream].context;
        // A kernel is refused where the stream's context is not current; a copy is not.
        if op.kind == Kind::Kernel && self.current()? != context {
            return Err(INVALID_HANDLE);
        }
        match self.capturing(stream)? {
            Some(capture) => {
                self.check(context, &op)?;
                self.record(capture, stream, Work::Op(op));
            }
            None => drop(self.start(stream, &[], Work::Op(op))?),
        }
        Ok(())
    }

    /// Submits work whose addresses are checked now, and notes what it touches.
    pub fn start(&mut self, stream: u64, after: &[Point], work: Work) -> Status<Point> {
        let context = self.streams.get(&stream).ok_or(INVALID_HANDLE)?.context;
        self.disturb(stream);
        let mut op = match work {
            Work::Op(op) => op,
            Work::Collective(launch) => return self.start_collective(stream, after, launch),
            Work::Nothing | Work::Fault | Work::Host(_) => {
                return self.submit(stream, after, work).ok_or(INVALID_HANDLE);
            }
        };
        self.read_list(stream, after, &mut op);
        self.matmuls += op.matmuls;
        self.multiply_adds += op.multiply_adds;
        let work = match self.check(context, &op)? {
            true => Work::Op(op.clone()),
            false => Work::Fault,
        };
        let point = self.submit(stream, after, work).ok_or(INVALID_HANDLE)?;
        self.touch_all(&op, &point);
        Ok(point)
    }

    /// Notes what the op touches at its place.
    pub fn touch_all(&mut self, op: &Op, point: &Point) {
        let touched: Vec<Access> =
            op.accesses.iter().flat_map(|access| self.pieces(access)).collect();
        for access in touched {
            self.touch(&access, &op.name, point);
        }
    }

    /// Adds to the op what its list says. Where work that comes before is still to write the list,
    /// that work runs now; a list that a host function holds up adds nothing.
    fn read_list(&mut self, stream: u64, after: &[Point], op: &mut Op) {
        let Some(listed) = op.listed.take() else { return };
        let base = self.memory.find(listed.list.address).map(|found| found.base);
        let writers = base.map_or(Vec::new(), |base| self.races.writers(base, &listed.list));
        if writers.iter().any(|(stream, sequence)| !self.has_run(*stream, *sequence)) {
            let before = self.before(stream, after);
            while let Step::Ran = self.step(&before) {}
            if !self.reached(&before) {
                return;
            }
        }
        op.accesses.extend((listed.accesses)(&self.memory));
    }

    /// The access, or its batch where no one allocation has all of it.
    fn pieces(&self, access: &Access) -> Vec<Access> {
        let (start, end) = access.span();
        match self.memory.check(start, end - start) {
            Err(Fault::OutOfBounds) => access.batch().collect(),
            Ok(_) | Err(Fault::Unknown | Fault::Freed) => vec![access.clone()],
        }
    }

    fn touch(&mut self, access: &Access, name: &str, point: &Point) {
        let Some(base) = self.memory.find(access.address).map(|found| found.base) else { return };
        let race = self.races.touch(base, access, name, point, &self.host_clock);
        race.into_iter().for_each(violate);
    }

    /// Whether all accesses lie in memory that the context may touch. A copy that does not is
    /// refused, a kernel is launched and fails; both are violations.
    pub fn check(&self, context: u64, op: &Op) -> Status<bool> {
        let mut good = true;
        let touched = op.accesses.iter().filter(|access| !access.is_empty());
        for access in touched.flat_map(|access| self.pieces(access)) {
            let (start, end) = access.span();
            if let Err(reason) = self.reachable(context, start, end - start) {
                let verb = if access.write { "writes" } else { "reads" };
                violate(format!("{}: {verb} {start:#x}..{end:#x}, {reason}", op.name));
                good = false;
            }
        }
        if good || op.kind == Kind::Kernel { Ok(good) } else { Err(INVALID_VALUE) }
    }

    /// Why the context's kernels cannot touch the bytes.
    pub fn reachable(&self, context: u64, address: u64, bytes: u64) -> Result<(), String> {
        let around = |found: Option<&Allocation>| {
            found.map_or(String::new(), |m| format!(" ({:#x}, {} bytes)", m.base, m.bytes))
        };
        let found = self.memory.find(address);
        match self.memory.check(address, bytes) {
            Err(Fault::Unknown) => Err("which is no device memory (a host pointer?)".to_owned()),
            Err(Fault::Freed) => Err(format!("which was freed{}", around(found))),
            Err(Fault::OutOfBounds) => Err(format!("out of bounds of its memory{}", around(found))),
            Ok(memory) if memory.place == Place::Device && memory.context != context => {
                Err(format!("which is of another context{}", around(found)))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The status of a handle that names nothing; noted if it once did, since the driver may crash.
pub fn stale(noun: Noun, what: &str, handle: u64) -> i32 {
    if noun.names(handle) {
        violate(format!("{what} {handle:#x} is used after its destruction"));
    } else if handle != 0 {
        violate(format!("{handle:#x} is not a {what}"));
    }
    INVALID_HANDLE
}
