//! What was found, as documents.

pub mod matrix;
