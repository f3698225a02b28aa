//! What a backend counts where it does the work.

/// The work of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// For outputs that were asked for.
    pub multiply_adds: u64,
    /// In lanes beyond a matrix's last column.
    pub padding_multiply_adds: u64,
    /// Matrix products.
    pub matmuls: u64,
}
