//! Counts of calls by name, the order in which they came, and the one call that is to fail.

use crate::schedule::in_host_function;
use crate::status::NOT_PERMITTED;
use crate::violation::violate;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::sync::{Mutex, MutexGuard};

/// Proof that the call was counted and is not the one to fail.
pub struct Guard(());

struct Fault {
    function: Option<String>,
    calls_left: u64,
    status: c_int,
}

struct Calls {
    counts: BTreeMap<&'static str, u64>,
    log: Vec<&'static str>,
    names: BTreeMap<&'static str, CString>,
    faults: Vec<Fault>,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls {
    counts: BTreeMap::new(),
    log: Vec::new(),
    names: BTreeMap::new(),
    faults: Vec::new(),
});

fn lock() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Every exported function begins with this: it counts the call and answers the injected fault
/// if this is the call's turn.
pub fn enter(function: &'static str) -> Result<Guard, c_int> {
    let mut calls = lock();
    *calls.counts.entry(function).or_default() += 1;
    calls.log.push(function);
    let mut answer = None;
    for fault in &mut calls.faults {
        if fault.function.as_deref().is_none_or(|name| name == function) {
            fault.calls_left = fault.calls_left.saturating_sub(1);
            if fault.calls_left == 0 {
                answer = answer.or(Some(fault.status));
            }
        }
    }
    calls.faults.retain(|fault| fault.calls_left > 0);
    if in_host_function() {
        violate(format!("{function} is called in a host function"));
        answer = Some(NOT_PERMITTED);
    }
    answer.map_or(Ok(Guard(())), Err)
}

/// The `nth` call from now (1 is the next), of that function or of any, answers `status`. Once.
pub fn fail(function: Option<&str>, nth: u64, status: c_int) {
    let function = function.map(str::to_owned);
    lock().faults.push(Fault { function, calls_left: nth.max(1), status });
}

/// Forgets the faults that have not come yet.
pub fn clear() {
    lock().faults.clear();
}

pub fn calls(function: Option<&str>) -> u64 {
    let calls = lock();
    match function {
        Some(name) => calls.counts.get(name).copied().unwrap_or(0),
        None => calls.counts.values().sum(),
    }
}

pub fn reset() {
    let mut calls = lock();
    calls.counts.clear();
    calls.log.clear();
}

/// The name of the `index`-th call since the last reset, for C; kept for the process's life.
pub fn logged(index: usize) -> Option<*const std::ffi::c_char> {
    let mut calls = lock();
    let name = *calls.log.get(index)?;
    let text = calls.names.entry(name).or_insert_with(|| CString::new(name).unwrap_or_default());
    Some(text.as_ptr())
}

pub fn counts() -> BTreeMap<&'static str, u64> {
    lock().counts.clone()
}
