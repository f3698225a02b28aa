//! Tensor-parallel cross-attention projection behind a C ABI: Q from the decoder's hidden states,
//! K and V from the encoder's only when there are any, and no multiply-add that is not necessary.
//!
//! The C header `include/xqkv.h` is the public interface, and is generated from `capi`. Modules
//! stand here in the order in which a reader wants them, from the boundary down.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("handles are 64 bits wide, and checkpoints hold little-endian elements");

/// Devices that keep matrices and multiply rows with them.
pub mod backend;
/// The C boundary: one noun of the header in each file.
pub mod capi;
/// This rank's seat among the ranks.
pub mod comm;
/// What communicators ask of devices.
pub mod device;
/// Element types.
pub mod dtype;
/// Statuses and messages.
pub mod error;
/// Who is inside of a place that is about to be emptied.
pub mod gate;
/// Vendors' shared libraries, found at run time.
pub mod library;
/// Lines for the engine, and panics kept quiet.
pub mod log;
/// The layer: its shard, its weights, and forward.
pub mod projection;
/// Which heads and layers a rank holds.
pub mod shard;
/// The uncut layers.
pub mod spec;
/// What a backend counts.
pub mod stats;
/// Threads of our own.
pub mod thread;
/// Memory that is read and written, checked.
pub mod view;
/// From tensors and checkpoints to what a commit applies.
pub mod weights;
