//! The library's version: of what was built, to hold against what a caller was compiled for.

use super::boundary;
use std::ffi::{CStr, c_char};

/// The major version of this header.
pub const XQKV_VERSION_MAJOR: i32 = 0;
/// The minor version of this header.
pub const XQKV_VERSION_MINOR: i32 = 1;
/// The patch version of this header.
pub const XQKV_VERSION_PATCH: i32 = 0;
/// The version of the binary interface: it grows when a program compiled against an older header
/// would misbehave, and only then.
pub const XQKV_VERSION_ABI: i32 = 1;

const TEXT: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("Cargo's version has a NUL inside"),
    };

/// The library's version as one number, major · 1000000 + minor · 1000 + patch. Compare with
/// XQKV_VERSION_NUMBER, the header's. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_version_number() -> i32 {
    boundary::value(0, || {
        XQKV_VERSION_MAJOR * 1_000_000 + XQKV_VERSION_MINOR * 1_000 + XQKV_VERSION_PATCH
    })
}

/// The library's version as text, such as "0.1.0". Compare with XQKV_VERSION_STRING, the header's.
/// The text lives as long as the library. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_version_string() -> *const c_char {
    boundary::value(TEXT.as_ptr(), || TEXT.as_ptr())
}

/// The library's XQKV_VERSION_ABI. A program must not go on when it differs from the header's.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn xqkv_version_abi() -> i32 {
    boundary::value(0, || XQKV_VERSION_ABI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_package() {
        let numbers = [XQKV_VERSION_MAJOR, XQKV_VERSION_MINOR, XQKV_VERSION_PATCH];
        assert_eq!(numbers.map(|number| number.to_string()).join("."), env!("CARGO_PKG_VERSION"));
    }
}
