//! Devices and contexts, and the stack of current contexts that each thread has.

use crate::machine::Machine;
use crate::memory::Place;
use crate::status::{CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_DEVICE, Status};
use crate::violation::violate;
use std::cell::RefCell;
use std::ffi::c_int;

pub struct Device {
    /// The handle stays the same from one life of the primary context to the next.
    pub primary: u64,
    pub retains: u64,
    pub bytes: u64,
    pub peak_bytes: u64,
}

pub struct Context {
    pub device: usize,
    /// The status that ended it; every later call in it returns that.
    pub error: c_int,
    pub flags: u32,
}

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The handle on top of the calling thread's stack, or nothing.
pub fn top() -> Option<u64> {
    STACK.with_borrow(|stack| stack.last().copied())
}

pub fn depth() -> usize {
    STACK.with_borrow(|stack| stack.len())
}

pub fn push(context: u64) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

pub fn pop() -> Option<u64> {
    STACK.with_borrow_mut(|stack| stack.pop())
}

impl Machine {
    /// The calling thread's context, if it can be used at all.
    pub fn current(&self) -> Status<u64> {
        let context = top().ok_or(INVALID_CONTEXT)?;
        self.usable(context).map(|()| context)
    }

    /// Refuses a context that is gone or has failed.
    pub fn usable(&self, context: u64) -> Status {
        let found = self.contexts.get(&context).ok_or(CONTEXT_IS_DESTROYED)?;
        if found.error == 0 { Ok(()) } else { Err(found.error) }
    }

    pub fn device(&self, ordinal: c_int) -> Status<usize> {
        let device = usize::try_from(ordinal).map_err(|_| INVALID_DEVICE)?;
        if device < self.devices.len() { Ok(device) } else { Err(INVALID_DEVICE) }
    }

    pub fn device_of(&self, context: u64) -> Status<usize> {
        self.contexts.get(&context).map(|found| found.device).ok_or(CONTEXT_IS_DESTROYED)
    }

    pub fn create_context(&mut self, handle: u64, device: usize, flags: u32) {
        self.contexts.insert(handle, Context { device, error: 0, flags });
    }

    /// Ends a context and all that belongs to it. Its work has run.
    pub fn destroy_context(&mut self, context: u64) {
        for comm in self.comms.values().filter(|comm| comm.context == context) {
            let (rank, device) = (comm.rank, comm.device);
            violate(format!(
                "rank {rank}'s communicator lives, and device {device}'s context ends"
            ));
        }
        self.contexts.remove(&context);
        self.streams.retain(|_, stream| stream.context != context);
        self.events.retain(|_, event| event.context != context);
        self.modules.retain(|_, module| module.context != context);
        self.thread_streams.retain(|(of, _), _| *of != context);
        self.legacy_streams.remove(&context);
        let of = |memory: &crate::memory::Allocation| memory.context == context;
        let bases: Vec<u64> = self.memory.live().filter(|m| of(m)).map(|m| m.base).collect();
        bases.into_iter().for_each(|base| self.release(base));
    }

    /// Frees an allocation and counts it off.
    pub fn release(&mut self, base: u64) {
        let counted = self.memory.find(base).filter(|memory| memory.place != Place::Host);
        if let Some((bytes, device)) = counted.map(|memory| (memory.bytes, memory.device)) {
            self.devices[device].bytes -= bytes;
        }
        self.memory.free(base);
        self.races.forget(base);
    }
}
