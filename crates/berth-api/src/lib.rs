//! Wire types of the Engine API, stream framing, the error model.
#![forbid(unsafe_code)]
