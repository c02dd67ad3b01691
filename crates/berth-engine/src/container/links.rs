//! Links of the old kind: names by which a container on the default bridge finds others there.

use berth_api::container::Config;
use berth_network::Protocol;
use serde::{Deserialize, Serialize};

use crate::create::ports;

/// A link to another container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// ID of the other. It may be gone: then there is no link any more.
    pub target: String,
    /// What the other is called here.
    pub alias: String,
}

/// The full name of a link: it is a name of the other container too.
pub fn full_name(container: &str, alias: &str) -> String {
    format!("{container}/{alias}")
}

/// Docker's variables that tell of a linked container: its ports at its address, its name, its own variables.
pub fn variables(full_name: &str, address: &str, config: &Config) -> Vec<String> {
    let alias = full_name.rsplit('/').next().unwrap_or(full_name).to_uppercase().replace('-', "_");
    let mut found = Vec::new();
    let mut exposed = ports::exposed(config).unwrap_or_default();
    let by_protocol = |protocol: Protocol| (protocol != Protocol::Tcp, protocol.to_string());
    exposed.sort_by_key(|port| (by_protocol(port.protocol), port.port));
    exposed.dedup_by_key(|port| (port.port, port.protocol));
    if let Some(first) = exposed.first() {
        found.push(format!("{alias}_PORT={}://{address}:{}", first.protocol, first.port));
    }
    let prefix = |port: u16, protocol: Protocol| {
        format!("{alias}_PORT_{port}_{}", protocol.to_string().to_uppercase())
    };
    for run in exposed.chunk_by(|a, b| a.protocol == b.protocol && a.port.checked_add(1) == Some(b.port)) {
        for port in run {
            let (prefix, protocol, port) = (prefix(port.port, port.protocol), port.protocol, port.port);
            found.push(format!("{prefix}={protocol}://{address}:{port}"));
            found.push(format!("{prefix}_ADDR={address}"));
            found.push(format!("{prefix}_PORT={port}"));
            found.push(format!("{prefix}_PROTO={protocol}"));
        }
        if let [first, .., last] = run {
            let prefix = prefix(first.port, first.protocol);
            for (word, port) in [("START", first), ("END", last)] {
                found.push(format!("{prefix}_{word}={}://{address}:{}", port.protocol, port.port));
                found.push(format!("{prefix}_PORT_{word}={}", port.port));
            }
        }
    }
    found.push(format!("{alias}_NAME=/{full_name}"));
    let own = config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    let own = own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    found.extend(own.map(|(name, value)| format!("{alias}_ENV_{name}={value}")));
    found
}

/// A hosts file in which the names that begin with `alias` lead to `address`, as far as it is of the kind that they led to.
pub fn redirected(text: &str, alias: &str, address: std::net::IpAddr) -> String {
    let line = |line: &str| match line.split_once('\t') {
        Some((before, names)) if is_of(names, alias) => match before.parse::<std::net::IpAddr>() {
            Ok(old) if old.is_ipv4() == address.is_ipv4() => format!("{address}\t{names}\n"),
            _ => format!("{line}\n"),
        },
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A hosts file without the names that begin with `alias`.
pub fn without(text: &str, alias: &str) -> String {
    let other = |line: &&str| !line.split_once('\t').is_some_and(|(_, names)| is_of(names, alias));
    text.lines().filter(other).map(|line| format!("{line}\n")).collect()
}

fn is_of(names: &str, alias: &str) -> bool {
    names.split_whitespace().next() == Some(alias)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ports: &[&str], env: &[&str]) -> Vec<String> {
        let config = Config {
            exposed_ports: Some(ports.iter().map(|port| ((*port).to_owned(), berth_api::Empty {})).collect()),
            env: Some(env.iter().map(|one| (*one).to_owned()).collect()),
            ..Config::default()
        };
        variables("web/my-db", "172.17.0.2", &config)
    }

    #[test]
    fn variables_tell_of_ports_name_and_environment() {
        assert_eq!(
            told(&["53/udp", "80/tcp"], &["A=1=2", "HOME=/", "PATH=/bin", "NONE"]),
            [
                "MY_DB_PORT=tcp://172.17.0.2:80",
                "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
                "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_A=1=2",
            ]
        );
        assert_eq!(told(&[], &[]), ["MY_DB_NAME=/web/my-db"]);
    }

    #[test]
    fn neighbouring_ports_are_told_as_a_range_too() {
        let found = told(&["7000/tcp", "7001/tcp", "7002/tcp", "7004/tcp"], &[]);
        let ranges: Vec<_> =
            found.iter().filter(|one| one.contains("START") || one.contains("END")).collect();
        assert_eq!(
            ranges,
            [
                "MY_DB_PORT_7000_TCP_START=tcp://172.17.0.2:7000",
                "MY_DB_PORT_7000_TCP_PORT_START=7000",
                "MY_DB_PORT_7000_TCP_END=tcp://172.17.0.2:7002",
                "MY_DB_PORT_7000_TCP_PORT_END=7002",
            ]
        );
    }

    #[test]
    fn names_of_links_in_the_hosts_file_follow_their_target() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tdb host one\nfd00::2\tdb host one\n10.0.0.2\tdbx\nodd";
        let moved = redirected(text, "db", "10.0.0.9".parse().unwrap());
        assert_eq!(
            moved,
            "127.0.0.1\tlocalhost\n10.0.0.9\tdb host one\nfd00::2\tdb host one\n10.0.0.2\tdbx\nodd\n"
        );
        assert_eq!(without(&moved, "db"), "127.0.0.1\tlocalhost\n10.0.0.2\tdbx\nodd\n");
    }
}
