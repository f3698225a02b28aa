//! A simulated GPU: the driver, cuBLASLt and NCCL functions that xqkv calls, on host memory, so
//! that the real CUDA code path runs on any machine, from a seed.

/// The one simulated machine behind its lock, and what the two libraries need of it.
pub mod machine;
/// The driver's statuses.
pub mod status;

/// Vector clocks.
pub mod clock;
/// From the caller's handle and op to queued work.
pub mod launch;
/// What a launch is: the memory that it touches and the function that does it.
pub mod op;
/// Accesses to common bytes that nothing orders.
pub mod race;
/// When queued work runs, from the seed.
pub mod schedule;
/// Streams: what comes before what.
pub mod stream;
/// When work would run, on a made-up clock.
pub mod timeline;
/// Copies, and what they wait for.
pub mod transfer;

/// Stream capture, and what it forbids.
pub mod capture;
/// Devices, contexts and each thread's stack of them.
pub mod context;
/// Events.
pub mod event;
/// Graphs and their launches.
pub mod graph;
/// Handles that cannot be read through.
pub mod handle;
/// The kernels that modules can name.
pub mod kernels;
/// Allocations: addresses that the host cannot read, and their contents.
pub mod memory;
/// Modules: PTX text and its entry points.
pub mod module;

/// The functions for tests, `gpusim_*`.
pub mod control;
/// Counts of calls by name, and the Nth call that fails.
pub mod fault;
/// What lives, and the report at the process's end.
pub mod report;
/// What real hardware would have corrupted or crashed on.
pub mod violation;

/// cuBLASLt's functions, `cublasLt*`.
pub mod cublaslt;
/// The driver's functions, `cu*`.
pub mod driver;
/// NCCL's functions, `nccl*`.
pub mod nccl;
/// Plain matrix products and number formats.
pub mod reference;
