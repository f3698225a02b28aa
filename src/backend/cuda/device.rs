//! A CUDA device as communicators see it: its context, and events as marks.

use super::driver::Handle;
use super::memory::Heap;
use crate::device::{Device, MARKS};
use crate::error::Error;
use cudarc::driver::sys;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

/// Keeps the context alive for as long as a communicator is.
pub(super) struct CudaDevice {
    heap: Arc<Heap>,
    events: Vec<Handle>,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for CudaDevice {}
// SAFETY: as above.
unsafe impl Sync for CudaDevice {}

impl CudaDevice {
    pub(super) fn new(heap: &Arc<Heap>) -> Result<Self, Error> {
        // From here on dropping undoes what was done.
        let mut made = Self { heap: heap.clone(), events: Vec::with_capacity(MARKS) };
        let _entered = heap.context.enter()?;
        let (driver, mut event) = (heap.context.driver, null_mut());
        for _ in 0..MARKS {
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: a place for the event; our context is current.
            let status = unsafe { (driver.functions.event_create)(&mut event, flags) };
            driver.check("cuEventCreate", status)?;
            made.events.push(event);
        }
        Ok(made)
    }
}

impl Device for CudaDevice {
    fn number(&self) -> i32 {
        self.heap.context.device
    }

    fn within(&self, body: &mut dyn FnMut()) -> Result<(), Error> {
        let _entered = self.heap.context.enter()?;
        self.heap.context.beside_captures(|| {
            body();
            Ok(())
        })
    }

    fn mark(&self, number: usize, stream: usize) -> Result<bool, Error> {
        let (driver, stream) = (self.heap.context.driver, stream as Handle);
        let _entered = self.heap.context.enter()?;
        let mut capture = 0;
        // SAFETY: a stream that transfers are on, and a place for the answer.
        let status = unsafe { (driver.functions.stream_is_capturing)(stream, &mut capture) };
        driver.check("cuStreamIsCapturing", status)?;
        if capture != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE as c_int {
            return Ok(false);
        }
        // SAFETY: an event of ours and that stream, both of our context.
        let status = unsafe { (driver.functions.event_record)(self.events[number], stream) };
        driver.check("cuEventRecord", status).map(|()| true)
    }

    fn is_past(&self, number: usize) -> Result<bool, Error> {
        let (driver, event) = (self.heap.context.driver, self.events[number]);
        let _entered = self.heap.context.enter()?;
        self.heap.context.beside_captures(|| {
            // SAFETY: an event of ours.
            let status = unsafe { (driver.functions.event_query)(event) };
            if status == sys::CUresult::CUDA_ERROR_NOT_READY as c_int {
                return Ok(false);
            }
            driver.check("cuEventQuery", status).map(|()| true)
        })
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        let context = &self.heap.context;
        if let Ok(_entered) = context.enter_to_give_back() {
            for event in &self.events {
                // SAFETY: an event of ours that nobody waits for any more.
                unsafe { (context.driver.functions.event_destroy)(*event) };
            }
        }
    }
}
