//! How results are shown.

pub mod human;
pub mod objects;
pub mod table;
pub mod template;
