//! What a user asked of a container's endpoint on one network, and how it becomes one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::StringMap;
use berth_api::network::EndpointSettings;
use serde::{Deserialize, Serialize};

use super::bridge::{boolean, is_link_name};
use super::object::{Object, PREDEFINED};
use crate::Error;
use crate::create::mac;

/// A driver option of endpoints: kernel parameters of the container's link.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The same: the name of the container's link.
const LINK_NAME: &str = "com.docker.network.endpoint.ifname";

/// A network that a container is on whenever it runs, kept with the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name, or what the user called it while there is none of that name.
    pub name: String,
    /// The network's ID, if there was one.
    #[serde(default)]
    pub id: String,
    /// What was asked for; fields that tell what came of it are empty.
    pub settings: EndpointSettings,
}

impl Attachment {
    /// An attachment as clients ask for it, without what only answers have.
    pub fn new(name: &str, id: &str, settings: EndpointSettings) -> Attachment {
        let asked = EndpointSettings {
            ipam_config: settings.ipam_config,
            links: settings.links,
            aliases: settings.aliases,
            driver_opts: settings.driver_opts,
            gw_priority: settings.gw_priority,
            mac_address: settings.mac_address,
            ..EndpointSettings::default()
        };
        Attachment { name: name.to_owned(), id: id.to_owned(), settings: asked }
    }

    /// The names by which others on the network find the container, the first for questions about its address. Only
    /// networks that users made have names.
    pub fn names(&self, container: &str, id: &str, hostname: &str) -> Option<Vec<String>> {
        if PREDEFINED.contains(&self.name.as_str()) {
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        let aliases = self.settings.aliases.iter().flatten().map(String::as_str);
        let short = id.get(..12).unwrap_or(id);
        for name in std::iter::once(container).chain(aliases).chain([short, hostname]) {
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Some(names)
    }
}

/// Reads a link, `NAME` or `NAME:ALIAS`: the name and the alias.
pub fn link_of(text: &str) -> Result<(&str, &str), Error> {
    let bad = || Error::InvalidParameter(format!("bad format for links: {text}"));
    match text.split_once(':') {
        _ if text.is_empty() => Err(Error::InvalidParameter("empty string specified for links".into())),
        None => Ok((text, text)),
        Some((_, alias)) if alias.contains(':') => Err(bad()),
        // As `inspect` shows links: `/name:/container/alias`.
        Some((name, alias)) if name.starts_with('/') => {
            Ok((&name[1..], alias.rsplit('/').next().unwrap_or(alias)))
        }
        Some((name, alias)) => Ok((name, alias)),
    }
}

/// What an endpoint is to have, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// A certain IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// A certain IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses, of the link alone.
    pub link_local: Vec<IpAddr>,
    /// A certain hardware address.
    pub mac: Option<[u8; 6]>,
    /// Kernel parameters: keys with `IFNAME` for the link's name, and values.
    pub sysctls: Vec<(String, String)>,
    /// A certain name of the link inside.
    pub link_name: Option<String>,
    /// All options for the network's driver.
    pub driver_opts: StringMap,
    /// Who has the default route.
    pub priority: i64,
    /// The container is to have no IPv6 on any link.
    pub without_ipv6: bool,
}

impl Asked {
    /// Reads settings for the network called `name`, which is `object` if there is one already. All that is wrong is told
    /// at once.
    pub fn parse(name: &str, object: Option<&Object>, settings: &EndpointSettings) -> Result<Asked, Error> {
        let mut wrong = Vec::new();
        let driver_opts = settings.driver_opts.clone().unwrap_or_default();
        let mut asked = Asked { priority: settings.gw_priority, driver_opts, ..Asked::default() };
        if PREDEFINED.contains(&name) || name == "default" {
            check_predefined(settings, &mut wrong);
        }
        asked.addresses(settings, &mut wrong);
        if let Some(object) = object {
            asked.check_range(object, &mut wrong);
        }
        wrong.extend(
            settings.links.iter().flatten().filter_map(|link| Some(link_of(link).err()?.to_string())),
        );
        if !settings.mac_address.is_empty() {
            asked.mac = mac::parse(&settings.mac_address);
            if asked.mac.is_none() {
                wrong.push(format!("invalid MAC address: {}", settings.mac_address));
            }
        }
        for (key, value) in settings.driver_opts.iter().flatten() {
            match key.as_str() {
                SYSCTLS => asked.sysctls = sysctls(value, &mut wrong),
                LINK_NAME if !is_link_name(value) => wrong.push(format!("invalid interface name: {value}")),
                LINK_NAME => asked.link_name = Some(value.clone()),
                _ => {}
            }
        }
        match wrong.as_slice() {
            [] => Ok(asked),
            [one] => Err(Error::InvalidParameter(format!("invalid endpoint settings:\n{one}"))),
            several => Err(Error::InvalidParameter(format!(
                "invalid endpoint settings:\n* {}",
                several.join("\n* ")
            ))),
        }
    }

    fn addresses(&mut self, settings: &EndpointSettings, wrong: &mut Vec<String>) {
        let Some(ipam) = &settings.ipam_config else { return };
        if !ipam.ipv4_address.is_empty() {
            self.ipv4 = ipam.ipv4_address.parse().ok().filter(|address: &Ipv4Addr| !address.is_unspecified());
            if self.ipv4.is_none() {
                wrong.push(not_an_address("IPv4", &ipam.ipv4_address));
            }
        }
        if !ipam.ipv6_address.is_empty() {
            let good = |address: &Ipv6Addr| !address.is_unspecified() && address.to_ipv4_mapped().is_none();
            self.ipv6 = ipam.ipv6_address.parse().ok().filter(good);
            if self.ipv6.is_none() {
                wrong.push(not_an_address("IPv6", &ipam.ipv6_address));
            }
        }
        for text in ipam.link_local_ips.iter().flatten() {
            match text.parse::<IpAddr>() {
                Ok(address) if is_link_local(address) => self.link_local.push(address),
                _ => wrong.push(format!("invalid link-local IP address: {text}")),
            }
        }
    }

    fn check_range(&self, object: &Object, wrong: &mut Vec<String>) {
        let asked = [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)];
        for address in asked.into_iter().flatten() {
            if !object.subnets.iter().any(|subnet| subnet.net.contains(&address)) {
                wrong.push(format!("no configured subnet contains IP address {address}"));
            }
        }
    }

    /// The kernel parameters for a link of this name.
    pub fn sysctls_of(&self, link: &str) -> Vec<(String, String)> {
        // A dot in a link's name is none of the path's.
        let path = |key: &str| {
            let parts: Vec<&str> =
                key.splitn(4, '.').map(|part| if part == "IFNAME" { link } else { part }).collect();
            parts.join("/")
        };
        self.sysctls.iter().map(|(key, value)| (path(key), value.clone())).collect()
    }

    /// Whether the user wants no IPv6 on the link, whatever the network has.
    pub fn disables_ipv6(&self) -> bool {
        self.without_ipv6
            || self
                .sysctls
                .iter()
                .any(|(key, value)| key == "ipv6.conf.IFNAME.disable_ipv6" && boolean(value) == Some(true))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Docker's words for an address that cannot be had, and Go's for what is none at all.
fn not_an_address(kind: &str, text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(_) => format!("invalid {kind} address: {text}"),
        Err(_) => format!("invalid {kind} address: ParseAddr({text:?}): unable to parse IP"),
    }
}

fn check_predefined(settings: &EndpointSettings, wrong: &mut Vec<String>) {
    let addresses = settings.ipam_config.as_ref();
    if addresses.is_some_and(|ipam| !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty()) {
        wrong.push("user-specified IP address is supported on user-defined networks only".into());
    }
    if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        wrong.push("network-scoped aliases are only supported for user-defined networks".into());
    }
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1,…`; keys come back without `net.`.
fn sysctls(text: &str, wrong: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for sysctl in text.split(',') {
        let parts: Vec<&str> = sysctl.splitn(5, '.').collect();
        let good = match parts.as_slice() {
            ["net", "ipv4" | "ipv6" | "mpls", group, "IFNAME" | "ifname", last] => last
                .split_once('=')
                // A path below the group's directory must stay there.
                .filter(|(key, _)| {
                    ![*group, *key].iter().any(|part| part.is_empty() || part.contains(['/', '.']))
                })
                .map(|(key, value)| (format!("{}.{group}.IFNAME.{key}", parts[1]), value.to_owned())),
            _ => None,
        };
        match good {
            Some(pair) => found.push(pair),
            None => wrong.push(format!(
                "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as \
                 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::network::EndpointIpamConfig;

    fn settings(ipv4: &str, ipv6: &str) -> EndpointSettings {
        let ipam =
            EndpointIpamConfig { ipv4_address: ipv4.into(), ipv6_address: ipv6.into(), link_local_ips: None };
        EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() }
    }

    fn parse(name: &str, settings: &EndpointSettings) -> Result<Asked, String> {
        Asked::parse(name, None, settings).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_checked() {
        let good = parse("mine", &settings("10.0.0.7", "fd00::7")).unwrap();
        assert_eq!(good.ipv4.unwrap().to_string(), "10.0.0.7");
        assert_eq!(good.ipv6.unwrap().to_string(), "fd00::7");
        assert_eq!(
            parse("mine", &settings("fd00::7", "10.0.0.7")).unwrap_err(),
            "invalid endpoint settings:\n* invalid IPv4 address: fd00::7\n* invalid IPv6 address: 10.0.0.7"
        );
        assert_eq!(
            parse("mine", &settings("", "mine6")).unwrap_err(),
            "invalid endpoint settings:\ninvalid IPv6 address: ParseAddr(\"mine6\"): unable to parse IP"
        );
        assert_eq!(
            parse("bridge", &settings("10.0.0.7", "")).unwrap_err(),
            "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only"
        );
        let own = |text: &str| {
            let mut settings = settings("", "");
            settings.ipam_config.as_mut().unwrap().link_local_ips = Some(vec![text.into()]);
            parse("mine", &settings)
        };
        assert_eq!(own("169.254.7.7").unwrap().link_local.len(), 1);
        assert_eq!(own("fe80::254:77").unwrap().link_local.len(), 1);
        for bad in ["169.253.5.5", "2001:db8::89", "0.0.0.0", "::", "x"] {
            let told = format!("invalid endpoint settings:\ninvalid link-local IP address: {bad}");
            assert_eq!(own(bad).unwrap_err(), told);
        }
        let aliases = EndpointSettings { aliases: Some(vec!["x".into()]), ..EndpointSettings::default() };
        assert!(parse("default", &aliases).unwrap_err().contains("network-scoped aliases"));
        parse("mine", &aliases).unwrap();
    }

    #[test]
    fn parameters_are_of_the_link() {
        let with = |text: &str| EndpointSettings {
            driver_opts: Some([(SYSCTLS.to_owned(), text.to_owned())].into()),
            ..EndpointSettings::default()
        };
        let asked =
            parse("mine", &with("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.disable_ipv6=1"))
                .unwrap();
        assert_eq!(asked.sysctls_of("eth0.5")[0], ("ipv4/conf/eth0.5/log_martians".into(), "1".into()));
        assert!(asked.disables_ipv6());
        for bad in [
            "net.ipv4.conf.eth0.log_martians=1",
            "kernel.x=1",
            "net.ipv4.conf.IFNAME.a/../b=1",
            "net.ipv4...x=1",
            "",
        ] {
            assert!(
                parse("mine", &with(bad)).unwrap_err().contains("unrecognised network interface sysctl"),
                "{bad}"
            );
        }
    }

    #[test]
    fn links_are_read() {
        for (text, pair) in [("a", ("a", "a")), ("a:b", ("a", "b")), ("/a:/c/b", ("a", "b"))] {
            assert_eq!(link_of(text).unwrap(), pair, "{text}");
        }
        assert_eq!(link_of("a:b:c").unwrap_err().to_string(), "bad format for links: a:b:c");
        assert_eq!(link_of("").unwrap_err().to_string(), "empty string specified for links");
        let bad = EndpointSettings { links: Some(vec!["a:b:c".into()]), ..EndpointSettings::default() };
        assert!(parse("mine", &bad).unwrap_err().contains("bad format for links"));
    }

    #[test]
    fn names_are_told_once() {
        let settings = EndpointSettings {
            aliases: Some(vec!["db".into(), "web".into()]),
            ..EndpointSettings::default()
        };
        let id = "0123456789abcdef";
        let names = Attachment::new("mine", "", settings.clone()).names("web", id, "0123456789ab").unwrap();
        assert_eq!(names, ["web", "db", "0123456789ab"]);
        assert_eq!(Attachment::new("bridge", "", settings).names("web", id, "h"), None);
    }
}
