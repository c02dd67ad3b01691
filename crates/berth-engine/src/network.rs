//! The host's side of containers' networks: the default bridge, its addresses, published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use berth_network::firewall::{self, FirewallState, Published};
use berth_network::ipam::{self, Pool};
use berth_network::net::NetClient;
use berth_network::{Bridge, Endpoint, Host, PortMapping};
use ipnet::{IpNet, Ipv4Net};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use crate::blocking::blocking;
use crate::create::ports::Publication;
use crate::{BridgeSettings, Error};

/// The networks of an engine. Nothing is set up before it is first needed.
pub struct Networks {
    settings: BridgeSettings,
    host: Arc<Host>,
    net: Arc<NetClient>,
    bridge: OnceCell<Bridge>,
    /// The subnet that an earlier engine chose, and containers may still have addresses of.
    remembered: Mutex<Option<Ipv4Net>>,
    pool: Mutex<Option<Pool>>,
    /// Endpoints of running containers by container ID.
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// The networks of the calling process's namespace. `remembered` is the default bridge's gateway as an
    /// earlier engine chose it.
    pub fn open(
        settings: BridgeSettings,
        net: NetClient,
        remembered: Option<Ipv4Net>,
    ) -> Result<Networks, Error> {
        Ok(Networks {
            settings,
            host: Arc::new(Host::open()?),
            net: Arc::new(net),
            bridge: OnceCell::new(),
            remembered: Mutex::new(remembered),
            pool: Mutex::default(),
            endpoints: Mutex::default(),
        })
    }

    /// The gateway, once it is settled.
    pub fn gateway(&self) -> Option<Ipv4Net> {
        self.bridge.get().and_then(Bridge::gateway4).or(self.settings.gateway).or(*lock(&self.remembered))
    }

    /// Endpoints of running containers.
    pub fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        lock(&self.endpoints).clone()
    }

    /// Takes over the endpoint of a container that runs already; before the bridge is first used.
    pub fn adopt(&self, container: &str, endpoint: &Endpoint) {
        lock(&self.endpoints).insert(container.to_owned(), endpoint.clone());
    }

    /// Sets the bridge up, once: subnet, link, firewall with the ports of adopted containers.
    pub async fn bridge(&self) -> Result<&Bridge, Error> {
        self.bridge
            .get_or_try_init(|| async {
                let settings = self.settings.clone();
                let remembered = *lock(&self.remembered);
                let host = Arc::clone(&self.host);
                let net = Arc::clone(&self.net);
                let endpoints = self.endpoints();
                let adopted = endpoints.clone();
                let bridge = blocking(move || set_up(&settings, remembered, &host, &net, &adopted)).await?;
                self.fill_pool(&bridge, &endpoints);
                Ok(bridge)
            })
            .await
    }

    fn fill_pool(&self, bridge: &Bridge, endpoints: &BTreeMap<String, Endpoint>) {
        let Some(gateway) = bridge.gateway4() else { return };
        let mut pool = Pool::new(gateway, gateway.addr());
        for address in endpoints.values().filter_map(Endpoint::address4) {
            pool.reserve(address);
        }
        *lock(&self.pool) = Some(pool);
    }

    /// Takes an address and the ports for a container that is about to start. Without a hardware address it gets one
    /// that follows from its IPv4 address.
    pub async fn attach(
        &self,
        container: &str,
        mac: Option<[u8; 6]>,
        ports: Vec<Publication>,
    ) -> Result<Endpoint, Error> {
        let bridge = self.bridge().await?;
        let address = lock(&self.pool)
            .as_mut()
            .and_then(|pool| pool.allocate(|link| self.host.link_exists(link)))
            .ok_or_else(|| {
                Error::Unavailable(format!(
                    "no available IPv4 addresses on this network's address pools: {}",
                    bridge.name
                ))
            })?;
        let gateway = bridge.gateway4();
        let mut endpoint = Endpoint {
            host_link: Endpoint::host_link_name(),
            name: "eth0".into(),
            mac: mac.unwrap_or_else(|| ipam::mac_for(address)),
            addresses: gateway
                .and_then(|gateway| Ipv4Net::new(address, gateway.prefix_len()).ok())
                .map(IpNet::V4)
                .into_iter()
                .collect(),
            gateways: gateway.map(|gateway| IpAddr::V4(gateway.addr())).into_iter().collect(),
            ports: Vec::new(),
        };
        if !ports.is_empty() {
            let (net, owner) = (Arc::clone(&self.net), container.to_owned());
            match blocking(move || reserve(&net, &owner, &ports)).await {
                Ok(settled) => endpoint.ports = settled,
                Err(error) => {
                    self.give_back(address, &endpoint.host_link);
                    return Err(error);
                }
            }
        }
        lock(&self.endpoints).insert(container.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    /// Links the container's namespace to the bridge and opens its ports.
    pub async fn connect(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        let bridge = self.bridge().await?;
        if let Err(first) = self.host.connect(bridge, netns, endpoint) {
            // Someone may have removed the bridge: make it again, once.
            self.host.ensure_bridge(bridge)?;
            self.host.connect(bridge, netns, endpoint).map_err(|_| first)?;
        }
        let published = published(endpoint);
        if published.is_empty() {
            return Ok(());
        }
        blocking(move || Ok(firewall::publish(&published)?)).await
    }

    /// Gives back what a container held; its link goes with its namespace. All is tried, the first error told.
    pub async fn detach(&self, container: &str) -> Result<(), Error> {
        let Some(endpoint) = lock(&self.endpoints).remove(container) else { return Ok(()) };
        if let Some(address) = endpoint.address4() {
            self.give_back(address, &endpoint.host_link);
        }
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        let (net, owner) = (Arc::clone(&self.net), container.to_owned());
        blocking(move || {
            let closed = firewall::unpublish(&published(&endpoint));
            net.release(&owner)?;
            Ok(closed?)
        })
        .await
    }

    fn give_back(&self, address: Ipv4Addr, link: &str) {
        if let Some(pool) = lock(&self.pool).as_mut() {
            pool.release(address, link.to_owned());
        }
    }

    /// Starts the net process again if it has died, and fills it with the ports of running containers.
    pub async fn heal(&self) -> Result<(), Error> {
        let endpoints = self.endpoints();
        if endpoints.values().all(|endpoint| endpoint.ports.is_empty()) {
            return Ok(());
        }
        let net = Arc::clone(&self.net);
        blocking(move || refill(&net, &endpoints)).await
    }

    /// Whether a running container has a published port.
    pub fn holds_ports(&self) -> bool {
        lock(&self.endpoints).values().any(|endpoint| !endpoint.ports.is_empty())
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

fn refill(net: &NetClient, endpoints: &BTreeMap<String, Endpoint>) -> Result<(), Error> {
    let mut first = Ok(());
    for (container, endpoint) in endpoints.iter().filter(|(_, endpoint)| !endpoint.ports.is_empty()) {
        let reserved = net.reserve(container, &endpoint.ports).map(|_| ()).map_err(Error::from);
        first = first.and(reserved);
    }
    first
}

fn set_up(
    settings: &BridgeSettings,
    remembered: Option<Ipv4Net>,
    host: &Host,
    net: &NetClient,
    endpoints: &BTreeMap<String, Endpoint>,
) -> Result<Bridge, Error> {
    let gateway = match settings.gateway.or(remembered) {
        Some(gateway) => gateway,
        None => {
            let subnet = ipam::choose_subnet(&[])?;
            let IpAddr::V4(first) = ipam::first_address(subnet) else {
                return Err(berth_network::Error::NoSubnet.into());
            };
            Ipv4Net::new(first, subnet.prefix_len()).map_err(|_| berth_network::Error::NoSubnet)?
        }
    };
    let bridge = Bridge {
        name: settings.name.clone(),
        gateways: vec![IpNet::V4(gateway)],
        mtu: settings.mtu,
        masquerade: settings.masquerade,
    };
    host.ensure_bridge(&bridge)?;
    let ports = endpoints.values().flat_map(published).collect();
    firewall::reconcile(&FirewallState { bridges: vec![(bridge.name.clone(), bridge.masquerade)], ports })?;
    refill(net, endpoints)?;
    Ok(bridge)
}

/// The firewall's elements of an endpoint.
fn published(endpoint: &Endpoint) -> Vec<Published> {
    let Some(container) = endpoint.address4() else { return Vec::new() };
    endpoint.ports.iter().map(|mapping| Published { mapping: mapping.clone(), container }).collect()
}

/// Reserves all ports of a container, or none. In a range, the next port is tried while one is taken.
fn reserve(net: &NetClient, owner: &str, ports: &[Publication]) -> Result<Vec<PortMapping>, Error> {
    let mut candidates: Vec<_> = ports.iter().map(Publication::candidates).collect();
    let mut wanted: Vec<PortMapping> = candidates.iter_mut().filter_map(Iterator::next).collect();
    loop {
        let error = match net.reserve(owner, &wanted) {
            Ok(settled) => return Ok(settled),
            Err(error) => error,
        };
        let berth_network::Error::PortInUse { address, port } = error else { return Err(error.into()) };
        let taken = wanted.iter().position(|w| w.host_address == address && w.host_port == port);
        match taken.and_then(|index| Some((index, candidates[index].next()?))) {
            Some((index, next)) => wanted[index] = next,
            None => return Err(error.into()),
        }
    }
}
