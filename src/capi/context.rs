//! `xqkv_context`: one backend on one device.

use super::boundary;
use super::error::xqkv_error;
use super::handle;
use super::log::{to_callback, xqkv_log_callback};
use super::parallel::{to_backend, xqkv_parallel_for_callback};
use super::plain::{self, Plain, ensure_pointer};
use crate::backend::{self, Backend};
use crate::error::{Error, Status, ensure, named_enum};
use crate::log::{Level, Log};
use std::ffi::c_void;
use std::sync::Arc;

/// One backend on one device: the host's threads, or one CUDA device. An opaque handle, made by
/// xqkv_context_create and unmade by xqkv_context_destroy.
///
/// Any thread may use it, several at once. Projections keep what they need of it, so it may be
/// destroyed before them. Ranks of one process may share one. On CUDA the calling thread's current
/// context is the same after every call as before it.
pub struct xqkv_context {
    _private: (),
}

/// Which backend a context is to be.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// CUDA if a device answers and cuBLASLt is found, else the host; the log says why.
    Auto = 0,
    /// The host's own threads.
    Host = 1,
    /// One CUDA device. Its driver (libcuda.so.1, or the file that XQKV_CUDA_LIBRARY names) and
    /// cuBLASLt (libcublasLt.so.13 or .12, or XQKV_CUBLASLT_LIBRARY) are loaded when they are first
    /// asked for; a copy that the process already holds is used.
    Cuda = 2,
}

named_enum!(BackendChoice {
    Auto => c"XQKV_BACKEND_AUTO",
    Host => c"XQKV_BACKEND_HOST",
    Cuda => c"XQKV_BACKEND_CUDA",
});

/// Which vector instructions the host's kernels use.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSetChoice {
    /// The best that the CPU has, or the one that the environment variable XQKV_ISA names:
    /// portable, avx2, avx512, avx512_bf16 or neon.
    Auto = 0,
    /// What every CPU of the target has. Its results are a class of their own, since multiply and
    /// add round separately.
    Portable = 1,
    /// 256-bit vectors with fused multiply-add (x86-64 AVX2, FMA and F16C).
    Avx2 = 2,
    /// 512-bit vectors with fused multiply-add (x86-64 AVX-512F). Bit for bit as AVX2.
    Avx512 = 3,
    /// The same, but bfloat16 rows times bfloat16 weights go through the CPU's dot product, at
    /// twice the speed. It adds two products at a time and takes denormals for zero, whatever the
    /// CPU's mode (Intel SDM, VDPBF16PS), so those bits are a class of their own; AVX512 is the
    /// exact mode of such a CPU.
    Avx512Bf16 = 4,
    /// 128-bit vectors with fused multiply-add (64-bit ARM). Bit for bit as AVX2.
    Neon = 5,
}

named_enum!(InstructionSetChoice {
    Auto => c"XQKV_INSTRUCTION_SET_AUTO",
    Portable => c"XQKV_INSTRUCTION_SET_PORTABLE",
    Avx2 => c"XQKV_INSTRUCTION_SET_AVX2",
    Avx512 => c"XQKV_INSTRUCTION_SET_AVX512",
    Avx512Bf16 => c"XQKV_INSTRUCTION_SET_AVX512_BF16",
    Neon => c"XQKV_INSTRUCTION_SET_NEON",
});

/// All but the choice that leaves it open, with what the backend calls them.
fn instruction_sets() -> [(InstructionSetChoice, backend::InstructionSet); 5] {
    [
        (InstructionSetChoice::Portable, backend::InstructionSet::Portable),
        (InstructionSetChoice::Avx2, backend::InstructionSet::Avx2),
        (InstructionSetChoice::Avx512, backend::InstructionSet::Avx512),
        (InstructionSetChoice::Avx512Bf16, backend::InstructionSet::Avx512Bf16),
        (InstructionSetChoice::Neon, backend::InstructionSet::Neon),
    ]
}

/// Gives memory of a device to the library: at least `bytes` bytes at a multiple of `alignment`,
/// ready for use on `stream`, or NULL. `user` is the pointer given beside the callback. It is
/// called by the thread that commits, with the context current, and must not call the library.
pub type xqkv_allocate_callback = Option<
    unsafe extern "C" fn(
        bytes: i64,
        alignment: i64,
        stream: *mut c_void,
        user: *mut c_void,
    ) -> *mut c_void,
>;

/// Takes memory back that the allocate callback gave, once work on `stream` is done with it; the
/// default stream (NULL) where no work is left. Called by the thread that reclaims, or that gives
/// up the last handle, with the context current; it must not call the library.
pub type xqkv_free_callback = Option<
    unsafe extern "C" fn(memory: *mut c_void, bytes: i64, stream: *mut c_void, user: *mut c_void),
>;

/// What to make a context from. Set every field that matters after xqkv_context_options_init;
/// zero is the default everywhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_context_options {
    /// Set by xqkv_context_options_init.
    pub struct_size: u32,
    /// An xqkv_backend.
    pub backend: i32,
    /// CUDA: the device's ordinal. Host: must be 0.
    pub device: i32,
    /// Host: threads that work on one call, the caller's included. 1 starts no thread at all;
    /// 0 is one for each CPU that the process may use. At most 1024. With `parallel_for`, how many
    /// threads the engine's pool has, which is how many tasks a call is offered as; 1 never calls
    /// it.
    pub thread_count: i32,
    /// Host: an xqkv_instruction_set. One that the CPU lacks is XQKV_STATUS_NOT_SUPPORTED.
    pub instruction_set: i32,
    /// An xqkv_log_level: the callback gets these lines and all that matter more. 0 is
    /// XQKV_LOG_LEVEL_WARNING.
    pub log_level: i32,
    /// Receives the log; NULL for none.
    pub log: xqkv_log_callback,
    /// Passed to `log`.
    pub log_user: *mut c_void,
    /// CUDA: gives device memory for weights; NULL for the driver's own. Host: must be NULL.
    pub allocate: xqkv_allocate_callback,
    /// CUDA: takes it back; given exactly when `allocate` is. Host: must be NULL.
    pub free: xqkv_free_callback,
    /// Passed to `allocate` and `free`.
    pub allocator_user: *mut c_void,
    /// Host: brings the engine's threads to the work of a forward; the context then starts none.
    /// NULL for the library's own. CUDA: must be NULL.
    pub parallel_for: xqkv_parallel_for_callback,
    /// Passed to `parallel_for`.
    pub parallel_for_user: *mut c_void,
    /// CUDA: the CUcontext of the engine's streams; NULL for the device's primary context. Host:
    /// must be NULL.
    pub cuda_context: *mut c_void,
    /// CUDA: a cublasLtHandle_t lent for the context's life; NULL to make one. Host: must be NULL.
    pub cublaslt_handle: *mut c_void,
}

/// What a context turned out to be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct xqkv_context_info {
    /// Set by xqkv_context_info_init.
    pub struct_size: u32,
    /// An xqkv_backend, never AUTO.
    pub backend: i32,
    /// CUDA: the device's ordinal. Host: 0.
    pub device: i32,
    /// Host: threads that work on one call, the caller's included. CUDA: 0.
    pub thread_count: i32,
    /// Host: an xqkv_instruction_set, never AUTO. CUDA: 0.
    pub instruction_set: i32,
    /// CUDA: ten times the major number and the minor one, such as 90. Host: 0.
    pub compute_capability: i32,
    /// CUDA: multiprocessors of the device. Host: 0.
    pub multiprocessor_count: i32,
    /// CUDA: as cuDriverGetVersion tells it, such as 13000. Host: 0.
    pub driver_version: i32,
    /// CUDA: as cublasLtGetVersion tells it, such as 130401. Host: 0.
    pub cublaslt_version: i64,
}

// SAFETY: repr(C), size first, and zero is a value of every field.
unsafe impl Plain for xqkv_context_options {
    const NAME: &'static str = "xqkv_context_options";
}

// SAFETY: as above.
unsafe impl Plain for xqkv_context_info {
    const NAME: &'static str = "xqkv_context_info";
}

/// What a context handle stands for.
pub(super) struct Context {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) log: Log,
}

/// Fills the options with defaults. `size` is sizeof(xqkv_context_options).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_options_init(
    options: *mut xqkv_context_options,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(options, size) })
}

/// Prepares the info to be filled in. `size` is sizeof(xqkv_context_info).
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_info_init(
    info: *mut xqkv_context_info,
    size: usize,
) -> Status {
    // SAFETY: the caller gives that many writable bytes.
    boundary::call(std::ptr::null_mut(), || unsafe { plain::init(info, size) })
}

/// Makes a context. `options` may be NULL for the defaults; it is copied. `*context` is written
/// only on success, and is the caller's to destroy. Starts the host's threads. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_ENUM, INVALID_ARGUMENT, MISALIGNED,
/// NOT_SUPPORTED, THREAD_FAILED, TOO_MANY_HANDLES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_create(
    options: *const xqkv_context_options,
    context: *mut *mut xqkv_context,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        ensure_pointer(context, "context")?;
        // SAFETY: NULL or a struct that begins with its size.
        let made = create(unsafe { read_options(options) }?)?;
        // SAFETY: not NULL and aligned.
        unsafe { *context = handle::insert(Arc::new(made))? };
        Ok(())
    })
}

/// Unmakes a context: the handle is invalid from here on, and the threads end when the last
/// projection made from it is gone. NULL does nothing. Never waits for a running forward. Any
/// thread.
///
/// Returns: INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_destroy(
    context: *mut xqkv_context,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || handle::remove(context))
}

/// Tells what the context turned out to be. `info` must have been initialised. Any thread.
///
/// Returns: NULL_ARGUMENT, INVALID_STRUCT_SIZE, INVALID_HANDLE, MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_get_info(
    context: *const xqkv_context,
    info: *mut xqkv_context_info,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let context = handle::get(context)?;
        // SAFETY: NULL or a struct that begins with its size.
        unsafe { plain::check(info, "info") }?;
        // SAFETY: just checked.
        let info = unsafe { &mut *info };
        describe(context.backend.info(), info);
        Ok(())
    })
}

/// Frees device memory of weights that no projection has any more: those that a commit replaced,
/// and those of destroyed projections. It cannot be freed right then, since work that was launched
/// with it may still run, and graphs that captured it may be launched again; so it is retired, and
/// goes
///
///     after the work that is now on `streams`, if there are any, or
///     at once with stream_count 0, which is the caller's word that no such work is left, or
///     with the context and the last projection made from it, which is the same word.
///
/// Graphs that captured the old weights must be captured anew before. With one stream, the free
/// callback is called with it at once; without callbacks this call records an event on each stream
/// and never waits, so memory whose work is not done is freed by a later call. `waiting_bytes` may
/// be NULL; it gets how much that is. Does nothing on the host. Any thread.
///
/// Returns: NULL_ARGUMENT, MISALIGNED, INVALID_HANDLE, INVALID_ARGUMENT, DEVICE_REFUSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xqkv_context_reclaim(
    context: *const xqkv_context,
    streams: *const *mut c_void,
    stream_count: i64,
    waiting_bytes: *mut i64,
    error: *mut xqkv_error,
) -> Status {
    boundary::call(error, || {
        let context = handle::get(context)?;
        // SAFETY: the caller gives as many streams as it says.
        let streams = unsafe { read_streams(streams, stream_count) }?;
        if !waiting_bytes.is_null() {
            ensure_pointer(waiting_bytes, "waiting_bytes")?;
        }
        let waiting = context.backend.reclaim(&streams)?;
        if !waiting_bytes.is_null() {
            // SAFETY: not NULL and aligned.
            unsafe { *waiting_bytes = waiting as i64 };
        }
        Ok(())
    })
}

/// A copy of the caller's array of streams.
///
/// # Safety
/// `streams` points to as many pointers as `count` says.
unsafe fn read_streams(streams: *const *mut c_void, count: i64) -> Result<Vec<usize>, Error> {
    ensure!((0..=1024).contains(&count), InvalidArgument, "stream_count is {count}; use 0 to 1024");
    if count == 0 {
        return Ok(Vec::new());
    }
    ensure_pointer(streams, "streams")?;
    // SAFETY: the caller's promise.
    let streams = unsafe { std::slice::from_raw_parts(streams, count as usize) };
    Ok(streams.iter().map(|&stream| stream as usize).collect())
}

/// The caller's options, or the defaults for NULL.
unsafe fn read_options(
    options: *const xqkv_context_options,
) -> Result<xqkv_context_options, Error> {
    if options.is_null() {
        // SAFETY: Plain promises that zero is a value.
        return Ok(unsafe { std::mem::zeroed() });
    }
    // SAFETY: not NULL, and begins with its size.
    unsafe { plain::read(options, "options") }
}

fn create(options: xqkv_context_options) -> Result<Context, Error> {
    let level = match options.log_level {
        0 => Level::Warning,
        level => Level::from_integer(level, "log_level")?,
    };
    let log = to_callback(options.log, level, options.log_user);
    boundary::report_to(&log);
    let backend = match BackendChoice::from_integer(options.backend, "backend")? {
        BackendChoice::Host => backend::open(host_choice(&options)?)?,
        BackendChoice::Cuda => backend::open(cuda_choice(&options, &log)?)?,
        BackendChoice::Auto => backend::open(auto_choice(&options, &log)?)?,
    };
    log.write(Level::Info, &format!("context: {}", backend.info()));
    Ok(Context { backend, log })
}

fn auto_choice(options: &xqkv_context_options, log: &Log) -> Result<backend::Choice, Error> {
    match backend::cuda_answers() {
        Ok(()) => cuda_choice(options, log),
        Err(reason) => {
            log.write(Level::Debug, &format!("context: no CUDA, since {}", reason.message));
            host_choice(options)
        }
    }
}

fn cuda_choice(options: &xqkv_context_options, log: &Log) -> Result<backend::Choice, Error> {
    for (value, name) in
        [(options.thread_count, "thread_count"), (options.instruction_set, "instruction_set")]
    {
        ensure!(
            value == 0,
            InvalidArgument,
            "{name} is {value}, but only the host backend has it; use 0, or XQKV_BACKEND_HOST (1)"
        );
    }
    ensure!(
        options.parallel_for.is_none(),
        NotSupported,
        "parallel_for is not NULL; pass NULL, since the CUDA backend runs nothing on the host"
    );
    Ok(backend::Choice::Cuda {
        device: options.device,
        context: options.cuda_context as usize,
        cublaslt: options.cublaslt_handle as usize,
        allocator: allocator(options)?,
        log: log.clone(),
    })
}

/// The engine's callbacks, which come as a pair.
fn allocator(options: &xqkv_context_options) -> Result<Option<backend::Allocator>, Error> {
    let (allocate, free) = match (options.allocate, options.free) {
        (None, None) => return Ok(None),
        (Some(allocate), Some(free)) => (allocate, free),
        (given, _) => {
            let missing = if given.is_some() { "free" } else { "allocate" };
            let message = format!("{missing} is NULL; give both callbacks or neither");
            return Err(Error::new(Status::NullArgument, message));
        }
    };
    let user = options.allocator_user as usize;
    Ok(Some(backend::Allocator {
        // SAFETY: the engine's own function, called as it is documented.
        allocate: Box::new(move |bytes, alignment, stream| unsafe {
            let (bytes, alignment) = (bytes as i64, alignment as i64);
            allocate(bytes, alignment, stream as *mut c_void, user as *mut c_void) as usize
        }),
        // SAFETY: as above.
        free: Box::new(move |address, bytes, stream| unsafe {
            let (stream, user) = (stream as *mut c_void, user as *mut c_void);
            free(address as *mut c_void, bytes as i64, stream, user)
        }),
    }))
}

fn host_choice(options: &xqkv_context_options) -> Result<backend::Choice, Error> {
    ensure!(
        options.device == 0,
        InvalidArgument,
        "device is {}, but the host backend has only device 0",
        options.device
    );
    ensure!(
        (0..=1024).contains(&options.thread_count),
        InvalidArgument,
        "thread_count is {}; use 1 to 1024, or 0 for one on each CPU",
        options.thread_count
    );
    ensure_host_only(options)?;
    let choice = InstructionSetChoice::from_integer(options.instruction_set, "instruction_set")?;
    let known = instruction_sets().into_iter().find(|(known, _)| *known == choice);
    let instruction_set = known.map(|(_, set)| set);
    Ok(backend::Choice::Host {
        thread_count: options.thread_count as usize,
        instruction_set,
        parallel_for: to_backend(options.parallel_for, options.parallel_for_user),
    })
}

fn ensure_host_only(options: &xqkv_context_options) -> Result<(), Error> {
    for (given, name, instead) in [
        (options.allocate.is_some(), "allocate", "weights of the host backend are its own"),
        (options.free.is_some(), "free", "weights of the host backend are its own"),
        (!options.cuda_context.is_null(), "cuda_context", "the host backend has no CUDA context"),
        (!options.cublaslt_handle.is_null(), "cublaslt_handle", "the host backend has no cuBLASLt"),
    ] {
        ensure!(!given, NotSupported, "{name} is not NULL; pass NULL, since {instead}");
    }
    Ok(())
}

fn describe(found: backend::Info, info: &mut xqkv_context_info) {
    // SAFETY: Plain promises that zero is a value.
    let cleared = unsafe { std::mem::zeroed() };
    *info = xqkv_context_info { struct_size: info.struct_size, ..cleared };
    match found {
        backend::Info::Host { thread_count, instruction_set } => {
            info.backend = BackendChoice::Host as i32;
            info.thread_count = thread_count as i32;
            info.instruction_set = instruction_set_choice(instruction_set) as i32;
        }
        backend::Info::Cuda {
            device,
            compute_capability,
            multiprocessor_count,
            driver_version,
            cublaslt_version,
        } => {
            info.backend = BackendChoice::Cuda as i32;
            info.device = device;
            info.compute_capability = compute_capability;
            info.multiprocessor_count = multiprocessor_count;
            info.driver_version = driver_version;
            info.cublaslt_version = cublaslt_version;
        }
    }
}

fn instruction_set_choice(found: backend::InstructionSet) -> InstructionSetChoice {
    let known = instruction_sets().into_iter().find(|(_, set)| *set == found);
    known.map_or(InstructionSetChoice::Auto, |(choice, _)| choice)
}
