//! Safe wrappers of system calls; the only `unsafe`.
pub mod netns;
pub mod rtnetlink;
