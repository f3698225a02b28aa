//! The host's side of transfers: a board in memory. There are no streams to keep in order.

use crate::backend::{Lane, Wire};
use crate::error::Error;
use std::sync::atomic::AtomicU64;

/// The board. Ranks write to it by its address, in turn with this rank.
pub(super) struct HostWire {
    words: Box<[AtomicU64]>,
}

impl HostWire {
    /// A board of at least so many bytes, all 0.
    pub(super) fn new(board_bytes: usize) -> Self {
        let words = board_bytes.div_ceil(size_of::<u64>());
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn first(&self) -> *mut u8 {
        self.words.as_ptr().cast_mut().cast()
    }

    fn ensure_within(&self, bytes: usize) {
        assert!(bytes <= size_of_val(&*self.words), "{bytes} bytes are beyond the board");
    }
}

impl Wire for HostWire {
    fn is_streamed(&self) -> bool {
        false
    }

    fn stream(&self) -> usize {
        0
    }

    fn begin(&self, _: &Lane) -> Result<(), Error> {
        Ok(())
    }

    fn fork(&self, _: &Lane) -> Result<(), Error> {
        Ok(())
    }

    fn mark(&self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn join(&self, _: &Lane, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn end(&self, _: &Lane) -> Result<(), Error> {
        Ok(())
    }

    fn is_done(&self) -> Result<bool, Error> {
        Ok(true)
    }

    fn board(&self) -> usize {
        self.first().expose_provenance()
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.ensure_within(offset + bytes.len());
        // SAFETY: within the board, which nobody else uses between transfers.
        unsafe { self.first().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&self, bytes: usize) -> Result<Vec<u8>, Error> {
        self.ensure_within(bytes);
        // SAFETY: as above; all of the board is initialised.
        Ok(unsafe { std::slice::from_raw_parts(self.first(), bytes) }.to_vec())
    }
}
