//! Plain structs cross the boundary by copy. Each begins with its size, so that a program compiled
//! against another version of the header is refused instead of misread.

use crate::error::{Error, ensure};
use std::fmt::Display;

/// A struct of the header that the caller fills in.
///
/// # Safety
/// The type is `repr(C)`, its first field is `struct_size: u32`, and all-zero bytes are a value.
pub(super) unsafe trait Plain: Copy {
    /// The struct's name in C.
    const NAME: &'static str;
}

/// Zeroes the struct and sets its size.
///
/// # Safety
/// `target` is NULL or points to `size` writable bytes.
pub(super) unsafe fn init<T: Plain>(target: *mut T, size: usize) -> Result<(), Error> {
    ensure_pointer(target, T::NAME)?;
    ensure_size::<T>(size)?;
    // SAFETY: size is the struct's; Plain promises that zero is a value and struct_size is first.
    unsafe {
        target.write_bytes(0, 1);
        target.cast::<u32>().write(size_of::<T>() as u32);
    }
    Ok(())
}

/// A copy of the caller's struct.
///
/// # Safety
/// `source` is NULL or points to a struct that begins with its true size.
pub(super) unsafe fn read<T: Plain>(source: *const T, name: &str) -> Result<T, Error> {
    // SAFETY: the caller's promise, passed on.
    unsafe { borrow(source, name) }.copied()
}

/// The caller's struct itself.
///
/// # Safety
/// As for `read`, and nobody changes the struct while it is borrowed.
pub(super) unsafe fn borrow<'a, T: Plain>(source: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise, passed on.
    unsafe { check(source, name) }?;
    // SAFETY: not NULL, aligned, and as long as it says.
    Ok(unsafe { &*source })
}

/// Refuses a struct that cannot be read or written.
///
/// # Safety
/// As for `read`.
pub(super) unsafe fn check<T: Plain>(plain: *const T, name: &str) -> Result<(), Error> {
    ensure_pointer(plain, name)?;
    // SAFETY: Plain promises that the first field is the size.
    let size = unsafe { plain.cast::<u32>().read() };
    ensure_size::<T>(size as usize)
}

/// Refuses NULL, and a pointer at which no value of the type can lie.
pub(super) fn ensure_pointer<T>(pointer: *const T, name: impl Display) -> Result<(), Error> {
    ensure!(!pointer.is_null(), NullArgument, "{name} is NULL");
    ensure!(
        pointer.is_aligned(),
        Misaligned,
        "{name} is {pointer:p}, not a multiple of {}",
        align_of::<T>()
    );
    Ok(())
}

fn ensure_size<T: Plain>(size: usize) -> Result<(), Error> {
    ensure!(
        size == size_of::<T>(),
        InvalidStructSize,
        "struct_size of {name} is {size}, this library ({version}) knows {}; call {name}_init, and \
         compile against the header of this library's version",
        size_of::<T>(),
        name = T::NAME,
        version = env!("CARGO_PKG_VERSION")
    );
    Ok(())
}

/// An integer that stands for yes or no.
pub(super) fn flag(value: i32, name: impl Display) -> Result<bool, Error> {
    ensure!(matches!(value, 0 | 1), InvalidArgument, "{name} is {value}; use 0 or 1");
    Ok(value == 1)
}
