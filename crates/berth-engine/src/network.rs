//! The host's side of containers' networks: links, addresses, published ports.

pub mod attachment;
pub mod bridge;
pub mod default;
mod forward;
mod hold;
pub mod linked;
mod make;
pub mod names;
pub mod object;
mod openings;
pub mod plugin;
mod ports;
mod publish;
pub mod request;
mod room;
pub mod segment;
mod settled;
mod setup;
pub mod sublink;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use berth_network::firewall::Firewall;
use berth_network::ipam::Taken;
use berth_network::net::NetClient;
use berth_network::subnets::{self, AddressPool};
use berth_network::{Endpoint, Host, inside};
use ipnet::IpNet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use crate::blocking::blocking;
use crate::create::ports::Publication;
use crate::{BridgeSettings, Error, NetworkSettings, Settings};
use attachment::Asked;
use forward::Forwarding;
use linked::{Links, Party};
use names::Names;
use object::{Driver, Object};
use plugin::Plugins;
use segment::Segment;
pub use segment::endpoint_mac;
pub use settled::Settled;
use setup::{SetUp, refill};

/// Default bridges that are tried, of engines in one network namespace.
const BRIDGES: usize = 100;

/// The networks of an engine. Nothing is set up before it is first needed.
pub struct Networks {
    settings: BridgeSettings,
    common: NetworkSettings,
    forwarding: Arc<Forwarding>,
    host: Arc<Host>,
    net: Arc<NetClient>,
    /// What the default bridge is.
    settled: Settled,
    firewall: Arc<Firewall>,
    /// Links on a default bridge without traffic between its containers.
    links: Arc<Links>,
    /// The default bridge. Once it is there, so are the links of all networks, and the firewall.
    bridge: OnceCell<Option<Arc<Segment>>>,
    /// All networks that have endpoints, by ID; the default bridge once it is set up.
    segments: Mutex<BTreeMap<String, Arc<Segment>>>,
    /// Networks without endpoints that users made: configurations for others.
    others: Mutex<BTreeMap<String, Object>>,
    /// Endpoints of running containers by container ID, in the order of their links.
    endpoints: Mutex<BTreeMap<String, Vec<Endpoint>>>,
    /// The name servers of containers.
    pub names: Names,
    /// Network namespaces of running containers, by container ID: of those whose links have to be removed.
    namespaces: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
    /// Where subnets come from.
    pools: Vec<AddressPool>,
    /// Plugins that make links, or give out addresses.
    pub plugins: Plugins,
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
    /// `settled` is what that was so far, `seed` what makes this host's own IPv6 subnets unique.
    pub fn open(
        settings: &Settings,
        net: NetClient,
        settled: Settled,
        objects: Vec<Object>,
        seed: &[u8; 5],
    ) -> Result<Networks, Error> {
        let net = Arc::new(net);
        let owner = settings.data_root.to_string_lossy();
        let host = Arc::new(Host::open_for(&owner)?);
        let mut bridge = settings.bridge.clone();
        bridge.name = own_bridge(&host, &bridge)?;
        let firewall = Arc::new(Firewall::new(settings.firewall, &settings.exec_root, &owner));
        let networks = Networks {
            settings: bridge,
            common: settings.networks.clone(),
            forwarding: Arc::new(Forwarding::open(&settings.networks, &settings.exec_root)),
            links: Arc::new(Links::new(Arc::clone(&host), Arc::clone(&firewall))),
            host,
            names: Names::new(Arc::clone(&net)),
            net,
            firewall,
            settled,
            bridge: OnceCell::new(),
            segments: Mutex::default(),
            others: Mutex::default(),
            endpoints: Mutex::default(),
            namespaces: Mutex::default(),
            pools: subnets::completed(&settings.networks.pools, seed),
            plugins: Plugins::default(),
            changes: tokio::sync::Mutex::default(),
        };
        for object in objects {
            networks.insert(object);
        }
        Ok(networks)
    }

    /// Makes a network known; its segment, if it has endpoints.
    fn insert(&self, object: Object) -> Option<Arc<Segment>> {
        let taken = |net| self.taken(&object.driver, net);
        let segment = Segment::new(object.clone(), self.common.direct_routing, taken);
        match &segment {
            Some(segment) => drop(lock(&self.segments).insert(object.id, Arc::clone(segment))),
            None => drop(lock(&self.others).insert(object.id.clone(), object)),
        }
        segment
    }

    /// Whether the host has the default bridge's link from the engine's start on.
    pub fn is_eager(&self) -> bool {
        self.settings.eager
    }

    /// Whether the host has a link of this name.
    pub fn link_exists(&self, name: &str) -> bool {
        self.host.link_exists(name)
    }

    /// The addresses of a bridge of this name that an administrator or another engine has made; `None` if there is none.
    pub fn foreign_bridge(&self, name: &str) -> Result<Option<Vec<IpNet>>, Error> {
        Ok(self.host.foreign_bridge(name)?)
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
        if let Some(default) = self.default_bridge() {
            taken.extend(default.subnets.iter().map(|subnet| subnet.net));
        }
        (&self.pools, taken)
    }

    /// Endpoints of running containers.
    pub fn endpoints(&self) -> BTreeMap<String, Vec<Endpoint>> {
        lock(&self.endpoints).clone()
    }

    /// Takes over the endpoints of a container that runs already; before the bridge is first used.
    pub fn adopt(&self, container: &str, party: Party, endpoints: &[Endpoint]) {
        self.links.adopt(container, party, endpoints);
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
            "" => self.bridge.get().cloned().flatten(),
            id => self.segment(id),
        }
    }

    /// Whether one of a container's networks leads out of the host, with a next hop or without: neighbours on a parent's link
    /// need none.
    pub fn leads_out(&self, endpoints: &[Endpoint]) -> bool {
        let leads = |object: &Object| match &object.driver {
            Driver::Sublinks(options) => options.parent.is_some() && !object.internal,
            // Only the plugin knows.
            Driver::Plugin(_) => !object.internal,
            Driver::Bridge(_) | Driver::Host | Driver::Null => false,
        };
        let known = endpoints.iter().filter_map(|endpoint| self.segment_of(endpoint));
        known.into_iter().any(|segment| leads(&segment.object))
    }

    /// The default bridge, with everything set up; `None` if there is none.
    pub async fn bridge(&self) -> Result<Option<&Arc<Segment>>, Error> {
        self.ready().await.map(Option::as_ref)
    }

    /// Sets everything up, once: the default bridge's subnets, all links, the firewall with the ports of adopted
    /// containers.
    async fn ready(&self) -> Result<&Option<Arc<Segment>>, Error> {
        self.bridge
            .get_or_try_init(|| async {
                let object = self.settle_for_link().await?;
                let direct = self.common.direct_routing;
                let segment = object
                    .and_then(|object| Segment::new(Object::clone(&object), direct, |_| Taken::default()));
                let id = bridge_id();
                for (container, endpoints) in &*lock(&self.endpoints) {
                    let default =
                        |endpoint: &&Endpoint| endpoint.network.is_empty() || endpoint.network == id;
                    if let Some(segment) = &segment {
                        endpoints.iter().filter(default).for_each(|one| segment.adopt(container, one));
                    }
                }
                let others: Vec<Arc<Segment>> = lock(&self.segments).values().cloned().collect();
                let (default, name) = (segment.clone(), self.settings.name.clone());
                let all = SetUp {
                    host: Arc::clone(&self.host),
                    net: Arc::clone(&self.net),
                    forwarding: Arc::clone(&self.forwarding),
                    firewall: Arc::clone(&self.firewall),
                    links: Arc::clone(&self.links),
                    endpoints: self.endpoints(),
                };
                blocking(move || all.run(default.as_ref(), &name, &others)).await?;
                if let Some(segment) = &segment {
                    lock(&self.segments).insert(segment.object.id.clone(), Arc::clone(segment));
                }
                Ok(segment)
            })
            .await
    }

    /// The firewall of these networks.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// Takes addresses and the ports for a container that is about to start.
    pub async fn attach(
        &self,
        container: &str,
        joining: &[Joining],
        ports: Vec<Publication>,
    ) -> Result<Vec<Endpoint>, Error> {
        self.ready().await?;
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(joining.len());
        let outcome = self.join_all(container, joining, &mut endpoints, ports).await;
        if let Err(error) = outcome {
            self.withdraw(container, &endpoints).await;
            joining.iter().for_each(|joining| joining.segment.leave(&self.host, container));
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
        for (index, one) in joining.iter().enumerate() {
            let Joining { segment, asked } = one;
            let mut names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
            if asked.link_name.is_none() {
                // A name that another link is to get is none that is free.
                names.extend(joining[index..].iter().filter_map(|joining| joining.asked.link_name.clone()));
            }
            let mut endpoint = segment.join(&self.host, container, asked, &names)?;
            self.complete(container, one, &names, &ports, &mut endpoint).await?;
            endpoints.push(endpoint);
        }
        self.place_ports(container, endpoints, &ports).await
    }

    /// Links the container's namespace to its networks and opens its ports.
    pub async fn connect(
        &self,
        container: &str,
        netns: BorrowedFd<'_>,
        endpoints: &[Endpoint],
    ) -> Result<(), Error> {
        self.ready().await?;
        self.hold(container, netns, endpoints)?;
        for endpoint in endpoints {
            let segment = self.known(endpoint)?;
            if let Err(first) = segment.link.connect(&self.host, netns, endpoint) {
                // Someone may have removed the bridge: make it again, once.
                segment.link.ensure(&self.host)?;
                segment.link.connect(&self.host, netns, endpoint).map_err(|_| first)?;
            }
            self.make_room(&segment).await;
        }
        self.publish(endpoints).await
    }

    fn known(&self, endpoint: &Endpoint) -> Result<Arc<Segment>, Error> {
        self.segment_of(endpoint).ok_or_else(|| Error::NoSuchNetwork(endpoint.network_name.clone()))
    }

    /// Gives back what a container held; its links go with its namespace. All is tried, the first error told.
    pub async fn detach(&self, container: &str) -> Result<(), Error> {
        let Some(endpoints) = lock(&self.endpoints).remove(container) else { return Ok(()) };
        if let Err(error) = self.remove_links(container, &endpoints).await {
            // They go with the namespace all the same.
            tracing::debug!(container, %error, "links were left to the kernel");
        }
        self.withdraw(container, &endpoints).await;
        let unlinked = self.close_links(container).await;
        let closed = self.close(container, &endpoints).await;
        // Last: whoever has its addresses next must not be reached through its ports, nor lose some of their own.
        for endpoint in &endpoints {
            if let Some(segment) = self.segment_of(endpoint) {
                segment.leave(&self.host, container);
            }
        }
        unlinked.and(closed)
    }

    /// Takes addresses on one more network for a container that runs. Its endpoint is pending until
    /// [`Networks::plug`] has made its link.
    pub async fn join(&self, container: &str, joining: &Joining) -> Result<Endpoint, Error> {
        self.ready().await?;
        let names: Vec<String> = lock(&self.endpoints)
            .get(container)
            .map(|endpoints| endpoints.iter().map(|endpoint| endpoint.name.clone()).collect())
            .unwrap_or_default();
        let mut endpoint = joining.segment.join(&self.host, container, &joining.asked, &names)?;
        if let Err(error) = self.complete(container, joining, &names, &[], &mut endpoint).await {
            joining.segment.leave(&self.host, container);
            return Err(error);
        }
        endpoint.pending = true;
        Ok(endpoint)
    }

    /// Makes the link of one more endpoint of a container that runs, whose endpoints are `all` with it, and sets it up
    /// inside.
    pub async fn plug(
        &self,
        container: &str,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
        all: &[Endpoint],
    ) -> Result<(), Error> {
        let segment = self.known(endpoint)?;
        self.hold(container, netns, std::slice::from_ref(endpoint))?;
        if let Err(first) = segment.link.connect(&self.host, netns, endpoint) {
            segment.link.ensure(&self.host)?;
            segment.link.connect(&self.host, netns, endpoint).map_err(|_| first)?;
        }
        self.make_room(&segment).await;
        if endpoint.name.is_empty() {
            return Ok(());
        }
        let link = endpoint.link_config(default_routes(all, &endpoint.name));
        let netns = netns.try_clone_to_owned().map_err(|source| Error::Io {
            operation: "keep the container's network namespace".into(),
            source,
        })?;
        let others: Vec<Endpoint> = all.iter().filter(|other| other.name != endpoint.name).cloned().collect();
        let had = route_list(&others);
        let replaced = [false, true].map(|v6| had.iter().any(|(_, gateway)| gateway.is_ipv6() == v6));
        blocking(move || Ok(inside::configure(std::os::fd::AsFd::as_fd(&netns), &link, replaced)?)).await
    }

    /// Takes an endpoint's link away from a container that runs.
    pub async fn unplug(&self, container: &str, endpoint: &Endpoint) -> Result<(), Error> {
        let host = Arc::clone(&self.host);
        let netns = lock(&self.namespaces).get(container).cloned();
        let (segment, gone) = (self.segment_of(endpoint), endpoint.clone());
        let unplugged = blocking(move || {
            match segment {
                Some(segment) => {
                    segment.link.disconnect(&host, netns.as_ref().map(|netns| netns.as_fd()), &gone)?
                }
                None => host.remove_link(&gone.host_link)?,
            }
            Ok(())
        });
        let unplugged = unplugged.await;
        self.withdraw(container, std::slice::from_ref(endpoint)).await;
        unplugged
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
            segment.part(&self.host, container);
        }
        lock(&self.endpoints).insert(container.to_owned(), endpoints);
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

    /// Ends the net process if no port is held, and takes away what the firewall has for nothing.
    pub fn end(&self) {
        if lock(&self.endpoints).is_empty()
            && let Err(error) = self.firewall.end()
        {
            tracing::warn!(%error, "firewall rules are left");
        }
        self.net.stop_if_idle();
    }
}

/// The name of the default bridge's link. Another engine in this network namespace may have one of the usual name: then it is
/// the next. Administrators choose for themselves, and under Docker's name the link is shared, as dockerd does it.
fn own_bridge(host: &Host, settings: &BridgeSettings) -> Result<String, Error> {
    let base = settings.name.trim_end_matches('0');
    if settings.foreign || settings.disabled || settings.name == "docker0" || base == settings.name {
        return Ok(settings.name.clone());
    }
    for number in 0..BRIDGES {
        let name = format!("{base}{number}");
        if !host.is_anothers(&name)? {
            return Ok(name);
        }
    }
    Ok(settings.name.clone())
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
