//! Safe wrappers of system calls; the only `unsafe`.
pub mod rtnetlink;
