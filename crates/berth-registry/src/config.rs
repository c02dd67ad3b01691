//! Which registries may be spoken to without TLS, and where certificates are.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::{Patience, Proxies};

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Registries (`host`, `host:port`, or a network for those named by an address) whose certificates are not checked, and that may speak plain HTTP.
    /// Loopback always may.
    pub insecure: Vec<String>,
    /// What is asked before a registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// Proxies on the way.
    pub proxies: Proxies,
    /// Directories with one directory for each registry, in which `*.crt` are further authorities.
    pub certificates: Vec<PathBuf>,
    /// Sent as `User-Agent`.
    pub agent: String,
    /// How long servers that want to be asked later are waited for.
    pub patience: Patience,
}

/// A server that may have what a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry as references name it, such as `docker.io` or `r.example:5000`.
    pub of: String,
    /// The address before `v2/`, which ends in a slash.
    pub url: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            proxies: Proxies::default(),
            certificates: vec!["/etc/berth/certs.d".into(), "/etc/docker/certs.d".into()],
            agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: Patience::default(),
        }
    }
}

impl RegistryConfig {
    /// Whether `authority` (`host` or `host:port`) may do without TLS.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>().ok();
        let loopback = host == "localhost"
            || host.ends_with(".localhost")
            || address.is_some_and(|address| address.is_loopback());
        let within = address.is_some_and(|address| self.is_within(address));
        loopback || within || self.insecure.iter().any(|name| name == authority || name == host)
    }

    /// Whether an address is in one of the networks that may do without TLS.
    pub(crate) fn is_within(&self, address: IpAddr) -> bool {
        self.networks().any(|network| network.contains(&address))
    }

    /// The networks that may do without TLS.
    pub(crate) fn networks(&self) -> impl Iterator<Item = ipnet::IpNet> {
        self.insecure.iter().filter_map(|name| name.parse().ok())
    }
}

/// The host of `host[:port]`, an IPv6 address without its brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_is_named_may_do_without_tls() {
        let insecure = vec!["a.example:5000".to_owned(), "10.9.0.0/16".to_owned()];
        let config = RegistryConfig { insecure, ..RegistryConfig::default() };
        for insecure in
            ["localhost:5000", "127.0.0.9", "[::1]:5000", "10.9.8.7:5000", "a.example:5000", "x.localhost"]
        {
            assert!(config.is_insecure(insecure), "{insecure}");
        }
        for secure in [
            "docker.io",
            "a.example",
            "128.0.0.1:5000",
            "10.10.0.1",
            "localhost.example",
            "[2001:db8::1]:5000",
        ] {
            assert!(!config.is_insecure(secure), "{secure}");
        }
    }
}
