//! Where a server is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ssh::Ssh;
use crate::tls::TlsFiles;

/// The port of `tcp://` hosts that name none.
const DEFAULT_PORT: u16 = 2375;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket's path.
    Unix(PathBuf),
    /// `host:port`; an IPv6 address is in brackets.
    Tcp(String),
    /// `host:port` as for TCP, encrypted.
    Tls(String, Arc<TlsFiles>),
    /// Whatever answers at the other end of an `ssh` connection.
    Ssh(Arc<Ssh>),
}

/// The text names no server that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A scheme that is not spoken here.
    #[error("unsupported protocol {scheme} in host {host:?}: use unix://, tcp:// or ssh://")]
    Scheme {
        /// The scheme.
        scheme: String,
        /// The whole text.
        host: String,
    },
    /// The address after the scheme makes no sense.
    #[error("invalid bind address format: {0}")]
    Address(String),
    /// An `ssh://` address that makes no sense.
    #[error("ssh host connection is not valid: invalid SSH URL: {0}")]
    Ssh(String),
}

impl Host {
    /// Reads `unix://PATH`, `tcp://HOST[:PORT]`, `ssh://[USER@]HOST[:PORT][/PATH]`, an absolute path or `HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let text = text.trim();
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http" | "https", address)) => tcp(address, text),
            Some(("ssh", rest)) => {
                Ssh::parse(rest).map(|ssh| Self::Ssh(Arc::new(ssh))).map_err(HostError::Ssh)
            }
            Some(("unix", _)) => Err(HostError::Address(text.to_owned())),
            Some((scheme, _)) => Err(HostError::Scheme { scheme: scheme.to_owned(), host: text.to_owned() }),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            None => tcp(text, text),
        }
    }

    /// The same server, over TLS if it is reached over TCP.
    #[must_use]
    pub fn with_tls(self, files: TlsFiles) -> Self {
        match self {
            Self::Tcp(address) => Self::Tls(address, Arc::new(files)),
            other => other,
        }
    }

    /// The same server; if it is reached by ssh, a `berth` there is preferred to a `docker`.
    #[must_use]
    pub fn preferring_berth(self) -> Self {
        match self {
            Self::Ssh(ssh) => Self::Ssh(Arc::new(Ssh { berth_first: true, ..(*ssh).clone() })),
            other => other,
        }
    }

    /// What the `Host` header says.
    pub(crate) fn authority(&self) -> &str {
        match self {
            // As Docker's clients: the path itself is not a valid host name.
            Self::Unix(_) => "api.moby.localhost",
            Self::Tcp(address) | Self::Tls(address, _) => address,
            // As Docker's clients.
            Self::Ssh(_) => "docker.example.com",
        }
    }
}

fn tcp(address: &str, whole: &str) -> Result<Host, HostError> {
    let address = address.trim_end_matches('/');
    let wrong = || HostError::Address(whole.to_owned());
    let bare =
        |host: &str| !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#[]:".contains(c));
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (inner, port) = rest.split_once(']').ok_or_else(wrong)?;
        inner.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        match port {
            "" => (format!("[{inner}]"), None),
            port => (format!("[{inner}]"), Some(port.strip_prefix(':').ok_or_else(wrong)?)),
        }
    } else {
        let (host, port) = match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        (bare(host).then(|| host.to_owned()).ok_or_else(wrong)?, port)
    };
    let port = match port {
        Some(port) => port.parse::<u16>().map_err(|_| wrong())?,
        None => DEFAULT_PORT,
    };
    Ok(Host::Tcp(format!("{host}:{port}")))
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address, _) => write!(formatter, "tcp://{address}"),
            Self::Ssh(ssh) => write!(formatter, "{ssh}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        for (text, shown) in [
            ("unix:///run/berth.sock", "unix:///run/berth.sock"),
            ("/run/berth.sock", "unix:///run/berth.sock"),
            ("tcp://127.0.0.1:23750", "tcp://127.0.0.1:23750"),
            ("tcp://[::1]:23750", "tcp://[::1]:23750"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://example.org", "tcp://example.org:2375"),
            ("localhost:1", "tcp://localhost:1"),
            ("tcp://h:5/", "tcp://h:5"),
            ("ssh://me@h:33/run/x.sock", "ssh://me@h:33/run/x.sock"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "unix://",
            "ssh://",
            "gopher://x",
            "tcp://",
            "tcp://[::1",
            "tcp://[x]:1",
            "tcp://h:99999",
            "a b",
            "tcp://a:1:2",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }
}
