/* xqkv: tensor-parallel cross-attention projection. Generated from src/capi by `cargo xtask header`: do not edit.

   Q from the decoder's hidden states whenever there are any; K and V from the encoder's whenever there are any; no
   multiply-add that is not necessary. The library projects into memory that the engine owns. It is not an attention
   kernel, a cache or a model runner.

   What holds for every function, unless it says otherwise:
   - It returns an xqkv_status. Any status but XQKV_STATUS_OK whose effect is NONE means that nothing was changed: no
     output was written, no handle made or unmade, and the call can be mended and made again.
   - Handles are opaque numbers in the guise of pointers: checked, never dereferenced. A stale, foreign or truncated one
     is XQKV_STATUS_INVALID_HANDLE. NULL is XQKV_STATUS_NULL_ARGUMENT, except where a function says what NULL does.
   - Any thread may call it at any time, and no thread has state of its own in the library. The thread's rounding mode
     and signal mask are left as they were. Nothing is printed, and no environment variable is read or set.
   - Plain structs begin with struct_size. Call the struct's _init function, then set the fields that matter: zero is
     the default wherever one makes sense. The library copies them; they may go when the call returns.
   - Enumerations are passed and stored as int32_t, sizes, counts and strides as int64_t. Strides are in elements,
     matrices are row-major. */


#ifndef XQKV_H
#define XQKV_H


#include <stddef.h>
#include <stdint.h>

/* The header's version as one number and as text; compare with xqkv_version_number and _string. */
#define XQKV_VERSION_NUMBER (XQKV_VERSION_MAJOR * 1000000 + XQKV_VERSION_MINOR * 1000 + XQKV_VERSION_PATCH)
#define XQKV_VERSION_STRING XQKV_VERSION_TEXT(XQKV_VERSION_MAJOR, XQKV_VERSION_MINOR, XQKV_VERSION_PATCH)
#define XQKV_VERSION_TEXT(major, minor, patch) XQKV_VERSION_JOIN(major, minor, patch)
#define XQKV_VERSION_JOIN(major, minor, patch) #major "." #minor "." #patch

/**
 * The major version of this header.
 */
#define XQKV_VERSION_MAJOR 0

/**
 * The minor version of this header.
 */
#define XQKV_VERSION_MINOR 1

/**
 * The patch version of this header.
 */
#define XQKV_VERSION_PATCH 0

/**
 * The version of the binary interface: it grows when a program compiled against an older header
 * would misbehave, and only then.
 */
#define XQKV_VERSION_ABI 1

/**
 * What a call answers. Numbers stand in blocks of a hundred by cause, are never reused, and a
 * caller that meets one it does not know can go by its block:
 *
 * - 1xx the arguments, 2xx the state of a handle, 3xx what this build or machine does not have,
 *   4xx resources, 5xx checkpoint files, 6xx execution, 7xx other ranks, 9xx the library itself.
 *
 * xqkv_status_name gives the name, xqkv_status_effect what the failed call left behind.
 */
enum xqkv_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  XQKV_STATUS_OK = 0,
  /**
   * A pointer that must not be NULL is. Effect: none.
   */
  XQKV_STATUS_NULL_ARGUMENT = 101,
  /**
   * A plain struct's `struct_size` is not one that this library knows; use the struct's
   * `_init` function. Effect: none.
   */
  XQKV_STATUS_INVALID_STRUCT_SIZE = 102,
  /**
   * A handle was never made by this library, was destroyed, or is of another kind. Effect: none.
   */
  XQKV_STATUS_INVALID_HANDLE = 103,
  /**
   * A number does not name a value of its enumeration. Effect: none.
   */
  XQKV_STATUS_INVALID_ENUM = 104,
  /**
   * A value is outside what is allowed, or two values do not go together. Effect: none.
   */
  XQKV_STATUS_INVALID_ARGUMENT = 105,
  /**
   * A product or sum of sizes leaves the 63 bits of a byte count. Effect: none.
   */
  XQKV_STATUS_SIZE_OVERFLOW = 106,
  /**
   * A stride is negative, or smaller than the extent inside it. Effect: none.
   */
  XQKV_STATUS_INVALID_STRIDE = 107,
  /**
   * A pointer is not a multiple of its element's size, or of its struct's alignment.
   * Effect: none.
   */
  XQKV_STATUS_MISALIGNED = 108,
  /**
   * An output shares memory with another output or with an input. Effect: none.
   */
  XQKV_STATUS_OVERLAP = 109,
  /**
   * A weight's shape is not the one its spec needs. Effect: none.
   */
  XQKV_STATUS_INVALID_SHAPE = 110,
  /**
   * A weight's dtype is not its spec's, and no conversion was asked for. Effect: none.
   */
  XQKV_STATUS_INVALID_DTYPE = 111,
  /**
   * Heads do not divide evenly over the ranks; the message names a split that works.
   * Effect: none.
   */
  XQKV_STATUS_INDIVISIBLE_HEADS = 112,
  /**
   * A layer is not among those of the spec or of this projection. Effect: none.
   */
  XQKV_STATUS_LAYER_OUT_OF_RANGE = 113,
  /**
   * One update was given the same part of a layer twice. Effect: none.
   */
  XQKV_STATUS_DUPLICATE_PART = 114,
  /**
   * The memory for an answer is too small; the bytes it needs were told. Effect: none.
   */
  XQKV_STATUS_BUFFER_TOO_SMALL = 115,
  /**
   * A pointer is not to memory that the context's device can use: host memory where the device's
   * is needed, or the reverse, or another device's. Effect: none.
   */
  XQKV_STATUS_WRONG_MEMORY = 116,
  /**
   * Weights that the call needs were not loaded; the message names them. Effect: none.
   */
  XQKV_STATUS_NOT_READY = 201,
  /**
   * The workspace is smaller than the call's minimum. Effect: none.
   */
  XQKV_STATUS_WORKSPACE_TOO_SMALL = 202,
  /**
   * An earlier panic may have corrupted this handle; destroy it. Effect: none.
   */
  XQKV_STATUS_HANDLE_POISONED = 203,
  /**
   * A call in a stream capture has no plan and would have to make one; make a plan before the
   * capture begins, or run such a call once. Effect: none.
   */
  XQKV_STATUS_PLAN_NEEDED = 204,
  /**
   * The plan was made for another shape of call, or for weights that lay elsewhere; the message
   * names the difference. Effect: none.
   */
  XQKV_STATUS_PLAN_MISMATCH = 205,
  /**
   * This version, build or backend does not do this; the message says what would work.
   * Effect: none.
   */
  XQKV_STATUS_NOT_SUPPORTED = 301,
  /**
   * A vendor's shared library was not found; the message lists the names tried. Effect: none.
   */
  XQKV_STATUS_LIBRARY_MISSING = 302,
  /**
   * A vendor's shared library is too old, or lacks a symbol that is needed. Effect: none.
   */
  XQKV_STATUS_LIBRARY_UNSUITABLE = 303,
  /**
   * No device answers, or not the one asked for. Effect: none.
   */
  XQKV_STATUS_NO_DEVICE = 304,
  /**
   * The device's driver or library refused a call before any work was launched; the message has
   * its own words. Effect: none.
   */
  XQKV_STATUS_DEVICE_REFUSED = 305,
  /**
   * Memory ran out. Effect: none.
   */
  XQKV_STATUS_OUT_OF_MEMORY = 401,
  /**
   * A thread could not be started. Effect: none.
   */
  XQKV_STATUS_THREAD_FAILED = 402,
  /**
   * More live handles than the library's table holds. Effect: none.
   */
  XQKV_STATUS_TOO_MANY_HANDLES = 403,
  /**
   * A checkpoint's folder or one of its files is not there. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_NOT_FOUND = 501,
  /**
   * The system failed to read a checkpoint's file. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_UNREADABLE = 502,
  /**
   * A checkpoint's file is truncated, too long, or not what its format demands. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_CORRUPT = 503,
  /**
   * The checkpoint is of a model family that this version has no names for. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_UNKNOWN_FAMILY = 504,
  /**
   * The checkpoint lacks a tensor that the spec needs; the message names it. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_MISSING_TENSOR = 505,
  /**
   * The checkpoint has what the spec says does not exist, such as a bias. Effect: none.
   */
  XQKV_STATUS_CHECKPOINT_MISMATCH = 506,
  /**
   * The device's driver or library failed once work had been launched; the message has its own
   * words. Effect: outputs undefined.
   */
  XQKV_STATUS_DEVICE_FAILED = 601,
  /**
   * A callback of the engine's did not do what it must; the message says what. Effect: outputs
   * undefined.
   */
  XQKV_STATUS_CALLBACK_FAILED = 602,
  /**
   * The ranks do not agree: on what they are, or on which call they are in; the message names
   * ranks and fields, and all ranks are told. Effect: none.
   */
  XQKV_STATUS_MISMATCH = 701,
  /**
   * Another rank is gone or out of step, or the communicator was aborted; the message names the
   * rank where it is known, and the operation. Effect: communicator poisoned, outputs undefined.
   */
  XQKV_STATUS_PEER_LOST = 702,
  /**
   * Another rank, or another call of this one, was not there by the deadline; the message names
   * the rank where it is known, and the operation. Effect: communicator poisoned, outputs
   * undefined.
   */
  XQKV_STATUS_TIMED_OUT = 703,
  /**
   * The communicator has failed before; the message tells how. Make it anew, on every rank.
   * Effect: none.
   */
  XQKV_STATUS_COMM_POISONED = 704,
  /**
   * The library panicked, which is a bug worth reporting. Effect: handle poisoned, and the
   * outputs of the call undefined.
   */
  XQKV_STATUS_PANIC = 901,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_status xqkv_status;
#else
typedef int32_t xqkv_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a failed call left behind.
 */
enum xqkv_effect
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing changed; the call can be mended and made again.
   */
  XQKV_EFFECT_NONE = 1,
  /**
   * The call's own output views hold anything; all else is as it was.
   */
  XQKV_EFFECT_OUTPUTS_UNDEFINED = 2,
  /**
   * The communicator answers every later call with an error until it is made anew, and the
   * call's own output views hold anything. Weights and calls without transfers are as before.
   */
  XQKV_EFFECT_COMMUNICATOR_POISONED = 3,
  /**
   * The handle that was being changed answers every later call with an error.
   */
  XQKV_EFFECT_HANDLE_POISONED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_effect xqkv_effect;
#else
typedef int32_t xqkv_effect;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The type of elements in memory. Zero is not a dtype, so that a forgotten one is found.
 */
enum xqkv_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * IEEE 754 binary32.
   */
  XQKV_DTYPE_F32 = 1,
  /**
   * IEEE 754 binary16.
   */
  XQKV_DTYPE_F16 = 2,
  /**
   * bfloat16: the upper half of a binary32.
   */
  XQKV_DTYPE_BF16 = 3,
  /**
   * 8-bit two's complement integers beside scales, an element being its integer times its scale.
   * Of weights alone, and on the host alone: see weight_dtype of xqkv_spec.
   */
  XQKV_DTYPE_INT8 = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_dtype xqkv_dtype;
#else
typedef int32_t xqkv_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a line of the log matters; a callback gets its own level and all that matters more.
 */
enum xqkv_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something failed, and the status may not tell all of it.
   */
  XQKV_LOG_LEVEL_ERROR = 1,
  /**
   * Something works, but not as well as it could.
   */
  XQKV_LOG_LEVEL_WARNING = 2,
  /**
   * Once for each object: what was found, chosen and loaded.
   */
  XQKV_LOG_LEVEL_INFO = 3,
  /**
   * Details for whoever debugs the library.
   */
  XQKV_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_log_level xqkv_log_level;
#else
typedef int32_t xqkv_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which backend a context is to be.
 */
enum xqkv_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * CUDA if a device answers and cuBLASLt is found, else the host; the log says why.
   */
  XQKV_BACKEND_AUTO = 0,
  /**
   * The host's own threads.
   */
  XQKV_BACKEND_HOST = 1,
  /**
   * One CUDA device. Its driver (libcuda.so.1, or the file that XQKV_CUDA_LIBRARY names) and
   * cuBLASLt (libcublasLt.so.13 or .12, or XQKV_CUBLASLT_LIBRARY) are loaded when they are first
   * asked for; a copy that the process already holds is used.
   */
  XQKV_BACKEND_CUDA = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_backend xqkv_backend;
#else
typedef int32_t xqkv_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which vector instructions the host's kernels use.
 */
enum xqkv_instruction_set
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The best that the CPU has, or the one that the environment variable XQKV_ISA names:
   * portable, avx2, avx512, avx512_bf16 or neon.
   */
  XQKV_INSTRUCTION_SET_AUTO = 0,
  /**
   * What every CPU of the target has. Its results are a class of their own, since multiply and
   * add round separately.
   */
  XQKV_INSTRUCTION_SET_PORTABLE = 1,
  /**
   * 256-bit vectors with fused multiply-add (x86-64 AVX2, FMA and F16C).
   */
  XQKV_INSTRUCTION_SET_AVX2 = 2,
  /**
   * 512-bit vectors with fused multiply-add (x86-64 AVX-512F). Bit for bit as AVX2.
   */
  XQKV_INSTRUCTION_SET_AVX512 = 3,
  /**
   * The same, but bfloat16 rows times bfloat16 weights go through the CPU's dot product, at
   * twice the speed. It adds two products at a time and takes denormals for zero, whatever the
   * CPU's mode (Intel SDM, VDPBF16PS), so those bits are a class of their own; AVX512 is the
   * exact mode of such a CPU.
   */
  XQKV_INSTRUCTION_SET_AVX512_BF16 = 4,
  /**
   * 128-bit vectors with fused multiply-add (64-bit ARM). Bit for bit as AVX2.
   */
  XQKV_INSTRUCTION_SET_NEON = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_instruction_set xqkv_instruction_set;
#else
typedef int32_t xqkv_instruction_set;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is done to each head of Q and of K after its bias.
 */
enum xqkv_norm
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing.
   */
  XQKV_NORM_NONE = 0,
  /**
   * Root mean square norm over each head, with a weight of head_width elements for Q and one for
   * K: rms(x)[lane] = x[lane] / sqrt(mean(x^2) + norm_epsilon) * weight[lane].
   */
  XQKV_NORM_RMS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_norm xqkv_norm;
#else
typedef int32_t xqkv_norm;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether a tensor is the whole layer's or this rank's.
 */
enum xqkv_extent
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The uncut layer's: the library takes this rank's rows and touches no others.
   */
  XQKV_EXTENT_WHOLE = 0,
  /**
   * This rank's rows already.
   */
  XQKV_EXTENT_SHARD = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_extent xqkv_extent;
#else
typedef int32_t xqkv_extent;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a weight's elements are ordered.
 */
enum xqkv_layout
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * [outputs, inputs], as torch.nn.Linear keeps it.
   */
  XQKV_LAYOUT_OUT_IN = 0,
  /**
   * [inputs, outputs], as FasterTransformer and ONNX Runtime keep it. It cannot be borrowed.
   */
  XQKV_LAYOUT_IN_OUT = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_layout xqkv_layout;
#else
typedef int32_t xqkv_layout;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the parts of a fused weight follow each other.
 */
enum xqkv_fused_order
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * All rows of Q, then all of K, then all of V.
   */
  XQKV_FUSED_ORDER_CONCATENATED = 0,
  /**
   * The rows of each key/value head together, as Megatron and Transformer Engine keep them:
   * those of Q of the query heads that it serves, those of K, those of V. Of a shard the rows
   * that it has, in this order. It can be borrowed only where each part's rows lie together all
   * the same, as those of a single key/value head do.
   */
  XQKV_FUSED_ORDER_PER_HEAD = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_fused_order xqkv_fused_order;
#else
typedef int32_t xqkv_fused_order;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whose memory a tensor lies in.
 */
enum xqkv_memory
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The host's.
   */
  XQKV_MEMORY_HOST = 0,
  /**
   * The context's device's; CUDA only. It must be written already: no stream is waited for.
   */
  XQKV_MEMORY_DEVICE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_memory xqkv_memory;
#else
typedef int32_t xqkv_memory;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether the library copies a tensor.
 */
enum xqkv_ownership
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Copied during the call; the memory may go right after it.
   */
  XQKV_OWNERSHIP_COPY = 0,
  /**
   * CUDA weights in device memory, of the spec's dtype: used in place, so that the library takes
   * no memory for them. They must stay until no version of the weights has them and the work
   * launched with those is done. A fused weight is borrowed row block by row block: where V's
   * rows follow K's, as in the engine's own fused QKV, both still run as one product.
   */
  XQKV_OWNERSHIP_BORROW = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_ownership xqkv_ownership;
#else
typedef int32_t xqkv_ownership;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How heads are spread over the ranks. No head is ever cut.
 */
enum xqkv_split
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Equal shares, as vLLM and Megatron cut them: with more ranks than key/value heads, each
   * such head is on rank_count / key_value_heads neighbouring ranks.
   */
  XQKV_SPLIT_EVEN = 0,
  /**
   * The heads that the options name: uneven shares, or none of a side.
   */
  XQKV_SPLIT_EXPLICIT = 1,
  /**
   * Equal shares of Q; every rank holds all of K and V.
   */
  XQKV_SPLIT_QUERY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_split xqkv_split;
#else
typedef int32_t xqkv_split;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which of the three projections a tensor belongs to.
 */
enum xqkv_part
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Wq or bq.
   */
  XQKV_PART_QUERY = 1,
  /**
   * Wk or bk.
   */
  XQKV_PART_KEY = 2,
  /**
   * Wv or bv.
   */
  XQKV_PART_VALUE = 3,
  /**
   * Fused: the rows of Wk and of Wv; or bk and bv.
   */
  XQKV_PART_KEY_VALUE = 4,
  /**
   * Fused: the rows of Wq, Wk and Wv; or bq, bk, bv. Decoder and encoder are equally wide then.
   */
  XQKV_PART_QUERY_KEY_VALUE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_part xqkv_part;
#else
typedef int32_t xqkv_part;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a tensor is to its part.
 */
enum xqkv_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The matrix, [outputs, inputs] or as its layout says.
   */
  XQKV_KIND_WEIGHT = 1,
  /**
   * The bias, [outputs].
   */
  XQKV_KIND_BIAS = 2,
  /**
   * The weight of the norm of each head of Q or of K, [head_width]. All heads share it, so it is
   * whole on every rank.
   */
  XQKV_KIND_NORM = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_kind xqkv_kind;
#else
typedef int32_t xqkv_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a projection may or must do beyond its sums. Of no effect where a backend does so anyway.
 */
enum xqkv_projection_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * CUDA: f32 products may round their inputs to 10 bits of fraction (TF32). Otherwise f32 is
   * exact f32.
   */
  XQKV_PROJECTION_FLAG_TENSOR_FLOAT = 1,
  /**
   * CUDA: a row's bits must not depend on how many rows come with it: no split sums, and one
   * algorithm for each matrix, chosen alike whatever the rows, for calls whose memory is laid
   * out and aligned alike. Costs speed. Not yet confirmed on a real GPU.
   */
  XQKV_PROJECTION_FLAG_BATCH_INVARIANT = 2,
  /**
   * Ranks that hold the same key/value head share its work: each projects its part of the
   * encoder rows, and they exchange the results, so that no product is done twice. Calls with
   * encoder rows then have transfers, and views of K and V may not accumulate. Needs a
   * communicator. It pays where products take longer than moving their results:
   * docs/ranks.md has the model.
   */
  XQKV_PROJECTION_FLAG_SHARE_REPLICAS = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_projection_flag xqkv_projection_flag;
#else
typedef int32_t xqkv_projection_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a plan chooses.
 */
enum xqkv_plan_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * CUDA: run the algorithms that cuBLASLt offers, each a few times, and take the fastest
   * instead of its first choice. Takes scratch memory from the context's allocator for inputs,
   * results and workspace, launches on a stream of the library's own and waits for it; not while
   * a capture is going on in the calling thread.
   */
  XQKV_PLAN_FLAG_TIMED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_plan_flag xqkv_plan_flag;
#else
typedef int32_t xqkv_plan_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a call does with other ranks. Each needs a communicator, the same on all ranks; a call
 * without them, without encoder_rank_rows and without shared replicas has no transfers.
 */
enum xqkv_forward_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Every rank gets Q of all query heads: query is [decoder rows, the spec's query heads,
   * head_width], in the uncut layer's order.
   */
  XQKV_FORWARD_FLAG_GATHER_QUERY = 1,
  /**
   * Every rank gets K and V of all key/value heads: key and value have the spec's key/value
   * heads, in the uncut layer's order. A head that several ranks hold is projected by one.
   */
  XQKV_FORWARD_FLAG_GATHER_KEY_VALUE = 2,
  /**
   * CUDA, for engines of which one thread drives several devices: within its own ncclGroupStart
   * and ncclGroupEnd it makes each rank's call with this flag, which runs the products whose
   * results are moved and asks for the transfers; and behind the group's end the same call again
   * with FINISH. Ranks are not held against each other. A call that both gathers encoder rows
   * and moves results cannot be halved.
   */
  XQKV_FORWARD_FLAG_START = 4,
  /**
   * The rest of a call that was begun with START, with the same inputs, views and workspace.
   */
  XQKV_FORWARD_FLAG_FINISH = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_forward_flag xqkv_forward_flag;
#else
typedef int32_t xqkv_forward_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What carries a communicator's bytes.
 */
enum xqkv_comm_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing: there is one rank.
   */
  XQKV_COMM_KIND_ALONE = 1,
  /**
   * Threads of one process, in host memory.
   */
  XQKV_COMM_KIND_THREADS = 2,
  /**
   * NCCL, in the memory of CUDA devices.
   */
  XQKV_COMM_KIND_NCCL = 3,
  /**
   * The engine's own functions.
   */
  XQKV_COMM_KIND_COLLECTIVES = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_comm_kind xqkv_comm_kind;
#else
typedef int32_t xqkv_comm_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a communicator does beyond its transfers.
 */
enum xqkv_comm_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * NCCL: hold each collective call against the other ranks' before it runs, at the price of one
   * small transfer and of waiting for it, so not in a capture. Others always do so.
   */
  XQKV_COMM_FLAG_CHECK_CALLS = 1,
  /**
   * NCCL: a thread that polls, so that ranks whose streams wait for one that is lost are freed
   * also where nobody calls xqkv_comm_poll. It ends with the communicator.
   */
  XQKV_COMM_FLAG_WATCHDOG = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum xqkv_comm_flag xqkv_comm_flag;
#else
typedef int32_t xqkv_comm_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A communicator: this rank's seat among the ranks of one projection. Optional, since outputs
 * sharded by head need no transfer. An opaque handle, made by xqkv_comm_create_alone, _threads,
 * _collectives or _nccl or by xqkv_comm_adopt_nccl, and unmade by xqkv_comm_destroy.
 *
 * It carries what ranks tell each other: whether they agree, encoder rows that each has a part of,
 * and results that each needs the others' of. A rank that waits for another gives up at the
 * deadline; from then on, and after an abort, the communicator answers COMM_POISONED, while
 * weights, plans and calls without transfers stay as they were. Make it anew on every rank then,
 * and hand it to xqkv_projection_set_comm.
 *
 * Several projections may use one. Calls with transfers take turns, in the same order on all
 * ranks: that is the engine's to see to. xqkv_comm_poll, _abort and _get_info may come from any
 * thread at any time.
 */
typedef struct xqkv_comm xqkv_comm;

/**
 * One backend on one device: the host's threads, or one CUDA device. An opaque handle, made by
 * xqkv_context_create and unmade by xqkv_context_destroy.
 *
 * Any thread may use it, several at once. Projections keep what they need of it, so it may be
 * destroyed before them. Ranks of one process may share one. On CUDA the calling thread's current
 * context is the same after every call as before it.
 */
typedef struct xqkv_context xqkv_context;

/**
 * Everything slow done up front for one shape of call: on CUDA algorithms chosen and descriptors
 * made; on the host nothing slow is left, and a plan only holds calls to its shape. An opaque
 * handle, made by xqkv_plan_create and unmade by xqkv_plan_destroy.
 *
 * Immutable: any number of threads and streams may use it at once. It serves its projection's
 * calls with the same layer_count, dtypes, strides and sides (or one of its sides), any layer, and
 * at most as many rows of each side. Weights may be committed meanwhile; only borrowing them from
 * elsewhere makes it unusable (PLAN_MISMATCH).
 */
typedef struct xqkv_plan xqkv_plan;

/**
 * This rank's shard of Wq, Wk and Wv of all layers. An opaque handle, made by
 * xqkv_projection_create and unmade by xqkv_projection_destroy.
 *
 * Any thread may use it, several at once: forwards run side by side, also while an update is
 * being committed, and each runs on exactly one version of the weights.
 */
typedef struct xqkv_projection xqkv_projection;

/**
 * A weight transaction: begin, put tensors or read a checkpoint, then commit or abandon. First
 * load and hot swap are the same thing. An opaque handle, unmade by commit or abandon.
 *
 * One thread at a time fills it; calls from several are put one after the other. Any number may
 * be open on one projection: each commit replaces what it was given and keeps the rest.
 */
typedef struct xqkv_update xqkv_update;

/**
 * A checkpoint on disk: a Hugging Face folder with config.json, and model.safetensors or
 * model.safetensors.index.json. This version knows the families of Whisper, BART (also mBART,
 * M2M100, NLLB and Marian), T5 and mllama (Llama 3.2 Vision). Its files are untrusted: whatever
 * they hold, a call that reads them answers a status.
 *
 * Files are read with pread, not mapped, so that one that shrinks under the reader is an error
 * and not a SIGBUS. Strings are NUL-terminated, and read only during the call.
 */
typedef struct xqkv_checkpoint {
  /**
   * Set by xqkv_checkpoint_init.
   */
  uint32_t struct_size;
  /**
   * 1 converts weights of another dtype than the spec's, with one rounding to nearest even; 0
   * refuses them. Biases and norms are kept in f32 and always converted, which is exact.
   */
  int32_t convert;
  /**
   * The folder's path, in the system's encoding.
   */
  const char *directory;
  /**
   * For a model of another family, its tensors' names, with places for {layer} (numbered from 0
   * as in xqkv_spec), {part} and {kind} ("weight" or "bias"), such as
   * "decoder.{layer}.xattn.{part}.{kind}". config.json is not read then, and the spec is the
   * caller's; a norm's weights have no names, and are put by xqkv_update_put. NULL goes by the
   * family.
   */
  const char *tensor_pattern;
  /**
   * What stands for {part} in the names of Wq and bq; NULL is "query". Only with a pattern.
   */
  const char *query_name;
  /**
   * The same for Wk and bk; NULL is "key".
   */
  const char *key_name;
  /**
   * The same for Wv and bv; NULL is "value".
   */
  const char *value_name;
} xqkv_checkpoint;

/**
 * The uncut cross-attention layers of a model, as its configuration gives them. All layers have
 * the same sizes. Set every field that matters after xqkv_spec_init; the library copies it.
 *
 *     query = query_scale * (decoder · Wq^T + bq)
 *     key   = key_scale   * (encoder · Wk^T + bk)
 *     value = value_scale * (encoder · Wv^T + bv)
 *
 * where with a norm rms(decoder · Wq^T + bq) and rms(encoder · Wk^T + bk) are scaled, each head
 * for itself; with Wq [query_heads * head_width, decoder_width], Wk [key_value_heads * head_width,
 * encoder_width] and Wv [key_value_heads * value_head_width, encoder_width].
 */
typedef struct xqkv_spec {
  /**
   * Set by xqkv_spec_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_dtype: what the weights are kept and multiplied in. Sums are in f32, whatever it is.
   *
   * XQKV_DTYPE_INT8, on the host, has a scale for each output, and rows are brought to integers
   * of -127 to 127 as well, each with the scale max|x| / 127: products and sums are integers,
   * which are exact, then times both scales. A sum lies within max|x| / 254 times the sum of the
   * weights' magnitudes of that of the unrounded row, roundings of f32 apart; weights put in
   * other dtypes (convert) have the scale max|w| / 127 of their output, and are off by as much
   * as half of that each. A row with an element that is not finite gives NaN. It takes at most
   * 2^17 inputs, and no norm_rounds_first.
   */
  int32_t weight_dtype;
  /**
   * Layers that have cross-attention. They are numbered from 0, leaving out layers that have
   * none (Llama 3.2 Vision's 3, 8, 13, ... are 0, 1, 2, ... here). 0 is 1.
   */
  int64_t layer_count;
  /**
   * Columns of the decoder's hidden states; may be 0 without query heads.
   */
  int64_t decoder_width;
  /**
   * Columns of the encoder's hidden states, which may differ; may be 0 without key/value heads.
   */
  int64_t encoder_width;
  /**
   * Heads of Q; 0 for a projection of K and V only. A multiple of key_value_heads.
   */
  int64_t query_heads;
  /**
   * Heads of K and of V; 0 for a projection of Q only.
   */
  int64_t key_value_heads;
  /**
   * Columns of one head of Q and of K.
   */
  int64_t head_width;
  /**
   * Columns of one head of V. 0 is head_width.
   */
  int64_t value_head_width;
  /**
   * 1 if bq exists, 0 if not. A bias that does not exist is not a bias of zeros.
   */
  int32_t query_bias;
  /**
   * 1 if bk exists, 0 if not. Whisper has none beside bq and bv.
   */
  int32_t key_bias;
  /**
   * 1 if bv exists, 0 if not.
   */
  int32_t value_bias;
  /**
   * Multiplies Q after its bias; 0 is 1. Whisper folds head_width^-0.5 in here.
   */
  float query_scale;
  /**
   * Multiplies K after its bias; 0 is 1.
   */
  float key_scale;
  /**
   * Multiplies V after its bias; 0 is 1.
   */
  float value_scale;
  /**
   * An xqkv_norm, of the heads of Q and K.
   */
  int32_t norm;
  /**
   * Added to the mean square before its root is taken. Above 0 with a norm, 0 without.
   */
  float norm_epsilon;
  /**
   * 1 rounds to the weights' dtype before the norm's weight is multiplied, as Hugging Face
   * does; 0 rounds once, at the end.
   */
  int32_t norm_rounds_first;
} xqkv_spec;

/**
 * Where a call writes what went wrong. The caller owns it, usually on the stack; it needs no
 * initialisation, and its layout is frozen. There is no thread-local and no global last error:
 * a goroutine may change its thread between two calls.
 *
 * Every function that takes one takes it last, and accepts NULL. After a successful call `status`
 * is XQKV_STATUS_OK and `message` is empty.
 */
typedef struct xqkv_error {
  /**
   * The status that the call returned.
   */
  int32_t status;
  /**
   * What was given, what is needed and what to do: UTF-8, NUL-terminated, cut to fit.
   */
  char message[508];
} xqkv_error;

/**
 * Everybody's bytes to everybody, in place: rank r's bytes, as many as `bytes[r]`, lie in
 * `buffer` behind those of the ranks before it on rank r, and must come to the same place of every
 * other rank's buffer. Counts differ between ranks and may be 0; they are the same on all ranks.
 * MPI: MPI_Iallgatherv with MPI_IN_PLACE.
 */
typedef int32_t (*xqkv_all_gather_callback)(void *buffer,
                                            const int64_t *bytes,
                                            int64_t rank_count,
                                            void *stream,
                                            void *user);

/**
 * The bytes of rank `root` to everybody. MPI: MPI_Ibcast.
 */
typedef int32_t (*xqkv_broadcast_callback)(void *buffer,
                                           int64_t bytes,
                                           int64_t root,
                                           void *stream,
                                           void *user);

/**
 * Some bytes from this rank to another, or the reverse.
 */
typedef struct xqkv_message {
  /**
   * Read if this rank sends, else written. Of the memory that the context's backend works in.
   */
  void *data;
  /**
   * How many.
   */
  int64_t bytes;
  /**
   * The other rank.
   */
  int64_t peer;
  /**
   * 1 if this rank sends, 0 if it receives.
   */
  int32_t is_sent;
  /**
   * 0.
   */
  int32_t reserved;
} xqkv_message;

/**
 * Bytes from rank to rank: the n-th message that one rank sends to another is the n-th that the
 * other receives from it, and as long. A rank without messages is called with a count of 0.
 * MPI: MPI_Isend and MPI_Irecv for each. `messages` is good only during the call.
 */
typedef int32_t (*xqkv_exchange_callback)(const struct xqkv_message *messages,
                                          int64_t count,
                                          void *stream,
                                          void *user);

/**
 * How far all transfers are that were started: sets `*is_done` to 1 or 0. May set `*rank` to the
 * rank that it waits for, or that is lost; it is -1 before. MPI: MPI_Testall.
 */
typedef int32_t (*xqkv_poll_callback)(int32_t *is_done, int64_t *rank, void *user);

/**
 * Ends all transfers, so that nobody touches their memory any more when it returns. No other
 * function of this communicator is called after it.
 */
typedef void (*xqkv_abort_callback)(void *user);

/**
 * The engine's own collectives. Each starts a transfer and returns XQKV_STATUS_OK; or
 * XQKV_STATUS_PEER_LOST, XQKV_STATUS_TIMED_OUT or another status if it cannot, which poisons the
 * communicator.
 *
 * Host backend: memory is the process's, `stream` is NULL, and a transfer is done when `poll` says
 * so; with `poll` NULL it is done when its function returns, and then the deadline is the engine's
 * to keep. CUDA backend: memory is the device's, and a transfer is put on `stream` (a CUstream)
 * and done in its order; `poll` then only tells of failures.
 *
 * All functions are called by the thread that is in a call with transfers, one at a time, and in
 * the same order on all ranks; `poll` and `abort` also by callers of xqkv_comm_poll and
 * xqkv_comm_abort. None may unwind, or call this library with the same communicator.
 */
typedef struct xqkv_collectives {
  /**
   * Set by xqkv_collectives_init.
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Everybody's bytes to everybody. Must be there.
   */
  xqkv_all_gather_callback all_gather;
  /**
   * One rank's bytes to everybody. Must be there.
   */
  xqkv_broadcast_callback broadcast;
  /**
   * Bytes from rank to rank. NULL: ranks cannot share the work of replicated heads without
   * gathering.
   */
  xqkv_exchange_callback exchange;
  /**
   * How far the transfers are. NULL: they are done when their function returns.
   */
  xqkv_poll_callback poll;
  /**
   * Ends all transfers. NULL: nothing ends them.
   */
  xqkv_abort_callback abort;
  /**
   * Passed to each.
   */
  void *user;
} xqkv_collectives;

/**
 * How a communicator behaves. All zeros is the default.
 */
typedef struct xqkv_comm_options {
  /**
   * Set by xqkv_comm_options_init.
   */
  uint32_t struct_size;
  /**
   * Values of xqkv_comm_flag, added up.
   */
  uint32_t flags;
  /**
   * Milliseconds that a rank waits for the others before it gives up; 0 is 60,000. Each wait has
   * its own: for all ranks to be there when a communicator or a projection is made or weights
   * are committed, and for each transfer of a forward.
   */
  int64_t deadline_ms;
} xqkv_comm_options;

/**
 * What a communicator is.
 */
typedef struct xqkv_comm_info {
  /**
   * Set by xqkv_comm_info_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_comm_kind.
   */
  int32_t kind;
  /**
   * This rank, from 0.
   */
  int64_t rank;
  /**
   * How many ranks there are.
   */
  int64_t rank_count;
  /**
   * Transfers that were started, also those by which ranks agree.
   */
  int64_t transfers;
  /**
   * 1 if it answers COMM_POISONED, else 0.
   */
  int32_t is_poisoned;
  /**
   * NCCL: its version as ncclGetVersion tells it, such as 22705. Else 0.
   */
  int32_t nccl_version;
} xqkv_comm_info;

/**
 * Receives a line of the log. `level` is an xqkv_log_level, `message` UTF-8 text that is valid
 * only during the call, and `user` the pointer given beside the callback. It may be called from
 * any thread that calls the library, also from two at once, and must not call the library itself.
 * Projections and updates keep their context's callback: it may be called until the context and
 * the last projection and update made from it are gone, and no call runs on any of them.
 */
typedef void (*xqkv_log_callback)(int32_t level, const char *message, void *user);

/**
 * Gives memory of a device to the library: at least `bytes` bytes at a multiple of `alignment`,
 * ready for use on `stream`, or NULL. `user` is the pointer given beside the callback. It is
 * called by the thread that commits, with the context current, and must not call the library.
 */
typedef void *(*xqkv_allocate_callback)(int64_t bytes, int64_t alignment, void *stream, void *user);

/**
 * Takes memory back that the allocate callback gave, once work on `stream` is done with it; the
 * default stream (NULL) where no work is left. Called by the thread that reclaims, or that gives
 * up the last handle, with the context current; it must not call the library.
 */
typedef void (*xqkv_free_callback)(void *memory, int64_t bytes, void *stream, void *user);

/**
 * One piece of a job that xqkv_parallel_for_callback runs. Never unwinds, takes no lock and waits
 * for nothing; less than 32 KiB of stack are enough.
 */
typedef void (*xqkv_task)(int64_t index, void *task_user);

/**
 * Runs `task(index, task_user)` exactly once for each index from 0 to count - 1, on any threads in
 * any order, and returns when all have returned. `user` is the pointer given beside the callback.
 *
 * `count` is at least 2 and at most the context's thread_count. The tasks share the work out among
 * themselves: one that comes late finds less to do or nothing, so they may be run by fewer
 * threads, or one after the other. Results do not depend on it, bit for bit.
 *
 * The thread that calls a forward calls it, so several may at the same time. They may be threads
 * of the pool itself if it can run a job from inside a task. A forward with little work runs on
 * its caller's thread without it. It must not unwind, and must not wait for another forward.
 *
 * A task that is skipped, repeated, given another index or still running when this returns makes
 * the forward answer XQKV_STATUS_CALLBACK_FAILED. A task may never be called after its forward
 * returned; one that is finds nothing to do and touches neither the outputs nor the projection.
 */
typedef void (*xqkv_parallel_for_callback)(int64_t count,
                                           xqkv_task task,
                                           void *task_user,
                                           void *user);

/**
 * What to make a context from. Set every field that matters after xqkv_context_options_init;
 * zero is the default everywhere.
 */
typedef struct xqkv_context_options {
  /**
   * Set by xqkv_context_options_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_backend.
   */
  int32_t backend;
  /**
   * CUDA: the device's ordinal. Host: must be 0.
   */
  int32_t device;
  /**
   * Host: threads that work on one call, the caller's included. 1 starts no thread at all;
   * 0 is one for each CPU that the process may use. At most 1024. With `parallel_for`, how many
   * threads the engine's pool has, which is how many tasks a call is offered as; 1 never calls
   * it.
   */
  int32_t thread_count;
  /**
   * Host: an xqkv_instruction_set. One that the CPU lacks is XQKV_STATUS_NOT_SUPPORTED.
   */
  int32_t instruction_set;
  /**
   * An xqkv_log_level: the callback gets these lines and all that matter more. 0 is
   * XQKV_LOG_LEVEL_WARNING.
   */
  int32_t log_level;
  /**
   * Receives the log; NULL for none.
   */
  xqkv_log_callback log;
  /**
   * Passed to `log`.
   */
  void *log_user;
  /**
   * CUDA: gives device memory for weights; NULL for the driver's own. Host: must be NULL.
   */
  xqkv_allocate_callback allocate;
  /**
   * CUDA: takes it back; given exactly when `allocate` is. Host: must be NULL.
   */
  xqkv_free_callback free;
  /**
   * Passed to `allocate` and `free`.
   */
  void *allocator_user;
  /**
   * Host: brings the engine's threads to the work of a forward; the context then starts none.
   * NULL for the library's own. CUDA: must be NULL.
   */
  xqkv_parallel_for_callback parallel_for;
  /**
   * Passed to `parallel_for`.
   */
  void *parallel_for_user;
  /**
   * CUDA: the CUcontext of the engine's streams; NULL for the device's primary context. Host:
   * must be NULL.
   */
  void *cuda_context;
  /**
   * CUDA: a cublasLtHandle_t lent for the context's life; NULL to make one. Host: must be NULL.
   */
  void *cublaslt_handle;
} xqkv_context_options;

/**
 * What a context turned out to be.
 */
typedef struct xqkv_context_info {
  /**
   * Set by xqkv_context_info_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_backend, never AUTO.
   */
  int32_t backend;
  /**
   * CUDA: the device's ordinal. Host: 0.
   */
  int32_t device;
  /**
   * Host: threads that work on one call, the caller's included. CUDA: 0.
   */
  int32_t thread_count;
  /**
   * Host: an xqkv_instruction_set, never AUTO. CUDA: 0.
   */
  int32_t instruction_set;
  /**
   * CUDA: ten times the major number and the minor one, such as 90. Host: 0.
   */
  int32_t compute_capability;
  /**
   * CUDA: multiprocessors of the device. Host: 0.
   */
  int32_t multiprocessor_count;
  /**
   * CUDA: as cuDriverGetVersion tells it, such as 13000. Host: 0.
   */
  int32_t driver_version;
  /**
   * CUDA: as cublasLtGetVersion tells it, such as 130401. Host: 0.
   */
  int64_t cublaslt_version;
} xqkv_context_info;

/**
 * Rows of hidden states: the decoder's or the encoder's. Part of xqkv_forward by value, so its
 * layout is frozen.
 *
 * Absent when `data` is NULL or `rows` is 0, whatever the other fields hold. Rows are packed: of
 * any number of sequences, without padding, and independent of each other.
 */
typedef struct xqkv_input {
  /**
   * The first element of the first row, in the memory of the context's device, aligned to its
   * dtype. NULL: absent.
   */
  const void *data;
  /**
   * How many rows; with a row list, how many it lists. 0: absent.
   */
  int64_t rows;
  /**
   * Elements from one row to the next; 0 is the width of the hidden states.
   */
  int64_t row_stride;
  /**
   * Indices of the rows to take, in the memory of the context's device, aligned to 8 bytes;
   * NULL takes the first `rows`. A row may be named more than once, rows that are not named are
   * not projected, and results have one row for each index. The host refuses an index that is
   * not in [0, buffer_rows) before anything is written; CUDA cannot see the list, and results
   * of such a row are NaN.
   */
  const int64_t *row_list;
  /**
   * With a row list, rows in the buffer that it indexes; otherwise 0.
   */
  int64_t buffer_rows;
  /**
   * An xqkv_dtype. The host takes any, whatever the weights are in.
   */
  int32_t dtype;
  /**
   * Must be 0.
   */
  int32_t reserved;
} xqkv_input;

/**
 * Where one of Q, K and V is written, in memory that the engine owns: its KV cache, say. Part of
 * xqkv_forward by value, so its layout is frozen.
 *
 * Element (row r, head h, lane d) of layer l, counted from the call's first layer, goes to
 *
 *     base[l] + (p / group_rows) * group_stride + (p % group_rows) * row_stride
 *             + h * head_stride + d * width_stride
 *
 * where p is r, or slots[r] when slots are given, and base[l] is data + l * layer_stride, or
 * layer_data[l]. All strides are in elements of the view's dtype, and 0 is packed as
 * [layers, groups, group_rows, heads, width], where without groups all places are one group.
 * Heads are this rank's, counted from 0.
 *
 * Strides must nest: sorted by size, each is at least the extent inside it, so that no element is
 * written twice. Bytes between the elements are not touched; nothing is read unless `accumulate`.
 */
typedef struct xqkv_view {
  /**
   * The first element, in the memory of the context's device, aligned to its dtype.
   */
  void *data;
  /**
   * One base pointer for each layer of the call, instead of `data` and `layer_stride`: an array
   * in host memory, read during the call.
   */
  void *const *layer_data;
  /**
   * Elements from one row to the next; 0 is heads · width.
   */
  int64_t row_stride;
  /**
   * Elements from one head to the next; 0 is the head's width.
   */
  int64_t head_stride;
  /**
   * Elements from one lane of a head to the next; 0 is 1.
   */
  int64_t width_stride;
  /**
   * Elements from one layer to the next; 0 is all groups' rows · heads · width. Used only when a
   * call spans several layers.
   */
  int64_t layer_stride;
  /**
   * Rows of one group, such as a sequence of a batch or a page; 0 is all. The last group may be
   * filled in part.
   */
  int64_t group_rows;
  /**
   * Elements from one group to the next; 0 is group_rows · heads · width. Without groups 0.
   */
  int64_t group_stride;
  /**
   * For each row the place it goes to, in the memory of the context's device, aligned to 8
   * bytes; -1 leaves the row out, and no two rows may go to one place. The host refuses a list
   * that breaks this before anything is written, for which it takes workspace
   * (xqkv_plan_get_workspace), and does not project rows that are left out. CUDA cannot see the
   * list: a place out of range is left out as -1 is, of two rows in one place either may win,
   * and all rows are projected.
   */
  const int64_t *slots;
  /**
   * With slots, how many places there are; otherwise 0.
   */
  int64_t slot_count;
  /**
   * For fp8 caches to come: one f32 in the memory of the context's device by which this view's
   * results are divided before they are rounded, so that K and V have each their own. No dtype
   * of this version takes one: must be NULL, or the call is NOT_SUPPORTED.
   */
  const float *quantization_scale;
  /**
   * An xqkv_dtype. The host writes any, rounded once to nearest even.
   */
  int32_t dtype;
  /**
   * 1 adds to what is there (beta = 1), rounding the sum once; 0 overwrites it unread. Not with
   * a norm.
   */
  int32_t accumulate;
} xqkv_view;

/**
 * One call: what to project, and where to. Three calls fall out of the two inputs.
 *
 *     decode step            decoder rows, no encoder       runs Q
 *     prefill, mixed batch   decoder rows, encoder rows     runs Q, and K and V
 *     cache fill             no decoder, encoder rows       runs K and V, of one or many layers
 *
 * Rows of the two sides are independent: many decode rows and a few new encoder sequences may
 * come in one call, and with beams Q has more rows than K and V need. An input that is absent
 * needs no view. Nothing is kept: inputs, outputs and the struct itself are the caller's, and
 * must stay until the call returns (host) or its work on the stream is done (CUDA).
 */
typedef struct xqkv_forward {
  /**
   * Set by xqkv_forward_init.
   */
  uint32_t struct_size;
  /**
   * Values of xqkv_forward_flag, added up.
   */
  uint32_t flags;
  /**
   * The first layer, numbered as in xqkv_spec, of the uncut model also under a pipeline split.
   */
  int64_t layer;
  /**
   * Layers to run on the same encoder rows; 0 is 1. More than 1 only without decoder rows,
   * since each layer's decoder rows are its own.
   */
  int64_t layer_count;
  /**
   * The decoder's hidden states, [rows, decoder_width].
   */
  struct xqkv_input decoder;
  /**
   * The encoder's hidden states, [rows, encoder_width]. Absent on a decode step.
   */
  struct xqkv_input encoder;
  /**
   * Where Q goes: [decoder rows, this rank's query heads, head_width].
   */
  struct xqkv_view query;
  /**
   * Where K goes: [layers, encoder rows, this rank's key/value heads, head_width].
   */
  struct xqkv_view key;
  /**
   * Where V goes: [layers, encoder rows, this rank's key/value heads, value_head_width].
   */
  struct xqkv_view value;
  /**
   * CUDA: the CUstream to run on; NULL is the default stream. Host: must be NULL, since the
   * call is done when it returns.
   */
  void *stream;
  /**
   * Scratch memory of the context's device, at a multiple of 256 bytes, one for each concurrent
   * call. xqkv_plan_get_workspace tells how much is needed and how much is of use; NULL is none.
   */
  void *workspace;
  /**
   * Bytes at `workspace`.
   */
  int64_t workspace_bytes;
  /**
   * A plan made for this shape of call, or NULL: then one is looked up or made, which may lock
   * and allocate, and on CUDA pointers and the stream are checked as well.
   */
  const struct xqkv_plan *plan;
  /**
   * CUDA: a CUevent to wait for first. Host: must be NULL.
   */
  void *wait_event;
  /**
   * CUDA: a CUevent to record last. Host: must be NULL.
   */
  void *signal_event;
  /**
   * How many encoder rows each rank has, one number for each rank of the projection's
   * communicator, or NULL: then every rank has all of them. With it, `encoder` has this rank's
   * rows only (none is legal, with `data` NULL), and K and V are of all ranks' rows in the order
   * of ranks: key and value have as many rows as the sum. The same on all ranks.
   */
  const int64_t *encoder_rank_rows;
  /**
   * With encoder_rank_rows: most rows that are sent in one transfer, so that products of earlier
   * ones run beside it; 0 leaves it to the library. The same on all ranks.
   */
  int64_t chunk_rows;
} xqkv_forward;

/**
 * By which the ranks of an NCCL communicator find each other: the bytes of an ncclUniqueId. One
 * rank makes it and gives it to the others.
 *
 * It is a secret. It holds the address where that rank listens, whoever has it can join in a
 * rank's place and read what ranks tell each other, and NCCL asks for nothing else and encrypts
 * nothing: hand it over by a channel that is authenticated and private, take none from anybody
 * who is not trusted, since a rank connects to the address in it, and do not log it. The library
 * never does.
 */
typedef struct xqkv_unique_id {
  /**
   * To be copied as they are.
   */
  uint8_t bytes[128];
} xqkv_unique_id;

/**
 * How a plan is made. All zeros is the default.
 */
typedef struct xqkv_plan_options {
  /**
   * Set by xqkv_plan_options_init.
   */
  uint32_t struct_size;
  /**
   * Values of xqkv_plan_flag.
   */
  uint32_t flags;
  /**
   * Bytes that every `data` pointer of every call will be a multiple of: a power of two up to
   * 256; 0 is 16, which is all that vector loads ask for. A smaller one is for rows that begin
   * anywhere; a call that breaks the promise is PLAN_MISMATCH.
   */
  int64_t alignment_bytes;
  /**
   * CUDA: most workspace that calls will lend; 0 is what NVIDIA recommends for the device (32
   * MiB on Hopper, 4 MiB before), -1 is none.
   */
  int64_t workspace_limit;
} xqkv_plan_options;

/**
 * The workspace of a plan's calls.
 */
typedef struct xqkv_workspace {
  /**
   * Set by xqkv_workspace_init.
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Bytes without which a call is WORKSPACE_TOO_SMALL. On the host 0 without slots; on CUDA 0
   * where matmuls write the views and read the rows (docs/matmuls.md).
   */
  int64_t minimum_bytes;
  /**
   * Bytes with which calls are fastest; less is used as far as it goes. Never less for a plan of
   * more rows.
   */
  int64_t recommended_bytes;
  /**
   * What its address must be a multiple of.
   */
  int64_t alignment_bytes;
} xqkv_workspace;

/**
 * What a rank holds of a spec. All zeros is the whole.
 */
typedef struct xqkv_projection_options {
  /**
   * Set by xqkv_projection_options_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_split.
   */
  int32_t split;
  /**
   * EVEN and QUERY: this rank, from 0. EXPLICIT: must be 0.
   */
  int64_t rank;
  /**
   * EVEN and QUERY: how many ranks there are; 0 is 1. EXPLICIT: must be 0.
   */
  int64_t rank_count;
  /**
   * EXPLICIT: the first head of Q.
   */
  int64_t query_head_begin;
  /**
   * EXPLICIT: heads of Q; 0 is legal, and makes calls with decoder rows do nothing.
   */
  int64_t query_head_count;
  /**
   * EXPLICIT: the first head of K and V.
   */
  int64_t key_value_head_begin;
  /**
   * EXPLICIT: heads of K and V; 0 is legal, and makes calls with encoder rows do nothing.
   * Unless one side has none, they include the head that each query head attends to.
   */
  int64_t key_value_head_count;
  /**
   * The first layer of this rank, for ranks of a pipeline.
   */
  int64_t layer_begin;
  /**
   * Layers of this rank; 0 is all from layer_begin on.
   */
  int64_t layer_count;
  /**
   * The ranks' communicator, or NULL. With it, xqkv_projection_create and xqkv_update_commit are
   * calls that all ranks make, and end on all of them alike; EVEN and QUERY must name the
   * communicator's rank and rank_count, or leave both 0 to take them from it. The projection
   * keeps what is behind the handle. Outputs sharded by head need none.
   */
  const struct xqkv_comm *comm;
  /**
   * Values of xqkv_projection_flag, added up.
   */
  uint64_t flags;
} xqkv_projection_options;

/**
 * What one rank holds: which heads and layers of the uncut whole, and the sizes that follow.
 * Filled in by xqkv_spec_cut and xqkv_projection_get_shard.
 */
typedef struct xqkv_shard {
  /**
   * Set by xqkv_shard_init.
   */
  uint32_t struct_size;
  /**
   * The first head of Q.
   */
  int64_t query_head_begin;
  /**
   * Heads of Q; may be 0.
   */
  int64_t query_head_count;
  /**
   * The first head of K and V.
   */
  int64_t key_value_head_begin;
  /**
   * Heads of K and V; may be 0.
   */
  int64_t key_value_head_count;
  /**
   * The first layer.
   */
  int64_t layer_begin;
  /**
   * Layers.
   */
  int64_t layer_count;
  /**
   * Columns of this rank's Q: its heads times head_width.
   */
  int64_t query_columns;
  /**
   * Columns of this rank's K.
   */
  int64_t key_columns;
  /**
   * Columns of this rank's V.
   */
  int64_t value_columns;
  /**
   * Bytes of this rank's weights in the spec's dtype, and of its biases and norms in f32, all
   * layers, before the padding of a backend (the host pads each matrix to a multiple of 16
   * rows, or 32 with AVX-512).
   */
  int64_t weight_bytes;
} xqkv_shard;

/**
 * What one forward did, counted where it was done. Written only when the call succeeds.
 */
typedef struct xqkv_stats {
  /**
   * Set by xqkv_stats_init.
   */
  uint32_t struct_size;
  /**
   * Multiply-adds that were executed for outputs that were asked for: rows x columns x inner
   * width of every tile that ran. The necessary ones are rows x this rank's columns x inner
   * width; compute them from the shapes, and the two are equal.
   */
  int64_t multiply_adds;
  /**
   * Multiply-adds that were executed beside them because vectors have a fixed length: the
   * lanes beyond a matrix's last column. They cost no time of their own.
   */
  int64_t padding_multiply_adds;
  /**
   * Matrix products that the work was given to the backend as: one for Q, one for K and one for
   * V of each layer on the host; calls of cublasLtMatmul on CUDA, as docs/matmuls.md has them.
   */
  int64_t matmuls;
  /**
   * Which commit's weights the whole call ran on: 1 for the first.
   */
  int64_t weights_version;
  /**
   * Plans that were made because none was given, and no earlier call was like this one.
   */
  int64_t plans_made;
  /**
   * Transfers between ranks that the call started; 0 for outputs that stay sharded by head.
   */
  int64_t transfers;
  /**
   * Bytes that came from other ranks by them.
   */
  int64_t received_bytes;
} xqkv_stats;

/**
 * A weight, a bias or a norm in the caller's memory, to be loaded by xqkv_update_put. `data` needs
 * no alignment, since it may lie in a mapped file.
 */
typedef struct xqkv_tensor {
  /**
   * Set by xqkv_tensor_init.
   */
  uint32_t struct_size;
  /**
   * An xqkv_dtype.
   */
  int32_t dtype;
  /**
   * The first element. Read only during the call, unless borrowed.
   */
  const void *data;
  /**
   * Output features, whatever the layout. A bias has one element for each. Of a norm head_width.
   */
  int64_t rows;
  /**
   * Input features, whatever the layout. Biases and norms have 1, or 0 for the same.
   */
  int64_t columns;
  /**
   * Elements from one output to the next; 0 is `columns`. With XQKV_LAYOUT_IN_OUT elements from
   * one input to the next; 0 is `rows`. A bias may be a column of a matrix.
   */
  int64_t row_stride;
  /**
   * An xqkv_extent.
   */
  int32_t extent;
  /**
   * 1 converts a weight of another dtype than the spec's, with one rounding to nearest even, or
   * to integers as weight_dtype of xqkv_spec says; 0 refuses it. Biases and norms are kept in
   * f32 and always converted, which is exact.
   */
  int32_t convert;
  /**
   * An xqkv_layout. Biases and norms have none, and it is not looked at.
   */
  int32_t layout;
  /**
   * An xqkv_fused_order, of a fused weight or bias.
   */
  int32_t fused_order;
  /**
   * An xqkv_memory.
   */
  int32_t memory;
  /**
   * An xqkv_ownership.
   */
  int32_t ownership;
  /**
   * Of XQKV_DTYPE_INT8: the scales, where the weight is too and in any alignment, one for each
   * block of scale_block_rows x scale_block_columns elements; read only during the call. An
   * element counts as its integer times its block's scale. Blocks have whole rows: those of 1
   * row have a scale for each output, one of all rows has one for the tensor. Otherwise NULL.
   */
  const void *scale;
  /**
   * Of XQKV_DTYPE_INT8: an xqkv_dtype of floating-point numbers, of `scale`; otherwise 0.
   */
  int32_t scale_dtype;
  /**
   * Must be 0.
   */
  int32_t reserved;
  /**
   * Of XQKV_DTYPE_INT8: rows that share a scale, of outputs whatever the layout; otherwise 0.
   */
  int64_t scale_block_rows;
  /**
   * Of XQKV_DTYPE_INT8: columns that share a scale, which are all; otherwise 0.
   */
  int64_t scale_block_columns;
} xqkv_tensor;



#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * How many handles are alive: made and not yet destroyed, of every kind, in this process. 0 when
 * an engine has cleaned up; the registry hides a forgotten one from leak checkers. Any thread.
 */
int64_t xqkv_handle_count(void);

/**
 * Fills the struct with zeros. `size` is sizeof(xqkv_checkpoint).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_checkpoint_init(struct xqkv_checkpoint *checkpoint, size_t size);

/**
 * Holds a checkpoint against a spec, tensor by tensor, and writes what was found as one JSON
 * object: "family", and lists. "used", "missing" and "misshaped" have an object for each tensor
 * that the spec needs: "name", "layer" (numbered as in xqkv_spec), "checkpoint_layer" (the
 * checkpoint's own number), "part", "kind", "shape" (null if missing) and "needed_shape".
 * "unused" has the names of the other tensors of the same attention modules, such as the output
 * projection's. Reads the headers of the checkpoint's files, no weights.
 *
 * The text goes to `text`, NUL-terminated, if its `text_bytes` suffice; `*needed_bytes` is what
 * it takes. With `text` NULL and `text_bytes` 0 only the latter is written. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
 * MISALIGNED, BUFFER_TOO_SMALL (`*needed_bytes` is written), NOT_SUPPORTED, OUT_OF_MEMORY,
 * CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT, CHECKPOINT_UNKNOWN_FAMILY,
 * CHECKPOINT_MISMATCH.
 */
xqkv_status xqkv_checkpoint_report(const struct xqkv_checkpoint *checkpoint,
                                   const struct xqkv_spec *spec,
                                   char *text,
                                   int64_t text_bytes,
                                   int64_t *needed_bytes,
                                   struct xqkv_error *error);

/**
 * Fills the struct with zeros. `size` is sizeof(xqkv_collectives).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_collectives_init(struct xqkv_collectives *collectives, size_t size);

/**
 * Fills the options with zeros. `size` is sizeof(xqkv_comm_options).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_comm_options_init(struct xqkv_comm_options *options, size_t size);

/**
 * Prepares the info to be filled in. `size` is sizeof(xqkv_comm_info).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_comm_info_init(struct xqkv_comm_info *info, size_t size);

/**
 * Makes the communicator of a single rank, for engines that have one code path for any number.
 * `options` may be NULL. `*comm` is written only on success, and is the caller's to destroy. Any
 * thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_comm_create_alone(const struct xqkv_comm_options *options,
                                   struct xqkv_comm **comm,
                                   struct xqkv_error *error);

/**
 * Makes the communicators of ranks that are threads of this process and have their rows and
 * results in host memory: `comms[rank]` for each of `rank_count` ranks, 1 to 4,096. Each is then
 * used by its rank's own thread; transfers are copies, and no thread is started. Threads that
 * drive CUDA devices use NCCL. `options` may be NULL. `comms` is written only on success, and its
 * communicators are the caller's to destroy, one by one. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_comm_create_threads(const struct xqkv_comm_options *options,
                                     int64_t rank_count,
                                     struct xqkv_comm **comms,
                                     struct xqkv_error *error);

/**
 * Makes this rank's communicator over the engine's own collectives, such as MPI's or
 * torch.distributed's; see xqkv_collectives. The struct is copied; what its `user` points to must
 * stay until the communicator is destroyed and no call runs on it. Tells the other ranks nothing.
 * `options` may be NULL. `*comm` is written only on success, and is the caller's to destroy. Any
 * thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, MISALIGNED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_comm_create_collectives(const struct xqkv_comm_options *options,
                                         const struct xqkv_collectives *collectives,
                                         int64_t rank,
                                         int64_t rank_count,
                                         struct xqkv_comm **comm,
                                         struct xqkv_error *error);

/**
 * Tells what a communicator is. `info` must have been initialised. Any thread, at any time.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
 */
xqkv_status xqkv_comm_get_info(const struct xqkv_comm *comm,
                               struct xqkv_comm_info *info,
                               struct xqkv_error *error);

/**
 * Looks whether all is well, without waiting: OK, also while transfers are under way. An engine
 * whose streams may wait for a lost rank calls it now and then: past the deadline of the oldest
 * transfer under way it ends them all, so that the streams go on, and answers TIMED_OUT. Any
 * thread, at any time.
 *
 * Returns: NULL_ARGUMENT, INVALID_HANDLE, PEER_LOST, TIMED_OUT, COMM_POISONED.
 */
xqkv_status xqkv_comm_poll(const struct xqkv_comm *comm, struct xqkv_error *error);

/**
 * Ends all transfers, here and on the other ranks, which are told PEER_LOST as soon as what
 * carries the bytes can tell them. A call of this rank that waits for one returns PEER_LOST. For
 * an engine that gives up. Does nothing to a communicator that has failed already. Any thread, at
 * any time.
 *
 * Returns: NULL_ARGUMENT, INVALID_HANDLE.
 */
xqkv_status xqkv_comm_abort(struct xqkv_comm *comm, struct xqkv_error *error);

/**
 * Unmakes a communicator: the handle is invalid from here on. Projections that were given it keep
 * what is behind it until they are destroyed or given another. Waits for nobody, except as
 * xqkv_comm_create_nccl tells; what the engine lent (an ncclComm_t, collectives) is not destroyed.
 * NULL does nothing. Any thread.
 *
 * Returns: INVALID_HANDLE.
 */
xqkv_status xqkv_comm_destroy(struct xqkv_comm *comm, struct xqkv_error *error);

/**
 * Fills the options with defaults. `size` is sizeof(xqkv_context_options).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_context_options_init(struct xqkv_context_options *options, size_t size);

/**
 * Prepares the info to be filled in. `size` is sizeof(xqkv_context_info).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_context_info_init(struct xqkv_context_info *info, size_t size);

/**
 * Makes a context. `options` may be NULL for the defaults; it is copied. `*context` is written
 * only on success, and is the caller's to destroy. Starts the host's threads. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, MISALIGNED,
 * NOT_SUPPORTED, THREAD_FAILED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_context_create(const struct xqkv_context_options *options,
                                struct xqkv_context **context,
                                struct xqkv_error *error);

/**
 * Unmakes a context: the handle is invalid from here on, and the threads end when the last
 * projection made from it is gone. NULL does nothing. Never waits for a running forward. Any
 * thread.
 *
 * Returns: INVALID_HANDLE.
 */
xqkv_status xqkv_context_destroy(struct xqkv_context *context, struct xqkv_error *error);

/**
 * Tells what the context turned out to be. `info` must have been initialised. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
 */
xqkv_status xqkv_context_get_info(const struct xqkv_context *context,
                                  struct xqkv_context_info *info,
                                  struct xqkv_error *error);

/**
 * Frees device memory of weights that no projection has any more: those that a commit replaced,
 * and those of destroyed projections. It cannot be freed right then, since work that was launched
 * with it may still run, and graphs that captured it may be launched again; so it is retired, and
 * goes
 *
 *     after the work that is now on `streams`, if there are any, or
 *     at once with stream_count 0, which is the caller's word that no such work is left, or
 *     with the context and the last projection made from it, which is the same word.
 *
 * Graphs that captured the old weights must be captured anew before. With one stream, the free
 * callback is called with it at once; without callbacks this call records an event on each stream
 * and never waits, so memory whose work is not done is freed by a later call. `waiting_bytes` may
 * be NULL; it gets how much that is. Does nothing on the host. Any thread.
 *
 * Returns: NULL_ARGUMENT, MISALIGNED, INVALID_HANDLE, INVALID_ARGUMENT, DEVICE_REFUSED.
 */
xqkv_status xqkv_context_reclaim(const struct xqkv_context *context,
                                 void *const *streams,
                                 int64_t stream_count,
                                 int64_t *waiting_bytes,
                                 struct xqkv_error *error);

/**
 * Bytes of one element of a dtype, of integers without their scales, or 0 if the number is not an
 * xqkv_dtype. Any thread.
 */
int64_t xqkv_dtype_bytes(int32_t dtype);

/**
 * The name of a dtype as it stands in this header, such as "XQKV_DTYPE_BF16", or NULL if the
 * number is not an xqkv_dtype. The text lives as long as the library. Any thread.
 */
const char *xqkv_dtype_name(int32_t dtype);

/**
 * Fills the call with zeros: both inputs absent. `size` is sizeof(xqkv_forward).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_forward_init(struct xqkv_forward *forward, size_t size);

/**
 * Makes an id for one communicator, on one rank. Loads NCCL, which listens from then on until all
 * ranks have come. No device is needed. `unique_id` is written only on success. Any thread.
 *
 * Returns: NULL_ARGUMENT, MISALIGNED, LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED.
 */
xqkv_status xqkv_unique_id_create(struct xqkv_unique_id *unique_id, struct xqkv_error *error);

/**
 * Makes this rank's communicator over NCCL, on the device of a CUDA `context`, and waits until
 * all `rank_count` ranks do the same with one `unique_id`, each in a thread or process of its own
 * and on a device of its own; TIMED_OUT if they do not by the deadline. `options` may be NULL.
 * `*comm` is written only on success, and is the caller's to destroy. Any thread.
 *
 * Transfers are put on streams, in whose order they are done, and a forward does not wait for
 * them. They may be captured, on all ranks alike; a graph must go before the communicator does.
 * NCCL keeps memory of its own on the device, some hundred megabytes with many ranks.
 *
 * NCCL wants one thread at a time for all communicators of a device: the library's take turns. An
 * engine that has communicators of its own there must start their transfers and calls with
 * transfers in the same order on all ranks, and not from two threads at a time.
 *
 * A device cannot tell that a rank is lost: xqkv_comm_poll and XQKV_COMM_FLAG_WATCHDOG look for
 * transfers that are past their deadline, and then abort NCCL's communicator, which frees the
 * streams. Transfers in a graph are not looked for.
 *
 * The last to let go of it, xqkv_comm_destroy or a projection's end, waits for this rank's
 * transfers, at most to their deadlines, and ends NCCL's communicator.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ARGUMENT, MISALIGNED,
 * LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED, OUT_OF_MEMORY, THREAD_FAILED,
 * TOO_MANY_HANDLES, PEER_LOST, TIMED_OUT.
 */
xqkv_status xqkv_comm_create_nccl(const struct xqkv_context *context,
                                  const struct xqkv_comm_options *options,
                                  const struct xqkv_unique_id *unique_id,
                                  int64_t rank,
                                  int64_t rank_count,
                                  struct xqkv_comm **comm,
                                  struct xqkv_error *error);

/**
 * Makes a communicator of one of the engine's own: `nccl_comm` is this rank's ncclComm_t on the
 * device of a CUDA `context`, of the NCCL that the process has loaded as libnccl.so.2 or that
 * XQKV_NCCL_LIBRARY names. Tells the other ranks nothing. It stays the engine's: it is never
 * destroyed and never aborted, must outlive what is made here and the projections that were given
 * it, and the engine uses it for nothing else while a call with transfers runs. After a loss the
 * engine aborts it. One that blocks (config.blocking = 1) makes calls wait without a deadline
 * where NCCL does. `options` may be NULL. `*comm` is written only on success, and is the caller's
 * to destroy. All else is as for xqkv_comm_create_nccl. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ARGUMENT, MISALIGNED,
 * LIBRARY_MISSING, LIBRARY_UNSUITABLE, DEVICE_REFUSED, OUT_OF_MEMORY, THREAD_FAILED,
 * TOO_MANY_HANDLES, PEER_LOST, TIMED_OUT.
 */
xqkv_status xqkv_comm_adopt_nccl(const struct xqkv_context *context,
                                 const struct xqkv_comm_options *options,
                                 void *nccl_comm,
                                 struct xqkv_comm **comm,
                                 struct xqkv_error *error);

/**
 * Fills the options with zeros. `size` is sizeof(xqkv_plan_options).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_plan_options_init(struct xqkv_plan_options *options, size_t size);

/**
 * Prepares the workspace's sizes to be filled in. `size` is sizeof(xqkv_workspace).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_workspace_init(struct xqkv_workspace *workspace, size_t size);

/**
 * Makes a plan for calls like `example`: its layer_count, the dtypes and strides of its inputs and
 * views, and its row counts, which become the most that a call may have. Data pointers only tell
 * which sides there are and how key and value lie to each other: both in one buffer, or value
 * somewhere behind key, or before it. They are not read, and nothing is written. `options` may be
 * NULL. Needs the weights of the example's layer to be loaded. `*plan` is written only on success,
 * and is the caller's to destroy. Allocates and asks the device's libraries; not for a thread that
 * must not wait. Launches nothing, unless timed. Any thread.
 *
 * Returns: what xqkv_projection_forward refuses, and NULL_ARGUMENT, INVALID_ARGUMENT (options),
 * MISALIGNED, NOT_SUPPORTED (no algorithm for such a call), DEVICE_REFUSED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_plan_create(const struct xqkv_projection *projection,
                             const struct xqkv_forward *example,
                             const struct xqkv_plan_options *options,
                             struct xqkv_plan **plan,
                             struct xqkv_error *error);

/**
 * Unmakes a plan: the handle is invalid from here on. Never waits; calls that run by it end as if
 * nothing had happened, and graphs that captured them stay good. NULL does nothing. Any thread.
 *
 * Returns: INVALID_HANDLE.
 */
xqkv_status xqkv_plan_destroy(struct xqkv_plan *plan, struct xqkv_error *error);

/**
 * Tells what workspace the plan's calls take. `workspace` must have been initialised. Lend each
 * call memory of the device's in `xqkv_forward.workspace`: one for each stream that runs at the
 * same time, for as long as graphs live that captured it. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED, INVALID_HANDLE.
 */
xqkv_status xqkv_plan_get_workspace(const struct xqkv_plan *plan,
                                    struct xqkv_workspace *workspace,
                                    struct xqkv_error *error);

/**
 * Fills the options with zeros. `size` is sizeof(xqkv_projection_options).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_projection_options_init(struct xqkv_projection_options *options, size_t size);

/**
 * Fills in an EXPLICIT split for a rank of any number of ranks: shares of heads that differ by at
 * most one, no head where ranks outnumber them, key/value heads replicated only then. Other
 * fields stay as they are. Where EVEN is possible the heads are the same as EVEN's. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
 * MISALIGNED, NOT_SUPPORTED.
 */
xqkv_status xqkv_projection_options_balance(struct xqkv_projection_options *options,
                                            const struct xqkv_spec *spec,
                                            int64_t rank,
                                            int64_t rank_count,
                                            struct xqkv_error *error);

/**
 * Makes a projection without weights; xqkv_update_begin loads them. `options` may be NULL for
 * the whole. `*projection` is written only on success, and is the caller's to destroy; context,
 * spec and options may go at once. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, INVALID_ENUM, INVALID_ARGUMENT,
 * SIZE_OVERFLOW, MISALIGNED, INDIVISIBLE_HEADS (the message names an explicit split that works),
 * LAYER_OUT_OF_RANGE, NOT_SUPPORTED, OUT_OF_MEMORY, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_projection_create(const struct xqkv_context *context,
                                   const struct xqkv_spec *spec,
                                   const struct xqkv_projection_options *options,
                                   struct xqkv_projection **projection,
                                   struct xqkv_error *error);

/**
 * Gives a projection another communicator, or none for NULL: after one has failed, a new one makes
 * calls with transfers possible again. All ranks call it, with communicators of the same ranks as
 * before, and it ends on all of them alike. Weights, plans and their version stay; other calls may
 * run meanwhile, and those with transfers run to their end on the communicator that they began on.
 * Any thread.
 *
 * Returns, with nothing changed: NULL_ARGUMENT, INVALID_HANDLE, INVALID_ARGUMENT, NOT_SUPPORTED,
 * MISMATCH, PEER_LOST, TIMED_OUT, COMM_POISONED, DEVICE_REFUSED, OUT_OF_MEMORY.
 */
xqkv_status xqkv_projection_set_comm(struct xqkv_projection *projection,
                                     const struct xqkv_comm *comm,
                                     struct xqkv_error *error);

/**
 * Unmakes a projection: the handle is invalid from here on. Never waits; a forward that runs on
 * another thread ends as if nothing had happened, and the weights go with the last one. NULL does
 * nothing. Any thread.
 *
 * Returns: INVALID_HANDLE.
 */
xqkv_status xqkv_projection_destroy(struct xqkv_projection *projection, struct xqkv_error *error);

/**
 * Tells what this rank holds. `shard` must have been initialised. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
 */
xqkv_status xqkv_projection_get_shard(const struct xqkv_projection *projection,
                                      struct xqkv_shard *shard,
                                      struct xqkv_error *error);

/**
 * Tells which commit the weights come from: 0 before the first, then 1, 2, 3 and so on. Any
 * thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED.
 */
xqkv_status xqkv_projection_get_weights_version(const struct xqkv_projection *projection,
                                                int64_t *weights_version,
                                                struct xqkv_error *error);

/**
 * Projects: Q from decoder rows if there are any, K and V from encoder rows if there are any, and
 * nothing else. See xqkv_forward for shapes. `stats` may be NULL; it is written only on success.
 *
 * On the host the call is done when it returns; it uses the context's threads if they are free
 * and else the caller's own. A row's bits depend on that row, the weights and the instruction set
 * only: not on the batch it came in, the threads, the ranks or the layout. NaN and infinity
 * propagate as in f32 arithmetic. An output differs from the exact result by at most
 *
 *     g * (sum |x||w| + |b|) * |scale|, and half a unit in the last place of its dtype
 *     g = n * 2^-24 / (1 - n * 2^-24), n = inner width + 2
 *
 * (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Adding to what is there
 * is one rounding of the sum to f32 more. Through a norm, let e[j] be that difference of a head's
 * lane y[j] before its scale, r its root mean square with norm_epsilon, and R the root mean square
 * of e: a result differs by at most
 *
 *     |scale * weight[j]| * (d + g(head_width + 8) * (|y[j]| / r + d)), and half a unit as above
 *     d = (e[j] + |y[j]| * R / r) / max(r - R, sqrt(norm_epsilon))
 *
 * and by |scale * weight[j]| half units in the last place of y[j] / r with norm_rounds_first.
 *
 * On CUDA the call puts its work on `stream` and returns; rows and views must stay until that work
 * is done, and results are good behind it on the stream. Rows are of the weights' dtype, results
 * of that dtype or f32; sums are in f32. A bias is scaled and rounded to the results' dtype when
 * it is loaded, and each of these roundings adds half a unit in the last place of the bias to the
 * bound. With a plan the call makes one call of cublasLtMatmul for each product and one launch for
 * each kernel (docs/matmuls.md), two driver calls to have the context current, and one more for
 * each of wait_event and signal_event; it allocates, asks, waits for and locks nothing, so it may
 * be captured in a graph. Then pointers are not checked: a wrong one fails as any kernel's would.
 * Any thread.
 *
 * Returns, with nothing written: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
 * INVALID_ENUM, INVALID_ARGUMENT (also indices out of range, on the host), SIZE_OVERFLOW,
 * INVALID_STRIDE, MISALIGNED, OVERLAP (also two rows in one place, on the host),
 * LAYER_OUT_OF_RANGE, NOT_READY (the message names the weights), WORKSPACE_TOO_SMALL (the message
 * names both sizes), NOT_SUPPORTED, PLAN_MISMATCH, PLAN_NEEDED, WRONG_MEMORY, DEVICE_REFUSED. With
 * the outputs undefined: DEVICE_FAILED, CALLBACK_FAILED.
 */
xqkv_status xqkv_projection_forward(const struct xqkv_projection *projection,
                                    const struct xqkv_forward *forward,
                                    struct xqkv_stats *stats,
                                    struct xqkv_error *error);

/**
 * Prepares the shard to be filled in. `size` is sizeof(xqkv_shard).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_shard_init(struct xqkv_shard *shard, size_t size);

/**
 * Fills the spec with zeros. `size` is sizeof(xqkv_spec).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_spec_init(struct xqkv_spec *spec, size_t size);

/**
 * Checks a spec as xqkv_projection_create does, without making anything. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
 * MISALIGNED, NOT_SUPPORTED.
 */
xqkv_status xqkv_spec_check(const struct xqkv_spec *spec, struct xqkv_error *error);

/**
 * Computes what one rank holds of a spec, without making anything: heads, layers and bytes.
 * `options` may be NULL for the whole. `shard` must have been initialised. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, SIZE_OVERFLOW,
 * MISALIGNED, INDIVISIBLE_HEADS (the message names an explicit split that works),
 * LAYER_OUT_OF_RANGE, NOT_SUPPORTED.
 */
xqkv_status xqkv_spec_cut(const struct xqkv_spec *spec,
                          const struct xqkv_projection_options *options,
                          struct xqkv_shard *shard,
                          struct xqkv_error *error);

/**
 * Fills in a spec from a checkpoint's config.json and the dtype of its tensors: sizes, heads,
 * biases, norm and layers, with scales of 1. `spec` must have been initialised, and is
 * written only on success. Reads the headers of the checkpoint's files, no weights. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ARGUMENT, SIZE_OVERFLOW, MISALIGNED,
 * OUT_OF_MEMORY, CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT,
 * CHECKPOINT_UNKNOWN_FAMILY, CHECKPOINT_MISSING_TENSOR, CHECKPOINT_MISMATCH, NOT_SUPPORTED (a
 * tensor_pattern).
 */
xqkv_status xqkv_spec_read_checkpoint(struct xqkv_spec *spec,
                                      const struct xqkv_checkpoint *checkpoint,
                                      struct xqkv_error *error);

/**
 * Prepares the stats to be filled in. `size` is sizeof(xqkv_stats).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_stats_init(struct xqkv_stats *stats, size_t size);

/**
 * The name of a status as it stands in this header, such as "XQKV_STATUS_NOT_READY"; never NULL,
 * and "XQKV_STATUS_UNKNOWN" for a number this version does not have. The text lives as long as
 * the library. Any thread.
 */
const char *xqkv_status_name(int32_t status);

/**
 * What a failed call with this status left behind: an xqkv_effect, or 0 for a number this version
 * does not have. Any thread.
 */
int32_t xqkv_status_effect(int32_t status);

/**
 * Fills the tensor with zeros. `size` is sizeof(xqkv_tensor).
 *
 * Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
 */
xqkv_status xqkv_tensor_init(struct xqkv_tensor *tensor, size_t size);

/**
 * Begins an update of a projection's weights. Forwards go on undisturbed until it is committed.
 * `*update` is written only on success, and is the caller's to commit or abandon. Any thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED, TOO_MANY_HANDLES.
 */
xqkv_status xqkv_update_begin(const struct xqkv_projection *projection,
                              struct xqkv_update **update,
                              struct xqkv_error *error);

/**
 * Puts one tensor of one layer into the update: `part` is an xqkv_part, `kind` an xqkv_kind.
 * Only this rank's elements are read of host memory, and copied before the call returns. Shapes:
 * a weight has `rows` outputs and `columns` inputs, a bias as many outputs, which are heads times
 * head width of the part, of the uncut layer or of this rank as `tensor->extent` says; a fused
 * part has the sum of its parts' outputs. How they lie is `tensor->layout` and, of a fused part,
 * `tensor->fused_order`. A norm has head_width `rows`, whatever the extent. Any thread.
 *
 * Returns, with the update as it was: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
 * INVALID_ENUM, INVALID_ARGUMENT (a bias or a norm that the spec does not have, scales that the
 * dtype does not have or lacks, an element that is not finite and is to become an integer),
 * SIZE_OVERFLOW, INVALID_STRIDE, MISALIGNED, INVALID_SHAPE, INVALID_DTYPE, LAYER_OUT_OF_RANGE,
 * DUPLICATE_PART, NOT_SUPPORTED, OUT_OF_MEMORY, HANDLE_POISONED, WRONG_MEMORY, DEVICE_REFUSED.
 */
xqkv_status xqkv_update_put(struct xqkv_update *update,
                            int64_t layer,
                            int32_t part,
                            int32_t kind,
                            const struct xqkv_tensor *tensor,
                            struct xqkv_error *error);

/**
 * Makes the commit remove a tensor of one layer, instead of keeping it as it was. A forward that
 * needs it answers NOT_READY from then on. Any thread.
 *
 * Returns, with the update as it was: NULL_ARGUMENT, INVALID_HANDLE, INVALID_ENUM,
 * INVALID_ARGUMENT, LAYER_OUT_OF_RANGE, DUPLICATE_PART, HANDLE_POISONED.
 */
xqkv_status xqkv_update_clear(struct xqkv_update *update,
                              int64_t layer,
                              int32_t part,
                              int32_t kind,
                              struct xqkv_error *error);

/**
 * Puts all of this rank's layers from a checkpoint into the update, reading this rank's bytes
 * and the files' headers only. The checkpoint must have each weight, bias and norm that the spec
 * has, in the spec's shape, and no bias that the spec lacks. A norm that the spec lacks is left to
 * the caller. Any thread.
 *
 * Returns, with the update as it was: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE,
 * INVALID_ARGUMENT, MISALIGNED, INVALID_SHAPE, INVALID_DTYPE, LAYER_OUT_OF_RANGE, DUPLICATE_PART,
 * OUT_OF_MEMORY, HANDLE_POISONED, CHECKPOINT_NOT_FOUND, CHECKPOINT_UNREADABLE, CHECKPOINT_CORRUPT,
 * CHECKPOINT_UNKNOWN_FAMILY, CHECKPOINT_MISSING_TENSOR, CHECKPOINT_MISMATCH.
 */
xqkv_status xqkv_update_read_checkpoint(struct xqkv_update *update,
                                        const struct xqkv_checkpoint *checkpoint,
                                        struct xqkv_error *error);

/**
 * Tells how many bytes a commit of the update as it is would take from the backend's memory: on
 * CUDA exactly what the allocate callback, or the driver, will be asked for in one piece; on the
 * host the packed matrices, biases and norms that are new. Weights that are borrowed take none.
 * Takes nothing. Any thread.
 *
 * Returns: NULL_ARGUMENT, MISALIGNED, INVALID_HANDLE, SIZE_OVERFLOW, HANDLE_POISONED.
 */
xqkv_status xqkv_update_get_commit_bytes(const struct xqkv_update *update,
                                         int64_t *commit_bytes,
                                         struct xqkv_error *error);

/**
 * Makes the update the projection's weights, all at once: forwards that begin later run on them,
 * forwards that are running end on the old ones. Parts that it was not given stay as they are,
 * and it may leave parts missing. `weights_version` may be NULL; it gets the new version's number.
 * On success the handle is invalid; on failure the update is as it was, to be committed again or
 * abandoned. Packs or uploads the weights, so it takes a while; forwards go on meanwhile.
 *
 * On CUDA a commit takes one new piece of device memory for all weights that are not borrowed, and
 * copies on the device what it was not given; it waits for its own copies, so the new weights are
 * good on any stream when it returns. The old piece is retired: see xqkv_context_reclaim. Any
 * thread.
 *
 * Returns: NULL_ARGUMENT, INVALID_HANDLE, MISALIGNED, OUT_OF_MEMORY, HANDLE_POISONED,
 * NOT_SUPPORTED, DEVICE_REFUSED.
 */
xqkv_status xqkv_update_commit(struct xqkv_update *update,
                               int64_t *weights_version,
                               struct xqkv_error *error);

/**
 * Drops the update and all that was put into it; the projection stays as it is. NULL does
 * nothing. Waits for a call that fills or commits the update on another thread; behind a commit
 * it answers INVALID_HANDLE. Any thread.
 *
 * Returns: INVALID_HANDLE.
 */
xqkv_status xqkv_update_abandon(struct xqkv_update *update, struct xqkv_error *error);

/**
 * The library's version as one number, major · 1000000 + minor · 1000 + patch. Compare with
 * XQKV_VERSION_NUMBER, the header's. Any thread.
 */
int32_t xqkv_version_number(void);

/**
 * The library's version as text, such as "0.1.0". Compare with XQKV_VERSION_STRING, the header's.
 * The text lives as long as the library. Any thread.
 */
const char *xqkv_version_string(void);

/**
 * The library's XQKV_VERSION_ABI. A program must not go on when it differs from the header's.
 * Any thread.
 */
int32_t xqkv_version_abi(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* XQKV_H */
