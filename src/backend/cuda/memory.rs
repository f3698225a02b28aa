//! Device memory of weights. A block that nobody holds any more is retired, not freed: work that
//! was launched with it may still run. It is freed after what the engine's streams hold then, or at
//! the engine's word that they are done, or with the context.

use super::context::Context;
use super::driver::Handle;
use crate::backend::Allocator;
use crate::error::{Error, Status};
use crate::log::{Level, Log};
use cudarc::driver::sys;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What blocks are aligned to; the driver's own are to more.
pub(super) const ALIGNMENT: usize = 256;

/// Where blocks come from and where they go.
pub(super) struct Heap {
    pub(super) context: Context,
    allocator: Option<Allocator>,
    retired: Mutex<Vec<Retired>>,
    log: Log,
}

/// Some memory of the device.
pub(super) struct Block {
    heap: Arc<Heap>,
    address: usize,
    bytes: usize,
}

struct Retired {
    address: usize,
    bytes: usize,
    /// When all have happened nobody uses the block.
    events: Vec<Event>,
}

/// An event of ours.
struct Event(Handle);

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}

impl Heap {
    /// Memory of a context's device, from the allocator or, without one, from the driver.
    pub(super) fn new(context: Context, allocator: Option<Allocator>, log: Log) -> Self {
        Self { context, allocator, retired: Mutex::default(), log }
    }

    /// A block of at least one byte; the context must be current.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Block, Error> {
        let address = match &self.allocator {
            Some(allocator) => (allocator.allocate)(bytes, ALIGNMENT, self.context.stream as usize),
            None => self.allocate_by_driver(bytes)?,
        };
        if address == 0 || !address.is_multiple_of(ALIGNMENT) {
            let message = format!(
                "the allocate callback answered {address:#x} for {bytes} bytes; NULL means that \
                 there are none, and an address must be a multiple of {ALIGNMENT}"
            );
            return Err(Error::new(Status::OutOfMemory, message));
        }
        Ok(Block { heap: self.clone(), address, bytes })
    }

    fn allocate_by_driver(&self, bytes: usize) -> Result<usize, Error> {
        let (driver, mut address) = (self.context.driver, 0);
        // SAFETY: a place for the address; our context is current.
        let status = unsafe { (driver.functions.allocate)(&mut address, bytes) };
        driver.check("cuMemAlloc", status).map_err(|error| {
            let message = format!("no device memory for {bytes} bytes: {}", error.message);
            Error::new(error.status, message)
        })?;
        Ok(address as usize)
    }

    /// Frees retired blocks: at once if there are no streams, else after what is on them now. Tells
    /// the bytes that still wait.
    pub(super) fn reclaim(&self, streams: &[usize]) -> Result<usize, Error> {
        let _entered = self.context.enter_to_give_back()?;
        let mut retired = self.retired();
        // An allocator of the engine's frees in the order of its stream, so it need not wait.
        let frees_in_order = self.allocator.is_some() && streams.len() == 1;
        if streams.is_empty() || frees_in_order {
            let stream = streams.first().copied().unwrap_or(0);
            retired.drain(..).for_each(|block| self.free(block, stream));
            return Ok(0);
        }
        for block in retired.iter_mut().filter(|block| block.events.is_empty()) {
            let events = streams.iter().map(|&stream| self.record(stream));
            block.events = events.collect::<Result<_, _>>()?;
        }
        self.free_finished(&mut retired, streams[0]);
        Ok(retired.iter().map(|block| block.bytes).sum())
    }

    fn record(&self, stream: usize) -> Result<Event, Error> {
        let (driver, mut event) = (self.context.driver, null_mut());
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: a place for the event; our context is current.
        let status = unsafe { (driver.functions.event_create)(&mut event, flags) };
        driver.check("cuEventCreate", status)?;
        // SAFETY: our event, and a stream that the engine names.
        let status = unsafe { (driver.functions.event_record)(event, stream as Handle) };
        driver.check("cuEventRecord", status).inspect_err(|_| {
            // SAFETY: our event, which was not recorded.
            unsafe { (driver.functions.event_destroy)(event) };
        })?;
        Ok(Event(event))
    }

    fn free_finished(&self, retired: &mut Vec<Retired>, stream: usize) {
        let is_finished = |block: &Retired| {
            let mut events = block.events.iter();
            // SAFETY: our events.
            !block.events.is_empty()
                && events.all(|event| unsafe {
                    (self.context.driver.functions.event_query)(event.0) == 0
                })
        };
        let (finished, waiting) = retired.drain(..).partition(is_finished);
        *retired = waiting;
        let finished: Vec<Retired> = finished;
        finished.into_iter().for_each(|block| self.free(block, stream));
    }

    fn free(&self, block: Retired, stream: usize) {
        let driver = self.context.driver;
        for Event(event) in &block.events {
            // SAFETY: our event.
            unsafe { (driver.functions.event_destroy)(*event) };
        }
        if let Some(allocator) = &self.allocator {
            return (allocator.free)(block.address, block.bytes, stream);
        }
        // SAFETY: allocated by the driver, and nobody uses it any more.
        let status = unsafe { (driver.functions.free)(block.address as u64) };
        if let Err(error) = driver.check("cuMemFree", status) {
            let line = format!("{} bytes of weights are lost: {}", block.bytes, error.message);
            self.log.write(Level::Error, &line);
        }
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Retired>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Heap {
    /// The context's end is the engine's word that nothing of it runs any more.
    fn drop(&mut self) {
        if let Err(error) = self.reclaim(&[]) {
            let line = format!("device memory of weights is lost: {}", error.message);
            self.log.write(Level::Error, &line);
        }
    }
}

impl Block {
    /// The first byte.
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// Gives back a block that no work was launched with; our context must be current.
    pub(super) fn discard(mut self) {
        let block = self.take();
        self.heap.free(block, self.heap.context.stream as usize);
    }

    fn take(&mut self) -> Retired {
        let address = std::mem::take(&mut self.address);
        Retired { address, bytes: self.bytes, events: Vec::new() }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.address != 0 {
            let block = self.take();
            self.heap.retired().push(block);
        }
    }
}
