//! What was found, as documents.

pub mod benchmark;
pub mod chart;
pub mod compare;
pub mod document;
pub mod matrix;
