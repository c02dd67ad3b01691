//! The Engine API over HTTP: routes, versions, streams, sockets, configuration, composition of the daemon.
//!
//! A request becomes a validated operation of `berth-engine` here, and an error of the engine a status, in one place
//! each. Streams of containers do not pass through this crate: a connection that is to carry one is given away.
#![forbid(unsafe_code)]

mod accounts;
mod answer;
mod authorization;
mod body;
mod call;
mod certificate;
mod config;
mod connection;
pub mod daemon;
mod failure;
mod hijack;
mod host;
mod incoming;
mod listen;
mod logging;
mod metrics;
mod options;
mod pidfile;
mod process;
mod remap;
mod routes;
mod signals;
mod systemd;
mod tls;
mod words;
