//! Bridges, addresses, ports, names, firewall.
//!
//! Links, addresses and routes are set by rtnetlink, filtering and NAT by nftables over netlink; nothing here
//! runs another program, and nothing here records anything: the engine hands in what exists and keeps what
//! comes back. The one exception by design is the [`net`] process, whose sockets outlive the daemon and can be
//! filled again at any time.
#![forbid(unsafe_code)]

mod error;
pub mod firewall;
mod handed;
pub mod host;
pub mod inside;
pub mod ipam;
mod link;
pub mod names;
pub mod neighbours;
pub mod net;
pub mod port;
pub mod sublink;
pub mod subnets;
mod sysctl;
pub mod trunk;

pub use berth_sys::rtnetlink::Route;
pub use error::Error;
pub use host::{Bridge, Endpoint, Host, Reach, Rules, forwards};
pub use link::Link;
pub use port::{PortMapping, Protocol, Wanted};

/// Whether an owner, as tables and links name it, may still want what is its own: one that is a path is there.
fn is_there(owner: &str) -> bool {
    !owner.starts_with('/') || std::path::Path::new(owner).exists()
}
