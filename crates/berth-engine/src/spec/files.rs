//! The files that the engine writes for a container: host name, hosts, name servers.

use std::fmt::Write as _;
use std::net::IpAddr;

use berth_network::names::resolv_conf::{self, Overrides, Purpose, ResolvConf};

use crate::create::{Definition, NetworkPlan};

/// Where the host names its name servers.
const HOST_RESOLV: &str = "/etc/resolv.conf";
/// Where systemd's resolver tells which servers it asks itself, for those who cannot reach it on the host's loopback.
const SYSTEMD_RESOLV: &str = "/run/systemd/resolve/resolv.conf";
/// Moby's suites name a file of their own by this.
const TEST_RESOLV: &str = "DOCKER_TEST_RESOLV_CONF_PATH";

/// What the hosts file depends on beside the container itself.
#[derive(Debug, Clone, Default)]
pub struct Surroundings<'a> {
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// The host's addresses as the container sees them, for `host-gateway`.
    pub gateways: &'a [IpAddr],
    /// The host's `/etc/hosts`.
    pub host_hosts: &'a str,
    /// Others that it is linked to: address, and names with spaces between.
    pub linked: &'a [(IpAddr, String)],
}

/// The content of `/etc/hostname`.
pub fn hostname(definition: &Definition) -> String {
    format!("{}\n", definition.config.hostname)
}

/// The content of `/etc/hosts`.
pub fn hosts(definition: &Definition, around: &Surroundings<'_>) -> String {
    let extra = definition.host.extra_hosts.iter().flatten();
    // As in Docker, the host's names are no longer those of the container when it has some of its own.
    if definition.network == NetworkPlan::Host && extra.clone().next().is_none() {
        return around.host_hosts.to_owned();
    }
    let ipv6 = !disables_ipv6(definition);
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    if ipv6 {
        text.push_str(
            "::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n",
        );
    }
    let mut add = |address: IpAddr, names: &str| {
        if ipv6 || address.is_ipv4() {
            let _ = writeln!(text, "{address}\t{names}");
        }
    };
    for (name, address) in extra.filter_map(|entry| entry.split_once(':')) {
        match address {
            "host-gateway" => around.gateways.iter().for_each(|gateway| add(*gateway, name)),
            // What is no address was refused when the container was created.
            other => {
                other.trim_matches(['[', ']']).parse().into_iter().for_each(|address| add(address, name))
            }
        }
    }
    around.linked.iter().for_each(|(address, names)| add(*address, names));
    text + &own_lines(definition, &around.addresses)
}

/// Whether the user wants no IPv6 in the container at all.
pub fn disables_ipv6(definition: &Definition) -> bool {
    let sysctls = definition.host.sysctls.iter().flatten();
    sysctls.into_iter().any(|(key, value)| key == "net.ipv6.conf.all.disable_ipv6" && value == "1")
}

/// The lines of `/etc/hosts` that name the container itself.
pub fn own_lines(definition: &Definition, addresses: &[IpAddr]) -> String {
    let (name, domain) = (&definition.config.hostname, &definition.config.domainname);
    let full = if domain.is_empty() { name.clone() } else { format!("{name}.{domain}") };
    let mut text = String::new();
    let ipv6 = !disables_ipv6(definition);
    for address in addresses.iter().filter(|address| ipv6 || address.is_ipv4()) {
        // The domain may stand in either; the first label alone is a name too.
        let _ = match full.split_once('.') {
            Some((first, _)) => writeln!(text, "{address}\t{full} {first}"),
            None => writeln!(text, "{address}\t{full}"),
        };
    }
    text
}

/// The container's `/etc/resolv.conf`, made of the host's as it is now; `served` if the container has a name server of its
/// own, `ipv6` if it has an address of that kind. Reads the host's files.
pub fn resolv_conf(definition: &Definition, served: bool, ipv6: bool) -> ResolvConf {
    let (source, text) = host_resolv(&definition.network);
    let host = &definition.host;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    // What is no address was refused when the container was created, or the daemon started.
    let servers: Vec<IpAddr> = host.dns.iter().flatten().filter_map(|server| server.parse().ok()).collect();
    let (search, options) = (list(&host.dns_search), list(&host.dns_options));
    let overrides = Overrides { servers: &servers, search: &search, options: &options };
    let purpose = match definition.network {
        NetworkPlan::Host => Purpose::Host,
        _ if served => Purpose::NameServer,
        _ => Purpose::Bridge { ipv6 },
    };
    resolv_conf::build(&source, &text, &overrides, purpose, &zone_index)
}

/// The file that names the host's servers, for a container with this network, and what it says.
fn host_resolv(network: &NetworkPlan) -> (String, String) {
    // A host without the file has nothing to add.
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if let Ok(path) = std::env::var(TEST_RESOLV)
        && !path.is_empty()
    {
        let text = read(&path);
        return (path, text);
    }
    let text = read(HOST_RESOLV);
    let direct = matches!(network, NetworkPlan::Host | NetworkPlan::Named(_));
    if !direct && is_systemd(&text) {
        return (SYSTEMD_RESOLV.into(), read(SYSTEMD_RESOLV));
    }
    (HOST_RESOLV.into(), text)
}

/// Whether systemd's resolver, on the host's loopback, is all that the file names.
fn is_systemd(text: &str) -> bool {
    let servers = text.lines().map(str::split_whitespace).filter_map(|mut words| {
        (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default())
    });
    servers.eq(["127.0.0.53"])
}

/// The number of a link of the host.
fn zone_index(zone: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).ok()?;
    netdevice::name_to_index(&socket, zone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;

    fn around() -> Surroundings<'static> {
        Surroundings {
            addresses: vec!["172.17.0.5".parse().unwrap()],
            gateways: const { &[IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 1))] },
            host_hosts: "127.0.0.1 localhost\n10.1.1.1 host",
            linked: &[],
        }
    }

    #[test]
    fn hosts_names_the_container() {
        let mut one = definition();
        one.config.hostname = "web".into();
        let text = hosts(&one, &around());
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("172.17.0.5\tweb\n"), "{text}");
        one.config.domainname = "example.test".into();
        assert!(hosts(&one, &around()).ends_with("172.17.0.5\tweb.example.test web\n"));
        let none = Surroundings { addresses: vec![], ..around() };
        assert!(hosts(&one, &none).ends_with("ff02::2\tip6-allrouters\n"));
    }

    #[test]
    fn extra_hosts_are_added() {
        let mut one = definition();
        one.host.extra_hosts =
            Some(vec!["gw:host-gateway".into(), "six:[::5]".into(), "four:1.2.3.4".into()]);
        let text = hosts(&one, &around());
        for line in ["172.17.0.1\tgw\n", "::5\tsix\n", "1.2.3.4\tfour\n"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn with_the_hosts_network_its_file_is_copied() {
        let mut one = definition();
        one.network = NetworkPlan::Host;
        let none = Surroundings { addresses: vec![], ..around() };
        assert_eq!(hosts(&one, &none), "127.0.0.1 localhost\n10.1.1.1 host");
        one.host.extra_hosts = Some(vec!["a:1.2.3.4".into()]);
        assert!(!hosts(&one, &none).contains("10.1.1.1"));
        assert!(hosts(&one, &none).ends_with("ip6-allrouters\n1.2.3.4\ta\n"));
    }

    #[test]
    fn links_come_between_the_users_names_and_its_own() {
        let mut one = definition();
        one.config.hostname = "web".into();
        one.host.extra_hosts = Some(vec!["x:1.2.3.4".into()]);
        let linked = [("172.17.0.9".parse().unwrap(), "db one".to_owned())];
        let text = hosts(&one, &Surroundings { linked: &linked, ..around() });
        assert!(text.ends_with("1.2.3.4\tx\n172.17.0.9\tdb one\n172.17.0.5\tweb\n"), "{text}");
    }

    #[test]
    fn without_ipv6_there_are_no_addresses_of_it() {
        let mut one = definition();
        one.config.hostname = "web".into();
        one.host.extra_hosts = Some(vec!["six:::5".into()]);
        one.host.sysctls = Some([("net.ipv6.conf.all.disable_ipv6".to_owned(), "1".to_owned())].into());
        let mut around = around();
        around.addresses.push("fd00::5".parse().unwrap());
        assert_eq!(hosts(&one, &around), "127.0.0.1\tlocalhost\n172.17.0.5\tweb\n");
    }

    #[test]
    fn systemds_resolver_is_known() {
        assert!(is_systemd("# c\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!is_systemd("nameserver 127.0.0.53\nnameserver 10.0.0.1\n") && !is_systemd(""));
    }
}
