//! How results are shown.

pub mod human;
pub mod table;
pub mod template;
