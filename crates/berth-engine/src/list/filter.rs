//! Docker's filters for lists of containers.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use berth_api::StringMap;
use berth_api::filter::Filters;
use berth_network::Protocol;
use berth_oci::Digest;
use jiff::Timestamp;

use super::pattern;
use crate::container::{Container, Kept};
use crate::create::mounts::MountSource;
use crate::create::ports;
use crate::engine::Parts;
use crate::{Error, inspect, networks};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH_WORDS: &str = "none, starting, healthy, unhealthy";
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// Refuses filters that are not among those known.
pub(crate) fn check_known(filters: &Filters, known: &[&str]) -> Result<(), Error> {
    match filters.names().find(|name| !known.contains(name)) {
        Some(name) => Err(Error::InvalidParameter(format!("invalid filter '{name}'"))),
        None => Ok(()),
    }
}

/// Filters, checked and looked up once for a whole list.
pub struct Filter<'a> {
    parts: &'a Parts,
    filters: &'a Filters,
    /// IDs of the images of `ancestor`, and of those that were made from them.
    images: HashSet<String>,
    exited: Vec<i32>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    publish: Vec<PortRange>,
    expose: Vec<PortRange>,
}

/// `80`, `80/tcp` or `8000-8010/udp`.
#[derive(Debug, PartialEq, Eq)]
struct PortRange {
    ports: RangeInclusive<u16>,
    protocol: Protocol,
}

impl PortRange {
    fn parse(text: &str) -> Result<PortRange, Error> {
        let invalid = || Error::InvalidParameter(format!("invalid port specification: \"{text}\""));
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
        Ok(PortRange {
            ports: number(first)?..=number(last)?,
            protocol: protocol.parse().map_err(|_| invalid())?,
        })
    }

    fn has(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol == protocol && self.ports.contains(&port)
    }
}

fn bad(name: &str, value: &str) -> Error {
    Error::InvalidParameter(format!("invalid filter '{name}={value}'"))
}

fn check(filters: &Filters) -> Result<(), Error> {
    check_known(filters, &KNOWN)?;
    let closed = [("status", &STATES[..]), ("health", &HEALTH), ("is-task", &["true", "false", "1", "0"])];
    for (name, allowed) in closed {
        if let Some(value) = filters.get(name).find(|value| !allowed.contains(value)) {
            // Docker explains this one.
            let why = match name {
                "health" => format!(": invalid value for health ({value}): must be one of {}", HEALTH_WORDS),
                _ => String::new(),
            };
            return Err(Error::InvalidParameter(format!("invalid filter '{name}={value}'{why}")));
        }
    }
    Ok(())
}

/// The IDs of images and of all that were made from them, in any number of steps.
fn descendants(parts: &Parts, images: impl Iterator<Item = Digest>) -> Result<HashSet<String>, Error> {
    let mut open: Vec<Digest> = images.collect();
    let mut found = HashSet::new();
    if open.is_empty() {
        return Ok(found);
    }
    let mut children: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for image in parts.storage.images().list()? {
        if let Some(parent) = image.parent {
            children.entry(parent).or_default().push(image.id);
        }
    }
    while let Some(id) = open.pop() {
        if found.insert(id.to_string()) {
            open.extend(children.remove(&id).unwrap_or_default());
        }
    }
    Ok(found)
}

impl<'a> Filter<'a> {
    /// Checks filters, and looks up the images and containers that they name.
    pub fn new(parts: &'a Parts, filters: &'a Filters) -> Result<Filter<'a>, Error> {
        check(filters)?;
        let exited = filters.get("exited").map(|text| text.parse().map_err(|_| bad("exited", text)));
        let created = |name: &str| -> Result<Vec<Timestamp>, Error> {
            filters.get(name).map(|other| Ok(parts.containers.find(other)?.definition.created)).collect()
        };
        let ports = |name: &str| filters.get(name).map(PortRange::parse).collect::<Result<_, _>>();
        Ok(Filter {
            parts,
            filters,
            // As in Docker, an unknown ancestor has no containers and is no error.
            images: descendants(
                parts,
                filters.get("ancestor").filter_map(|name| parts.images.id(name).ok()),
            )?,
            exited: exited.collect::<Result<_, _>>()?,
            before: created("before")?.into_iter().min(),
            since: created("since")?.into_iter().max(),
            publish: ports("publish")?,
            expose: ports("expose")?,
        })
    }

    /// Whether a state is asked for, which includes containers that do not run.
    pub fn names_states(&self) -> bool {
        self.filters.has("status")
    }

    /// Whether a container satisfies all filters.
    pub fn passes(&self, container: &Container, kept: &Kept) -> bool {
        let definition = &container.definition;
        self.any("id", |wanted| container.id().starts_with(wanted))
            && self.any("name", |wanted| {
                pattern::matches(wanted, &kept.name) || pattern::matches(wanted, &format!("/{}", kept.name))
            })
            && self.any("status", |wanted| kept.state.status().as_str() == wanted)
            && self.any("ancestor", |_| self.images.contains(&definition.image))
            && self.any("health", |wanted| {
                wanted == kept.health.as_deref().map_or("none", |health| health.status.as_str())
            })
            && self.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && self.any("isolation", |wanted| wanted == "default")
            && self.any("network", |wanted| on_network(container, wanted))
            && self.any("volume", |wanted| self.has_volume(container, wanted))
            && self.before.is_none_or(|before| definition.created < before)
            && self.since.is_none_or(|since| definition.created > since)
            && has_labels(self.filters, definition.config.labels.as_ref())
            && self.has_exited(kept)
            && self.has_ports(container, kept)
    }

    fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        !self.filters.has(name) || self.filters.get(name).any(matches)
    }

    fn has_exited(&self, kept: &Kept) -> bool {
        if self.exited.is_empty() {
            return true;
        }
        let shown = kept.state.to_api();
        !shown.running && !shown.finished_at.is_zero() && self.exited.contains(&kept.state.exit_code())
    }

    fn has_volume(&self, container: &Container, wanted: &str) -> bool {
        let points = inspect::mount_points(self.parts, &container.definition);
        let named = points.iter().any(|p| p.name == wanted || p.source == wanted || p.destination == wanted);
        let volume =
            |source: &MountSource| matches!(source, MountSource::Volume { name, .. } if name == wanted);
        named || container.definition.mounts.iter().any(|plan| volume(&plan.source))
    }

    fn has_ports(&self, container: &Container, kept: &Kept) -> bool {
        let endpoints = kept.state.endpoints();
        let published = || endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        let exposed = ports::exposed(&container.definition.config).unwrap_or_default();
        let publishes = |range: &PortRange| published().any(|m| range.has(m.host_port, m.protocol));
        let exposes = |range: &PortRange| exposed.iter().any(|port| range.has(port.port, port.protocol));
        (self.publish.is_empty() || self.publish.iter().any(publishes))
            && (self.expose.is_empty() || self.expose.iter().any(exposes))
    }
}

fn on_network(container: &Container, wanted: &str) -> bool {
    networks::attachments(&container.definition, &container.kept()).iter().any(|attachment| {
        let id = match attachment.id.as_str() {
            "" => networks::network_id(&attachment.name),
            id => id.to_owned(),
        };
        attachment.name == wanted || (!wanted.is_empty() && id.starts_with(wanted))
    })
}

/// Whether all labels asked for (`key` or `key=value`) are there.
pub fn has_labels(filters: &Filters, labels: Option<&StringMap>) -> bool {
    has_all(filters, "label", labels)
}

/// Whether all labels that the filter `name` asks for are there.
pub fn has_all(filters: &Filters, name: &str, labels: Option<&StringMap>) -> bool {
    filters.get(name).all(|wanted| {
        let (key, value) = match wanted.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (wanted, None),
        };
        let found = labels.and_then(|labels| labels.get(key));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn unknown_filters_and_values_are_refused_in_dockers_words() {
        for (text, message) in [
            (r#"{"colour":["red"]}"#, "invalid filter 'colour'"),
            (r#"{"status":["asleep"]}"#, "invalid filter 'status=asleep'"),
            (
                r#"{"health":["fine"]}"#,
                "invalid filter 'health=fine': invalid value for health (fine): must be one of none, starting, healthy, unhealthy",
            ),
        ] {
            assert_eq!(check(&filters(text)).unwrap_err().to_string(), message);
        }
        check(&filters(r#"{"status":["running","exited"],"label":["a"]}"#)).unwrap();
    }

    #[test]
    fn ranges_of_ports_are_read() {
        let range = PortRange::parse("8000-8010/udp").unwrap();
        assert!(
            range.has(8005, Protocol::Udp)
                && !range.has(8005, Protocol::Tcp)
                && !range.has(8011, Protocol::Udp)
        );
        assert!(PortRange::parse("80").unwrap().has(80, Protocol::Tcp));
        for bad in ["", "x", "80/quic", "1-", "99999"] {
            assert!(PortRange::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_labels_must_be_there() {
        let labels = StringMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        for (text, expected) in [
            ("{}", true),
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1","b"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label":["a","c"]}"#, false),
        ] {
            assert_eq!(has_labels(&filters(text), Some(&labels)), expected, "{text}");
        }
        assert!(!has_labels(&filters(r#"{"label":["a"]}"#), None));
    }
}
