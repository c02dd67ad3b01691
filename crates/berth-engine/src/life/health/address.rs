//! Where checks over the network go: `localhost` or an address, never a name that somebody would have to resolve.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::check::LOCALHOST;
use crate::Error;

/// Longest URL.
const MAX_URL: usize = 2048;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As it was given.
    text: String,
    /// `None` for `localhost`.
    ip: Option<IpAddr>,
    port: u16,
}

impl Address {
    /// Reads `localhost:6379`, `127.0.0.1:6379` or `[::1]:6379`.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let bad =
            |why: &str| Error::InvalidParameter(format!("invalid address \"{text}\" in Healthcheck: {why}"));
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0);
        let port: u16 = port.ok_or_else(|| bad("the port must be a number from 1 to 65535"))?;
        let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bare) => bare.parse::<Ipv6Addr>().ok().map(|ip| Some(IpAddr::V6(ip))),
            None if host.eq_ignore_ascii_case("localhost") => Some(None),
            None => host.parse::<std::net::Ipv4Addr>().ok().map(|ip| Some(IpAddr::V4(ip))),
        };
        let ip = ip.ok_or_else(|| bad("the host must be localhost or an IP address"))?;
        Ok(Address { text: text.to_owned(), ip, port })
    }

    /// What to connect to, in this order until one answers.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        let all = match &self.ip {
            Some(ip) => std::slice::from_ref(ip),
            None => &LOCALHOST[..],
        };
        all.iter().map(|ip| SocketAddr::new(*ip, self.port))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// An `http` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Where the server is.
    pub address: Address,
    /// What is asked for: the path and the query.
    pub target: String,
    /// Host and port as the request names them.
    pub host: String,
}

impl Url {
    /// Reads `http://localhost:8080/healthz?full=1`.
    pub fn parse(text: &str) -> Result<Url, Error> {
        let bad =
            |why: &str| Error::InvalidParameter(format!("invalid URL \"{text}\" in Healthcheck: {why}"));
        if text.len() > MAX_URL {
            return Err(bad("it is too long"));
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            _ => return Err(bad("it must begin with http://")),
        };
        // Nothing that could end the request line, or begin another header.
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("only visible ASCII characters are allowed"));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        if host.contains('@') {
            return Err(bad("a user is not supported"));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let full = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Url { address: Address::parse(&full)?, target, host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read() {
        let candidates = |text| Address::parse(text).unwrap().candidates().collect::<Vec<_>>();
        assert_eq!(candidates("127.0.0.1:80"), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(candidates("[::1]:80"), ["[::1]:80".parse().unwrap()]);
        assert_eq!(
            candidates("localhost:80"),
            ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]
        );
        for bad in [
            "",
            "localhost",
            ":80",
            "localhost:",
            "localhost:0",
            "localhost:+1",
            "localhost:65536",
            "::1:80",
            "example.com:80",
            "[127.0.0.1]:80",
            "[::1]",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_read() {
        for (text, address, target, host) in [
            ("http://localhost", "localhost:80", "/", "localhost"),
            ("HTTP://localhost:8080/healthz?a=b#c", "localhost:8080", "/healthz?a=b", "localhost:8080"),
            ("http://[::1]/x", "[::1]:80", "/x", "[::1]"),
            ("http://127.0.0.1?q", "127.0.0.1:80", "/?q", "127.0.0.1"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.address.as_str(), url.target.as_str(), url.host.as_str()),
                (address, target, host)
            );
        }
        let long = format!("http://localhost/{}", "a".repeat(MAX_URL));
        for bad in [
            "",
            "localhost:80",
            "https://localhost",
            "http://",
            "http://a.example/",
            "http://u:p@localhost/",
            "http://localhost/a b",
            "http://localhost/\r\nX: y",
            long.as_str(),
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_accepted_breaks_a_request(text in "(http://)?[ -~\r\n\u{e9}]{0,40}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(url.target.starts_with('/'));
                prop_assert!(url.target.bytes().chain(url.host.bytes()).all(|b| b.is_ascii_graphic()));
            }
        }

        #[test]
        fn every_address_is_read_again(ip: IpAddr, port in 1u16..) {
            let address = SocketAddr::new(ip, port);
            let read = Address::parse(&address.to_string()).unwrap();
            prop_assert_eq!(read.candidates().collect::<Vec<_>>(), vec![address]);
        }
    }
}
