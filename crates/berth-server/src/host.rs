//! Where a daemon listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// One `--host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket at an absolute path.
    Unix(PathBuf),
    /// TCP at all these addresses.
    Tcp(Vec<SocketAddr>),
    /// A socket handed in by whoever started the daemon.
    Passed(Passed),
}

/// Which of the passed-in sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// All that systemd announces in `LISTEN_FDS`.
    All,
    /// The descriptor with this number.
    Number(i32),
}

/// A `--host` that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Unknown kind of address.
    #[error("invalid bind address ({0}): expected unix://PATH, tcp://ADDRESS:PORT, fd:// or fd://N")]
    Format(String),
    /// The name in a TCP address does not resolve.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The address as given.
        host: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
}

/// Docker's port for an API without TLS.
const PLAIN_PORT: u16 = 2375;

impl Host {
    /// Reads a `--host`. `unix://` without a path is `default_socket`, an empty TCP address is all addresses for
    /// `:port` and 127.0.0.1 for nothing at all.
    pub fn parse(text: &str, default_socket: &Path) -> Result<Self, HostError> {
        let invalid = || HostError::Format(text.to_owned());
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix://") {
            return match path {
                "" => Ok(Self::Unix(default_socket.to_owned())),
                path if path.starts_with('/') => Ok(Self::Unix(path.into())),
                _ => Err(invalid()),
            };
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return match number {
                "" | "*" => Ok(Self::Passed(Passed::All)),
                number => match number.parse() {
                    Ok(number) if number >= 3 => Ok(Self::Passed(Passed::Number(number))),
                    _ => Err(invalid()),
                },
            };
        }
        let address = match (text.strip_prefix("tcp://"), text.contains("://")) {
            (Some(address), _) => address.trim_end_matches('/'),
            (None, false) if text.contains(':') => text,
            _ => return Err(invalid()),
        };
        let complete = if address.is_empty() {
            format!("127.0.0.1:{PLAIN_PORT}")
        } else if let Some(port) = address.strip_prefix(':') {
            format!("0.0.0.0:{port}")
        } else if address.ends_with(']') || !address.contains(':') {
            format!("{address}:{PLAIN_PORT}")
        } else {
            address.to_owned()
        };
        let addresses: Vec<SocketAddr> = complete
            .to_socket_addrs()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::InvalidInput => invalid(),
                _ => HostError::Resolve { host: text.to_owned(), source },
            })?
            .collect();
        if addresses.is_empty() { Err(invalid()) } else { Ok(Self::Tcp(addresses)) }
    }

    /// Whether it is TCP that others than this host's processes can reach (R23).
    pub fn is_open(&self) -> bool {
        match self {
            Self::Tcp(addresses) => addresses.iter().any(|address| !is_loopback(address.ip())),
            Self::Unix(_) | Self::Passed(_) => false,
        }
    }
}

/// Whether only this host's processes reach an address.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(addresses) => {
                for (index, address) in addresses.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(formatter, "{comma}tcp://{address}")?;
                }
                Ok(())
            }
            Self::Passed(Passed::All) => formatter.write_str("fd://"),
            Self::Passed(Passed::Number(number)) => write!(formatter, "fd://{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, HostError> {
        Host::parse(text, Path::new("/run/default.sock")).map(|host| host.to_string())
    }

    #[test]
    fn all_kinds_are_read() {
        for (text, expected) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix://", "unix:///run/default.sock"),
            ("tcp://127.0.0.1:99", "tcp://127.0.0.1:99"),
            ("tcp://[::1]:99", "tcp://[::1]:99"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://:99", "tcp://0.0.0.0:99"),
            ("tcp://", "tcp://127.0.0.1:2375"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:2375"),
            ("0.0.0.0:99", "tcp://0.0.0.0:99"),
            ("fd://", "fd://"),
            ("fd://*", "fd://"),
            ("fd://5", "fd://5"),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "x", "unix://relative", "http://x:1", "fd://1", "fd://x", "tcp://1.2.3.4:99999", "npipe://x"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
