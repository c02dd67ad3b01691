//! The files that the engine writes for a container: host name, hosts, name servers.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::create::{Definition, NetworkPlan};

/// Docker's fallback where the host names no server that a container could reach.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// What the files depend on beside the container itself.
#[derive(Debug, Clone, Default)]
pub struct Surroundings<'a> {
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// The host's addresses as the container sees them, for `host-gateway`.
    pub gateways: &'a [IpAddr],
    /// The host's `/etc/hosts`.
    pub host_hosts: &'a str,
    /// The host's `/etc/resolv.conf`.
    pub host_resolv: &'a str,
}

/// The content of `/etc/hostname`.
pub fn hostname(definition: &Definition) -> String {
    format!("{}\n", definition.config.hostname)
}

/// The content of `/etc/hosts`.
pub fn hosts(definition: &Definition, around: &Surroundings<'_>) -> String {
    let mut text = if definition.network == NetworkPlan::Host {
        let mut text = around.host_hosts.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    } else {
        String::from(
            "127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n",
        )
    };
    for entry in definition.host.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once(':') else { continue };
        let addresses = match address {
            "host-gateway" => around.gateways.iter().map(ToString::to_string).collect(),
            other => vec![other.trim_matches(['[', ']']).to_owned()],
        };
        for address in addresses {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    text + &own_lines(definition, &around.addresses)
}

/// The lines of `/etc/hosts` that name the container itself.
pub fn own_lines(definition: &Definition, addresses: &[IpAddr]) -> String {
    let (name, domain) = (&definition.config.hostname, &definition.config.domainname);
    let full = if domain.is_empty() { name.clone() } else { format!("{name}.{domain}") };
    let mut text = String::new();
    for address in addresses {
        // The domain may stand in either; the first label alone is a name too.
        let _ = match full.split_once('.') {
            Some((first, _)) => writeln!(text, "{address}\t{full} {first}"),
            None => writeln!(text, "{address}\t{full}"),
        };
    }
    text
}

/// The content of `/etc/resolv.conf`: the host's, without servers on its loopback, and what the user asked for.
pub fn resolv_conf(definition: &Definition, around: &Surroundings<'_>) -> String {
    let host = &definition.host;
    let given = |list: &Option<Vec<String>>| list.clone().filter(|l| !l.is_empty());
    let (servers, search, options) = (given(&host.dns), given(&host.dns_search), given(&host.dns_options));
    if definition.network == NetworkPlan::Host && servers.is_none() && search.is_none() && options.is_none() {
        return around.host_resolv.to_owned();
    }
    let found = |keyword: &'static str| {
        let lines = around.host_resolv.lines().map(str::split_whitespace);
        lines.filter_map(|mut words| {
            (words.next() == Some(keyword)).then(|| words.map(str::to_owned).collect())
        })
    };
    let servers = servers.unwrap_or_else(|| {
        let reachable = found("nameserver").flat_map(|words: Vec<String>| words.into_iter().next());
        let mut servers: Vec<String> = if definition.network == NetworkPlan::Host {
            reachable.collect()
        } else {
            reachable.filter(|server| !is_local(server)).collect()
        };
        if servers.is_empty() {
            servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
        }
        servers
    });
    // The last line of a kind wins, as in the resolver (resolv.conf(5)).
    let search = search.or_else(|| found("search").chain(found("domain")).next_back()).unwrap_or_default();
    let options = options.or_else(|| found("options").next_back()).unwrap_or_default();
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // A single dot asks for no search domain at all.
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

/// Whether a server is on the host's own loopback, or needs an interface of the host's to be reached.
fn is_local(server: &str) -> bool {
    server.contains('%') || server.parse::<IpAddr>().map_or(true, |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;
    use berth_api::container::HostConfig;

    const RESOLV: &str = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a.test\nsearch b.test c.test\noptions edns0\n";

    fn around() -> Surroundings<'static> {
        Surroundings {
            addresses: vec!["172.17.0.5".parse().unwrap()],
            gateways: const { &[IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 1))] },
            host_hosts: "127.0.0.1 localhost\n10.1.1.1 host",
            host_resolv: RESOLV,
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
    fn with_the_hosts_network_its_files_are_copied() {
        let mut one = definition();
        one.network = NetworkPlan::Host;
        let none = Surroundings { addresses: vec![], ..around() };
        assert_eq!(hosts(&one, &none), "127.0.0.1 localhost\n10.1.1.1 host\n");
        assert_eq!(resolv_conf(&one, &none), RESOLV);
    }

    #[test]
    fn servers_out_of_reach_are_left_out() {
        let text = resolv_conf(&definition(), &around());
        assert_eq!(text, "nameserver 10.0.0.1\nsearch b.test c.test\noptions edns0\n");
        let none = Surroundings { host_resolv: "nameserver ::1\n", ..around() };
        assert_eq!(resolv_conf(&definition(), &none), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    #[test]
    fn what_the_user_asks_for_wins() {
        let mut one = definition();
        one.host = HostConfig {
            dns: Some(vec!["9.9.9.9".into()]),
            dns_search: Some(vec![".".into()]),
            dns_options: Some(vec!["ndots:5".into()]),
            ..Default::default()
        };
        assert_eq!(resolv_conf(&one, &around()), "nameserver 9.9.9.9\noptions ndots:5\n");
    }
}
