//! What can go wrong on the host's side of a network.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::port::Protocol;

/// An operation on the host's network that failed, with its object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What a plugin answered cannot be.
    #[error("plugin {name}: {what}")]
    Plugin {
        /// The plugin's name.
        name: String,
        /// What it said.
        what: String,
    },
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
    /// A link of the container has the name that another one is to get.
    #[error("error renaming interface \"{link}\" to \"{name}\": file exists")]
    LinkNameTaken {
        /// The link's name on the host.
        link: String,
        /// The name that is taken.
        name: String,
    },
    /// Inside a container is a default route that somebody in it has set.
    #[error("failed to set gateway: file exists")]
    ForeignRoute,
    /// A file under `/proc/sys` could not be read.
    #[error("read {name}: {source}")]
    SysctlRead {
        /// The setting's path below `/proc/sys`.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// An administrator's bridge is not there.
    #[error("bridge device with non default name {0} must be created manually")]
    NoBridge(String),
    /// The link whose parts containers are to have is not there.
    #[error("the requested parent interface {0} was not found on the Docker host")]
    NoParent(String),
    /// The bridge has as many ports as the kernel allows, and so have those that continue it.
    #[error("adding interface to bridge {0} failed: exchange full")]
    BridgeFull(String),
    /// A link of the bridge's name is something else.
    #[error("existing interface {0} is not a bridge")]
    NotABridge(String),
    /// A test has asked for this error.
    #[error("{variable} is {name:?}")]
    ToldToFail {
        /// The variable that says so.
        variable: &'static str,
        /// The bridge.
        name: String,
    },
    /// The firewall transaction was refused as a whole; nothing of it is in force.
    #[error("nftables: {operation}: {source}")]
    Firewall {
        /// The step, such as `commit` or the refused message in words.
        operation: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A program of `iptables` failed; of each family, nothing of the change is in force.
    #[error("iptables: {operation}: {source}")]
    Iptables {
        /// The program, or the step.
        operation: String,
        /// Why, with what the program said.
        source: io::Error,
    },
    /// A published port is taken by another container.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortInUse {
        /// The host's address.
        address: IpAddr,
        /// The host's port.
        port: u16,
    },
    /// A published port could not be bound: another process has it, or the address is none of the host's.
    #[error("failed to bind host port {address}/{protocol}: {why}")]
    PortRefused {
        /// The protocol.
        protocol: Protocol,
        /// The host's address and port.
        address: SocketAddr,
        /// The kernel's error in words.
        why: String,
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
