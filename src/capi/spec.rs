//! `xqkv_spec`: the uncut layers.

use super::boundary;
use super::checkpoint::xqkv_checkpoint;
use super::error::xqkv_error;
use super::plain::{self, Plain, flag};
use super::projection::{read_options, xqkv_projection_options};
use super::shard::xqkv_shard;
use crate::backend::MOST_NORM_WIDTH;
use crate::dtype::WeightDtype;
use crate::error::{Error, Status, ensure, named_enum};
use crate::shard::Shard;
use crate::spec::{self, Parts, Spec};
use crate::weights::checkpoint;

/// What is done to each head of Q and of K after its bias.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Nothing.
    None = 0,
    /// Root mean square norm over each head, with a weight of head_width elements for Q and one for
    /// K: rms(x)[lane] = x[lane] / sqrt(mean(x^2) + norm_epsilon) * weight[lane].
    Rms = 1,
}

named_enum!(Norm {
    None => c"XQKV_NORM_NONE",
    Rms => c"XQKV_NORM_RMS",
});

/// The uncut cross-attention layers of a model, as its configuration gives them. All layers have
/// the same sizes. Set every field that matters after xqkv_spec_init; the library copies it.
///
///     query = query_scale * (decoder · Wq^T + bq)
///     key   = key_scale   * (encoder · Wk^T + bk)
///     value = value_scale * (encoder · Wv^T + bv)
///
/// where with a norm rms(decoder · Wq^T + bq) and rms(encoder · Wk^T + bk) are scaled, each head
/// for itself; with Wq [query_heads * head_width, decoder_width], Wk [key_value_heads * head_width,
/// encoder_width] and Wv [key_value_heads * value_head_width, encoder_width].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_spec {
    /// Set by xqkv_spec_init.
    pub struct_size: u32,
    /// An xqkv_dtype: what the weights are kept and multiplied in. Sums are in f32, whatever it is.
    ///
    /// XQKV_DTYPE_INT8, on the host, has a scale for each output, and rows are brought to integers
    /// of -127 to 127 as well, each with the scale max|x| / 127: products and sums are integers,
    /// which are exact, then times both scales. A sum lies within max|x| / 254 times the sum of the
    /// weights' magnitudes of that of the unrounded row, roundings of f32 apart; weights put in
    /// other dtypes (convert) have the scale max|w| / 127 of their output, and are off by as much
    /// as half of that each. A row with an element that is not finite gives NaN. It takes at most
    /// 2^17 inputs, and no norm_rounds_first.
    pub weight_dtype: i32,
    /// Layers that have cross-attention. They are numbered from 0, leaving out layers that have
    /// none (Llama 3.2 Vision's 3, 8, 13, ... are 0, 1, 2, ... here). 0 is 1.
    pub layer_count: i64,
    /// Columns of the decoder's hidden states; may be 0 without query heads.
    pub decoder_width: i64,
    /// Columns of the encoder's hidden states, which may differ; may be 0 without key/value heads.
    pub encoder_width: i64,
    /// Heads of Q; 0 for a projection of K and V only. A multiple of key_value_heads.
    pub query_heads: i64,
    /// Heads of K and of V; 0 for a projection of Q only.
    pub key_value_heads: i64,
    /// Columns of one head of Q and of K.
    pub head_width: i64,
    /// Columns of one head of V. 0 is head_width.
    pub value_head_width: i64,
    /// 1 if bq exists, 0 if not. A bias that does not exist is not a bias of zeros.
    pub query_bias: i32,
    /// 1 if bk exists, 0 if not. Whisper has none beside bq and bv.
    pub key_bias: i32,
    /// 1 if bv exists, 0 if not.
    pub value_bias: i32,
    /// Multiplies Q after its bias; 0 is 1. Whisper folds head_width^-0.5 in here.
    pub query_scale: f32,
    /// Multiplies K after its bias; 0 is 1.
    pub key_scale: f32,
    /// Multiplies V after its bias; 0 is 1.
    pub value_scale: f32,
    /// An xqkv_norm, of the heads of Q and K.
    pub norm: i32,
    /// Added to the mean square before its root is taken. Above 0 with a norm, 0 without.
    pub norm_epsilon: f32,
    /// 1 rounds to the weights' dtype before the norm's weight is multiplied, as Hugging Face
    /// does; 0 rounds once, at the end.
    pub norm_rounds_first: i32,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_spec {
    const NAME: &'static str = "xqkv_spec";
}

/// Fills the spec with zeros. `size` is sizeof(xqkv_spec).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_spec_init(spec: *mut xqkv_spec, size: usize) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(spec, size) })
}

/// Checks a spec as xqkv_projection_create does, without making anything. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
/// MISALIGNED, NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_spec_check(spec: *const xqkv_spec, error: *mut xqkv_error) -> Status {
    // SAFETY: NULL or a struct that begins with its size.
    boundary::call(error, || unsafe { read_spec(spec) }.map(|_| ()))
}

/// Computes what one rank holds of a spec, without making anything: heads, layers and bytes.
/// `options` may be NULL for the whole. `shard` must have been initialised. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
/// MISALIGNED, INDIVISIBLE_HEADS (the message names an explicit split that works),
/// LAYER_OUT_OF_RANGE, NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_spec_cut(
    spec: *const xqkv_spec,
    options: *const xqkv_projection_options,
    shard: *mut xqkv_shard,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or structs that begin with their size.
        let (spec, options) = unsafe { (read_spec(spec)?, read_options(options)?) };
        let cut = Shard::cut(&spec, options.split, options.layers)?;
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { xqkv_shard::write(shard, &cut, &spec) }
    })
}

/// Fills in a spec from a checkpoint's config.json and the dtype of its tensors: sizes, heads,
/// biases, norm and layers, with scales of 1. `spec` must have been initialised, and is
/// written only on success. Reads the headers of the checkpoint's files, no weights. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, SIZE_OVERFLOW, MISALIGNED,
/// OUT_OF_MEMORY, CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT,
/// CHECKPOINT_UNKNOWN_FAMILY, CHECKPOINT_MISSING_TENSOR, CHECKPOINT_MISMATCH, NOT_SUPPORTED (a
/// tensor_pattern).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_spec_read_checkpoint(
    spec: *mut xqkv_spec,
    checkpoint: *const xqkv_checkpoint,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { plain::check(spec, "spec") }?;
        // SAFETY: as above; its strings are terminated.
        let source = unsafe { xqkv_checkpoint::read(checkpoint) }?;
        let found = checkpoint::Checkpoint::open(source.location)?.spec()?;
        // SAFETY: checked above.
        unsafe { *spec = xqkv_spec::from_checked(&found) };
        Ok(())
    })
}

/// The caller's spec, checked.
///
/// # Safety
/// `spec` is NULL or points to a struct that begins with its size.
pub(super) unsafe fn read_spec(spec: *const xqkv_spec) -> Result<Spec, Error> {
    // SAFETY: passed on.
    let spec = unsafe { plain::read(spec, "spec") }?.to_unchecked()?;
    spec.check()?;
    Ok(spec)
}

impl xqkv_spec {
    fn to_unchecked(self) -> Result<Spec, Error> {
        Ok(Spec {
            layer_count: or(self.layer_count, 1),
            decoder_width: self.decoder_width,
            encoder_width: self.encoder_width,
            query_heads: self.query_heads,
            key_value_heads: self.key_value_heads,
            head_width: self.head_width,
            value_head_width: or(self.value_head_width, self.head_width),
            weight_dtype: WeightDtype::from_integer(self.weight_dtype, "weight_dtype")?,
            bias: Parts {
                query: flag(self.query_bias, "query_bias")?,
                key: flag(self.key_bias, "key_bias")?,
                value: flag(self.value_bias, "value_bias")?,
            },
            scale: Parts {
                query: one_if_zero(self.query_scale),
                key: one_if_zero(self.key_scale),
                value: one_if_zero(self.value_scale),
            },
            norm: self.norm()?,
        })
    }

    fn norm(&self) -> Result<Option<spec::Norm>, Error> {
        let rounds_first = flag(self.norm_rounds_first, "norm_rounds_first")?;
        match Norm::from_integer(self.norm, "norm")? {
            Norm::Rms => {
                ensure!(
                    self.head_width <= MOST_NORM_WIDTH as i64,
                    NotSupported,
                    "head_width is {} with a norm; heads of at most {MOST_NORM_WIDTH} are normed",
                    self.head_width
                );
                Ok(Some(spec::Norm { epsilon: self.norm_epsilon, rounds_first }))
            }
            Norm::None => {
                ensure!(
                    self.norm_epsilon == 0.0 && !rounds_first,
                    InvalidArgument,
                    "norm_epsilon and norm_rounds_first are set, but norm is XQKV_NORM_NONE; leave \
                     them 0"
                );
                Ok(None)
            }
        }
    }

    fn from_checked(spec: &Spec) -> Self {
        xqkv_spec {
            struct_size: size_of::<xqkv_spec>() as u32,
            weight_dtype: spec.weight_dtype as i32,
            layer_count: spec.layer_count,
            decoder_width: spec.decoder_width,
            encoder_width: spec.encoder_width,
            query_heads: spec.query_heads,
            key_value_heads: spec.key_value_heads,
            head_width: spec.head_width,
            value_head_width: spec.value_head_width,
            query_bias: i32::from(spec.bias.query),
            key_bias: i32::from(spec.bias.key),
            value_bias: i32::from(spec.bias.value),
            query_scale: spec.scale.query,
            key_scale: spec.scale.key,
            value_scale: spec.scale.value,
            norm: if spec.norm.is_some() { Norm::Rms } else { Norm::None } as i32,
            norm_epsilon: spec.norm.map_or(0.0, |norm| norm.epsilon),
            norm_rounds_first: i32::from(spec.norm.is_some_and(|norm| norm.rounds_first)),
        }
    }
}

/// A size, or its default for 0.
fn or(size: i64, default: i64) -> i64 {
    if size == 0 { default } else { size }
}

fn one_if_zero(scale: f32) -> f32 {
    if scale == 0.0 { 1.0 } else { scale }
}
