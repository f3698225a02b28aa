//! What a communicator asks of the device that it is on: the seam between `backend`, which has
//! devices, and `comm`, which must know none.

use crate::error::Error;

/// Marks of a device; a mark may be put again once nobody asks for where it was.
pub const MARKS: usize = 16;

/// A device whose work is done in the order of streams.
pub trait Device: Send + Sync {
    /// Its number, as its driver counts.
    fn number(&self) -> i32;

    /// Runs a body with the device current on this thread, which may allocate and wait meanwhile
    /// although another thread captures.
    fn within(&self, body: &mut dyn FnMut()) -> Result<(), Error>;

    /// Puts a mark, a number below [`MARKS`], behind what is on a stream. False if the stream is
    /// capturing: nothing runs then, so there is nothing to mark.
    fn mark(&self, number: usize, stream: usize) -> Result<bool, Error>;

    /// Whether all that lies before a mark is done.
    fn is_past(&self, number: usize) -> Result<bool, Error>;
}
