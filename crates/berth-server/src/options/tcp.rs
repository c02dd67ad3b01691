//! TCP without certificates of clients (R23): who may have it, and what is said of it.

use crate::host::Host;
use crate::tls::TlsFiles;

/// What a daemon does about an address that others than this host's programs reach, and that has no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenTcp {
    /// There is none.
    None,
    /// The user insists in so many words: `--tls=false`.
    Insisted,
    /// The daemon runs under Docker's name: as `dockerd`, it says what that means, and waits before it listens.
    Tolerated,
    /// It does not start.
    Refused,
}

impl OpenTcp {
    /// Decides on `hosts`.
    pub fn of(hosts: &[Host], tls: bool, insisted: bool, is_dockerd: bool) -> Self {
        match hosts.iter().any(Host::is_open) && !tls {
            false => Self::None,
            true if insisted => Self::Insisted,
            true if is_dockerd => Self::Tolerated,
            true => Self::Refused,
        }
    }
}

/// What `info` warns of: each TCP address that asks clients for no certificate, loopback too.
pub fn warnings(hosts: &[Host], tls: Option<&TlsFiles>) -> Vec<String> {
    let (scheme, lack) = match tls {
        Some(files) if files.authority.is_some() => return Vec::new(),
        Some(_) => ("https", "TLS client verification"),
        None => ("http", "encryption"),
    };
    let addresses = hosts.iter().filter_map(|host| match host {
        Host::Tcp(addresses) => Some(addresses),
        Host::Unix(_) | Host::Passed(_) => None,
    });
    let warning = |address: &std::net::SocketAddr| {
        format!(
            "WARNING: API is accessible on {scheme}://{address} without {lack}.\n         \
             Access to the remote API is equivalent to root access on the host."
        )
    };
    addresses.flatten().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hosts(texts: &[&str]) -> Vec<Host> {
        texts.iter().map(|text| Host::parse(text, Path::new("/s")).unwrap()).collect()
    }

    #[test]
    fn r23_open_addresses_need_tls_or_insistence_or_dockers_name() {
        let open = hosts(&["unix:///s", "tcp://0.0.0.0:1"]);
        for (tls, insisted, dockerd, expected) in [
            (false, false, false, OpenTcp::Refused),
            (false, false, true, OpenTcp::Tolerated),
            (false, true, false, OpenTcp::Insisted),
            (false, true, true, OpenTcp::Insisted),
            (true, false, false, OpenTcp::None),
        ] {
            assert_eq!(OpenTcp::of(&open, tls, insisted, dockerd), expected, "{tls} {insisted} {dockerd}");
        }
        assert_eq!(OpenTcp::of(&hosts(&["tcp://127.0.0.1:1", "fd://"]), false, false, false), OpenTcp::None);
    }

    #[test]
    fn r23_every_address_is_warned_of() {
        let all = hosts(&["unix:///s", "tcp://0.0.0.0:1", "tcp://127.0.0.1:2"]);
        let without = warnings(&all, None);
        assert_eq!(without.len(), 2);
        assert!(without[0].starts_with("WARNING: API is accessible on http://0.0.0.0:1 without encryption."));
        let files = |authority: Option<&str>| TlsFiles {
            authority: authority.map(Into::into),
            certificate: "/c".into(),
            key: "/k".into(),
        };
        assert!(warnings(&all, Some(&files(None)))[1].contains("https://127.0.0.1:2 without TLS client"));
        assert!(warnings(&all, Some(&files(Some("/ca")))).is_empty());
    }
}
