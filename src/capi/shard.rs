//! `xqkv_shard`: what one rank holds.

use super::boundary;
use super::plain::{self, Plain};
use crate::error::{Error, Status};
use crate::shard::Shard;
use crate::spec::{Part, Spec};

/// What one rank holds: which heads and layers of the uncut whole, and the sizes that follow.
/// Filled in by xqkv_spec_cut and xqkv_projection_get_shard.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_shard {
    /// Set by xqkv_shard_init.
    pub struct_size: u32,
    /// The first head of Q.
    pub query_head_begin: i64,
    /// Heads of Q; may be 0.
    pub query_head_count: i64,
    /// The first head of K and V.
    pub key_value_head_begin: i64,
    /// Heads of K and V; may be 0.
    pub key_value_head_count: i64,
    /// The first layer.
    pub layer_begin: i64,
    /// Layers.
    pub layer_count: i64,
    /// Columns of this rank's Q: its heads times head_width.
    pub query_columns: i64,
    /// Columns of this rank's K.
    pub key_columns: i64,
    /// Columns of this rank's V.
    pub value_columns: i64,
    /// Bytes of this rank's weights in the spec's dtype, and of its biases and norms in f32, all
    /// layers, before the padding of a backend (the host pads each matrix to a multiple of 16
    /// rows, or 32 with AVX-512).
    pub weight_bytes: i64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_shard {
    const NAME: &'static str = "xqkv_shard";
}

/// Prepares the shard to be filled in. `size` is sizeof(xqkv_shard).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_shard_init(shard: *mut xqkv_shard, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(shard, size) })
}

impl xqkv_shard {
    /// Fills in the caller's struct.
    ///
    /// # Safety
    /// `target` is NULL or points to a struct that begins with its size.
    pub(super) unsafe fn write(
        target: *mut xqkv_shard,
        shard: &Shard,
        spec: &Spec,
    ) -> Result<(), Error> {
        // SAFETY: passed on.
        unsafe { plain::check(target, "shard") }?;
        let filled = xqkv_shard {
            struct_size: size_of::<xqkv_shard>() as u32,
            query_head_begin: shard.query_heads.begin,
            query_head_count: shard.query_heads.count,
            key_value_head_begin: shard.key_value_heads.begin,
            key_value_head_count: shard.key_value_heads.count,
            layer_begin: shard.layers.begin,
            layer_count: shard.layers.count,
            query_columns: shard.outputs(spec, Part::Query).count,
            key_columns: shard.outputs(spec, Part::Key).count,
            value_columns: shard.outputs(spec, Part::Value).count,
            weight_bytes: shard.weight_bytes(spec),
        };
        // SAFETY: just checked.
        unsafe { *target = filled };
        Ok(())
    }
}
