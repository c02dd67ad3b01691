//! Name servers of containers: 127.0.0.11 in each network namespace, answered by the net process.
//!
//! The sockets are made in the container's namespace, on a free port; address translation in that namespace leads
//! 127.0.0.11:53 there, so that the container can use port 53 itself. Names of containers come from a table that the
//! daemon fills through a [`Client`] and can fill again at any time. Everything else goes to the container's upstreams: those
//! of the host from the host's namespace, others from the container's own. A container without a way out never asks
//! from the host's namespace (CVE-2024-29018).
//!
//! Where Docker's server and RFCs differ, clients see what Docker does, but for one thing: a record type that is not served, asked
//! of a container's name, is answered with nothing instead of being forwarded. An upstream's "no such name" would deny
//! the container to clients that ask for `HTTPS` records first.

mod answer;
mod attachment;
mod cache;
mod client;
mod connection;
mod flight;
mod forward;
mod random;
pub mod resolv_conf;
mod server;
mod slots;
mod table;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use client::Client;
pub(crate) use server::{Server, now};
pub(crate) use slots::{Slots, Token};

/// The address of the name server in every container that has one.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Version of the changes below. A net process that outlived an upgrade refuses what it does not know.
pub(crate) const VERSION: u32 = 1;
/// Docker's time to live of a container's name in seconds.
pub(crate) const TTL: u32 = 600;
/// Upstreams that are asked, as many as resolv.conf(5) has.
pub const MAX_UPSTREAMS: usize = 3;

/// A container in a network: what others of that network find it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The container's ID.
    pub owner: String,
    /// Its name, then short ID and aliases. Several members may share one; the first is what its addresses lead back to.
    pub names: Vec<String>,
    /// Its addresses in the network.
    pub addresses: Vec<IpAddr>,
}

/// A network as one of its containers sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's ID.
    pub network: String,
    /// Links: names that this container alone has for others, and the names that they stand for.
    pub links: Vec<(String, String)>,
}

/// A server that answers what no container's name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address, with port 53 unless it is said otherwise.
    pub address: SocketAddr,
    /// Whether it is asked from the host's network namespace, not from the container's.
    pub from_host: bool,
}

impl Upstream {
    /// The server at port 53 of an address.
    pub fn new(address: IpAddr, from_host: bool) -> Upstream {
        Upstream { address: SocketAddr::new(address, 53), from_host }
    }
}

/// How the names of one container are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The networks of the container, the one to be asked first in front.
    pub networks: Vec<Membership>,
    /// Whom to ask for other names: the first [`MAX_UPSTREAMS`], in order.
    pub upstreams: Vec<Upstream>,
    /// Whether the container has a way out. Without one, nothing is asked from the host's namespace.
    pub forward: bool,
    /// Whether its resolv.conf had an `ndots` of its own: names of one label are then not forwarded, because the client goes
    /// on with its search domains.
    pub ndots_set: bool,
}

/// What the net process holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// IDs of the containers that have a name server, and its configuration.
    pub attached: Vec<(String, Config)>,
    /// Network IDs and their members.
    pub members: Vec<(String, Member)>,
}

/// A change of what is answered. Each can be asked again without harm.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Serve the namespace whose descriptor comes with the message, until the optional second one becomes readable.
    Attach { owner: String, config: Config, life: bool },
    /// Change how a container's queries are answered.
    Configure { owner: String, config: Config },
    /// No longer serve this container, and forget it in all networks.
    Detach { owner: String },
    /// Set a member of a network, in place of what its owner had there.
    Join { network: String, network_name: String, member: Member },
    /// Take a member out of a network.
    Leave { network: String, owner: String },
    /// Forget all containers but these.
    Retain { owners: Vec<String> },
}

/// Why a change was not made; those before it in the same request were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// What was tried, in words.
    pub(crate) operation: String,
    /// The kernel's error; zero for what is wrong with the request.
    pub(crate) errno: i32,
}

/// Reads bytes as a client's query and, in two parts whose first is as long as the first byte says, as a query and its answer;
/// writes what would be sent.
/// For fuzzing: there is nothing to see but that no input does harm.
#[doc(hidden)]
pub fn read_any(data: &[u8]) {
    let mut out = Vec::new();
    let Some((length, rest)) = data.split_first() else { return };
    let (first, second) = rest.split_at(usize::from(*length).min(rest.len()));
    for packet in [data, first] {
        let Ok(query) = wire::Query::read(packet) else { continue };
        answer::empty(&mut out, &query, packet, 0);
        for id in [query.id, wire::word(second, 0).unwrap_or(0)] {
            if let Some(response) = wire::Response::read(second, id, &query) {
                let answer = cache::Answer { packet: second.into(), response, age: 1 };
                cache::give(&mut out, &answer, (&query, packet), wire::PLAIN_UDP);
                assert!(out.len() <= wire::PLAIN_UDP, "too long for a client");
            }
        }
    }
}
