//! `xqkv_stats`: what one forward did.

use super::boundary;
use super::plain::{self, Plain};
use crate::error::Status;
use crate::projection::Done;

/// What one forward did, counted where it was done. Written only when the call succeeds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_stats {
    /// Set by xqkv_stats_init.
    pub struct_size: u32,
    /// Multiply-adds that were executed for outputs that were asked for: rows x columns x inner
    /// width of every tile that ran. The necessary ones are rows x this rank's columns x inner
    /// width; compute them from the shapes, and the two are equal.
    pub multiply_adds: i64,
    /// Multiply-adds that were executed beside them because vectors have a fixed length: the
    /// lanes beyond a matrix's last column. They cost no time of their own.
    pub padding_multiply_adds: i64,
    /// Matrix products that the work was given to the backend as: one for Q, one for K and one for
    /// V of each layer on the host; calls of cublasLtMatmul on CUDA, as docs/matmuls.md has them.
    pub matmuls: i64,
    /// Which commit's weights the whole call ran on: 1 for the first.
    pub weights_version: i64,
    /// Plans that were made because none was given, and no earlier call was like this one.
    pub plans_made: i64,
    /// Transfers between ranks that the call started; 0 for outputs that stay sharded by head.
    pub transfers: i64,
    /// Bytes that came from other ranks by them.
    pub received_bytes: i64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_stats {
    const NAME: &'static str = "xqkv_stats";
}

/// Prepares the stats to be filled in. `size` is sizeof(xqkv_stats).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_stats_init(stats: *mut xqkv_stats, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(stats, size) })
}

impl xqkv_stats {
    /// What a call did.
    pub(super) fn new(done: &Done) -> Self {
        let counts = &done.counts;
        xqkv_stats {
            struct_size: size_of::<xqkv_stats>() as u32,
            multiply_adds: counts.multiply_adds as i64,
            padding_multiply_adds: counts.padding_multiply_adds as i64,
            matmuls: counts.matmuls as i64,
            weights_version: done.weights_version as i64,
            plans_made: done.plans_made as i64,
            transfers: done.moved.transfers as i64,
            received_bytes: done.moved.received_bytes as i64,
        }
    }
}
