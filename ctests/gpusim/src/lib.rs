//! A simulated GPU: the driver and cuBLASLt functions that xqkv calls, on host memory, so that
//! the real CUDA code path runs on any machine, from a seed.

/// Counts of calls by name, and the Nth call that fails.
pub mod fault;
/// The one simulated machine behind its lock, and what the two libraries need of it.
pub mod machine;
/// Allocations: addresses that the host cannot read, and their contents.
pub mod memory;
/// What a launch is: the memory that it touches and the function that does it.
pub mod op;
/// Streams run lazily, in an order taken from the seed.
pub mod stream;
/// What real hardware would have corrupted or crashed on.
pub mod violation;

/// cuBLASLt's functions, `cublasLt*`.
pub mod cublaslt;
/// The driver's functions, `cu*`.
pub mod driver;
/// Plain matrix products and number formats.
pub mod reference;
