//! How results are shown.

mod functions;
pub mod human;
pub mod natural;
pub mod table;
pub mod template;
