//! The distribution protocol: client.
#![forbid(unsafe_code)]
