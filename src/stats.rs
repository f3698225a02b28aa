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

impl Counts {
    /// Adds the work of another product.
    pub fn add(&mut self, other: &Counts) {
        self.multiply_adds += other.multiply_adds;
        self.padding_multiply_adds += other.padding_multiply_adds;
        self.matmuls += other.matmuls;
    }
}
