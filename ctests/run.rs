//! The C suite.
fn main() {}
