//! NCCL: the functions we call, found at run time, its struct of options, and its results as plain
//! integers, since a newer library may answer ones that we do not know.

use super::super::medium::Failure;
use crate::error::{Error, Status, ensure};
use crate::library::{Library, Names, function_table};
use once_cell::sync::OnceCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

const NAMES: Names =
    Names { title: "NCCL", variable: "XQKV_NCCL_LIBRARY", sonames: &[c"libnccl.so.2"] };

/// Communicators that do not block are of 2.14, and may be aborted while they are made since 2.18.
const OLDEST: c_int = 21800;

/// An ncclComm_t.
pub(super) type Handle = *mut c_void;
/// A cudaStream_t.
pub(super) type Stream = *mut c_void;

/// An ncclUniqueId. It is a secret, so it has no way to be printed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// ncclConfig_t as 2.14 had it; a later library takes its defaults for what came behind.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    padding: c_int,
}

impl Config {
    /// Of a communicator whose calls do not block.
    pub(super) const NON_BLOCKING: Config = Config {
        size: size_of::<Config>(),
        magic: 0xcafe_beef,
        version: 21400,
        blocking: 0,
        padding: c_int::MIN,
    };
}

pub(super) const SUCCESS: c_int = 0;
pub(super) const REMOTE_ERROR: c_int = 6;
pub(super) const IN_PROGRESS: c_int = 7;
/// ncclUint8 of ncclDataType_t.
pub(super) const BYTE: c_int = 1;

function_table! {
    /// Functions of libnccl, by the names they have in nccl.h.
    Functions {
        get_version = c"ncclGetVersion" (*mut c_int);
        get_unique_id = c"ncclGetUniqueId" (*mut UniqueId);
        init_rank = c"ncclCommInitRankConfig" (*mut Handle, c_int, UniqueId, c_int, *const Config);
        destroy = c"ncclCommDestroy" (Handle);
        abort = c"ncclCommAbort" (Handle);
        get_async_error = c"ncclCommGetAsyncError" (Handle, *mut c_int);
        count = c"ncclCommCount" (Handle, *mut c_int);
        device = c"ncclCommCuDevice" (Handle, *mut c_int);
        rank = c"ncclCommUserRank" (Handle, *mut c_int);
        all_gather = c"ncclAllGather" (*const c_void, *mut c_void, usize, c_int, Handle, Stream);
        broadcast = c"ncclBroadcast" (
            *const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream,
        );
        send = c"ncclSend" (*const c_void, usize, c_int, c_int, Handle, Stream);
        receive = c"ncclRecv" (*mut c_void, usize, c_int, c_int, Handle, Stream);
        group_start = c"ncclGroupStart" ();
        group_end = c"ncclGroupEnd" ();
    }
}

/// The loaded library.
pub(super) struct Nccl {
    pub(super) functions: Functions,
    pub(super) version: c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(Handle) -> *const c_char,
}

/// The library, loaded at its first use.
pub(super) fn nccl() -> Result<&'static Nccl, Error> {
    static NCCL: OnceCell<Nccl> = OnceCell::new();
    NCCL.get_or_try_init(|| {
        let library = Library::open(&NAMES)?;
        let functions = Functions::load(&library)?;
        let error_string = library.symbol(c"ncclGetErrorString")?;
        let last_error = library.symbol(c"ncclGetLastError")?;
        let mut version = 0;
        // SAFETY: a place for the answer.
        let result = unsafe { (functions.get_version)(&mut version) };
        ensure!(
            result == SUCCESS && version >= OLDEST,
            LibraryUnsuitable,
            "{} is of version {version} (result {result}), and {OLDEST} is needed; install a \
             newer NCCL",
            library.name()
        );
        // SAFETY: documented as const char *ncclGetErrorString(ncclResult_t).
        let error_string = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> *const c_char>(
                error_string,
            )
        };
        // SAFETY: documented as const char *ncclGetLastError(ncclComm_t).
        let last_error = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Handle) -> *const c_char>(
                last_error,
            )
        };
        Ok(Nccl { functions, version, error_string, last_error })
    })
}

/// A new id, by which ranks find each other.
pub fn unique_id() -> Result<UniqueId, Error> {
    let (nccl, mut id) = (nccl()?, UniqueId([0; 128]));
    // SAFETY: a place for the answer.
    let result = unsafe { (nccl.functions.get_unique_id)(&mut id) };
    nccl.check("ncclGetUniqueId", result)?;
    Ok(id)
}

impl Nccl {
    /// An error for any result but success, in the library's words.
    pub(super) fn check(&self, function: &str, result: c_int) -> Result<(), Error> {
        match result {
            SUCCESS => Ok(()),
            result => Err(self.refusal(function, result, null_mut())),
        }
    }

    /// Why a communicator could not be had.
    #[cold]
    pub(super) fn refusal(&self, function: &str, result: c_int, comm: Handle) -> Error {
        let words = self.words(function, result, comm);
        match result {
            REMOTE_ERROR => Error::new(Status::PeerLost, words),
            _ => Error::new(Status::DeviceRefused, words),
        }
    }

    /// Why a transfer failed.
    #[cold]
    pub(super) fn failure(&self, function: &str, result: c_int, comm: Handle) -> Failure {
        let words = self.words(function, result, comm);
        match result {
            REMOTE_ERROR => Failure::Lost(Vec::new(), words),
            _ => Failure::Broken(words),
        }
    }

    /// The communicator, if there is one, is alive.
    fn words(&self, function: &str, result: c_int, comm: Handle) -> String {
        // SAFETY: takes any number, and answers a static text or NULL.
        let meaning = unsafe { text((self.error_string)(result)) };
        // SAFETY: a communicator or NULL; the text is the library's, or NULL.
        let last = unsafe { text((self.last_error)(comm)) };
        let behind = if last.is_empty() { String::new() } else { format!("; {last}") };
        format!("{function} answered {result} ({meaning}){behind}")
    }
}

/// # Safety
/// NULL, or a terminated text.
unsafe fn text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: passed on.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
    }
}
