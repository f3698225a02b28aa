//! The one machine behind its lock, and what the driver and cuBLASLt halves need of it.

use crate::capture::Capture;
use crate::clock::Clock;
use crate::context::{Context, Device};
use crate::event::Event;
pub use crate::fault::{Guard, enter};
use crate::graph::{Exec, Graph};
pub use crate::memory::Memory;
use crate::module::{Entry, Module};
use crate::nccl::comm::Comm;
pub use crate::op::{Access, Kind, Op};
use crate::race::History;
use crate::status::{Status, number};
use crate::stream::Stream;
use crate::timeline::{Timeline, Wire};
pub use crate::violation::violate;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, MutexGuard};
use std::thread::ThreadId;

/// The state of all devices. The maps' keys are the handles that callers hold.
#[derive(Default)]
pub struct Machine {
    pub memory: Memory,
    pub devices: Vec<Device>,
    pub contexts: BTreeMap<u64, Context>,
    pub streams: BTreeMap<u64, Stream>,
    pub legacy_streams: BTreeMap<u64, u64>,
    pub thread_streams: HashMap<(u64, ThreadId), u64>,
    pub events: BTreeMap<u64, Event>,
    pub captures: BTreeMap<u64, Capture>,
    pub graphs: BTreeMap<u64, Graph>,
    pub execs: BTreeMap<u64, Exec>,
    pub modules: BTreeMap<u64, Module>,
    pub functions: BTreeMap<u64, (u64, Entry)>,
    pub races: History,
    /// What the host has seen to be over.
    pub host_clock: Clock,
    pub last_handle: u64,
    pub random_state: u64,
    /// The ops left until one fails, and its status.
    pub break_op: Option<(u64, c_int)>,
    pub drop_event_waits: bool,
    pub initialised: bool,
    pub matmuls: u64,
    pub multiply_adds: u64,
    /// cuBLASLt handles that live; counted by that half.
    pub cublaslt_handles: i64,
    pub comms: BTreeMap<u64, Comm>,
    /// The calls on communicators that were launched by ranks of this process, and the bytes that
    /// they received.
    pub collectives: BTreeMap<usize, (u64, u64)>,
    /// For whom ranks still waited when their communicators were aborted.
    pub hangs: Vec<CString>,
    pub timeline: Timeline,
    pub wire: Wire,
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

/// The machine. Nothing that is called while it is held may take it again.
pub fn lock() -> Locked {
    let mut machine = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    machine.get_or_insert_with(Machine::new);
    Locked(machine)
}

/// The lock on the machine.
pub struct Locked(MutexGuard<'static, Option<Machine>>);

impl Locked {
    /// Gives the lock up until the condition is signalled, or for that long.
    pub fn wait(self, condition: &std::sync::Condvar, at_most: std::time::Duration) {
        drop(condition.wait_timeout(self.0, at_most));
    }
}

impl std::ops::Deref for Locked {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        self.0.as_ref().expect("made when it was locked")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Machine {
        self.0.as_mut().expect("made when it was locked")
    }
}

impl Machine {
    fn new() -> Machine {
        let mut machine = Machine::default();
        machine.seed(crate::control::environment("GPUSIM_SEED", 1));
        machine
    }

    pub fn seed(&mut self, seed: u64) {
        // Never 0, where the generator would stay.
        self.random_state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    }
}

/// Launches the op on the stream, or records it if the stream captures. Answers a CUresult: 0,
/// 400 for a stream that is none or is of another context than the current one, 201 without a
/// context. A kernel's bad address is a violation, and an error that later calls return.
pub fn enqueue(_function: &'static str, stream: *mut c_void, op: Op) -> c_int {
    number(lock().launch(stream as u64, op))
}

/// The context that is current to the calling thread, as a number; nothing if there is none.
pub fn current_context() -> Option<u64> {
    lock().current().ok()
}

/// Whether the bytes lie in live memory that kernels of the current context may touch.
pub fn is_device_memory(address: u64, bytes: u64) -> bool {
    let machine = lock();
    let Ok(context) = machine.current() else { return false };
    machine.reachable(context, address, bytes).is_ok()
}

/// The body of an exported function that needs cuInit: counted, and with the machine locked.
pub fn call(function: &'static str, body: impl FnOnce(&mut Machine) -> Status) -> c_int {
    early(function, |machine| {
        if !machine.initialised {
            return Err(crate::status::NOT_INITIALIZED);
        }
        body(machine)
    })
}

/// The same for functions that work before cuInit.
pub fn early(function: &'static str, body: impl FnOnce(&mut Machine) -> Status) -> c_int {
    match enter(function) {
        Ok(_guard) => number(body(&mut lock())),
        Err(status) => status,
    }
}

/// A number for the calling thread.
pub fn thread() -> ThreadId {
    std::thread::current().id()
}
