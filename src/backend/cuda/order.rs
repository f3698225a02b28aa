//! The order of work on streams, by events: the engine's, and ours between streams.

use super::driver::{Driver, Handle};
use crate::backend::Lane;
use crate::error::Error;

/// What comes from here on on the lane waits for its event, if it has one to wait for.
pub(super) fn begin(driver: &Driver, lane: &Lane) -> Result<(), Error> {
    match lane.wait_event {
        0 => Ok(()),
        event => wait(driver, lane.stream as Handle, event as Handle),
    }
}

/// Records the lane's event, if it has one to record.
pub(super) fn end(driver: &Driver, lane: &Lane) -> Result<(), Error> {
    match lane.signal_event {
        0 => Ok(()),
        event => record(driver, lane.stream as Handle, event as Handle),
    }
}

/// What comes from here on on the stream waits for what the event stands for now.
pub(super) fn wait(driver: &Driver, stream: Handle, event: Handle) -> Result<(), Error> {
    // SAFETY: the engine's own stream and event, or ours.
    let status = unsafe { (driver.functions.stream_wait_event)(stream, event, 0) };
    driver.check("cuStreamWaitEvent", status)
}

/// Makes the event stand for all that is on the stream now.
pub(super) fn record(driver: &Driver, stream: Handle, event: Handle) -> Result<(), Error> {
    // SAFETY: as above.
    let status = unsafe { (driver.functions.event_record)(event, stream) };
    driver.check("cuEventRecord", status)
}
