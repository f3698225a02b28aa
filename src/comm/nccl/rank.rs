//! This rank's ncclComm_t: one call on it at a time, none once it was ended, and its own end.

use super::super::medium::{Deadline, Failure};
use super::launch::Answer;
use super::launches::{Launches, Launching};
use super::library::{Functions, Handle, IN_PROGRESS, Nccl, SUCCESS, UniqueId};
use super::marks::Marks;
use crate::device::Device;
use std::ffi::c_int;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

/// A communicator, shared with the thread that watches it.
pub(super) struct Rank {
    pub(super) nccl: &'static Nccl,
    pub(super) device: Arc<dyn Device>,
    pub(super) marks: Marks,
    launches: Arc<Launches>,
    /// A number that ranks of the same communicator have in common, if we made it.
    communicator: u64,
    /// None once it was aborted. Each call on the communicator is made under it.
    handle: Mutex<Option<Address>>,
    /// Whether we made it, and so end it.
    is_ours: bool,
    /// Why it was ended.
    failure: OnceLock<Failure>,
}

struct Address(Handle);

// SAFETY: a communicator may be used from any thread, by one at a time.
unsafe impl Send for Address {}

impl Rank {
    pub(super) fn new(
        nccl: &'static Nccl,
        device: Arc<dyn Device>,
        handle: Handle,
        id: Option<&UniqueId>,
    ) -> Self {
        let address = handle.expose_provenance() as u64;
        Self {
            nccl,
            marks: Marks::new(device.clone()),
            launches: Launches::of(device.number()),
            communicator: id.map_or(address, digest),
            device,
            handle: Mutex::new(Some(Address(handle))),
            is_ours: id.is_some(),
            failure: OnceLock::new(),
        }
    }

    /// The right to start transfers on the device.
    pub(super) fn turn(&self) -> Launching<'_> {
        self.launches.turn(self.communicator)
    }

    /// Makes calls on the communicator, and waits until they are no longer in progress.
    pub(super) fn call(
        &self,
        until: Deadline,
        mut body: impl FnMut(&Functions, Handle) -> Answer,
    ) -> Result<(), Failure> {
        let (mut function, mut result) = ("", SUCCESS);
        self.with_handle(|handle| {
            let mut call = || (function, result) = body(&self.nccl.functions, handle);
            self.device.within(&mut call).map_err(|error| Failure::Broken(error.message))?;
            self.ensure_started(function, result, handle)
        })?;
        if result == IN_PROGRESS { self.settle(function, until) } else { Ok(()) }
    }

    /// Waits until what the function began is no longer in progress.
    pub(super) fn settle(&self, function: &str, until: Deadline) -> Result<(), Failure> {
        const NAP: Duration = Duration::from_micros(20);
        while self.with_handle(|handle| self.is_in_progress(function, handle))? {
            if until.is_over() {
                let waited = until.elapsed().as_millis();
                let words = format!("{function} was still in progress after {waited} ms");
                return Err(Failure::Stuck(words));
            }
            thread::sleep(NAP);
        }
        Ok(())
    }

    /// Looks whether something failed, without waiting; what has is ended.
    pub(super) fn look(&self) -> Result<(), Failure> {
        self.ensure_sound()?;
        let looked = self.ask().and_then(|()| self.marks.look().map(drop));
        looked.inspect_err(|failure| self.end(failure))
    }

    /// Remembers why the communicator is of no more use, and ends it if it is ours.
    pub(super) fn end(&self, failure: &Failure) {
        if self.failure.set(failure.clone()).is_err() || !self.is_ours {
            return;
        }
        let taken = self.lock().take();
        if let Some(Address(handle)) = taken {
            self.give_back(self.nccl.functions.abort, handle);
        }
    }

    /// Whether all transfers have left their streams; false at a deadline.
    pub(super) fn is_idle(&self) -> bool {
        const NAP: Duration = Duration::from_micros(100);
        loop {
            match self.marks.look() {
                Ok(false) => return true,
                Ok(true) => thread::sleep(NAP),
                Err(_) => return false,
            }
        }
    }

    /// A call that is being made on another thread finds errors itself.
    fn ask(&self) -> Result<(), Failure> {
        let handle = match self.handle.try_lock() {
            Ok(handle) => handle,
            Err(TryLockError::Poisoned(handle)) => handle.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let Some(Address(handle)) = *handle else { return Ok(()) };
        self.is_in_progress("an earlier call", handle).map(drop)
    }

    fn is_in_progress(&self, function: &str, handle: Handle) -> Result<bool, Failure> {
        let mut state = SUCCESS;
        // SAFETY: a communicator that is alive, and a place for the answer.
        let asked = unsafe { (self.nccl.functions.get_async_error)(handle, &mut state) };
        self.ensure_started("ncclCommGetAsyncError", asked, handle)?;
        self.ensure_started(function, state, handle)?;
        Ok(state == IN_PROGRESS)
    }

    fn ensure_started(&self, name: &str, result: c_int, handle: Handle) -> Result<(), Failure> {
        match result {
            SUCCESS | IN_PROGRESS => Ok(()),
            failed => Err(self.nccl.failure(name, failed, handle)),
        }
    }

    /// Runs a body on the communicator, if it was not ended.
    pub(super) fn with_handle<T>(
        &self,
        body: impl FnOnce(Handle) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let handle = self.lock();
        self.ensure_sound()?;
        match *handle {
            Some(Address(handle)) => body(handle),
            None => Err(Failure::Aborted),
        }
    }

    fn ensure_sound(&self) -> Result<(), Failure> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Address>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a communicator that nobody will use again; also where its context cannot be entered.
    fn give_back(&self, function: unsafe extern "C" fn(Handle) -> c_int, handle: Handle) {
        let mut end = || {
            // SAFETY: a communicator of ours, taken from where others find it.
            let _ = unsafe { function(handle) };
        };
        if self.device.within(&mut end).is_err() {
            end();
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let taken = self.lock().take();
        let Some(Address(handle)) = taken.filter(|_| self.is_ours) else { return };
        let is_settled = self.is_in_progress("", handle) == Ok(false);
        match is_settled && self.ensure_sound().is_ok() && self.is_idle() {
            true => self.give_back(self.nccl.functions.destroy, handle),
            false => self.give_back(self.nccl.functions.abort, handle),
        }
    }
}

/// Of the id only a digest stays, since it is a secret.
fn digest(id: &UniqueId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.0.hash(&mut hasher);
    hasher.finish()
}
