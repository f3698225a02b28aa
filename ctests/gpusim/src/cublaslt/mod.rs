//! cuBLASLt's functions on host memory, `cublasLt*`.

/// The simulated algorithms, and the 64 bytes that name one.
pub mod algorithm;
/// An algorithm's own attributes.
pub mod capability;
/// What the three kinds of descriptors share.
pub mod descriptor;
/// Handles.
pub mod handle;
/// Which algorithms fit a problem, and in which order.
pub mod heuristic;
/// What the launched product computes.
pub mod kernel;
/// Launching a product.
pub mod launch;
/// Matrix layouts.
pub mod layout;
/// The operation besides its matrices.
pub mod operation;
/// Outputs that overlap what they must not.
pub mod overlap;
/// What the heuristic is to look for.
pub mod preference;
/// A product whose operation and layouts were checked against each other.
pub mod problem;
/// Statuses, their names, and the version.
pub mod status;
