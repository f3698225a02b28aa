//! The CPU's count of instructions, where the system lets a process have it.

use std::io::{Error, Read};
use std::os::fd::FromRawFd;

/// perf_event_attr as its first version had it (linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// Counts this process's instructions outside of the kernel, and those of threads that it starts
/// from now on.
pub struct Instructions(std::fs::File);

impl Instructions {
    /// Begins to count, or says why it cannot.
    pub fn open() -> Result<Self, String> {
        const INSTRUCTIONS: u64 = 1;
        const INHERIT_NOT_KERNEL_NOT_HYPERVISOR: u64 = 1 << 1 | 1 << 5 | 1 << 6;
        let size = size_of::<Attributes>() as u32;
        let (config, flags) = (INSTRUCTIONS, INHERIT_NOT_KERNEL_NOT_HYPERVISOR);
        let attributes = Attributes { size, config, flags, ..Attributes::default() };
        // SAFETY: attributes as large as they say, of this process on any CPU.
        let opened = unsafe { libc::syscall(libc::SYS_perf_event_open, &attributes, 0, -1, -1, 0) };
        match i32::try_from(opened) {
            // SAFETY: a descriptor that nobody else has.
            Ok(descriptor @ 0..) => Ok(Self(unsafe { std::fs::File::from_raw_fd(descriptor) })),
            _ => Err(format!("instructions are not counted here: {}", Error::last_os_error())),
        }
    }

    pub fn read(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }
}
