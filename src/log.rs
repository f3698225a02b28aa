//! What the library tells the engine outside of statuses. Silent unless the engine gave a
//! callback; nothing is ever printed, not even by a panic of ours.

use crate::error::named_enum;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Arc, Once};

/// How much a line of the log matters; a callback gets its own level and all that matters more.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed, and the status may not tell all of it.
    Error = 1,
    /// Something works, but not as well as it could.
    Warning = 2,
    /// Once for each object: what was found, chosen and loaded.
    Info = 3,
    /// Details for whoever debugs the library.
    Debug = 4,
}

named_enum!(Level {
    Error => c"XQKV_LOG_LEVEL_ERROR",
    Warning => c"XQKV_LOG_LEVEL_WARNING",
    Info => c"XQKV_LOG_LEVEL_INFO",
    Debug => c"XQKV_LOG_LEVEL_DEBUG",
});

type Sink = dyn Fn(Level, &str) + Send + Sync;

/// Where lines go, if anywhere.
#[derive(Clone, Default)]
pub struct Log(Option<(Level, Arc<Sink>)>);

impl Log {
    /// A log that passes lines of this level, and of those that matter more, to the sink.
    pub fn new(level: Level, sink: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Self(Some((level, Arc::new(sink))))
    }

    /// Passes a line on.
    pub fn write(&self, level: Level, line: &str) {
        if let Some((most, sink)) = &self.0
            && level <= *most
        {
            sink(level, line);
        }
    }
}

impl AsRef<Log> for Log {
    fn as_ref(&self) -> &Log {
        self
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Log").field(&self.0.as_ref().map(|(level, _)| level)).finish()
    }
}

thread_local! {
    /// How many `caught` bodies this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The message of the panic that is unwinding.
    static MESSAGE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs the body and gives the message of its panic, if it panics, instead of printing it.
pub fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    DEPTH.set(DEPTH.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    // A thread that is ending may have no place for the message any more.
    let message = || MESSAGE.try_with(Cell::take).ok().flatten();
    outcome.map_err(|_| message().unwrap_or_else(|| "without a message".to_owned()))
}

/// As `caught`, for the path that touches no state of its thread unless it panics: there is no mark
/// that this body is being run, so the hook goes by where a panic is from.
pub fn caught_without_mark<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    let message = || MESSAGE.try_with(Cell::take).ok().flatten();
    outcome.map_err(|_| message().unwrap_or_else(|| "without a message".to_owned()))
}

/// Whether a panic is from this library's own sources, or from what these called and std reports
/// at the caller.
fn is_ours(info: &PanicHookInfo<'_>) -> bool {
    let sources = file!().trim_end_matches("log.rs");
    info.location().is_some_and(|location| location.file().starts_with(sources))
}

/// Panics inside `caught` are kept quiet, and so are our own; all others go where they went before.
fn install_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if DEPTH.get() == 0 && !is_ours(info) {
            return previous(info);
        }
        let _ = MESSAGE.try_with(|place| place.set(Some(described(info))));
    }));
}

fn described(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("a panic");
    match info.location() {
        Some(location) => format!("{text} at {}:{}", location.file(), location.line()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_enough_passes() {
        let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = lines.clone();
        let log =
            Log::new(Level::Warning, move |_, line| sink.lock().unwrap().push(line.to_owned()));
        log.write(Level::Info, "chatter");
        log.write(Level::Error, "trouble");
        assert_eq!(*lines.lock().unwrap(), ["trouble"]);
    }

    #[test]
    fn a_caught_panic_gives_its_message_and_place() {
        let message = caught(|| panic!("number {}", 7)).unwrap_err();
        assert!(message.starts_with("number 7 at src/log.rs:"), "{message}");
    }
}
