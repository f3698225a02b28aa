//! Runs the streams' work when the host waits: which stream goes next comes from the seed.

use crate::clock::Point;
use crate::machine::{Machine, lock};
use crate::nccl::launch::Launch;
use crate::stream::{HostCall, Item, Work};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar};
use std::time::Duration;

/// How long to wait for other processes before another look.
const NAP: Duration = Duration::from_millis(1);

/// Told whenever a host function has returned, or a rank has gone on.
static PROGRESS: Condvar = Condvar::new();

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

pub enum Step {
    /// All that was waited for has run.
    Done,
    Ran,
    /// What is needed waits for a host function, or for other ranks.
    Blocked,
}

/// Runs until all points are reached. The machine must not be locked by this thread.
pub fn finish(points: &[Point]) {
    loop {
        let mut machine = lock();
        match machine.step(points) {
            Step::Done => return,
            Step::Ran => {}
            Step::Blocked => machine.wait(&PROGRESS, NAP),
        }
    }
}

/// Wakes those who wait for something that has gone on.
pub fn progressed() {
    PROGRESS.notify_all();
}

/// Whether the calling thread is in a host function, which may not call the driver.
pub fn in_host_function() -> bool {
    IN_HOST_FUNCTION.get()
}

/// Host functions have a thread of the driver's, so that no call ever blocks in one.
fn call_host(stream: u64, call: HostCall) {
    std::thread::spawn(move || {
        IN_HOST_FUNCTION.set(true);
        // SAFETY: the caller of cuLaunchHostFunc promised that this can be called.
        unsafe { (call.function)(call.data as *mut _) };
        lock().complete(stream);
        progressed();
    });
}

impl Machine {
    pub fn reached(&self, points: &[Point]) -> bool {
        points.iter().all(|point| self.has_run(point.stream, point.sequence))
    }

    /// Runs one piece of work, if the points need any.
    pub fn step(&mut self, points: &[Point]) -> Step {
        if self.reached(points) {
            return Step::Done;
        }
        let needed = self.needed(points);
        let mut ready: Vec<u64> = needed.keys().copied().filter(|s| self.ready(*s)).collect();
        if ready.is_empty() {
            return Step::Blocked;
        }
        // Half of the time, work that nobody waits for may run as well.
        if self.random(2) == 0 {
            ready = self.streams.keys().copied().filter(|stream| self.ready(*stream)).collect();
        }
        // The youngest stream first, or any.
        let choice = match self.random(2) {
            0 => ready.len() - 1,
            _ => self.random(ready.len() as u64) as usize,
        };
        self.run_head(ready[choice])
    }

    /// How far each stream has to run for the points to be reached.
    fn needed(&self, points: &[Point]) -> BTreeMap<u64, u64> {
        let mut needed = BTreeMap::new();
        let mut open: Vec<(u64, u64)> = points.iter().map(|p| (p.stream, p.sequence)).collect();
        while let Some((stream, sequence)) = open.pop() {
            let Some(found) = self.streams.get(&stream) else { continue };
            let known = needed.entry(stream).or_insert(found.completed);
            if *known >= sequence {
                continue;
            }
            let fresh = |item: &&Item| item.sequence > *known && item.sequence <= sequence;
            for item in found.queue.iter().filter(fresh) {
                open.extend_from_slice(&item.after);
                if let Work::Collective(launch) = &item.work {
                    open.extend(self.demands(launch));
                }
            }
            *known = sequence;
        }
        needed.retain(|stream, sequence| !self.has_run(*stream, *sequence));
        needed
    }

    /// Whether the stream's first item may run now.
    fn ready(&self, stream: u64) -> bool {
        let head = self.streams.get(&stream).and_then(|found| {
            let next = found.completed + 1;
            found.queue.front().filter(|item| item.sequence == next)
        });
        let in_turn = head.filter(|item| item.after.iter().all(|(s, n)| self.has_run(*s, *n)));
        in_turn.is_some_and(|item| match &item.work {
            // Asked in its turn only: before that, what is posted is another launch's.
            Work::Collective(launch) => self.may_fly(launch),
            Work::Nothing | Work::Op(_) | Work::Fault | Work::Host(_) => true,
        })
    }

    fn run_head(&mut self, stream: u64) -> Step {
        let Some(found) = self.streams.get_mut(&stream) else { return Step::Ran };
        let context = found.context;
        let Some(item) = found.queue.pop_front() else { return Step::Ran };
        let begin_ns = self.begin_ns(stream, &item);
        if let Work::Collective(launch) = &item.work {
            return self.run_collective(stream, launch.clone(), item, begin_ns);
        }
        self.note_run(stream, &item, begin_ns);
        match &item.work {
            Work::Host(call) => {
                call_host(stream, *call);
                return Step::Ran;
            }
            Work::Op(op) => self.run_op(context, op),
            Work::Fault => self.break_context(context, crate::status::ILLEGAL_ADDRESS),
            Work::Nothing | Work::Collective(_) => {}
        }
        self.complete(stream);
        Step::Ran
    }

    /// A launch that waits for others stays at the head.
    fn run_collective(
        &mut self,
        stream: u64,
        launch: Arc<Launch>,
        item: Item,
        begin_ns: u64,
    ) -> Step {
        let met_ns = self.met_ns(&launch).max(begin_ns);
        if self.fly(&launch, (stream, item.sequence), begin_ns) {
            self.note_run(stream, &item, met_ns);
            self.complete(stream);
        } else if let Some(found) = self.streams.get_mut(&stream) {
            found.queue.push_front(item);
        }
        progressed();
        Step::Ran
    }

    fn run_op(&mut self, context: u64, op: &crate::op::Op) {
        if let Some((left, status)) = &mut self.break_op {
            *left -= 1;
            if *left == 0 {
                let status = *status;
                self.break_op = None;
                self.break_context(context, status);
            }
        }
        // Nothing runs in a context that has failed.
        if self.contexts.get(&context).is_some_and(|context| context.error == 0) {
            (op.run)(&self.memory);
        }
    }

    pub fn break_context(&mut self, context: u64, status: i32) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.error = if context.error == 0 { status } else { context.error };
        }
    }

    fn complete(&mut self, stream: u64) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.completed += 1;
        if found.destroyed && found.completed == found.enqueued {
            self.streams.remove(&stream);
        }
    }

    /// A number below `bound`, from the seed.
    pub fn random(&mut self, bound: u64) -> u64 {
        self.random_state ^= self.random_state << 13;
        self.random_state ^= self.random_state >> 7;
        self.random_state ^= self.random_state << 17;
        (self.random_state >> 11) % bound.max(1)
    }
}
