//! The Engine API's client: HTTP over unix and TCP, hijacked streams.
#![forbid(unsafe_code)]
