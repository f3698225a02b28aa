//! The one wrapper around the body of every exported function: nothing unwinds into the engine,
//! every outcome becomes a status, and the caller's `xqkv_error` is filled in.

use super::error::xqkv_error;
use crate::error::{Error, Status};
use crate::log::{self, Log};
use std::cell::RefCell;

thread_local! {
    /// Where a panic of the running call is reported; known once its handle was resolved.
    static CALL_LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Runs a fallible body.
pub(super) fn call(error: *mut xqkv_error, body: impl FnOnce() -> Result<(), Error>) -> Status {
    let outcome = log::caught(body).unwrap_or_else(|panic| Err(report(panic)));
    take_log();
    answered(error, outcome)
}

/// Runs the body of a forward, which with a plan touches no state of its thread. What has its log
/// it puts into the place that it gets, which outlives a panic.
pub(super) fn forward<L: AsRef<Log>>(
    error: *mut xqkv_error,
    body: impl FnOnce(&mut Option<L>) -> Result<(), Error>,
) -> Status {
    let mut held = None;
    let outcome = log::caught_without_mark(|| body(&mut held));
    let log = held.as_ref().map(L::as_ref);
    let outcome = outcome.unwrap_or_else(|panic| Err(reported(log, panic)));
    drop(held);
    answered(error, outcome)
}

/// Fills in the caller's error, and gives the status.
fn answered(error: *mut xqkv_error, outcome: Result<(), Error>) -> Status {
    // SAFETY: every exported function documents `error` as NULL or a writable xqkv_error.
    unsafe { xqkv_error::write(error, &outcome) };
    outcome.map_or_else(|error| error.status, |()| Status::Ok)
}

/// Runs a body that answers a value; the fallback is what a panic leaves.
pub(super) fn value<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    log::caught(body).unwrap_or(fallback)
}

/// Names the log that a panic in the running call belongs to.
pub(super) fn report_to(log: &Log) {
    // A thread that is ending has no such place any more, and may still destroy its handles.
    let _ = CALL_LOG.try_with(|place| place.replace(Some(log.clone())));
}

fn take_log() -> Option<Log> {
    CALL_LOG.try_with(RefCell::take).ok().flatten()
}

fn report(panic: String) -> Error {
    reported(take_log().as_ref(), panic)
}

fn reported(log: Option<&Log>, panic: String) -> Error {
    let message = format!("the library panicked, please report it: {panic}");
    if let Some(log) = log {
        log.write(log::Level::Error, &message);
    }
    Error::new(Status::Panic, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A log, and the lines that it gets.
    fn recorder() -> (Log, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let log =
            Log::new(log::Level::Error, move |_, line| sink.lock().unwrap().push(line.to_owned()));
        (log, lines)
    }

    fn holds_the_planted(lines: &Mutex<Vec<String>>) {
        let lines = lines.lock().unwrap();
        assert!(
            lines.len() == 1 && lines[0].contains("planted at src/capi/boundary.rs:"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_line_in_the_log() {
        let (log, lines) = recorder();
        let status = call(std::ptr::null_mut(), || {
            report_to(&log);
            panic!("planted");
        });
        assert_eq!(status, Status::Panic);
        holds_the_planted(&lines);
    }

    #[test]
    fn a_panic_of_a_forward_becomes_a_status_and_a_line_in_the_log() {
        let (log, lines) = recorder();
        // The hook is installed by the first call of another kind, as a context's creation is.
        assert_eq!(call(std::ptr::null_mut(), || Ok(())), Status::Ok);
        let status = forward(std::ptr::null_mut(), |place| {
            *place = Some(log);
            panic!("planted");
        });
        assert_eq!(status, Status::Panic);
        holds_the_planted(&lines);
    }

    #[test]
    fn a_value_falls_back_when_its_body_panics() {
        assert_eq!(value(7, || panic!("planted")), 7);
    }
}
