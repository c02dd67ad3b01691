//! Safe tar in and out, decompression.
#![forbid(unsafe_code)]
