//! The driver's functions, one noun per file.
/// Device memory and copies.
pub mod memory;
