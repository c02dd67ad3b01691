//! Tiny static programs that run inside containers.
