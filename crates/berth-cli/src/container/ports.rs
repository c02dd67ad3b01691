//! `--publish` and `--expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use berth_api::network::{PortBinding, PortMap};
use berth_api::{Empty, Set};

use crate::failure::{Failure, Outcome};

/// Ports to expose and where to publish them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// `80/tcp` and so on.
    pub exposed: Set,
    /// What of them is published, and where.
    pub bindings: PortMap,
}

/// Reads all flags.
pub fn read(publish: &[String], expose: &[String]) -> Outcome<Ports> {
    let mut ports = Ports::default();
    for text in publish {
        add(&mut ports, text)?;
    }
    for text in expose {
        let (numbers, protocol) = protocol(text)?;
        let wrong = || Failure::new(format!("invalid range format for --expose: {text}"));
        for port in range(numbers).ok_or_else(wrong)? {
            ports.exposed.insert(format!("{port}/{protocol}"), Empty {});
        }
    }
    Ok(ports)
}

fn add(ports: &mut Ports, text: &str) -> Outcome {
    let text = match text.contains("target=") {
        true => &long_form(text)?,
        false => text,
    };
    let (rest, protocol) = protocol(text)?;
    let (rest, container) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (address, host) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (address, host) = inner.split_once(']').ok_or_else(|| wrong("IP address", rest))?;
            (address, host.strip_prefix(':').unwrap_or_default())
        }
        None => match rest.rsplit_once(':') {
            Some((address, host)) => (address, host),
            None => ("", rest),
        },
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(wrong("IP address", address));
    }
    if container.is_empty() {
        return Err(Failure::new(format!("no port specified: {text}<empty>")));
    }
    let inside = range(container).ok_or_else(|| wrong("containerPort", container))?;
    let outside = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| wrong("hostPort", host))?),
    };
    let count = inside.clone().count();
    let matching = outside.as_ref().is_none_or(|outside| outside.clone().count() == count || count == 1);
    if !matching {
        return Err(Failure::new(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        )));
    }
    for (index, port) in inside.enumerate() {
        let name = format!("{port}/{protocol}");
        let host_port = match &outside {
            None => String::new(),
            // One port of the container takes any free one of a range of the host's.
            Some(outside) if count == 1 && outside.clone().count() > 1 => {
                format!("{}-{}", outside.start(), outside.end())
            }
            Some(outside) => outside.clone().nth(index).unwrap_or_default().to_string(),
        };
        ports.exposed.insert(name.clone(), Empty {});
        let bindings = ports.bindings.entry(name).or_default().get_or_insert_default();
        bindings.push(PortBinding { host_ip: address.to_owned(), host_port });
    }
    Ok(())
}

/// `target=80,published=8080,protocol=tcp` as the short form.
fn long_form(text: &str) -> Outcome<String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", _)) => {}
            _ => return Err(Failure::new(format!("invalid field {field:?} in --publish"))),
        }
    }
    let separator = if published.is_empty() { "" } else { ":" };
    Ok(format!("{published}{separator}{target}/{protocol}"))
}

fn wrong(what: &str, text: &str) -> Failure {
    Failure::new(format!("invalid {what}: {text}"))
}

/// Separates the protocol.
fn protocol(text: &str) -> Outcome<(&str, String)> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((rest, protocol)),
        _ => Err(Failure::new(format!("invalid proto: {protocol}"))),
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last): (u16, u16) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let ports = read(&[text.to_owned()], &[]).unwrap();
        let shown = ports.bindings.iter().flat_map(|(port, bindings)| {
            bindings.iter().flatten().map(move |to| format!("{}:{}->{port}", to.host_ip, to.host_port))
        });
        shown.collect()
    }

    #[test]
    fn all_forms_are_read() {
        assert_eq!(shown("80"), [":->80/tcp"]);
        assert_eq!(shown("8080:80"), [":8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1:8080:80/udp"), ["127.0.0.1:8080->80/udp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:->80/tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1:8080->80/tcp"]);
        assert_eq!(shown("8000-8001:80-81"), [":8000->80/tcp", ":8001->81/tcp"]);
        assert_eq!(shown("8000-8009:80"), [":8000-8009->80/tcp"]);
        assert_eq!(shown("target=80,published=8080,protocol=udp"), [":8080->80/udp"]);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, message) in [
            ("http", "invalid containerPort: http"),
            ("99999:80", "invalid hostPort: 99999"),
            ("80:99999", "invalid containerPort: 99999"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80/icmp", "invalid proto: icmp"),
            ("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"),
            ("9-8:9-8", "invalid containerPort: 9-8"),
        ] {
            assert_eq!(read(&[text.to_owned()], &[]).unwrap_err().message, message);
        }
        let exposed = read(&[], &["53/udp".to_owned(), "1-2".to_owned()]).unwrap().exposed;
        assert_eq!(exposed.into_keys().collect::<Vec<_>>(), ["1/tcp", "2/tcp", "53/udp"]);
    }
}
