//! The user's terminal and streams, joined to a container's.

pub mod colour;
pub mod detach;
pub mod signals;
pub mod streams;
pub mod terminal;

pub use streams::{End, Session};
