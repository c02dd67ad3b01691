//! How results are shown.

mod functions;
pub mod human;
pub mod natural;
pub mod objects;
pub mod table;
pub mod template;
