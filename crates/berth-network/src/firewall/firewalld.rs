//! firewalld judges traffic by zones of links: bridges of containers are in one that is trusted, as Docker's are.
//!
//! They are so at run time only: firewalld forgets it when it loads its rules again, and is told again ([`super::watch`]).

use std::io;

use super::bus::{Bus, Method};

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const INTERFACE: &str = "org.fedoraproject.FirewallD1.zone";
/// Zones that will do, the better one first: Docker's packages bring one, and firewalld has the other.
const ZONES: [&str; 2] = ["docker", "trusted"];
/// What firewalld says of a zone that is not there, and of a link that is in none.
const NO_ZONE: &str = "INVALID_ZONE";

/// Puts bridges into a zone, but for those that an administrator has put into one; those of `gone` are taken out.
pub(super) fn join(bridges: &[String], gone: &[String]) -> io::Result<()> {
    let mut bus = Bus::connect()?;
    let mut ask = |member: &str, arguments: &[&str]| {
        bus.call(Method { destination: NAME, path: PATH, interface: INTERFACE, member }, arguments)
    };
    for link in gone.iter().filter(|link| !bridges.contains(link)) {
        let zone = ask("getZoneOfInterface", &[link])?;
        if ZONES.contains(&zone.as_str()) {
            ask("removeInterface", &[&zone, link])?;
        }
    }
    for link in bridges {
        if !ask("getZoneOfInterface", &[link])?.is_empty() {
            continue;
        }
        match ask("addInterface", &[ZONES[0], link]) {
            Err(error) if error.to_string().contains(NO_ZONE) => ask("addInterface", &[ZONES[1], link])?,
            other => other?,
        };
    }
    Ok(())
}
