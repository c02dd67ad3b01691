//! BuildKit's session protocol: over one connection a client offers its files, secrets and agents, and the daemon asks for
//! what a build needs of them.
//!
//! The client opens the connection and is then the server of gRPC calls on it; the daemon is their client. Files are told
//! first and sent on request, so that those that the daemon has already do not travel again. Either end may be another
//! program, and neither believes the other: paths, order, sizes and amounts are checked as they come.

#![forbid(unsafe_code)]

mod agent;
mod descriptors;
mod entry;
mod error;
mod filter;
mod order;
mod packet;
#[doc(hidden)]
pub mod protocol;
mod receive;
mod send;
mod serve;
mod session;
mod sessions;
mod tree;
mod words;

pub use agent::{Agent, DEFAULT as DEFAULT_AGENT};
pub use entry::{Entry, Kind};
pub use error::Error;
pub use packet::{Message, from_bytes, to_bytes};
pub use receive::{Bounds, Learned, Received};
pub use send::{Directory, Progress};
pub use serve::{Accounts, Output, Secret, Services};
pub use session::{Offer, Session, Wanted};
pub use sessions::{Claim, Sessions};
pub use tree::Sum;
pub use words::method;
