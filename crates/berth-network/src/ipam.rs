//! Who has which address: pools that hand out each address once, round robin.
//!
//! A link that goes with its namespace is gone some milliseconds after its container. Its address is kept back
//! until the link is seen gone, so that a successor never shares an address with a link that still answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// The free and used addresses of one subnet, in memory. The engine fills it from its records.
#[derive(Debug)]
pub struct Pool {
    subnet: IpNet,
    /// First and last address that is given out.
    first: u128,
    last: u128,
    next: u128,
    taken: Taken,
}

/// What is taken of a subnet: by one network, or by all that share it, each with a pool of its own.
#[derive(Debug, Clone, Default)]
pub struct Taken(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    used: BTreeSet<u128>,
    /// Links of addresses that were given back.
    leaving: BTreeMap<u128, String>,
    /// The one of them that was looked at last.
    looked: u128,
}

/// Links that are looked at with each that is added: more, so that they get fewer.
const LOOKS: usize = 2;

impl Taken {
    /// Whether an address is taken.
    pub fn has(&self, address: IpAddr) -> bool {
        self.lock().used.contains(&number(address))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // What the lock guards is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Whether the link that had an address last is gone.
    fn has_left(&mut self, address: u128, link_exists: impl Fn(&str) -> bool) -> bool {
        let left = self.leaving.get(&address).is_none_or(|link| !link_exists(link));
        if left {
            self.leaving.remove(&address);
        }
        left
    }

    /// Forgets links that are gone. In a large subnet an address does not come round again, and its link would be remembered
    /// for ever.
    fn forget_gone(&mut self, link_exists: impl Fn(&str) -> bool) {
        for _ in 0..LOOKS {
            let after = (Bound::Excluded(self.looked), Bound::Unbounded);
            let next = self.leaving.range(after).next().or_else(|| self.leaving.first_key_value());
            let Some((address, gone)) = next.map(|(address, link)| (*address, !link_exists(link))) else {
                return;
            };
            self.looked = address;
            if gone {
                self.leaving.remove(&address);
            }
        }
    }
}

/// How full a pool is. Both numbers saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Addresses of the subnet that are in use, or never given out.
    pub in_use: u64,
    /// Addresses that may still be given out to whoever does not ask for a certain one.
    pub available: u64,
}

impl Pool {
    /// A pool for `subnet` that gives out addresses of `range`, or of all of it. The network's own address and IPv4's
    /// broadcast address are never given out.
    pub fn new(subnet: IpNet, range: Option<IpNet>) -> Pool {
        Pool::sharing(subnet, range, Taken::default())
    }

    /// The same of a subnet of which others may have taken addresses.
    pub fn sharing(subnet: IpNet, range: Option<IpNet>, taken: Taken) -> Pool {
        let subnet = subnet.trunc();
        let (mut first, mut last) = bounds(range.unwrap_or(subnet));
        let (lowest, highest) = bounds(subnet);
        let (below, above) = reserved(subnet);
        first = first.max(lowest.saturating_add(below));
        last = last.min(highest.saturating_sub(above));
        Pool { subnet, first, last, next: first, taken }
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// What is taken of it, to be shared.
    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// Takes the next free address after the one given last; `None` when all are taken. `link_exists` says
    /// whether the link of an address that was released is still there.
    pub fn allocate(&mut self, link_exists: impl Fn(&str) -> bool) -> Option<IpAddr> {
        if self.last < self.first {
            return None;
        }
        let mut book = self.taken.lock();
        // Among so many candidates one is free, if any is.
        let most = book.used.len().saturating_add(book.leaving.len()) as u128;
        let span = self.last - self.first;
        for _ in 0..=span.min(most) {
            let candidate = self.next.clamp(self.first, self.last);
            self.next = if candidate == self.last { self.first } else { candidate + 1 };
            if !book.used.contains(&candidate) && book.has_left(candidate, &link_exists) {
                book.used.insert(candidate);
                return Some(address(self.subnet, candidate));
            }
        }
        None
    }

    /// The link that had an address last, if that may still be there.
    pub fn last_link(&self, address: IpAddr) -> Option<String> {
        self.taken.lock().leaving.get(&number(address)).cloned()
    }

    /// Takes a certain address, whether its last link is gone or not; false if it is taken, outside the subnet, or never
    /// given out.
    pub fn take(&mut self, address: IpAddr) -> bool {
        let number = number(address);
        let (lowest, highest) = bounds(self.subnet);
        let (below, above) = reserved(self.subnet);
        if number < lowest.saturating_add(below) || number > highest.saturating_sub(above) {
            return false;
        }
        self.reserve(address)
    }

    /// Takes an address for who had it before; false if it is another's meanwhile, or still answers.
    pub fn regain(&mut self, address: IpAddr, link_exists: impl Fn(&str) -> bool) -> bool {
        let left = self.taken.lock().has_left(number(address), link_exists);
        left && self.take(address)
    }

    /// Marks an address as taken, such as a gateway's or that of an adopted container; false if it was taken already or
    /// lies outside the subnet.
    pub fn reserve(&mut self, address: IpAddr) -> bool {
        let number = number(address);
        let mut book = self.taken.lock();
        book.leaving.remove(&number);
        self.subnet.contains(&address) && book.used.insert(number)
    }

    /// Gives an address back; it is handed out again once the link `host_link` is gone, which `link_exists` says.
    pub fn release(&mut self, address: IpAddr, host_link: String, link_exists: impl Fn(&str) -> bool) {
        let number = number(address);
        let mut book = self.taken.lock();
        if self.subnet.contains(&address) && book.used.remove(&number) {
            book.forget_gone(link_exists);
            book.leaving.insert(number, host_link);
        }
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let (lowest, highest) = bounds(self.subnet);
        let (below, above) = reserved(self.subnet);
        let never = [(below > 0).then_some(lowest), (above > 0).then_some(highest)];
        let book = self.taken.lock();
        let counted = never.into_iter().flatten().filter(|number| !book.used.contains(number)).count();
        let size = if self.last < self.first { 0 } else { (self.last - self.first).saturating_add(1) };
        let taken = book.used.range(self.first..=self.last.max(self.first)).count() as u128;
        let saturate = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        Usage {
            in_use: saturate((book.used.len() + counted) as u128),
            available: saturate(size.saturating_sub(taken)),
        }
    }
}

fn address(subnet: IpNet, number: u128) -> IpAddr {
    match subnet {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or_default())),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// How many addresses at the beginning and at the end of a subnet are nobody's: the network's own, and IPv4's broadcast.
fn reserved(subnet: IpNet) -> (u128, u128) {
    match subnet {
        IpNet::V4(v4) if v4.prefix_len() < 31 => (1, 1),
        IpNet::V6(v6) if v6.prefix_len() < 127 => (1, 0),
        _ => (0, 0),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The lowest and the highest address of a subnet.
fn bounds(subnet: IpNet) -> (u128, u128) {
    (number(subnet.network()), number(subnet.broadcast()))
}

/// The hardware address of a link: locally administered, made from its address, so that two links of one network do not
/// share one.
pub fn mac_for(address: IpNet) -> [u8; 6] {
    let whole = number(address.addr());
    let within = whole & !number(address.netmask());
    if matches!(address, IpNet::V6(_)) && u32::try_from(within).is_err() {
        // It has more that tells it from others than there is room for: those with `02:42` are not met.
        let [.., a, b, c, d, e] = checksum(within).to_be_bytes();
        return [0x06, a, b, c, d, e];
    }
    let [.., a, b, c, d] = whole.to_be_bytes();
    [0x02, 0x42, a, b, c, d]
}

/// FNV-1a.
fn checksum(number: u128) -> u64 {
    let add = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    number.to_be_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, add)
}

/// A hardware address of a link that has no address to make it from.
pub fn any_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    // Without entropy (never after boot) two links may have the same.
    let _ = rustix::rand::getrandom(&mut mac[2..], rustix::rand::GetRandomFlags::NONBLOCK);
    mac[..2].copy_from_slice(&[0x02, 0x42]);
    mac
}

/// The gateway of a subnet as Docker chooses it: the first address that is given out.
pub fn first_address(subnet: IpNet) -> IpAddr {
    let pool = Pool::new(subnet, None);
    address(pool.subnet, pool.first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Pool {
        let subnet: IpNet = subnet.parse().unwrap();
        let mut pool = Pool::new(subnet, None);
        pool.reserve(first_address(subnet));
        pool
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn goes_round_and_keeps_back_what_is_still_linked() {
        let mut pool = pool("10.1.0.0/29");
        let take = |p: &mut Pool, alive: bool| p.allocate(|_| alive).map(|a| a.to_string());
        let given: Vec<_> = (2..=6).map(|_| take(&mut pool, true).unwrap()).collect();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(take(&mut pool, true), None);
        pool.release(ip("10.1.0.3"), "veth1".into(), |_| true);
        assert_eq!(take(&mut pool, true), None, "its link is still there");
        assert_eq!(take(&mut pool, false).unwrap(), "10.1.0.3");
    }

    #[test]
    fn a_reserved_address_is_not_given_out() {
        let mut pool = pool("10.1.0.0/30");
        assert!(pool.reserve(ip("10.1.0.2")));
        assert!(!pool.reserve(ip("10.1.0.2")));
        assert!(!pool.reserve(ip("10.9.0.2")));
        assert_eq!(pool.allocate(|_| false), None);
    }

    #[test]
    fn certain_addresses_may_lie_outside_the_range_but_not_outside_the_subnet() {
        let mut pool = Pool::new("10.1.0.0/24".parse().unwrap(), Some("10.1.0.128/30".parse().unwrap()));
        assert!(pool.take(ip("10.1.0.7")) && !pool.take(ip("10.1.0.7")));
        assert!(!pool.take(ip("10.1.0.0")) && !pool.take(ip("10.1.0.255")) && !pool.take(ip("10.1.1.1")));
        let given: Vec<_> = std::iter::from_fn(|| pool.allocate(|_| false)).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.1.0.128", "10.1.0.129", "10.1.0.130", "10.1.0.131"]);
    }

    #[test]
    fn who_comes_back_regains_an_address_that_is_free() {
        let mut pool = pool("10.1.0.0/29");
        let first = pool.allocate(|_| false).unwrap();
        assert!(!pool.regain(first, |_| false), "it is in use");
        pool.release(first, "veth1".into(), |_| true);
        assert_eq!((pool.last_link(first), pool.last_link(ip("10.1.0.3"))), (Some("veth1".into()), None));
        assert!(!pool.regain(first, |_| true), "its link is still there");
        assert!(pool.regain(first, |_| false) && !pool.take(first));
        assert!(!pool.regain(ip("10.9.0.2"), |_| false));
    }

    #[test]
    fn what_pools_share_is_given_out_once() {
        let (subnet, low, high) = ("10.1.0.0/28", "10.1.0.0/29", "10.1.0.8/29");
        let mut one = Pool::new(subnet.parse().unwrap(), low.parse().ok());
        let mut other = Pool::sharing(subnet.parse().unwrap(), high.parse().ok(), one.taken());
        assert!(one.take(ip("10.1.0.9")) && !other.take(ip("10.1.0.9")) && one.taken().has(ip("10.1.0.9")));
        let given: Vec<_> =
            std::iter::from_fn(|| other.allocate(|_| false)).map(|address| address.to_string()).collect();
        assert_eq!(given, ["10.1.0.8", "10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14"]);
        assert_eq!(one.usage(), Usage { in_use: 9, available: 7 });
        assert_eq!(other.usage(), Usage { in_use: 9, available: 0 });
        one.release(ip("10.1.0.9"), "veth1".into(), |_| false);
        assert_eq!(other.allocate(|_| false), Some(ip("10.1.0.9")));
    }

    #[test]
    fn links_that_are_gone_are_forgotten_though_their_addresses_do_not_come_round() {
        let mut pool = pool("fd00:1::/64");
        let mut last = None;
        for number in 0..1000 {
            let address = pool.allocate(|_| true).unwrap();
            pool.release(address, format!("veth{number}"), |link| link == "veth5");
            last = Some(address);
        }
        assert_eq!(pool.last_link(last.unwrap()), Some("veth999".into()));
        let leaving = pool.taken.lock().leaving.clone();
        assert!(leaving.len() <= 3, "{leaving:?}");
        assert!(leaving.values().any(|link| link == "veth5"), "it is still there");
    }

    #[test]
    fn the_second_family_has_room() {
        let mut pool = pool("fd00:1::/64");
        assert_eq!(pool.allocate(|_| false).unwrap(), ip("fd00:1::2"));
        assert_eq!(pool.usage(), Usage { in_use: 3, available: u64::MAX - 2 });
    }

    #[test]
    fn hardware_addresses_follow_from_addresses_and_differ() {
        let mac = |text: &str| mac_for(text.parse().unwrap());
        assert_eq!(mac("172.17.0.2/16"), [2, 0x42, 172, 17, 0, 2]);
        assert_eq!(mac("fd00:1::2/64"), [2, 0x42, 0, 0, 0, 2]);
        assert_eq!(mac("fd00:1:2:3::2/64"), [2, 0x42, 0, 0, 0, 2], "another network");
        let alike = ["fd00::2/48", "fd00::1:0:2/48", "fd00::1:0:0:2/48", "fd00::1:0:0:0:2/48"].map(mac);
        assert_eq!(BTreeSet::from(alike).len(), 4);
        assert!(alike.iter().all(|mac| mac[0] & 3 == 2), "of one link, and nobody's by registration");
        assert_eq!(mac("fd00::1:0:2/48"), alike[1]);
    }

    #[test]
    fn tiny_subnets_have_what_is_left() {
        assert_eq!(pool("10.1.0.0/31").allocate(|_| false), Some(ip("10.1.0.1")));
        assert_eq!(pool("10.1.0.0/32").allocate(|_| false), None);
        assert_eq!(pool("10.1.0.0/24").usage(), Usage { in_use: 3, available: 253 });
    }

    proptest! {
        #[test]
        fn no_address_is_ever_given_twice(releases in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = pool("10.1.0.0/27");
            let mut held = BTreeSet::new();
            for release in releases {
                if release {
                    if let Some(address) = held.pop_first() { pool.release(address, String::new(), |_| false); }
                } else if let Some(address) = pool.allocate(|_| false) {
                    prop_assert!(held.insert(address), "{address} was held already");
                    prop_assert!(pool.subnet().contains(&address));
                } else {
                    prop_assert_eq!(held.len(), 29);
                }
                prop_assert_eq!(pool.usage().in_use, held.len() as u64 + 3);
            }
        }
    }
}
