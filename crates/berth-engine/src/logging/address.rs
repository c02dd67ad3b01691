//! Addresses of log drivers, as Docker reads them.

use std::path::PathBuf;

/// Who gets a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `host:port`.
    Tcp(String),
    /// `host:port`, with TLS.
    Tls(String),
    /// `host:port`.
    Udp(String),
    /// A socket of this host; `datagrams` is `None` if that has to be found out.
    Unix { path: PathBuf, datagrams: Option<bool> },
}

impl Address {
    pub(super) fn is_udp(&self) -> bool {
        matches!(self, Address::Udp(_))
    }
}

/// The value of `syslog-address`.
pub(super) fn syslog(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match scheme {
        "unix" | "unixgram" => {
            let path = PathBuf::from(rest);
            match std::fs::metadata(&path) {
                Ok(_) => Ok(Address::Unix { path, datagrams: Some(scheme == "unixgram") }),
                Err(_) => Err(format!("stat {rest}: no such file or directory")),
            }
        }
        "tcp" => Ok(Address::Tcp(with_port(rest, 514)?)),
        "tcp+tls" => Ok(Address::Tls(with_port(rest, 514)?)),
        "udp" => Ok(Address::Udp(with_port(rest, 514)?)),
        _ => Err(format!("unsupported scheme: '{scheme}'")),
    }
}

/// The value of `gelf-address`.
pub(super) fn gelf(text: &str) -> Result<Address, String> {
    if text.is_empty() {
        return Err("gelf-address is a required parameter".into());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if !matches!(scheme, "udp" | "tcp") {
        return Err("gelf: endpoint needs to be TCP or UDP".into());
    }
    let rest = rest.trim_end_matches('/');
    if port(rest)?.is_none() {
        return Err("gelf: please provide gelf-address as proto://host:port".into());
    }
    Ok(if scheme == "udp" { Address::Udp(rest.into()) } else { Address::Tcp(rest.into()) })
}

/// The value of `fluentd-address`.
pub(super) fn fluentd(text: &str) -> Result<Address, String> {
    const PORT: u16 = 24224;
    let invalid = |reason: &str| Err(format!("invalid fluentd-address ({text}): {reason}"));
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.trim_matches('/').is_empty() => invalid("path is empty"),
        "unix" => Ok(Address::Unix { path: rest.into(), datagrams: Some(false) }),
        "tcp" | "tls" if rest.contains('/') => invalid("should not contain a path element"),
        "tcp" | "tls" => {
            let address = if scheme == "tls" { Address::Tls } else { Address::Tcp };
            let host = if rest.is_empty() || rest.starts_with(':') {
                format!("127.0.0.1{rest}")
            } else {
                rest.into()
            };
            with_port(&host, PORT).map(address).or_else(|reason| invalid(&reason))
        }
        _ => invalid(&format!("unsupported scheme: '{scheme}'")),
    }
}

/// A host with its port, or this one.
pub(super) fn with_port(host: &str, default: u16) -> Result<String, String> {
    let host = host.trim_end_matches('/');
    Ok(match port(host)? {
        Some(_) => host.to_owned(),
        None if host.matches(':').count() > 1 && !host.starts_with('[') => format!("[{host}]:{default}"),
        None => format!("{host}:{default}"),
    })
}

/// The port of `host:port` or `[v6]:port`, if there is one.
fn port(host: &str) -> Result<Option<u16>, String> {
    let after = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("missing ']' in address")?.1,
        None if host.matches(':').count() > 1 => return Ok(None),
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let Some(digits) = after.strip_prefix(':') else { return Ok(None) };
    digits.parse().map(Some).map_err(|_| format!("invalid port {digits:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let tcp = |text: &str| Ok(Address::Tcp(text.into()));
        assert_eq!(syslog("tcp://1.2.3.4"), tcp("1.2.3.4:514"));
        assert_eq!(syslog("tcp+tls://h:6514"), Ok(Address::Tls("h:6514".into())));
        assert_eq!(fluentd("tls://h"), Ok(Address::Tls("h:24224".into())));
        assert_eq!(syslog("udp://h:99"), Ok(Address::Udp("h:99".into())));
        assert_eq!(syslog("tcp://[::1]:7"), tcp("[::1]:7"));
        assert_eq!(syslog("corge://a"), Err("unsupported scheme: 'corge'".into()));
        assert!(syslog("unix:///no/such/socket").unwrap_err().contains("no such file"));
        assert_eq!(gelf("tcp://h:1"), tcp("h:1"));
        assert_eq!(gelf("udp://h"), Err("gelf: please provide gelf-address as proto://host:port".into()));
        assert_eq!(gelf(""), Err("gelf-address is a required parameter".into()));
        assert_eq!(gelf("unix://x"), Err("gelf: endpoint needs to be TCP or UDP".into()));
        for (text, host) in
            [("", "127.0.0.1:24224"), ("h", "h:24224"), ("tcp://h:5", "h:5"), (":5", "127.0.0.1:5")]
        {
            assert_eq!(fluentd(text), tcp(host), "{text}");
        }
        for text in ["tcp://h:5/x", "unix://", "corge://h", "h:70000"] {
            assert!(
                fluentd(text).unwrap_err().starts_with(&format!("invalid fluentd-address ({text})")),
                "{text}"
            );
        }
    }
}
