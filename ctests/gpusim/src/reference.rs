//! The reference product and the conversions between number formats.
