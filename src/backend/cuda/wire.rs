//! The CUDA side of transfers between ranks: a stream of ours beside the engine's, events that
//! order the two, and a board. A capture of the engine's stream takes the other in with the first
//! event and gives it back with the last.

use super::driver::Handle;
use super::memory::{Block, Heap};
use super::order::{self, record, wait};
use crate::backend::{Lane, WIRE_MARKS, Wire};
use crate::error::Error;
use cudarc::driver::sys;
use std::ptr::null_mut;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Behind the marks: the event that transfers wait for, and the one that a call's end waits for.
const FORKED: usize = WIRE_MARKS;
const ENDED: usize = WIRE_MARKS + 1;
const EVENTS: usize = WIRE_MARKS + 2;

/// The stream, its events and the board.
pub(super) struct CudaWire {
    heap: Arc<Heap>,
    stream: Handle,
    events: [Handle; EVENTS],
    board: Block,
    board_bytes: usize,
}

// SAFETY: streams and events may be used from any thread.
unsafe impl Send for CudaWire {}
// SAFETY: as above; what is put on the stream comes in one rank's turn.
unsafe impl Sync for CudaWire {}

impl CudaWire {
    /// Makes all of it, and loads the kernels that put staged results in their place: nothing is
    /// left to load in a call. Our context is current, beside captures.
    pub(super) fn open(heap: &Arc<Heap>, board_bytes: usize) -> Result<Self, Error> {
        heap.context.kernels()?;
        let board = heap.allocate(board_bytes.max(1))?;
        let (stream, events) = (null_mut(), [null_mut(); EVENTS]);
        // From here on dropping undoes what was done.
        let mut wire = Self { heap: heap.clone(), stream, events, board, board_bytes };
        wire.fill()?;
        Ok(wire)
    }

    fn fill(&mut self) -> Result<(), Error> {
        let driver = self.heap.context.driver;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place for the stream; our context is current.
        let status = unsafe { (driver.functions.stream_create)(&mut self.stream, flags) };
        driver.check("cuStreamCreate", status)?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        self.events.iter_mut().try_for_each(|event| {
            // SAFETY: a place for the event; our context is current.
            driver.check("cuEventCreate", unsafe { (driver.functions.event_create)(event, flags) })
        })
    }

    /// Where so many bytes of the board begin.
    fn place(&self, offset: usize, bytes: usize) -> u64 {
        assert!(offset + bytes <= self.board_bytes, "{bytes} bytes at {offset} leave the board");
        (self.board.address() + offset) as u64
    }

    /// Runs a copy on the stream and waits for it: nothing else is on the stream then.
    fn copied(&self, copy: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let context = &self.heap.context;
        let _entered = context.enter()?;
        context.beside_captures(|| {
            copy()?;
            // SAFETY: our own stream.
            let status = unsafe { (context.driver.functions.stream_synchronize)(self.stream) };
            context.driver.check("cuStreamSynchronize", status)
        })
    }
}

impl Wire for CudaWire {
    fn is_streamed(&self) -> bool {
        true
    }

    fn stream(&self) -> usize {
        self.stream as usize
    }

    fn begin(&self, lane: &Lane) -> Result<(), Error> {
        let _entered = self.heap.context.enter()?;
        order::begin(self.heap.context.driver, lane)?;
        self.fork(lane)
    }

    fn fork(&self, lane: &Lane) -> Result<(), Error> {
        let _entered = self.heap.context.enter()?;
        let driver = self.heap.context.driver;
        record(driver, lane.stream as Handle, self.events[FORKED])?;
        wait(driver, self.stream, self.events[FORKED])
    }

    fn mark(&self, number: usize) -> Result<(), Error> {
        assert!(number < WIRE_MARKS, "mark {number}");
        let _entered = self.heap.context.enter()?;
        record(self.heap.context.driver, self.stream, self.events[number])
    }

    fn join(&self, lane: &Lane, number: usize) -> Result<(), Error> {
        assert!(number < WIRE_MARKS, "mark {number}");
        let _entered = self.heap.context.enter()?;
        wait(self.heap.context.driver, lane.stream as Handle, self.events[number])
    }

    fn end(&self, lane: &Lane) -> Result<(), Error> {
        let _entered = self.heap.context.enter()?;
        let driver = self.heap.context.driver;
        // A capture must not end while the stream has work that the lane's does not wait for.
        record(driver, self.stream, self.events[ENDED])?;
        wait(driver, lane.stream as Handle, self.events[ENDED])?;
        order::end(driver, lane)
    }

    fn is_done(&self) -> Result<bool, Error> {
        const NOT_READY: sys::CUresult = sys::CUresult::CUDA_ERROR_NOT_READY;
        let context = &self.heap.context;
        let _entered = context.enter()?;
        context.beside_captures(|| {
            // SAFETY: our own stream.
            let status = unsafe { (context.driver.functions.stream_query)(self.stream) };
            match status == NOT_READY as i32 {
                true => Ok(false),
                false => context.driver.check("cuStreamQuery", status).map(|()| true),
            }
        })
    }

    fn board(&self) -> usize {
        self.board.address()
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let (driver, place) = (self.heap.context.driver, self.place(offset, bytes.len()));
        self.copied(|| {
            let (source, copy) = (bytes.as_ptr().cast(), driver.functions.copy_to_device);
            // SAFETY: as many bytes in both memories.
            let status = unsafe { copy(place, source, bytes.len(), self.stream) };
            driver.check("cuMemcpyHtoDAsync", status)
        })
    }

    fn read(&self, bytes: usize) -> Result<Vec<u8>, Error> {
        let (driver, place) = (self.heap.context.driver, self.place(0, bytes));
        let mut found = vec![0u8; bytes];
        self.copied(|| {
            let (target, copy) = (found.as_mut_ptr().cast(), driver.functions.copy_to_host);
            // SAFETY: as above.
            let status = unsafe { copy(target, place, bytes, self.stream) };
            driver.check("cuMemcpyDtoHAsync", status)
        })?;
        Ok(found)
    }
}

impl Drop for CudaWire {
    /// A call's end has made the engine's stream wait for ours, so there is something to wait for
    /// only behind a failure, while the abort frees the stream; the board is retired then.
    fn drop(&mut self) {
        const MOST_NAPS: usize = 10_000;
        for _ in 0..MOST_NAPS {
            if !self.is_done().is_ok_and(|is_done| !is_done) {
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        let Ok(_entered) = self.heap.context.enter_to_give_back() else { return };
        let functions = &self.heap.context.driver.functions;
        for event in self.events.into_iter().filter(|event| !event.is_null()) {
            // SAFETY: our own event, which nobody uses any more.
            unsafe { (functions.event_destroy)(event) };
        }
        if !self.stream.is_null() {
            // SAFETY: as above.
            unsafe { (functions.stream_destroy)(self.stream) };
        }
    }
}
