//! What clients do to containers. Each operation is a file; those that change a container go through its
//! [`owner`], in the order in which they come.

pub mod attach;
pub mod exec;
pub mod logs;
pub mod owner;
pub mod wait;
