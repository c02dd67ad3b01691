//! A container's name server: when it has one, and what its `/etc/resolv.conf` says.
//!
//! It begins with the first network that has names and stays to the end of the run, as in Docker, even if the container
//! leaves that network.

use std::os::fd::{AsFd, BorrowedFd};

use berth_network::Endpoint;
use berth_network::names::resolv_conf::{ResolvConf, may_replace};
use berth_oci::Digest;
use ipnet::IpNet;

use super::network::namespace;
use super::owner::Owner;
use crate::Error;
use crate::container::state::{Resolver, Running, State};
use crate::network::names::{Forwarding, Named, Served, has_names};
use crate::networks::attachments;
use crate::spec::files;

/// What a run's `/etc/resolv.conf` was made of.
pub(super) struct Resolution {
    /// What is kept of it.
    pub(super) resolver: Resolver,
    /// Where its name server sends questions, if it has one.
    pub(super) forwarding: Option<Forwarding>,
}

impl Resolution {
    pub(super) fn new(made: &ResolvConf, served: bool) -> Resolution {
        Resolution {
            resolver: Resolver { written: digest(&made.text), served },
            forwarding: served.then(|| forwarding(made)),
        }
    }
}

fn forwarding(made: &ResolvConf) -> Forwarding {
    Forwarding { upstreams: made.upstreams.clone(), ndots_set: made.ndots_set }
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).hex().to_owned()
}

impl Owner {
    /// What its `/etc/resolv.conf` is to say, by the host's as it is now.
    pub(super) fn resolv_conf(&self, endpoints: &[Endpoint], served: bool) -> ResolvConf {
        let defaults = &self.parts.current.get().defaults;
        let definition = defaults.complete(&self.container.definition);
        let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let ipv6 = addresses.into_iter().any(|address| matches!(address, IpNet::V6(_)));
        files::resolv_conf(&definition, served, ipv6)
    }

    fn served(&self, pid: i32, endpoints: &[Endpoint], forwarding: Forwarding) -> Served {
        let (definition, kept) = (&self.container.definition, self.container.kept());
        let attached = attachments(definition, &kept);
        let named = Named { name: &kept.name, id: &definition.id, hostname: &definition.config.hostname };
        let mut served = Served::new(named, pid, &attached, endpoints, forwarding);
        served.config.forward |= self.parts.networks.leads_out(endpoints);
        served
    }

    /// Starts its name server, before its program runs, if it is to have one.
    pub(super) async fn serve_names(
        &self,
        pid: i32,
        netns: BorrowedFd<'_>,
        endpoints: &[Endpoint],
        forwarding: Option<&Forwarding>,
    ) -> Result<(), Error> {
        let Some(forwarding) = forwarding else { return Ok(()) };
        let served = self.served(pid, endpoints, forwarding.clone());
        self.parts.networks.names.serve(self.container.id(), served, netns).await?;
        self.parts.watch_net_process();
        Ok(())
    }

    /// Lets others know its names as they are now, and its name server its networks. Nothing for a container that has no
    /// names. What fails is told in the log: the container goes on without.
    pub(super) async fn announce(&self) {
        let State::Running(running) = self.container.state() else { return };
        let serves = self.parts.networks.names.serves(self.container.id());
        if !serves && !has_names(&running.endpoints) {
            return;
        }
        let made = self.resolv_conf(&running.endpoints, true);
        if !serves && let Err(error) = self.replace_resolv_conf(&running, &made) {
            tracing::warn!(container = self.container.id(), %error, "resolv.conf was not brought up to date");
        }
        let served = self.served(running.pid, &running.endpoints, forwarding(&made));
        let outcome = match namespace(running.pid) {
            Ok(netns) => self.parts.networks.names.serve(self.container.id(), served, netns.as_fd()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(container = self.container.id(), %error, "its names were not brought up to date");
        }
        self.parts.watch_net_process();
    }

    /// Remembers its names when it was taken over: the net process is told of all containers at once.
    pub(super) fn remember_names(&self, running: &Running) {
        let served = running.resolver.as_ref().is_some_and(|resolver| resolver.served);
        if served || has_names(&running.endpoints) {
            let made = self.resolv_conf(&running.endpoints, true);
            let served = self.served(running.pid, &running.endpoints, forwarding(&made));
            self.parts.networks.names.remember(self.container.id(), served);
        }
    }

    /// Writes `/etc/resolv.conf` anew, unless somebody has changed it since it was written.
    fn replace_resolv_conf(&self, running: &Running, made: &ResolvConf) -> Result<(), Error> {
        let path = self.parts.storage.container_dir(self.container.id())?.join("resolv.conf");
        let failed = |source| Error::Io { operation: format!("write {}", path.display()), source };
        let current = digest(&std::fs::read_to_string(&path).map_err(failed)?);
        let last = running.resolver.as_ref().map(|resolver| resolver.written.as_str());
        let mut resolver = Resolver { written: last.unwrap_or_default().to_owned(), served: true };
        if may_replace(Some(&current), last) {
            // In place: the container has this very file mounted.
            std::fs::write(&path, &made.text).map_err(failed)?;
            resolver.written = digest(&made.text);
        }
        self.change_regardless(|kept| {
            if let State::Running(running) = &mut kept.state {
                running.resolver = Some(resolver.clone());
            }
        });
        Ok(())
    }
}
