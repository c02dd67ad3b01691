//! What clients do to containers. Each operation is a file; those that change a container go through its
//! [`owner`], in the order in which they come.

mod adopt;
pub mod attach;
mod create;
pub mod exec;
mod exit;
pub(crate) mod files;
mod handlers;
pub mod health;
mod hooks;
mod hosts;
pub(crate) mod join;
mod links;
pub mod logs;
mod mounted_images;
mod names;
mod network;
mod open;
pub mod owner;
mod pause;
mod policy;
mod processes;
mod propagation;
pub(crate) mod prune;
mod publish;
mod remove;
mod sample;
mod shm;
pub(crate) mod sources;
mod start;
pub mod stats;
mod stop;
mod top;
mod update;
pub mod wait;
