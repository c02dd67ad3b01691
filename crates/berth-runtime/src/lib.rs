//! An OCI runtime: namespaces, cgroups, mounts, seccomp, capabilities; its command line.
#![forbid(unsafe_code)]
