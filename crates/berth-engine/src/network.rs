//! The host's side of containers' networks: links, addresses, published ports.

pub mod attachment;
pub mod bridge;
pub mod names;
pub mod object;
pub mod request;
pub mod segment;
mod setup;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use berth_network::firewall::{self, FirewallState, Published, Reached};
use berth_network::net::NetClient;
use berth_network::subnets::{self, AddressPool};
use berth_network::{Endpoint, Host, PortMapping, inside};
use ipnet::{IpNet, Ipv4Net};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use crate::blocking::blocking;
use crate::create::ports::Publication;
use crate::{BridgeSettings, Error};
use attachment::Asked;
use names::Names;
use object::{Driver, Object};
use segment::Segment;
use setup::{default_gateway, default_object, firewall_state, published, reached, refill, reserve, set_up};

/// The networks of an engine. Nothing is set up before it is first needed.
pub struct Networks {
    settings: BridgeSettings,
    host: Arc<Host>,
    net: Arc<NetClient>,
    /// The default bridge. Once it is there, so are the links of all networks, and the firewall.
    bridge: OnceCell<Arc<Segment>>,
    /// The subnet that an earlier engine chose, and containers may still have addresses of.
    remembered: Mutex<Option<Ipv4Net>>,
    /// All networks that have endpoints, by ID; the default bridge once it is set up.
    segments: Mutex<BTreeMap<String, Arc<Segment>>>,
    /// Networks without endpoints that users made: configurations for others.
    others: Mutex<BTreeMap<String, Object>>,
    /// Endpoints of running containers by container ID, in the order of their links.
    endpoints: Mutex<BTreeMap<String, Vec<Endpoint>>>,
    /// The name servers of containers.
    pub names: Names,
    /// Where subnets come from.
    pools: Vec<AddressPool>,
    /// Held while a network is made or removed: subnets are chosen past those of others.
    pub(crate) changes: tokio::sync::Mutex<()>,
}

/// A network that a container is about to join.
pub struct Joining {
    /// The network.
    pub segment: Arc<Segment>,
    /// What its endpoint is to have.
    pub asked: Asked,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ID of the default bridge.
pub fn bridge_id() -> String {
    crate::networks::network_id("bridge")
}

impl Networks {
    /// The networks of the calling process's namespace: those of `objects`, which users made, and the default bridge.
    /// `remembered` is the default bridge's gateway as an earlier engine chose it, `seed` what makes this host's own IPv6
    /// subnets unique.
    pub fn open(
        settings: BridgeSettings,
        net: NetClient,
        remembered: Option<Ipv4Net>,
        objects: Vec<Object>,
        seed: &[u8; 5],
    ) -> Result<Networks, Error> {
        let net = Arc::new(net);
        let networks = Networks {
            settings,
            host: Arc::new(Host::open()?),
            names: Names::new(Arc::clone(&net)),
            net,
            bridge: OnceCell::new(),
            remembered: Mutex::new(remembered),
            segments: Mutex::default(),
            others: Mutex::default(),
            endpoints: Mutex::default(),
            pools: subnets::default_pools(seed),
            changes: tokio::sync::Mutex::default(),
        };
        for object in objects {
            networks.insert(object);
        }
        Ok(networks)
    }

    /// Makes a network known; its segment, if it has endpoints.
    fn insert(&self, object: Object) -> Option<Arc<Segment>> {
        let segment = Segment::new(object.clone());
        match &segment {
            Some(segment) => drop(lock(&self.segments).insert(object.id, Arc::clone(segment))),
            None => drop(lock(&self.others).insert(object.id.clone(), object)),
        }
        segment
    }

    /// The gateway, once it is settled.
    pub fn gateway(&self) -> Option<Ipv4Net> {
        let settled = self.bridge.get().and_then(|segment| {
            let subnet = segment.object.subnets.first()?;
            match (subnet.gateway?, subnet.net) {
                (IpAddr::V4(address), IpNet::V4(net)) => Ipv4Net::new(address, net.prefix_len()).ok(),
                _ => None,
            }
        });
        settled.or(self.settings.gateway).or(*lock(&self.remembered))
    }

    /// Networks that users made, in no order.
    pub fn objects(&self) -> Vec<Object> {
        let default = bridge_id();
        let segments = lock(&self.segments);
        let made = segments.values().filter(|segment| segment.object.id != default);
        let mut all: Vec<Object> = made.map(|segment| segment.object.clone()).collect();
        drop(segments);
        all.extend(lock(&self.others).values().cloned());
        all
    }

    /// A network that has endpoints.
    pub fn segment(&self, id: &str) -> Option<Arc<Segment>> {
        lock(&self.segments).get(id).cloned()
    }

    /// Whether anything has to be set up before it is first needed.
    pub fn has_networks(&self) -> bool {
        !lock(&self.segments).is_empty()
    }

    /// Pools of subnets, and the subnets that are taken.
    pub fn subnets(&self) -> (&[AddressPool], Vec<IpNet>) {
        let segments = lock(&self.segments);
        let taken = segments.values().flat_map(|segment| &segment.object.subnets).map(|subnet| subnet.net);
        let mut taken: Vec<IpNet> = taken.collect();
        drop(segments);
        taken.extend(self.gateway().map(|gateway| IpNet::V4(gateway.trunc())));
        (&self.pools, taken)
    }

    /// Endpoints of running containers.
    pub fn endpoints(&self) -> BTreeMap<String, Vec<Endpoint>> {
        lock(&self.endpoints).clone()
    }

    /// Takes over the endpoints of a container that runs already; before the bridge is first used.
    pub fn adopt(&self, container: &str, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Some(segment) = self.segment_of(endpoint) {
                segment.adopt(container, endpoint);
            }
        }
        lock(&self.endpoints).insert(container.to_owned(), endpoints.to_vec());
    }

    fn segment_of(&self, endpoint: &Endpoint) -> Option<Arc<Segment>> {
        match endpoint.network.as_str() {
            // A record that is older than networks.
            "" => self.bridge.get().cloned(),
            id => self.segment(id),
        }
    }

    /// Sets everything up, once: the default bridge's subnet, all links, the firewall with the ports of adopted
    /// containers.
    pub async fn bridge(&self) -> Result<&Arc<Segment>, Error> {
        self.bridge
            .get_or_try_init(|| async {
                let settings = self.settings.clone();
                let remembered = *lock(&self.remembered);
                let others: Vec<IpNet> = self.subnets().1;
                let gateway = blocking(move || default_gateway(&settings, remembered, &others)).await?;
                let segment = Segment::new(default_object(&self.settings, gateway))
                    .ok_or(berth_network::Error::NoSubnet)?;
                for (container, endpoints) in &*lock(&self.endpoints) {
                    let default = |endpoint: &&Endpoint| {
                        endpoint.network.is_empty() || endpoint.network == segment.object.id
                    };
                    endpoints.iter().filter(default).for_each(|endpoint| segment.adopt(container, endpoint));
                }
                let mut all: Vec<Arc<Segment>> = lock(&self.segments).values().cloned().collect();
                all.insert(0, Arc::clone(&segment));
                let (host, net, endpoints) =
                    (Arc::clone(&self.host), Arc::clone(&self.net), self.endpoints());
                blocking(move || set_up(&host, &net, &all, &endpoints)).await?;
                lock(&self.segments).insert(segment.object.id.clone(), Arc::clone(&segment));
                Ok(segment)
            })
            .await
    }

    /// Makes a network known and its links. What was made is taken back after an error.
    pub async fn create(&self, object: Object) -> Result<(), Error> {
        if object.link().is_none() {
            self.insert(object);
            return Ok(());
        }
        self.bridge().await?;
        let Some(segment) = self.insert(object) else { return Ok(()) };
        let (host, made) = (Arc::clone(&self.host), Arc::clone(&segment));
        let outcome = blocking(move || {
            made.link.ensure(&host)?;
            Ok(made.link.open_firewall()?)
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            let undone = self.remove(&segment.object.id).await;
            if let Err(error) = undone {
                tracing::warn!(network = segment.object.id, %error, "a network was not taken back whole");
            }
        }
        outcome
    }

    /// Takes a network's links away, and forgets it. Nobody may be on it ([`Segment::close`]).
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        if lock(&self.others).remove(id).is_some() {
            return Ok(());
        }
        self.bridge().await?;
        let Some(segment) = self.segment(id) else { return Ok(()) };
        let (host, link) = (Arc::clone(&self.host), segment.link.clone());
        let state = self.firewall_state(Some(id));
        blocking(move || {
            // The firewall may have been emptied by others.
            if link.close_firewall().is_err() {
                firewall::reconcile(&state)?;
            }
            Ok(link.remove(&host)?)
        })
        .await?;
        lock(&self.segments).remove(id);
        Ok(())
    }

    /// All that the firewall depends on, but for one network.
    fn firewall_state(&self, without: Option<&str>) -> FirewallState {
        let segments = lock(&self.segments).clone();
        let left = segments.values().filter(|segment| Some(segment.object.id.as_str()) != without);
        firewall_state(left, &self.endpoints())
    }

    /// Takes addresses and the ports for a container that is about to start.
    pub async fn attach(
        &self,
        container: &str,
        joining: &[Joining],
        ports: Vec<Publication>,
    ) -> Result<Vec<Endpoint>, Error> {
        self.bridge().await?;
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(joining.len());
        let outcome = self.join_all(container, joining, &mut endpoints, ports).await;
        if let Err(error) = outcome {
            joining.iter().for_each(|joining| joining.segment.leave(container));
            return Err(error);
        }
        lock(&self.endpoints).insert(container.to_owned(), endpoints.clone());
        Ok(endpoints)
    }

    async fn join_all(
        &self,
        container: &str,
        joining: &[Joining],
        endpoints: &mut Vec<Endpoint>,
        ports: Vec<Publication>,
    ) -> Result<(), Error> {
        for Joining { segment, asked } in joining {
            let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
            endpoints.push(segment.join(&self.host, container, asked, &names)?);
        }
        let [four, six] = segment::gateways(endpoints);
        // Only who can be reached from outside publishes.
        if let Some(publisher) = four.or(six)
            && !ports.is_empty()
        {
            let (net, owner) = (Arc::clone(&self.net), container.to_owned());
            endpoints[publisher].ports = blocking(move || reserve(&net, &owner, &ports)).await?;
        }
        Ok(())
    }

    /// Where a container's ports listen that are published without an address, if its networks say so.
    pub fn publish_address(joining: &[Joining]) -> Option<IpAddr> {
        joining.iter().find_map(|joining| match &joining.segment.object.driver {
            Driver::Bridge(options) => options.publish_address,
            Driver::Host | Driver::Null => None,
        })
    }

    /// Links the container's namespace to its networks and opens its ports.
    pub async fn connect(&self, netns: BorrowedFd<'_>, endpoints: &[Endpoint]) -> Result<(), Error> {
        self.bridge().await?;
        for endpoint in endpoints {
            let segment = self.known(endpoint)?;
            if let Err(first) = segment.link.connect(&self.host, netns, endpoint) {
                // Someone may have removed the bridge: make it again, once.
                segment.link.ensure(&self.host)?;
                segment.link.connect(&self.host, netns, endpoint).map_err(|_| first)?;
            }
        }
        self.publish(endpoints).await
    }

    fn known(&self, endpoint: &Endpoint) -> Result<Arc<Segment>, Error> {
        self.segment_of(endpoint).ok_or_else(|| Error::NoSuchNetwork(endpoint.network_name.clone()))
    }

    /// Opens the ports of endpoints.
    async fn publish(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let (published, reached) = self.openings(endpoints);
        if published.is_empty() && reached.is_empty() {
            return Ok(());
        }
        blocking(move || {
            firewall::publish(&published)?;
            Ok(firewall::open(&reached)?)
        })
        .await
    }

    fn openings(&self, endpoints: &[Endpoint]) -> (Vec<Published>, Vec<Reached>) {
        let mut all = (Vec::new(), Vec::new());
        for endpoint in endpoints.iter().filter(|endpoint| !endpoint.ports.is_empty()) {
            if let Some(segment) = self.segment_of(endpoint) {
                all.0.extend(published(&segment, endpoint));
                all.1.extend(reached(&segment, endpoint));
            }
        }
        all
    }

    /// Gives back what a container held; its links go with its namespace. All is tried, the first error told.
    pub async fn detach(&self, container: &str) -> Result<(), Error> {
        let Some(endpoints) = lock(&self.endpoints).remove(container) else { return Ok(()) };
        let (published, reached) = self.openings(&endpoints);
        for endpoint in &endpoints {
            if let Some(segment) = self.segment_of(endpoint) {
                segment.leave(container);
            }
        }
        if endpoints.iter().all(|endpoint| endpoint.ports.is_empty()) {
            return Ok(());
        }
        let (net, owner) = (Arc::clone(&self.net), container.to_owned());
        blocking(move || {
            let closed = firewall::unpublish(&published).and_then(|()| firewall::close(&reached));
            net.release(&owner)?;
            Ok(closed?)
        })
        .await
    }

    /// Takes addresses on one more network for a container that runs. Its endpoint is pending until
    /// [`Networks::plug`] has made its link.
    pub async fn join(&self, container: &str, joining: &Joining) -> Result<Endpoint, Error> {
        self.bridge().await?;
        let names: Vec<String> = lock(&self.endpoints)
            .get(container)
            .map(|endpoints| endpoints.iter().map(|endpoint| endpoint.name.clone()).collect())
            .unwrap_or_default();
        let mut endpoint = joining.segment.join(&self.host, container, &joining.asked, &names)?;
        endpoint.pending = true;
        Ok(endpoint)
    }

    /// Makes the link of one more endpoint of a container that runs, whose endpoints are `all` with it, and sets it up
    /// inside.
    pub async fn plug(
        &self,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
        all: &[Endpoint],
    ) -> Result<(), Error> {
        let segment = self.known(endpoint)?;
        if let Err(first) = segment.link.connect(&self.host, netns, endpoint) {
            segment.link.ensure(&self.host)?;
            segment.link.connect(&self.host, netns, endpoint).map_err(|_| first)?;
        }
        let link = endpoint.link_config(default_routes(all, &endpoint.name));
        let netns = netns.try_clone_to_owned().map_err(|source| Error::Io {
            operation: "keep the container's network namespace".into(),
            source,
        })?;
        blocking(move || Ok(inside::configure(std::os::fd::AsFd::as_fd(&netns), &link)?)).await
    }

    /// Takes an endpoint's link away from a container that runs.
    pub async fn unplug(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let host = Arc::clone(&self.host);
        let (segment, endpoint) = (self.segment_of(endpoint), endpoint.clone());
        blocking(move || {
            match segment {
                Some(segment) => segment.link.disconnect(&host, &endpoint)?,
                None => host.remove_link(&endpoint.host_link)?,
            }
            Ok(())
        })
        .await
    }

    /// Makes the default routes of a container that runs go by its endpoints as they are now, after they were `before`.
    pub async fn reroute(
        &self,
        netns: BorrowedFd<'_>,
        before: &[Endpoint],
        now: &[Endpoint],
    ) -> Result<(), Error> {
        let (old, new) = (route_list(before), route_list(now));
        let family = |v6: bool| new.iter().any(|(_, gateway)| gateway.is_ipv6() == v6);
        let gone: Vec<_> = old.iter().filter(|(_, gateway)| !family(gateway.is_ipv6())).cloned().collect();
        if old == new {
            return Ok(());
        }
        let netns = netns.try_clone_to_owned().map_err(|source| Error::Io {
            operation: "keep the container's network namespace".into(),
            source,
        })?;
        blocking(move || Ok(inside::route(std::os::fd::AsFd::as_fd(&netns), &new, &gone)?)).await
    }

    /// Remembers a container's endpoints as they are now; gives back the addresses of `left`.
    pub fn settle(&self, container: &str, endpoints: Vec<Endpoint>, left: Option<&Endpoint>) {
        if let Some(segment) = left.and_then(|endpoint| self.segment_of(endpoint)) {
            segment.leave(container);
        }
        lock(&self.endpoints).insert(container.to_owned(), endpoints);
    }

    /// Moves open ports with the endpoint that publishes them, from one set of a container's endpoints to the next.
    pub async fn republish(&self, before: &[Endpoint], now: &[Endpoint]) -> Result<(), Error> {
        let (old, new) = (self.openings(before), self.openings(now));
        if old == new {
            return Ok(());
        }
        blocking(move || {
            firewall::unpublish(&old.0)?;
            firewall::close(&old.1)?;
            firewall::publish(&new.0)?;
            Ok(firewall::open(&new.1)?)
        })
        .await
    }

    /// Reserves ports for a container that runs, and had no way out so far.
    pub async fn reserve(&self, container: &str, ports: Vec<Publication>) -> Result<Vec<PortMapping>, Error> {
        let (net, owner) = (Arc::clone(&self.net), container.to_owned());
        blocking(move || reserve(&net, &owner, &ports)).await
    }

    /// Gives back the ports of a container that runs, and has no way out any more.
    pub async fn release(&self, container: &str) -> Result<(), Error> {
        let (net, owner) = (Arc::clone(&self.net), container.to_owned());
        blocking(move || Ok(net.release(&owner)?)).await
    }

    /// Starts the net process again if it has died, and fills it with the ports and the names of running containers.
    pub async fn heal(&self) -> Result<(), Error> {
        let mut ports = Ok(());
        if self.holds_ports() {
            let (net, endpoints) = (Arc::clone(&self.net), self.endpoints());
            ports = blocking(move || refill(&net, &endpoints)).await;
        }
        let names = if self.names.is_used() { self.names.refill().await } else { Ok(()) };
        ports.and(names)
    }

    /// Whether a running container needs the net process: it has a published port, or a name server.
    pub fn needs_net_process(&self) -> bool {
        self.holds_ports() || self.names.is_used()
    }

    fn holds_ports(&self) -> bool {
        lock(&self.endpoints).values().flatten().any(|endpoint| !endpoint.ports.is_empty())
    }

    /// Resolves when the net process has ended; at once if there is none.
    pub async fn net_process_ended(&self) -> Result<(), Error> {
        let net = Arc::clone(&self.net);
        let process = blocking(move || Ok(net.process().ok())).await?;
        let Some(process) = process else { return Ok(()) };
        let failed = |source| Error::Io { operation: "watch the net process".into(), source };
        #[expect(
            deprecated,
            reason = "the unsafe successor is for types that might lie about their descriptor"
        )]
        let process = AsyncFd::with_interest(process, Interest::READABLE).map_err(failed)?;
        process.readable().await.map_err(failed)?.retain_ready();
        Ok(())
    }

    /// Ends the net process if no port is held.
    pub fn end(&self) {
        self.net.stop_if_idle();
    }
}

/// The next hops that a link of a container has, by its name.
pub fn default_routes(endpoints: &[Endpoint], link: &str) -> Vec<IpAddr> {
    let routes = route_list(endpoints).into_iter();
    routes.filter(|(name, _)| name == link).map(|(_, gateway)| gateway).collect()
}

/// A container's default routes: link and next hop.
fn route_list(endpoints: &[Endpoint]) -> Vec<(String, IpAddr)> {
    let chosen = segment::gateways(endpoints).into_iter().zip([false, true]);
    let route = |(index, v6): (Option<usize>, bool)| {
        let endpoint = &endpoints[index?];
        Some((endpoint.name.clone(), endpoint.gateway(v6)?))
    };
    chosen.filter_map(route).collect()
}
