//! What lives, and the line that is written when the process ends.

use crate::context::Device;
use crate::machine::{Machine, lock};
use crate::stream::Role;
use crate::{fault, violation};
use std::io::Write;
use std::sync::Once;

/// The kinds that `live` counts.
const KINDS: [&str; 10] = [
    "allocations",
    "bytes",
    "streams",
    "events",
    "contexts",
    "graphs",
    "modules",
    "cublaslt",
    "descriptors",
    "comms",
];

/// How many things of the kind live: made by the caller and not destroyed.
pub fn live(machine: &Machine, kind: &str) -> Option<i64> {
    let created = |role| matches!(role, Role::Created { .. });
    let streams = machine.streams.values().filter(|s| !s.destroyed && created(s.role));
    let primaries = machine.devices.iter().filter(|d| machine.contexts.contains_key(&d.primary));
    let retains: u64 = machine.devices.iter().map(|device: &Device| device.retains).sum();
    let count = match kind {
        "allocations" => machine.memory.live().count(),
        "bytes" => machine.memory.live().map(|memory| memory.bytes as usize).sum(),
        "streams" => streams.count(),
        "events" => machine.events.len(),
        "contexts" => machine.contexts.len() - primaries.count() + retains as usize,
        "graphs" => machine.graphs.len() + machine.execs.len(),
        "modules" => machine.modules.len(),
        "descriptors" => crate::cublaslt::descriptor::live(),
        "comms" => machine.comms.len(),
        "cublaslt" => return Some(machine.cublaslt_handles),
        _ => return None,
    };
    Some(count as i64)
}

/// Has the report written at the process's end, if one is asked for.
pub fn arrange() {
    static ONCE: Once = Once::new();
    if std::env::var_os("GPUSIM_REPORT").is_some() {
        // SAFETY: a function of ours that may be called whenever the process ends.
        ONCE.call_once(|| assert_eq!(unsafe { libc::atexit(write) }, 0));
    }
}

extern "C" fn write() {
    let Some(path) = std::env::var_os("GPUSIM_REPORT") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // There is nobody to tell at the process's end.
    let _ = file.and_then(|mut file| file.write_all(line().as_bytes()));
}

/// One line of JSON.
fn line() -> String {
    let machine = lock();
    let calls = fault::counts().into_iter().map(|(name, count)| format!("\"{name}\":{count}"));
    let live =
        KINDS.iter().filter_map(|kind| Some(format!("\"{kind}\":{}", live(&machine, kind)?)));
    let violations = violation::all().into_iter().map(|text| quote(&text));
    let (launched, received) = machine
        .collectives
        .values()
        .fold((0, 0), |(calls, bytes), one| (calls + one.0, bytes + one.1));
    let hangs = machine.hangs.iter().map(|text| quote(&text.to_string_lossy()));
    let list = |texts: Vec<String>| texts.join(",");
    format!(
        "{{\"calls\":{{{}}},\"matmuls\":{},\"multiply_adds\":{},\"collectives\":{launched},\
         \"collective_bytes\":{received},\"hangs\":[{}],\"violations\":[{}],\
         \"live\":{{{}}}}}\n",
        list(calls.collect()),
        machine.matmuls,
        machine.multiply_adds,
        list(hangs.collect()),
        list(violations.collect()),
        list(live.collect()),
    )
}

/// Our texts have no control characters.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
