//! Tiny static programs that run inside containers.

/// The tiny init.
pub const INIT: &[u8] = &[];
/// The program of the image `hello`.
pub const HELLO: &[u8] = &[];
