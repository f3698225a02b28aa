//! When work would run on devices that do all that order lets them: each piece begins when what
//! comes before has ended and takes its made-up time. A collective begins when its last rank comes.

use crate::machine::Machine;
use crate::nccl::launch::Launch;
use crate::stream::{Item, Work};
use std::ffi::CString;

/// What ranks send takes this long; the defaults are about a fast link's between two devices.
#[derive(Clone, Copy)]
pub struct Wire {
    pub latency_ns: u64,
    pub bytes_per_us: u64,
}

impl Default for Wire {
    fn default() -> Wire {
        let read = crate::control::environment;
        let latency_ns = read("GPUSIM_WIRE_LATENCY_NS", 5000);
        Wire { latency_ns, bytes_per_us: read("GPUSIM_WIRE_BYTES_PER_US", 100_000) }
    }
}

impl Wire {
    pub fn time_ns(&self, bytes: u64) -> u64 {
        self.latency_ns + bytes * 1000 / self.bytes_per_us.max(1)
    }
}

pub struct Traced {
    pub name: CString,
    pub device: usize,
    pub stream: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub matmuls: u64,
    /// What a collective receives; nothing for other work.
    pub bytes: Option<u64>,
}

#[derive(Default)]
pub struct Timeline {
    pub on: bool,
    pub entries: Vec<Traced>,
}

impl Machine {
    /// Begins a timeline at 0, or ends keeping one.
    pub fn trace(&mut self, on: bool) {
        self.timeline = Timeline { on, entries: Vec::new() };
        self.streams.values_mut().for_each(|stream| stream.ends.clear());
    }

    /// When the item could begin: what its stream and others had to end first has ended.
    pub fn begin_ns(&self, stream: u64, item: &Item) -> u64 {
        let own = (stream, item.sequence - 1);
        let before = item.after.iter().copied().chain([own]);
        before.map(|(stream, sequence)| self.ended_ns(stream, sequence)).max().unwrap_or(0)
    }

    fn ended_ns(&self, stream: u64, sequence: u64) -> u64 {
        let ends = self.streams.get(&stream).map(|stream| &stream.ends);
        let last = ends.and_then(|ends| ends.range(..=sequence).next_back());
        last.map_or(0, |(_, ended)| *ended)
    }

    /// Notes an item that has run, from when it began.
    pub fn note_run(&mut self, stream: u64, item: &Item, start_ns: u64) {
        if !self.timeline.on {
            return;
        }
        let took = match &item.work {
            Work::Op(op) => op.cost_ns,
            Work::Collective(launch) => launch.op.cost_ns,
            Work::Nothing | Work::Fault | Work::Host(_) => 0,
        };
        let end_ns = start_ns + took;
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.ends.insert(item.sequence, end_ns);
        let context = found.context;
        let device = self.device_of(context).unwrap_or(0);
        let (op, bytes) = match &item.work {
            Work::Op(op) => (op, None),
            Work::Collective(launch) => (&launch.op, Some(launch.bytes)),
            Work::Nothing | Work::Fault | Work::Host(_) => return,
        };
        let name = CString::new(op.name.as_str()).unwrap_or_default();
        let matmuls = op.matmuls;
        let traced = Traced { name, device, stream, start_ns, end_ns, matmuls, bytes };
        self.timeline.entries.push(traced);
    }

    /// When the last of those who have part in the launch came to it.
    pub fn met_ns(&self, launch: &Launch) -> u64 {
        self.comms.get(&launch.comm).map_or(0, |comm| comm.met_ns())
    }

    /// How long collectives of the device run while no other work of it does.
    pub fn exposed_ns(&self, device: usize) -> u64 {
        let spans = |collective: bool| {
            let of =
                self.timeline.entries.iter().filter(move |entry| {
                    entry.device == device && entry.bytes.is_some() == collective
                });
            union(of.map(|entry| (entry.start_ns, entry.end_ns)).collect())
        };
        let (wire, work) = (spans(true), spans(false));
        let hidden = wire.iter().flat_map(|span| work.iter().map(|other| common(*span, *other)));
        wire.iter().map(|(start, end)| end - start).sum::<u64>() - hidden.sum::<u64>()
    }
}

fn common(left: (u64, u64), right: (u64, u64)) -> u64 {
    left.1.min(right.1).saturating_sub(left.0.max(right.0))
}

/// The spans without what they have in common twice.
fn union(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in spans {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}
