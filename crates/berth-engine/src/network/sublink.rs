//! Options of the drivers `macvlan` and `ipvlan`, and which of their networks can share a parent.

use berth_api::StringMap;
use berth_network::sublink::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, SublinkKind, Sublinks};
use serde::{Deserialize, Serialize};

use super::bridge::is_link_name;
use super::object::{Driver, Object};
use crate::Error;

/// What a user chose of such a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SublinkOptions {
    /// What the containers' links are.
    pub kind: SublinkKind,
    /// Name of the parent; `None` for one of the network's own, which leads nowhere.
    pub parent: Option<String>,
    /// The parent is a VLAN that was made here.
    #[serde(default)]
    pub vlan: Option<Parent>,
}

fn invalid(text: String) -> Error {
    Error::InvalidParameter(text)
}

impl SublinkOptions {
    /// Reads Docker's options of the driver `macvlan`; what is none of them is kept, and of no effect.
    pub fn macvlan(options: &StringMap) -> Result<Self, Error> {
        let mode = match options.get("macvlan_mode").map(String::as_str) {
            None | Some("" | "bridge") => MacvlanMode::Bridge,
            Some("private") => MacvlanMode::Private,
            Some("vepa") => MacvlanMode::Vepa,
            Some("passthru") => MacvlanMode::Passthru,
            Some(mode) => {
                return Err(invalid(format!(
                    "requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
                )));
            }
        };
        Self::new(SublinkKind::Macvlan(mode), "macvlan", options)
    }

    /// Reads those of the driver `ipvlan`.
    pub fn ipvlan(options: &StringMap) -> Result<Self, Error> {
        let mode = match options.get("ipvlan_mode").map(String::as_str) {
            None | Some("" | "l2") => IpvlanMode::L2,
            Some("l3") => IpvlanMode::L3,
            Some("l3s") => IpvlanMode::L3s,
            Some(mode) => {
                return Err(invalid(format!(
                    "requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default"
                )));
            }
        };
        let flag = match options.get("ipvlan_flag").map(String::as_str) {
            None | Some("" | "bridge") => IpvlanFlag::Bridge,
            Some("private") => IpvlanFlag::Private,
            Some("vepa") => IpvlanFlag::Vepa,
            Some(flag) => {
                return Err(invalid(format!(
                    "requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
                )));
            }
        };
        Self::new(SublinkKind::Ipvlan(mode, flag), "ipvlan", options)
    }

    fn new(kind: SublinkKind, driver: &str, options: &StringMap) -> Result<Self, Error> {
        let parent = options.get("parent").filter(|parent| !parent.is_empty()).cloned();
        match parent.as_deref() {
            Some("lo") => {
                return Err(invalid(format!("loopback interface is not a valid {driver} parent link")));
            }
            Some(name) if !is_link_name(name) => {
                return Err(invalid(format!("{name:?} is not a valid {driver} parent link")));
            }
            _ => {}
        }
        Ok(SublinkOptions { kind, parent, vlan: None })
    }

    /// Docker's name of the driver.
    pub fn driver(&self) -> &'static str {
        match self.kind {
            SublinkKind::Macvlan(_) => "macvlan",
            SublinkKind::Ipvlan(..) => "ipvlan",
        }
    }

    /// Whether the default route is the link itself, without a next hop.
    pub fn routes_by_link(&self) -> bool {
        matches!(self.kind, SublinkKind::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
    }

    /// Name of the parent of a network with this ID.
    pub fn parent_name(&self, id: &str) -> String {
        self.parent.clone().unwrap_or_else(|| dummy_name(id))
    }

    /// What the host makes of a network with this ID.
    pub fn sublinks(&self, id: &str) -> Sublinks {
        let made = match self.parent {
            Some(_) => self.vlan.clone(),
            None => Some(Parent::Dummy),
        };
        Sublinks { parent: self.parent_name(id), made, kind: self.kind }
    }

    /// Settles where the parent of a new network comes from, beside `others`, in Docker's words. `exists` tells which
    /// links the host has.
    pub fn settle(
        &mut self,
        id: &str,
        others: &[Object],
        exists: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let Some(parent) = self.parent.clone() else { return Ok(()) };
        let others = others.iter().filter_map(|object| match &object.driver {
            Driver::Sublinks(options) if object.id != id && options.parent.as_ref() == Some(&parent) => {
                Some((object, options))
            }
            _ => None,
        });
        let others: Vec<_> = others.collect();
        for (object, options) in &others {
            self.check_beside(&parent, &object.id, options)?;
        }
        if exists(&parent) {
            // Whoever is the last to leave it removes it.
            self.vlan = others.iter().find_map(|(_, options)| options.vlan.clone());
            return Ok(());
        }
        self.vlan = Some(vlan(&parent, exists)?);
        Ok(())
    }

    fn check_beside(&self, parent: &str, id: &str, other: &SublinkOptions) -> Result<(), Error> {
        let passthru = SublinkKind::Macvlan(MacvlanMode::Passthru);
        match (self.kind, other.kind) {
            (SublinkKind::Ipvlan(..), SublinkKind::Ipvlan(..)) => Err(Error::Forbidden(format!(
                "network {} is already using parent interface {parent}",
                dummy_name(id)
            ))),
            (mine, SublinkKind::Macvlan(_)) if mine == passthru => Err(Error::Forbidden(format!(
                "cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"
            ))),
            (SublinkKind::Macvlan(_), theirs) if theirs == passthru => Err(Error::Forbidden(format!(
                "macvlan network {id} is already using parent interface {parent} in mode passthru"
            ))),
            _ => Ok(()),
        }
    }
}

fn dummy_name(id: &str) -> String {
    format!("dm-{}", id.get(..12).unwrap_or(id))
}

/// Reads `eth0.10`.
fn vlan(name: &str, exists: impl Fn(&str) -> bool) -> Result<Parent, Error> {
    if !name.contains('.') {
        return Err(invalid(format!("invalid subinterface vlan name {name}, example formatting is eth0.10")));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let &[of, number] = parts.as_slice() else {
        return Err(invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )));
    };
    let id: i64 = number.parse().map_err(|_| {
        invalid(format!("unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)"))
    })?;
    if !exists(of) {
        return Err(invalid(format!("-o parent interface was not found on the host: {of}")));
    }
    let id = u16::try_from(id).ok().filter(|id| (1..=4094).contains(id));
    let id = id.ok_or_else(|| invalid(format!("vlan id must be between 1-4094, received: {number}")))?;
    Ok(Parent::Vlan { of: of.to_owned(), id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn network(id: &str, options: SublinkOptions) -> Object {
        Object { id: id.into(), ..crate::networks::example(id, Driver::Sublinks(options)) }
    }

    #[test]
    fn dockers_options_are_read() {
        let plain = SublinkOptions::macvlan(&options(&[])).unwrap();
        assert_eq!(plain.kind, SublinkKind::Macvlan(MacvlanMode::Bridge));
        let sublinks = plain.sublinks("0123456789abcdef");
        assert_eq!((sublinks.parent.as_str(), sublinks.made), ("dm-0123456789ab", Some(Parent::Dummy)));
        let l3s = SublinkOptions::ipvlan(&options(&[("ipvlan_mode", "l3s"), ("ipvlan_flag", "vepa")]));
        assert!(l3s.unwrap().routes_by_link());
        for (made, expected) in [
            (
                SublinkOptions::macvlan(&options(&[("macvlan_mode", "x")])),
                "requested macvlan mode 'x' is not valid",
            ),
            (
                SublinkOptions::ipvlan(&options(&[("ipvlan_mode", "l4")])),
                "requested ipvlan mode 'l4' is not valid",
            ),
            (
                SublinkOptions::ipvlan(&options(&[("ipvlan_flag", "l4")])),
                "requested ipvlan flag 'l4' is not valid",
            ),
            (
                SublinkOptions::macvlan(&options(&[("parent", "lo")])),
                "loopback interface is not a valid macvlan",
            ),
            (
                SublinkOptions::macvlan(&options(&[("parent", "a/b")])),
                "\"a/b\" is not a valid macvlan parent",
            ),
        ] {
            let error = made.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn sub_interfaces_are_made_and_left_to_the_last() {
        let exists = |name: &str| name == "eth0";
        let mut first = SublinkOptions::macvlan(&options(&[("parent", "eth0.50")])).unwrap();
        first.settle("a", &[], exists).unwrap();
        let made = Some(Parent::Vlan { of: "eth0".into(), id: 50 });
        assert_eq!(first.vlan, made);
        let mut second = SublinkOptions::macvlan(&options(&[("parent", "eth0.50")])).unwrap();
        second.settle("b", &[network("a", first)], |_| true).unwrap();
        assert_eq!(second.vlan, made);
        second.settle("b", &[], |_| true).unwrap();
        assert_eq!(second.vlan, None, "an administrator's");
        for (parent, expected) in [
            ("eth1", "invalid subinterface vlan name eth1"),
            ("eth0.x", "unable to parse a valid vlan id from: x"),
            ("eth0.4095", "vlan id must be between 1-4094, received: 4095"),
            ("eth0.1.2", "required interface name format is: name.vlan_id"),
            ("eth9.10", "-o parent interface was not found on the host: eth9"),
        ] {
            let mut one = SublinkOptions::ipvlan(&options(&[("parent", parent)])).unwrap();
            let error = one.settle("c", &[], exists).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{parent}: {error}");
        }
    }

    #[test]
    fn who_shares_a_parent_is_dockers_choice() {
        let on = |driver: &str, mode: &str| {
            let pairs = options(&[("parent", "eth0"), ("macvlan_mode", mode)]);
            if driver == "macvlan" {
                SublinkOptions::macvlan(&pairs)
            } else {
                SublinkOptions::ipvlan(&options(&[("parent", "eth0")]))
            }
            .unwrap()
        };
        for (mine, theirs, expected) in [
            (on("macvlan", "bridge"), on("macvlan", "private"), ""),
            (on("macvlan", "bridge"), on("ipvlan", ""), ""),
            (on("ipvlan", ""), on("ipvlan", ""), "network dm-a is already using parent interface eth0"),
            (
                on("macvlan", "passthru"),
                on("macvlan", "bridge"),
                "cannot use mode passthru, macvlan network a is",
            ),
            (on("macvlan", "bridge"), on("macvlan", "passthru"), "macvlan network a is already using parent"),
        ] {
            let settled = mine.clone().settle("b", &[network("a", theirs)], |_| true);
            let error = settled.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(error.starts_with(expected) && error.is_empty() == expected.is_empty(), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_read_without_harm(name in ".{0,16}") {
            let _ = vlan(&name, |_| true);
            let _ = SublinkOptions::macvlan(&options(&[("parent", &name), ("macvlan_mode", &name)]));
        }
    }
}
