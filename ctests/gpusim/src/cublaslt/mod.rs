//! cuBLASLt's functions, one noun per file.
