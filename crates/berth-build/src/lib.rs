//! Dockerfiles: everything about them that needs no daemon.
//!
//! [`dockerfile`] reads the text into typed instructions with their lines; [`expand`] replaces variables; [`variables`] says
//! which there are, and where; [`stages`] finds which stages need which; [`lint`] warns; [`configure`] makes an image's
//! configuration of instructions; [`change`] does so for `commit`; [`solve`] brings them together, and leaves to an executor what needs more. Nothing here
//! opens a file, talks to a network or starts a process, and nothing panics
//! whatever the text is.
#![forbid(unsafe_code)]

pub mod change;
pub mod configure;
pub mod dockerfile;
pub mod error;
pub mod expand;
pub mod lint;
pub mod solve;
pub mod stages;
pub mod suggest;
pub mod variables;

pub use error::{Error, Fault, Lines, Result};
