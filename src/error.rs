//! What every layer answers when it cannot do what was asked: a status, and a sentence that says
//! what was given, what is needed and what to do. Imports nothing.

use std::fmt;

/// What a call answers. Numbers stand in blocks of a hundred by cause, are never reused, and a
/// caller that meets one it does not know can go by its block:
///
/// - 1xx the arguments, 2xx the state of a handle, 3xx what this build or machine does not have,
///   4xx resources, 5xx checkpoint files, 6xx execution, 7xx other ranks, 9xx the library itself.
///
/// xqkv_status_name gives the name, xqkv_status_effect what the failed call left behind.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer that must not be NULL is. Effect: none.
    NullArgument = 101,
    /// A plain struct's `struct_size` is not one that this library knows; use the struct's
    /// `_init` function. Effect: none.
    InvalidStructSize = 102,
    /// A handle was never made by this library, was destroyed, or is of another kind. Effect: none.
    InvalidHandle = 103,
    /// A number does not name a value of its enumeration. Effect: none.
    InvalidEnum = 104,
    /// A value is outside what is allowed, or two values do not go together. Effect: none.
    InvalidArgument = 105,
    /// A product or sum of sizes leaves the 63 bits of a byte count. Effect: none.
    SizeOverflow = 106,
    /// A stride is negative, or smaller than the extent inside it. Effect: none.
    InvalidStride = 107,
    /// A pointer is not a multiple of its element's size, or of its struct's alignment.
    /// Effect: none.
    Misaligned = 108,
    /// An output shares memory with another output or with an input. Effect: none.
    Overlap = 109,
    /// A weight's shape is not the one its spec needs. Effect: none.
    InvalidShape = 110,
    /// A weight's dtype is not its spec's, and no conversion was asked for. Effect: none.
    InvalidDtype = 111,
    /// Heads do not divide evenly over the ranks; the message names a split that works.
    /// Effect: none.
    IndivisibleHeads = 112,
    /// A layer is not among those of the spec or of this projection. Effect: none.
    LayerOutOfRange = 113,
    /// One update was given the same part of a layer twice. Effect: none.
    DuplicatePart = 114,
    /// The memory for an answer is too small; the bytes it needs were told. Effect: none.
    BufferTooSmall = 115,
    /// A pointer is not to memory that the context's device can use: host memory where the device's
    /// is needed, or the reverse, or another device's. Effect: none.
    WrongMemory = 116,
    /// Weights that the call needs were not loaded; the message names them. Effect: none.
    NotReady = 201,
    /// The workspace is smaller than the call's minimum. Effect: none.
    WorkspaceTooSmall = 202,
    /// An earlier panic may have corrupted this handle; destroy it. Effect: none.
    HandlePoisoned = 203,
    /// A call in a stream capture has no plan and would have to make one; make a plan before the
    /// capture begins, or run such a call once. Effect: none.
    PlanNeeded = 204,
    /// The plan was made for another shape of call, or for weights that lay elsewhere; the message
    /// names the difference. Effect: none.
    PlanMismatch = 205,
    /// This version, build or backend does not do this; the message says what would work.
    /// Effect: none.
    NotSupported = 301,
    /// A vendor's shared library was not found; the message lists the names tried. Effect: none.
    LibraryMissing = 302,
    /// A vendor's shared library is too old, or lacks a symbol that is needed. Effect: none.
    LibraryUnsuitable = 303,
    /// No device answers, or not the one asked for. Effect: none.
    NoDevice = 304,
    /// The device's driver or library refused a call before any work was launched; the message has
    /// its own words. Effect: none.
    DeviceRefused = 305,
    /// Memory ran out. Effect: none.
    OutOfMemory = 401,
    /// A thread could not be started. Effect: none.
    ThreadFailed = 402,
    /// More live handles than the library's table holds. Effect: none.
    TooManyHandles = 403,
    /// A checkpoint's folder or one of its files is not there. Effect: none.
    CheckpointNotFound = 501,
    /// The system failed to read a checkpoint's file. Effect: none.
    CheckpointUnreadable = 502,
    /// A checkpoint's file is truncated, too long, or not what its format demands. Effect: none.
    CheckpointCorrupt = 503,
    /// The checkpoint is of a model family that this version has no names for. Effect: none.
    CheckpointUnknownFamily = 504,
    /// The checkpoint lacks a tensor that the spec needs; the message names it. Effect: none.
    CheckpointMissingTensor = 505,
    /// The checkpoint has what the spec says does not exist, such as a bias. Effect: none.
    CheckpointMismatch = 506,
    /// The device's driver or library failed once work had been launched; the message has its own
    /// words. Effect: outputs undefined.
    DeviceFailed = 601,
    /// A callback of the engine's did not do what it must; the message says what. Effect: outputs
    /// undefined.
    CallbackFailed = 602,
    /// The ranks do not agree: on what they are, or on which call they are in; the message names
    /// ranks and fields, and all ranks are told. Effect: none.
    Mismatch = 701,
    /// Another rank is gone or out of step, or the communicator was aborted; the message names the
    /// rank where it is known, and the operation. Effect: communicator poisoned, outputs undefined.
    PeerLost = 702,
    /// Another rank, or another call of this one, was not there by the deadline; the message names
    /// the rank where it is known, and the operation. Effect: communicator poisoned, outputs
    /// undefined.
    TimedOut = 703,
    /// The communicator has failed before; the message tells how. Make it anew, on every rank.
    /// Effect: none.
    CommPoisoned = 704,
    /// The library panicked, which is a bug worth reporting. Effect: handle poisoned, and the
    /// outputs of the call undefined.
    Panic = 901,
}

/// What a failed call left behind.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed; the call can be mended and made again.
    None = 1,
    /// The call's own output views hold anything; all else is as it was.
    OutputsUndefined = 2,
    /// The communicator answers every later call with an error until it is made anew, and the
    /// call's own output views hold anything. Weights and calls without transfers are as before.
    CommunicatorPoisoned = 3,
    /// The handle that was being changed answers every later call with an error.
    HandlePoisoned = 4,
}

/// Gives an enumeration of the C API its table of names and its check of incoming integers.
/// The enumeration itself is written out, since cbindgen does not see what macros make.
macro_rules! named_enum {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The name that C knows the value by.
            pub fn c_name(self) -> &'static std::ffi::CStr {
                match self {
                    $($type::$variant => $name),+
                }
            }

            /// The same name for messages.
            pub fn name(self) -> &'static str {
                self.c_name().to_str().unwrap_or_default()
            }

            /// The value that an integer from outside stands for; `field` is named in the message.
            pub fn from_integer(
                value: i32,
                field: impl std::fmt::Display,
            ) -> Result<Self, $crate::error::Error> {
                let known = Self::ALL.iter().copied().find(|known| *known as i32 == value);
                known.ok_or_else(|| {
                    let listed = Self::ALL.iter().map(|known| (known.name(), *known as i32));
                    $crate::error::unknown_value(&field.to_string(), value, listed)
                })
            }
        }
    };
}
pub(crate) use named_enum;

named_enum!(Status {
    Ok => c"XQKV_STATUS_OK",
    NullArgument => c"XQKV_STATUS_NULL_ARGUMENT",
    InvalidStructSize => c"XQKV_STATUS_INVALID_STRUCT_SIZE",
    InvalidHandle => c"XQKV_STATUS_INVALID_HANDLE",
    InvalidEnum => c"XQKV_STATUS_INVALID_ENUM",
    InvalidArgument => c"XQKV_STATUS_INVALID_ARGUMENT",
    SizeOverflow => c"XQKV_STATUS_SIZE_OVERFLOW",
    InvalidStride => c"XQKV_STATUS_INVALID_STRIDE",
    Misaligned => c"XQKV_STATUS_MISALIGNED",
    Overlap => c"XQKV_STATUS_OVERLAP",
    InvalidShape => c"XQKV_STATUS_INVALID_SHAPE",
    InvalidDtype => c"XQKV_STATUS_INVALID_DTYPE",
    IndivisibleHeads => c"XQKV_STATUS_INDIVISIBLE_HEADS",
    LayerOutOfRange => c"XQKV_STATUS_LAYER_OUT_OF_RANGE",
    DuplicatePart => c"XQKV_STATUS_DUPLICATE_PART",
    BufferTooSmall => c"XQKV_STATUS_BUFFER_TOO_SMALL",
    WrongMemory => c"XQKV_STATUS_WRONG_MEMORY",
    NotReady => c"XQKV_STATUS_NOT_READY",
    WorkspaceTooSmall => c"XQKV_STATUS_WORKSPACE_TOO_SMALL",
    HandlePoisoned => c"XQKV_STATUS_HANDLE_POISONED",
    PlanNeeded => c"XQKV_STATUS_PLAN_NEEDED",
    PlanMismatch => c"XQKV_STATUS_PLAN_MISMATCH",
    NotSupported => c"XQKV_STATUS_NOT_SUPPORTED",
    LibraryMissing => c"XQKV_STATUS_LIBRARY_MISSING",
    LibraryUnsuitable => c"XQKV_STATUS_LIBRARY_UNSUITABLE",
    NoDevice => c"XQKV_STATUS_NO_DEVICE",
    DeviceRefused => c"XQKV_STATUS_DEVICE_REFUSED",
    OutOfMemory => c"XQKV_STATUS_OUT_OF_MEMORY",
    ThreadFailed => c"XQKV_STATUS_THREAD_FAILED",
    TooManyHandles => c"XQKV_STATUS_TOO_MANY_HANDLES",
    CheckpointNotFound => c"XQKV_STATUS_CHECKPOINT_NOT_FOUND",
    CheckpointUnreadable => c"XQKV_STATUS_CHECKPOINT_UNREADABLE",
    CheckpointCorrupt => c"XQKV_STATUS_CHECKPOINT_CORRUPT",
    CheckpointUnknownFamily => c"XQKV_STATUS_CHECKPOINT_UNKNOWN_FAMILY",
    CheckpointMissingTensor => c"XQKV_STATUS_CHECKPOINT_MISSING_TENSOR",
    CheckpointMismatch => c"XQKV_STATUS_CHECKPOINT_MISMATCH",
    DeviceFailed => c"XQKV_STATUS_DEVICE_FAILED",
    CallbackFailed => c"XQKV_STATUS_CALLBACK_FAILED",
    Mismatch => c"XQKV_STATUS_MISMATCH",
    PeerLost => c"XQKV_STATUS_PEER_LOST",
    TimedOut => c"XQKV_STATUS_TIMED_OUT",
    CommPoisoned => c"XQKV_STATUS_COMM_POISONED",
    Panic => c"XQKV_STATUS_PANIC",
});

impl Status {
    /// What a call that answered this status left behind.
    pub fn effect(self) -> Effect {
        match self {
            Status::Panic => Effect::HandlePoisoned,
            Status::Mismatch | Status::CommPoisoned => Effect::None,
            Status::PeerLost | Status::TimedOut => Effect::CommunicatorPoisoned,
            _ if (self as i32) < 600 => Effect::None,
            _ => Effect::OutputsUndefined,
        }
    }
}

/// A status with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure this is.
    pub status: Status,
    /// What was given, what is needed and what to do.
    pub message: String,
}

impl Error {
    /// An error of this status with this message.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.status.name(), self.message)
    }
}

impl std::error::Error for Error {}

/// Stops with an error of the given status unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $status:ident, $($message:tt)+) => {
        if !$condition {
            let status = $crate::error::Status::$status;
            return Err($crate::error::Error::new(status, format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// The error for an integer that names no value of an enumeration.
pub(crate) fn unknown_value<'a>(
    field: &str,
    value: i32,
    known: impl Iterator<Item = (&'a str, i32)>,
) -> Error {
    let known: Vec<String> = known.map(|(name, value)| format!("{name} ({value})")).collect();
    let message = format!("{field} is {value}; use {}", known.join(", "));
    Error::new(Status::InvalidEnum, message)
}

/// A list for a message, cut short after the first few.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_names_are_the_c_constants() {
        assert!(Status::ALL.windows(2).all(|pair| (pair[0] as i32) < pair[1] as i32));
        assert!(Status::ALL.iter().all(|status| status.name().starts_with("XQKV_STATUS_")));
    }

    #[test]
    fn an_unknown_integer_is_refused_with_every_known_one() {
        let error = Status::from_integer(7, "status").unwrap_err();
        assert_eq!(error.status, Status::InvalidEnum);
        assert!(error.message.starts_with("status is 7; use XQKV_STATUS_OK (0), "));
    }

    #[test]
    fn a_long_list_ends_in_and_n_more() {
        let names: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(listed(&names[..4]), "0, 1, 2, 3");
        assert_eq!(listed(&names), "0, 1, 2, 3 and 3 more");
    }
}
