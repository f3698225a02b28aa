//! Events: points in streams, or places in a capture.

use crate::clock::Point;
use crate::handle::Noun;
use crate::launch::stale;
use crate::machine::Machine;
use crate::status::{CAPTURED_EVENT, INVALID_HANDLE, Status};
use crate::stream::Work;

/// The flag of events that measure nothing.
pub const DISABLE_TIMING: u32 = 2;

#[derive(Clone)]
pub enum Recorded {
    Never,
    At(Point),
    /// In a capture: its handle, and the nodes that come before.
    Captured(u64, Vec<usize>),
}

pub struct Event {
    pub context: u64,
    pub flags: u32,
    pub recorded: Recorded,
}

impl Machine {
    pub fn event(&self, handle: u64) -> Status<&Event> {
        let event = self.events.get(&handle).ok_or_else(|| stale(Noun::Event, "event", handle))?;
        self.usable(event.context).map(|()| event)
    }

    pub fn record_event(&mut self, handle: u64, stream: u64) -> Status {
        let stream = self.stream(stream)?;
        if self.event(handle)?.context != self.streams[&stream].context {
            return Err(INVALID_HANDLE);
        }
        let recorded = match self.capturing(stream)? {
            Some(capture) => Recorded::Captured(capture, self.capture_tails(capture, stream)),
            None => Recorded::At(self.start(stream, &[], Work::Nothing)?),
        };
        if let Some(event) = self.events.get_mut(&handle) {
            event.recorded = recorded;
        }
        Ok(())
    }

    pub fn wait_event(&mut self, stream: u64, handle: u64) -> Status {
        let stream = self.stream(stream)?;
        let recorded = self.event(handle)?.recorded.clone();
        let capturing = self.capturing(stream)?;
        match (capturing, recorded) {
            (_, Recorded::Never) => Ok(()),
            (None, Recorded::At(_)) if self.drop_event_waits => Ok(()),
            (None, Recorded::At(point)) => self.start(stream, &[point], Work::Nothing).map(|_| ()),
            (Some(capture), Recorded::At(_)) => {
                Err(self.invalidate(capture, crate::status::CAPTURE_ISOLATION))
            }
            (own, Recorded::Captured(capture, nodes)) => self.join(own, capture, stream, &nodes),
        }
    }

    /// The point that the host asks about, or nothing if the event was never recorded.
    pub fn event_point(&mut self, handle: u64) -> Status<Option<Point>> {
        match self.event(handle)?.recorded.clone() {
            Recorded::Never => Ok(None),
            Recorded::At(point) => Ok(Some(point)),
            Recorded::Captured(capture, _) => Err(self.invalidate(capture, CAPTURED_EVENT)),
        }
    }
}
