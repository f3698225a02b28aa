//! Ranks as threads, each on a device of its own, and short forms of NCCL's calls.
#![allow(clippy::undocumented_unsafe_blocks, reason = "all pass pointers to their own values")]
#![allow(dead_code, reason = "no test file uses all of it")]

use super::support::*;
use gpusim::driver::{context::*, copy::*, event::*, stream::*};
use gpusim::nccl::{collective::*, config::Config, end::*, init::*, query::*};
use std::ffi::c_int;
use std::sync::Once;
use std::time::{Duration, Instant};

pub const INT32: c_int = 2;
pub const IN_PROGRESS: c_int = 7;
/// Devices of the machine that these tests run on.
pub const DEVICES: &str = "4";

/// The head of `ncclConfig_t` as the header of version 2.30 lays it out.
#[repr(C)]
pub struct TestConfig {
    pub size: usize,
    pub magic: u32,
    pub version: u32,
    pub blocking: c_int,
    rest: [c_int; 19],
}

pub fn config(blocking: c_int) -> TestConfig {
    let rest = [c_int::MIN; 19];
    TestConfig { size: 96, magic: 0xcafe_beef, version: 23003, blocking, rest }
}

/// A machine of four devices, for one test at a time.
pub fn machine() -> Sim {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| unsafe { std::env::set_var("GPUSIM_DEVICES", DEVICES) });
    sim()
}

pub fn unique_id() -> UniqueId {
    let mut id = std::mem::MaybeUninit::uninit();
    ok(unsafe { ncclGetUniqueId(id.as_mut_ptr()) });
    unsafe { id.assume_init() }
}

/// One thread's communicator, device and stream.
pub struct Rank {
    pub comm: u64,
    pub rank: usize,
    pub ranks: usize,
    pub stream: u64,
}

/// Makes the device's primary context the thread's.
pub fn enter_device(device: usize) {
    let mut context = 0;
    unsafe {
        ok(cuDevicePrimaryCtxRetain(&mut context, device as c_int));
        ok(cuCtxSetCurrent(context));
    }
}

pub fn init(id: UniqueId, ranks: usize, rank: usize, config: &TestConfig) -> (c_int, u64) {
    let mut comm = 0;
    let config = (config as *const TestConfig).cast::<Config>();
    let (ranks, rank) = (ranks as c_int, rank as c_int);
    let result = unsafe { ncclCommInitRankConfig(&mut comm, ranks, id, rank, config) };
    (result, comm)
}

/// The state that polling comes to within a few seconds, or "in progress".
pub fn poll(comm: u64) -> c_int {
    poll_for(comm, Duration::from_secs(5))
}

pub fn poll_for(comm: u64, time: Duration) -> c_int {
    let begin = Instant::now();
    loop {
        let mut state = -1;
        ok(unsafe { ncclCommGetAsyncError(comm, &mut state) });
        if state != IN_PROGRESS || begin.elapsed() > time {
            return state;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs the body as each rank, in a thread of its own, on communicators that do not block.
pub fn each_rank(ranks: usize, body: impl Fn(&Rank) + Sync) {
    let id = unique_id();
    std::thread::scope(|scope| {
        for rank in 0..ranks {
            let body = &body;
            scope.spawn(move || {
                enter_device(rank);
                let (result, comm) = init(id, ranks, rank, &config(0));
                assert!(result == 0 || result == IN_PROGRESS, "{result}");
                ok(poll(comm));
                body(&Rank { comm, rank, ranks, stream: stream(1) });
                unsafe { ok(cuDevicePrimaryCtxRelease_v2(rank as c_int)) };
            });
        }
    });
}

impl Rank {
    /// The call's result once it is no longer in progress.
    pub fn settle(&self, result: c_int) -> c_int {
        if result == IN_PROGRESS { poll(self.comm) } else { result }
    }

    pub fn all_gather(&self, send: u64, receive: u64, count: usize) -> c_int {
        self.settle(unsafe { ncclAllGather(send, receive, count, INT32, self.comm, self.stream) })
    }

    pub fn broadcast(&self, send: u64, receive: u64, count: usize, root: usize) -> c_int {
        self.settle(unsafe {
            ncclBroadcast(send, receive, count, INT32, root as c_int, self.comm, self.stream)
        })
    }

    /// Has all ranks know one another, as they do from their first call on.
    pub fn connect(&self) {
        let memory = alloc(4);
        ok(self.broadcast(memory, memory, 1, 0));
        sync(self.stream);
    }

    pub fn destroy(&self) {
        ok(ncclCommDestroy(self.comm));
    }
}

/// Device memory with these numbers.
pub fn upload(values: &[i32]) -> u64 {
    let address = alloc(values.len() * 4);
    ok(unsafe { cuMemcpyHtoD_v2(address, values.as_ptr().cast(), values.len() * 4) });
    ok(unsafe { cuCtxSynchronize() });
    address
}

pub fn download(address: u64, count: usize) -> Vec<i32> {
    let mut values = vec![0; count];
    ok(unsafe { cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), address, count * 4) });
    values
}

/// Whether the stream's work is over within the time.
pub fn is_over_within(stream: u64, time: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if unsafe { cuStreamQuery(stream) } == 0 {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// Asks an event that was recorded on the stream.
pub fn recorded(stream: u64) -> u64 {
    let event = event(2);
    ok(unsafe { cuEventRecord(event, stream) });
    event
}
