//! Blobs, layers, snapshots, the metadata database, leases and garbage collection.
#![forbid(unsafe_code)]
