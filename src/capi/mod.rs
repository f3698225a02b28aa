//! The C boundary, and the only `extern "C"` functions. Each file is one noun of include/xqkv.h;
//! `handle`, `plain` and `boundary` are what they share: handles are checked, plain structs are
//! copied in by size, and no panic leaves. Beyond this folder there are no raw handles, no unknown
//! integers and no NULL: an absent encoder is `None` from here on.

// Types bear their names in C, and comments speak to C: what a caller must keep to is said there,
// not in a section that Rust alone has.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod boundary;
mod brief;
mod collective;
mod handle;
mod plain;

pub mod checkpoint;
pub mod collectives;
pub mod comm;
pub mod context;
pub mod dtype;
pub mod error;
pub mod forward;
pub mod input;
pub mod log;
pub mod nccl;
pub mod parallel;
pub mod plan;
pub mod projection;
pub mod shard;
pub mod spec;
pub mod stats;
pub mod status;
pub mod tensor;
pub mod update;
pub mod version;
pub mod view;
