//! Ports of `EXPOSE`.

use std::net::IpAddr;

/// What a word of `EXPOSE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    first: u16,
    last: u16,
    protocol: String,
    /// Whether the protocol is not written in lower case.
    pub odd_case: bool,
    /// Whether an address or a port of the host is part of it, which has no effect.
    pub has_host: bool,
}

impl Exposed {
    /// The ports, such as `80/tcp`.
    pub fn ports(&self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(|port| format!("{port}/{}", self.protocol))
    }
}

/// `80`, `80-90/udp`, and what older files have: `127.0.0.1:8080:80`.
///
/// # Errors
/// Docker's text.
pub fn exposed(text: &str) -> Result<Exposed, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (ports, written) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let protocol = if written.is_empty() { "tcp".to_owned() } else { written.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (first, last) = range(ports).ok_or_else(|| format!("invalid containerPort: {ports}"))?;
    if !host.is_empty() {
        let (from, to) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if to - from != last - first && first != last {
            return Err(format!("invalid ranges specified for container and host Ports: {ports} and {host}"));
        }
    }
    let odd_case = !written.is_empty() && written != protocol;
    Ok(Exposed { first, last, protocol, odd_case, has_host: !(host.is_empty() && address.is_empty()) })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        let ports = |text: &str| exposed(text).map(|found| found.ports().collect::<Vec<_>>().join(" "));
        for (text, expected) in [
            ("80", Ok("80/tcp")),
            ("53/UDP", Ok("53/udp")),
            ("80-82/sctp", Ok("80/sctp 81/sctp 82/sctp")),
            ("127.0.0.1:8080:80", Ok("80/tcp")),
            ("[::1]::80", Ok("80/tcp")),
            ("8000-9000:80", Ok("80/tcp")),
            ("", Err("no port specified: <empty>")),
            ("/tcp", Err("no port specified: /tcp<empty>")),
            ("80/ip", Err("invalid proto: ip")),
            ("x", Err("invalid containerPort: x")),
            ("9-1", Err("invalid containerPort: 9-1")),
            ("+1", Err("invalid containerPort: +1")),
            ("70000", Err("invalid containerPort: 70000")),
            ("x:80", Err("invalid hostPort: x")),
            ("1-3:80-81", Err("invalid ranges specified for container and host Ports: 80-81 and 1-3")),
            ("a:1:80", Err("invalid IP address: a")),
        ] {
            assert_eq!(ports(text).as_deref().map_err(String::as_str), expected, "{text}");
        }
        assert!(exposed("1/Tcp").unwrap().odd_case && exposed("1:1").unwrap().has_host);
    }
}
