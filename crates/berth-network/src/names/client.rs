//! The daemon's side of the name servers.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{Change, Config, Holdings, Member, Refused, VERSION};
use crate::Error;
use crate::net::{Answer, NetClient, Request};

/// Members in one message: far below its limit.
const MEMBERS_AT_ONCE: usize = 256;

/// Fills and changes the name servers in the net process.
///
/// Every call can be made again without harm, which is how a daemon fills a new net process, or one that outlived the daemon:
/// members first ([`Client::fill`]), then [`Client::attach`] for each running container, then [`Client::retain`]. A
/// container that is attached already in the same namespace keeps its sockets. Calls block for a round trip (0.1 ms; `attach`
/// 0.6): async callers use a blocking task.
#[derive(Clone)]
pub struct Client {
    net: Arc<NetClient>,
}

impl Client {
    /// The name servers of this net process.
    pub fn new(net: Arc<NetClient>) -> Client {
        Client { net }
    }

    /// Serves a container's network namespace, whose loopback link is set up if it is not. The net process keeps `namespace` and so the
    /// namespace itself until [`Client::detach`], or until `life` becomes readable, as a pidfd does when its process ends: give
    /// one, so that namespaces end also while no daemon runs. Starts the net process if there is none.
    pub fn attach(
        &self,
        owner: &str,
        namespace: BorrowedFd<'_>,
        life: Option<BorrowedFd<'_>>,
        config: &Config,
    ) -> Result<(), Error> {
        let change = Change::Attach { owner: owner.into(), config: config.clone(), life: life.is_some() };
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(namespace).chain(life).collect();
        self.apply(vec![change], &fds, true)
    }

    /// All that a container's coming and going on networks needs, in one round trip: [`Client::attach`], then the container is
    /// made unknown in the networks `left`, and known by `members` (networks' IDs and names with them).
    pub fn serve(
        &self,
        owner: &str,
        namespace: BorrowedFd<'_>,
        life: Option<BorrowedFd<'_>>,
        config: &Config,
        members: &[(String, String, Member)],
        left: &[String],
    ) -> Result<(), Error> {
        let attach = Change::Attach { owner: owner.into(), config: config.clone(), life: life.is_some() };
        let leave =
            left.iter().map(|network| Change::Leave { network: network.clone(), owner: owner.into() });
        let changes = std::iter::once(attach).chain(leave).chain(members.iter().map(joined)).collect();
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(namespace).chain(life).collect();
        self.apply(changes, &fds, true)
    }

    /// Changes networks, links or upstreams of an attached container; `ENOENT` if it is not.
    pub fn configure(&self, owner: &str, config: &Config) -> Result<(), Error> {
        self.apply(vec![Change::Configure { owner: owner.into(), config: config.clone() }], &[], true)
    }

    /// Ends a container's name server and forgets its names in all networks.
    pub fn detach(&self, owner: &str) -> Result<(), Error> {
        self.apply(vec![Change::Detach { owner: owner.into() }], &[], false)
    }

    /// Makes a container known in a network under its names, in place of what it was known by there.
    pub fn join(&self, network: &str, network_name: &str, member: &Member) -> Result<(), Error> {
        self.fill(&[(network.into(), network_name.into(), member.clone())])
    }

    /// Makes many containers known: each with its network's ID and name.
    pub fn fill(&self, members: &[(String, String, Member)]) -> Result<(), Error> {
        for part in members.chunks(MEMBERS_AT_ONCE) {
            self.apply(part.iter().map(joined).collect(), &[], true)?;
        }
        Ok(())
    }

    /// Makes a container unknown in a network.
    pub fn leave(&self, network: &str, owner: &str) -> Result<(), Error> {
        self.apply(vec![Change::Leave { network: network.into(), owner: owner.into() }], &[], false)
    }

    /// Forgets all containers but these: what ended while no daemon ran.
    pub fn retain(&self, owners: &[String]) -> Result<(), Error> {
        self.apply(vec![Change::Retain { owners: owners.to_vec() }], &[], false)
    }

    /// What the net process holds; nothing without one.
    pub fn holdings(&self) -> Result<Holdings, Error> {
        match self.net.exchange(&Request::NamesHeld, &[], false)? {
            None => Ok(Holdings::default()),
            Some(Answer::NamesHeld(holdings)) => Ok(holdings),
            Some(other) => Err(crate::net::unexpected(&other)),
        }
    }

    /// Has the changes made; without a net process, `start` says whether to start one or that there is nothing to change.
    fn apply(&self, changes: Vec<Change>, fds: &[BorrowedFd<'_>], start: bool) -> Result<(), Error> {
        match self.net.exchange(&Request::Names { version: VERSION, changes }, fds, start)? {
            None | Some(Answer::Done) => Ok(()),
            Some(Answer::NamesRefused(Refused { operation, errno })) => {
                let source = match errno {
                    0 => std::io::ErrorKind::InvalidInput.into(),
                    errno => std::io::Error::from_raw_os_error(errno),
                };
                Err(Error::Names { operation, source })
            }
            Some(other) => Err(crate::net::unexpected(&other)),
        }
    }
}

fn joined((network, network_name, member): &(String, String, Member)) -> Change {
    Change::Join { network: network.clone(), network_name: network_name.clone(), member: member.clone() }
}
