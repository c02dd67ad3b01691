//! A network in memory: who is on it, and which addresses they have.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_network::ipam::{self, Pool, Taken};
use berth_network::{Endpoint, Host, Link};
use ipnet::IpNet;

use super::attachment::Asked;
use super::object::{AddressDriver, Driver, Object, Subnet};
use crate::Error;

/// Containers that a network remembers after they left it.
const MOST_PARTED: usize = 64;

/// A network with endpoints.
pub struct Segment {
    /// What it is.
    pub object: Object,
    /// What the host makes of it.
    pub link: Link,
    /// Whether published ports are reached at containers' own addresses, too.
    pub direct: bool,
    members: Mutex<Members>,
}

/// Who is on it.
struct Members {
    pools: Vec<Pool>,
    /// Endpoints by container.
    endpoints: BTreeMap<String, Endpoint>,
    /// Containers that left while they ran, with the addresses that they had: the last ones.
    parted: VecDeque<(String, Vec<IpAddr>)>,
    /// It is being removed: nobody joins any more.
    leaving: bool,
}

impl Segment {
    /// A network without endpoints; `None` for a driver that has none.
    /// `taken` is what is taken of a subnet already.
    pub fn new(object: Object, direct: bool, taken: impl Fn(IpNet) -> Taken) -> Option<Arc<Segment>> {
        let link = object.link()?;
        // A plugin's subnets are its own to give addresses of.
        let own = object.subnets.iter().filter(|_| object.addresses == AddressDriver::Own);
        let pools = own.map(|subnet| {
            let mut pool = Pool::sharing(subnet.net, subnet.range, taken(subnet.net));
            for address in subnet.set_aside() {
                pool.reserve(address);
            }
            pool
        });
        let (pools, endpoints, parted) = (pools.collect(), BTreeMap::new(), VecDeque::new());
        let members = Members { pools, endpoints, parted, leaving: false };
        Some(Arc::new(Segment { link, object, direct, members: Mutex::new(members) }))
    }

    /// The families that the host has to forward for it: false for IPv4, true for IPv6.
    pub fn forwarded(&self) -> Vec<bool> {
        match self.link.firewall() {
            Some(_) => [false, true]
                .into_iter()
                .filter(|v6| self.object.subnets.iter().any(|subnet| subnet.is_v6() == *v6))
                .collect(),
            None => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // What the lock guards is whole between any two statements.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes addresses for a container. `index` is the number of its first link that has no name yet.
    pub fn join(
        &self,
        host: &Host,
        container: &str,
        asked: &Asked,
        names: &[String],
    ) -> Result<Endpoint, Error> {
        let mut members = self.lock();
        if members.leaving {
            return Err(Error::NoSuchNetwork(self.object.name.clone()));
        }
        if let (Driver::Sublinks(options), Some(_)) = (&self.object.driver, asked.mac)
            && options.driver() == "ipvlan"
        {
            return Err(Error::Forbidden(
                "ipvlan interfaces do not support custom mac address assignment".into(),
            ));
        }
        let former = members.former(container);
        let mut endpoint = self.blank(asked, names);
        if names.contains(&endpoint.name) {
            let (link, name) = (endpoint.host_link, endpoint.name);
            return Err(berth_network::Error::LinkNameTaken { link, name }.into());
        }
        for v6 in [false, true].into_iter().filter(|v6| !v6 || !asked.disables_ipv6()) {
            let wanted = if v6 { asked.ipv6.map(IpAddr::V6) } else { asked.ipv4.map(IpAddr::V4) };
            let former = former.iter().copied().find(|former| former.is_ipv6() == v6);
            let wish = Wish { v6, wanted, former };
            match self.take(&mut members, wish, host) {
                Ok(None) => {}
                Ok(Some((address, subnet))) => {
                    endpoint.addresses.extend(IpNet::new(address, subnet.net.prefix_len()).ok());
                    endpoint.gateways.extend(self.object.gateway(subnet));
                }
                Err(error) => {
                    members.give_back(host, &endpoint);
                    return Err(error);
                }
            }
        }
        if endpoint.mac == [0; 6]
            && self.object.driver.has_own_hardware_address()
            && !self.object.is_kept_by_plugins()
        {
            // It follows from an address that the endpoint has again next time, if any: neighbours remember it.
            let lasting = asked.link_local.first().filter(|_| asked.ipv4.is_none() && asked.ipv6.is_none());
            let address = lasting.and_then(lone).or(endpoint.addresses.first().copied());
            endpoint.mac = endpoint_mac(address);
        }
        // Beside, and no subnet's: nobody else could get them. Others that have one are on the same link.
        endpoint.addresses.extend(asked.link_local.iter().filter_map(lone));
        if matches!(self.object.driver, Driver::Sublinks(_)) {
            // Switches and hosts on the cable may know its addresses from elsewhere.
            endpoint.sysctls.splice(..0, announcements(&endpoint));
        }
        members.endpoints.insert(container.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    /// An address of one family, if the network has it: in the first subnet that holds the wanted one, or has room.
    fn take(
        &self,
        members: &mut Members,
        Wish { v6, wanted, former }: Wish,
        host: &Host,
    ) -> Result<Option<(IpAddr, &Subnet)>, Error> {
        let mut outcome = Ok(None);
        // Who comes back finds its place again, unless it is another's by now.
        if let (None, Some(former)) = (wanted, former) {
            let mut both = members.pools.iter_mut().zip(&self.object.subnets);
            if let Some((pool, subnet)) = both.find(|(pool, _)| pool.subnet().contains(&former))
                && pool.regain(former, |link| host.link_exists(link))
            {
                return Ok(Some((former, subnet)));
            }
        }
        for (pool, subnet) in members.pools.iter_mut().zip(&self.object.subnets) {
            if subnet.is_v6() != v6 || wanted.is_some_and(|wanted| !subnet.net.contains(&wanted)) {
                continue;
            }
            match taken(pool, wanted, host) {
                Ok(address) => return Ok(Some((address, subnet))),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// An endpoint without addresses. Its link gets the first free name.
    fn blank(&self, asked: &Asked, names: &[String]) -> Endpoint {
        let prefix = match &self.object.driver {
            Driver::Bridge(options) => options.prefix.as_str(),
            Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => "eth",
        };
        let free = (0..).map(|number: u32| format!("{prefix}{number}"));
        let name = asked.link_name.clone().or_else(|| free.into_iter().find(|name| !names.contains(name)));
        let name = name.unwrap_or_default();
        Endpoint {
            network: self.object.id.clone(),
            network_name: self.object.name.clone(),
            host_link: Endpoint::host_link_name(),
            sysctls: asked.sysctls_of(&name),
            name,
            mac: asked.mac.unwrap_or_default(),
            priority: asked.priority,
            ..Endpoint::default()
        }
    }

    /// Takes over the endpoint of a container that runs already.
    pub fn adopt(&self, container: &str, endpoint: &Endpoint) {
        let mut members = self.lock();
        for address in &endpoint.addresses {
            for pool in &mut members.pools {
                pool.reserve(address.addr());
            }
        }
        members.endpoints.insert(container.to_owned(), endpoint.clone());
    }

    /// Gives a container's addresses back.
    pub fn leave(&self, host: &Host, container: &str) {
        let mut members = self.lock();
        if let Some(mut endpoint) = members.endpoints.remove(container) {
            if self.link == Link::Handed {
                // Its link is another's, and may stay for ever.
                endpoint.host_link.clear();
            }
            members.give_back(host, &endpoint);
        }
    }

    /// The same of one that goes on, and may come back.
    pub fn part(&self, host: &Host, container: &str) {
        let mut members = self.lock();
        if let Some(endpoint) = members.endpoints.remove(container) {
            members.give_back(host, &endpoint);
            members.parted.truncate(MOST_PARTED - 1);
            let addresses = endpoint.addresses.iter().map(IpNet::addr).collect();
            members.parted.push_front((container.to_owned(), addresses));
        }
    }

    /// Endpoints by container ID.
    pub fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        self.lock().endpoints.clone()
    }

    /// How many containers are on it.
    pub fn count(&self) -> usize {
        self.lock().endpoints.len()
    }

    /// Whether a container that runs is on it.
    pub fn is_used(&self) -> bool {
        !self.lock().endpoints.is_empty()
    }

    /// Whether the link of an endpoint has to be removed when its container ends: the kernel would keep it for a moment,
    /// and nobody here knows when its addresses are given to others.
    pub fn has_to_be_removed(&self) -> bool {
        self.link.has_to_be_removed() || matches!(self.object.addresses, AddressDriver::Plugin(_))
    }

    /// What is taken of one of its subnets.
    pub fn taken(&self, net: IpNet) -> Option<Taken> {
        self.lock().pools.iter().find(|pool| pool.subnet() == net).map(Pool::taken)
    }

    /// Gives back what no container had: it is gone, and others may share its subnets.
    pub fn end(&self) {
        let mut members = self.lock();
        for (pool, subnet) in members.pools.iter_mut().zip(&self.object.subnets) {
            for address in subnet.set_aside() {
                pool.release(address, String::new(), |_| false);
            }
        }
    }

    /// Lets nobody join any more, unless someone is there: then their containers' IDs come back.
    pub fn close(&self) -> Result<(), Vec<String>> {
        let mut members = self.lock();
        if !members.endpoints.is_empty() {
            return Err(members.endpoints.keys().cloned().collect());
        }
        members.leaving = true;
        Ok(())
    }

    /// Lets containers join again: it could not be removed.
    pub fn reopen(&self) {
        self.lock().leaving = false;
    }

    /// How full each subnet is.
    pub fn usage(&self) -> Vec<(IpNet, ipam::Usage)> {
        self.lock().pools.iter().map(|pool| (pool.subnet(), pool.usage())).collect()
    }
}

/// Which address is to be taken: of one family, a certain one, and otherwise if possible what was there before.
#[derive(Debug, Clone, Copy)]
struct Wish {
    v6: bool,
    wanted: Option<IpAddr>,
    former: Option<IpAddr>,
}

impl Members {
    /// The addresses that a container had when it left, once.
    fn former(&mut self, container: &str) -> Vec<IpAddr> {
        let index = self.parted.iter().position(|(parted, _)| parted == container);
        index.and_then(|index| self.parted.remove(index)).map(|(_, addresses)| addresses).unwrap_or_default()
    }

    fn give_back(&mut self, host: &Host, endpoint: &Endpoint) {
        for address in &endpoint.addresses {
            for pool in &mut self.pools {
                pool.release(address.addr(), endpoint.host_link.clone(), |link| host.link_exists(link));
            }
        }
    }
}

/// The hardware address of a link: it follows from its address, or is any if it has none.
pub fn endpoint_mac(address: Option<IpNet>) -> [u8; 6] {
    address.map_or_else(ipam::any_mac, ipam::mac_for)
}

/// Kernel parameters by which a link that comes up tells its neighbours what addresses it has.
fn announcements(endpoint: &Endpoint) -> Vec<(String, String)> {
    let has = |v6: bool| endpoint.addresses.iter().any(|net| matches!(net, IpNet::V6(_)) == v6);
    let families = [(has(false), "ipv4", "arp_notify"), (has(true), "ipv6", "ndisc_notify")];
    let all = families.into_iter().filter(|(has, ..)| *has);
    all.map(|(_, family, name)| (format!("{family}/conf/{}/{name}", endpoint.name), "1".to_owned())).collect()
}

/// A link-local address with its link's prefix.
fn lone(address: &IpAddr) -> Option<IpNet> {
    IpNet::new(*address, if address.is_ipv4() { 16 } else { 64 }).ok()
}

fn taken(pool: &mut Pool, wanted: Option<IpAddr>, host: &Host) -> Result<IpAddr, Error> {
    let Some(address) = wanted else {
        let allocated = pool.allocate(|link| host.link_exists(link));
        return allocated.ok_or_else(|| Error::Unavailable("no available addresses on this pool".into()));
    };
    // Nobody has to wait for a certain address: it is the new owner's who answers.
    pool.last_link(address).map_or(Ok(()), |link| host.silence(&link))?;
    match pool.take(address) {
        true => Ok(address),
        false => Err(Error::Forbidden("Address already in use".into())),
    }
}

/// Which of a container's endpoints have the default routes of IPv4 and of IPv6. As in Docker, the highest priority
/// wins, then who has both families, then the network's name.
pub fn gateways(endpoints: &[Endpoint]) -> [Option<usize>; 2] {
    let mut order: Vec<usize> = (0..endpoints.len()).collect();
    order.sort_by(|a, b| precedence(&endpoints[*a], &endpoints[*b]));
    [false, true].map(|v6| order.iter().copied().find(|index| endpoints[*index].gateway(v6).is_some()))
}

fn precedence(a: &Endpoint, b: &Endpoint) -> Ordering {
    let key = |endpoint: &Endpoint| (endpoint.priority, endpoint.gateways.len());
    key(b).cmp(&key(a)).then_with(|| a.network_name.cmp(&b.network_name))
}

/// The endpoints in the order of their claim to the default routes; in it, names are looked up too.
pub fn in_order(endpoints: &[Endpoint]) -> Vec<&Endpoint> {
    let mut order: Vec<&Endpoint> = endpoints.iter().collect();
    order.sort_by(|a, b| precedence(a, b));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, priority: i64, gateways: &[&str]) -> Endpoint {
        Endpoint {
            network_name: name.into(),
            priority,
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            ..Endpoint::default()
        }
    }

    #[test]
    fn the_default_route_is_chosen_as_docker_chooses_it() {
        let (four, six) = ("10.0.0.1", "fd00::1");
        let chosen = |endpoints: &[Endpoint]| gateways(endpoints);
        assert_eq!(chosen(&[]), [None, None]);
        assert_eq!(chosen(&[endpoint("b", 0, &[four]), endpoint("a", 0, &[four])]), [Some(1), None]);
        assert_eq!(chosen(&[endpoint("b", 0, &[four, six]), endpoint("a", 0, &[four])]), [Some(0), Some(0)]);
        assert_eq!(chosen(&[endpoint("b", 0, &[four, six]), endpoint("z", 1, &[four])]), [Some(1), Some(0)]);
        assert_eq!(chosen(&[endpoint("inside", 9, &[]), endpoint("z", -1, &[six])]), [None, Some(1)]);
    }
}
