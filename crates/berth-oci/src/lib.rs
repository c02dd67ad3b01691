//! Digest, reference, descriptor, manifest, image configuration; no I/O.
#![forbid(unsafe_code)]
