//! The binary: chooses a face by its name or first argument.
#![forbid(unsafe_code)]

fn main() {}
