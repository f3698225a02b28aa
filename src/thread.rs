//! Threads of our own, that the engine does not notice.

use crate::error::{Error, Status};
use std::thread::{Builder, JoinHandle};

/// A size of our own, since std would otherwise read it from the environment.
const STACK_BYTES: usize = 512 << 10;

/// Starts a thread that takes no signals: the engine's handlers must not run on threads that it
/// does not know.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let quiet = move || {
        block_signals();
        body();
    };
    let builder = Builder::new().name(format!("xqkv-{name}")).stack_size(STACK_BYTES);
    builder.spawn(quiet).map_err(|error| {
        let message = format!("thread {name} could not be started: {error}; ask for fewer");
        Error::new(Status::ThreadFailed, message)
    })
}

fn block_signals() {
    // SAFETY: fills a local set and applies it to this thread.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}
