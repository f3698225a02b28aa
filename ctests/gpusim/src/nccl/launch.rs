//! From calls to work on streams. The calls of one group on one communicator are one launch; a
//! communicator that may not block can be told late, by the seed, that it was enqueued.

use super::call::{Call, Kind, note_overlap};
use super::comm::Comm;
use super::room::RING;
use super::status::{IN_PROGRESS, Outcome, UNHANDLED_CUDA_ERROR};
use crate::clock::Point;
use crate::context::{pop, push};
use crate::machine::{Machine, thread};
use crate::op::Op;
use crate::status::{INVALID_HANDLE, Status};
use crate::stream::Work;
use crate::violation::violate;
use std::sync::Arc;

/// A call and the stream that it was made on.
#[derive(Clone, Copy)]
pub struct Request {
    pub stream: u64,
    pub call: Call,
}

/// A launch that has not been enqueued yet: it waits for queries, and ranks connect with those that
/// they meet for the first time.
pub struct Deferred {
    requests: Vec<Request>,
    polls: u64,
}

/// What is enqueued, or recorded by a capture.
pub struct Launch {
    pub comm: u64,
    pub rank: usize,
    pub calls: Vec<Call>,
    pub captured: bool,
    /// The memory that it touches; its work is done elsewhere.
    pub op: Op,
    /// What it receives from other ranks.
    pub bytes: u64,
}

impl Machine {
    /// The stream that the caller's handle means, which must be of the communicator's context.
    pub fn comm_stream(&mut self, comm: u64, handle: u64) -> Outcome<u64> {
        let context = self.comm(comm)?.context;
        push(context);
        let found = self.stream(handle);
        pop();
        let stream = found.map_err(|_| UNHANDLED_CUDA_ERROR)?;
        if self.streams[&stream].context != context {
            violate(format!("nccl: stream {handle:#x} is not of the communicator's device"));
            return Err(UNHANDLED_CUDA_ERROR);
        }
        Ok(stream)
    }

    /// Enqueues the calls, or leaves that for later.
    pub fn submit_calls(&mut self, comm: u64, requests: Vec<Request>, grouped: bool) -> Outcome {
        self.note_launcher(comm, grouped);
        let choice = self.random(4);
        let found = self.comm_mut(comm)?;
        found.room.set_called(found.rank);
        let slow = choice.max(u64::from(std::mem::take(&mut found.slow)));
        let polls = if found.blocking { 0 } else { slow };
        if polls == 0 && found.strangers(&requests).is_empty() {
            return self.enqueue_calls(comm, &requests);
        }
        found.deferred = Some(Deferred { requests, polls });
        Err(IN_PROGRESS)
    }

    /// A thread that drives two ranks may wait in the first one's call for the other's.
    pub fn note_launcher(&mut self, handle: u64, grouped: bool) {
        let own = thread();
        let Some(comm) = self.comms.get(&handle) else { return };
        let other = self.comms.iter().find(|(other, found)| {
            **other != handle && found.beside(comm) && found.launcher == Some(own)
        });
        if let Some((_, other)) = other.filter(|_| !grouped) {
            let (first, second) = (other.rank, comm.rank);
            violate(format!("nccl: one thread drives ranks {first} and {second} without a group"));
        }
        if let Some(comm) = self.comms.get_mut(&handle) {
            comm.launcher = Some(own);
        }
    }

    /// Enqueues what was left for later, once the caller has asked often enough.
    pub fn enqueue_deferred(&mut self, handle: u64) {
        let Some(comm) = self.comms.get_mut(&handle) else { return };
        let strange = !comm.missing().is_empty();
        let Some(deferred) = &mut comm.deferred else { return };
        deferred.polls = deferred.polls.saturating_sub(1);
        if deferred.polls > 0 || strange {
            return;
        }
        let requests = comm.deferred.take().map_or(Vec::new(), |deferred| deferred.requests);
        // The failure is the communicator's, and told by it.
        let _ = self.enqueue_calls(handle, &requests);
    }

    /// Notes a use of a stream on which NCCL is still to enqueue something.
    pub fn disturb(&self, stream: u64) {
        let waits = |comm: &&Comm| {
            let deferred = comm.deferred.iter().flat_map(|deferred| &deferred.requests);
            deferred.into_iter().any(|request| request.stream == stream)
        };
        if let Some(comm) = self.comms.values().find(waits) {
            let rank = comm.rank;
            violate(format!(
                "stream {stream:#x} is used while rank {rank}'s communicator is in progress on it"
            ));
        }
    }

    /// Puts one launch on the first call's stream; the others wait for it and it for them.
    fn enqueue_calls(&mut self, handle: u64, requests: &[Request]) -> Outcome {
        let done = self.try_enqueue(handle, requests);
        done.map_err(|status| {
            if let Some(comm) = self.comms.get_mut(&handle) {
                comm.fail(UNHANDLED_CUDA_ERROR, format!("a launch failed with CUresult {status}"));
            }
            UNHANDLED_CUDA_ERROR
        })
    }

    fn try_enqueue(&mut self, handle: u64, requests: &[Request]) -> Status {
        let Some(first) = requests.first().map(|request| request.stream) else { return Ok(()) };
        let mut others: Vec<u64> = requests.iter().map(|request| request.stream).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|stream| *stream != first);
        let capture = self.capturing(first)?;
        let calls = requests.iter().map(|request| request.call).collect();
        let launch = self.make_launch(handle, calls, capture.is_some());
        match capture {
            Some(capture) => self.record_launch(capture, first, &others, launch),
            None => self.start_launch(first, &others, launch),
        }
    }

    /// The same in a capture: one node after the ends of all streams, which all go on from it.
    fn record_launch(
        &mut self,
        capture: u64,
        first: u64,
        others: &[u64],
        launch: Arc<Launch>,
    ) -> Status {
        for other in others {
            let tails = self.capture_tails(capture, *other);
            self.join(Some(capture), capture, first, &tails)?;
        }
        self.check(self.streams[&first].context, &launch.op)?;
        self.record(capture, first, Work::Collective(launch));
        let tails = self.capture_tails(capture, first);
        others.iter().try_for_each(|other| {
            let own = self.capturing(*other)?;
            self.join(own, capture, *other, &tails)
        })
    }

    fn start_launch(&mut self, first: u64, others: &[u64], launch: Arc<Launch>) -> Status {
        let tails: Vec<Point> = others.iter().filter_map(|other| self.tail(*other)).collect();
        let point = self.start(first, &tails, Work::Collective(launch))?;
        others.iter().try_for_each(|other| {
            self.start(*other, std::slice::from_ref(&point), Work::Nothing).map(|_| ())
        })
    }

    /// Puts the launch at the stream's end. It also comes after the communicator's last one, but
    /// that is NCCL's order and not the caller's: it protects no memory.
    pub fn start_collective(
        &mut self,
        stream: u64,
        after: &[Point],
        launch: Arc<Launch>,
    ) -> Status<Point> {
        let context = self.streams.get(&stream).ok_or(INVALID_HANDLE)?.context;
        self.count_launch(&launch);
        let work = match self.check(context, &launch.op)? {
            true => Work::Collective(launch.clone()),
            false => Work::Fault,
        };
        let good = matches!(work, Work::Collective(_));
        let point = self.submit(stream, after, work).ok_or(INVALID_HANDLE)?;
        self.touch_all(&launch.op, &point);
        if good {
            self.queue_launch(launch.comm, (point.stream, point.sequence));
        }
        Ok(point)
    }

    fn queue_launch(&mut self, handle: u64, item: (u64, u64)) {
        let Some(comm) = self.comms.get_mut(&handle) else {
            violate("a graph has a launch of a communicator that is gone".to_owned());
            return;
        };
        comm.unposted.push_back(item);
        let before = comm.last_launch.replace(item);
        if let Some(queued) = self.streams.get_mut(&item.0).and_then(|s| s.queue.back_mut()) {
            queued.after.extend(before);
        }
    }

    fn count_launch(&mut self, launch: &Launch) {
        let (calls, bytes) = self.collectives.entry(launch.rank).or_default();
        *calls += launch.calls.len() as u64;
        *bytes += launch.bytes;
    }

    fn make_launch(&self, handle: u64, calls: Vec<Call>, captured: bool) -> Arc<Launch> {
        let (rank, ranks) = self.comms.get(&handle).map_or((0, 1), |c| (c.rank, c.ranks()));
        let accesses = calls.iter().flat_map(|call| call.accesses(rank, ranks)).collect();
        let name = calls.first().map_or("nothing", |call| call.kind.name());
        note_overlap(&calls, rank, ranks);
        note_too_many(calls.len() as u64);
        let bytes = calls.iter().map(|call| call.received(rank, ranks)).sum();
        let sent: u64 = calls.iter().map(|call| call.sent(rank, ranks)).sum();
        let cost_ns = self.wire.time_ns(sent.max(bytes));
        let op = Op { cost_ns, ..Op::kernel(name, accesses, Arc::new(|_| {})) };
        Arc::new(Launch { comm: handle, rank, calls, captured, op, bytes })
    }
}

impl Comm {
    /// The ranks that have part in the calls and have called for nothing yet.
    fn strangers(&self, requests: &[Request]) -> Vec<usize> {
        let concerns = |rank: usize| {
            requests.iter().any(|request| match request.call.kind {
                Kind::AllGather | Kind::Broadcast => true,
                Kind::Send | Kind::Receive => request.call.peer == rank,
            })
        };
        let ranks = 0..self.ranks();
        ranks.filter(|rank| concerns(*rank) && !self.room.has_called(*rank)).collect()
    }

    /// The ranks without which the calls that were left for later cannot be enqueued.
    pub fn missing(&self) -> Vec<usize> {
        self.deferred.as_ref().map_or(Vec::new(), |deferred| self.strangers(&deferred.requests))
    }
}

/// A launch that no board has room for would wait for ever.
fn note_too_many(calls: u64) {
    if calls > RING {
        violate(format!("gpusim: a group of {calls} calls, and there is room for {RING}"));
    }
}
