//! What can go wrong on the host's side of a network.

use std::io;
use std::net::IpAddr;

use crate::port::Protocol;

/// An operation on the host's network that failed, with its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// rtnetlink refused.
    #[error(transparent)]
    Route(#[from] berth_sys::rtnetlink::Error),
    /// A file under `/proc/sys` could not be written.
    #[error("set {name} to {value}: {source}")]
    Sysctl {
        /// The setting's path below `/proc/sys`.
        name: String,
        /// The value that was to be set.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// The firewall transaction was refused as a whole; nothing of it is in force.
    #[error("nftables: {operation}: {source}")]
    Firewall {
        /// The step, such as `commit` or the refused message in words.
        operation: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A published port is taken by another process or container.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortInUse {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
    },
    /// A published port could not be bound for another reason.
    #[error("cannot reserve {protocol} port {address}:{port}: {source}")]
    PortRefused {
        /// The protocol.
        protocol: Protocol,
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
        /// The kernel's error.
        source: io::Error,
    },
    /// The net process could not be started or answered nonsense.
    #[error("net process: {operation}: {source}")]
    NetProcess {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A container's network namespace could not be entered: it has ended, most likely.
    #[error("enter the container's network namespace: {source}")]
    Namespace {
        /// Why not.
        source: io::Error,
    },
    /// The net process could not change what its name servers answer.
    #[error("name server: {operation}: {source}")]
    Names {
        /// What was tried.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// No free subnet is left in the address pools.
    #[error("all predefined address pools have been fully subnetted")]
    NoSubnet,
}
