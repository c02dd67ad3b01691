//! What a list of device rules comes to.
//!
//! The rules are applied one after the other, as the kernel's version 1 controller does
//! (`security/device_cgroup.c`): a rule for all devices sets the default and drops the exceptions before it; any
//! other rule adds an exception to the default, or takes rights from the exception with the same numbers.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::super::error::{Error, Result};

/// Rights to a device, as bits of `linux/bpf.h` (`BPF_DEVCG_ACC_*`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
const EVERYTHING: u8 = MKNOD | READ | WRITE;

/// Kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Character,
}

/// Devices that the default does not hold for. A missing number stands for all numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u8,
}

/// The default for all devices, and the exceptions to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub allow: bool,
    pub exceptions: Vec<Exception>,
}

impl Policy {
    /// Applies `rules` to a cgroup that allows everything, as a new one does.
    pub(super) fn new(rules: &[LinuxDeviceCgroup]) -> Result<Policy> {
        let mut policy = Policy { allow: true, exceptions: Vec::new() };
        for rule in rules {
            policy.apply(rule)?;
        }
        Ok(policy)
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let access = access(rule.access().as_deref().unwrap_or_default())?;
        let kinds: &[Kind] = match rule.typ() {
            Some(LinuxDeviceType::B) => &[Kind::Block],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[Kind::Character],
            Some(LinuxDeviceType::P) => {
                return Err(Error::Unsupported("a FIFO has no device rule".to_owned()));
            }
            None | Some(LinuxDeviceType::A) => {
                if major.is_none() && minor.is_none() && access == EVERYTHING {
                    *self = Policy { allow: rule.allow(), exceptions: Vec::new() };
                    return Ok(());
                }
                &[Kind::Block, Kind::Character]
            }
        };
        for &kind in kinds {
            self.except(rule.allow(), Exception { kind, major, minor, access });
        }
        Ok(())
    }

    fn except(&mut self, allow: bool, exception: Exception) {
        let same = |known: &Exception| {
            (known.kind, known.major, known.minor) == (exception.kind, exception.major, exception.minor)
        };
        let at = self.exceptions.iter().position(same);
        if allow == self.allow {
            if let Some(at) = at {
                self.exceptions[at].access &= !exception.access;
                if self.exceptions[at].access == 0 {
                    self.exceptions.remove(at);
                }
            }
        } else {
            match at {
                Some(at) => self.exceptions[at].access |= exception.access,
                None => self.exceptions.push(exception),
            }
        }
    }
}

/// A device number of a rule: negative and missing both mean all.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(..0) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::Unsupported(format!("device number {value} is too large"))),
    }
}

/// The rights of a rule; none named means all.
fn access(letters: &str) -> Result<u8> {
    if letters.is_empty() {
        return Ok(EVERYTHING);
    }
    letters.chars().try_fold(0, |bits, letter| match letter {
        'm' => Ok(bits | MKNOD),
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        _ => Err(Error::Unsupported(format!("device access {letters:?} has other letters than r, w and m"))),
    })
}

impl fmt::Display for Exception {
    /// A line for `devices.allow` and `devices.deny`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(out, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')] {
            if self.access & bit != 0 {
                write!(out, "{letter}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<(bool, Vec<String>)> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let policy = Policy::new(&rules)?;
        Ok((policy.allow, policy.exceptions.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn the_usual_list_is_denied_with_exceptions() {
        let json = r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","access":"m"},{"allow":true,"type":"b","access":"m"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
            {"allow":true,"type":"c","major":136,"access":"rwm"},
            {"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]"#;
        let lines = ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rwm"].map(str::to_owned).to_vec();
        assert_eq!(policy(json).unwrap(), (false, lines));
    }

    #[test]
    fn later_rules_merge_and_take_away() {
        let json = r#"[{"allow":false,"type":"a"},{"allow":true,"type":"c","major":5,"minor":1,"access":"r"},
            {"allow":true,"type":"c","major":5,"minor":1,"access":"w"},
            {"allow":false,"type":"c","major":5,"minor":1,"access":"r"},
            {"allow":true,"type":"b","major":8,"minor":-1,"access":"r"},
            {"allow":false,"type":"b","major":8,"access":"r"}]"#;
        assert_eq!(policy(json).unwrap(), (false, vec!["c 5:1 w".to_owned()]));
    }

    #[test]
    fn a_rule_for_all_devices_starts_anew() {
        let json = r#"[{"allow":false,"type":"a"},{"allow":true,"type":"c","major":1,"minor":3},
            {"allow":true,"type":"a","access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
        assert_eq!(policy(json).unwrap(), (true, vec!["b 8:* w".to_owned()]));
    }

    #[test]
    fn all_kinds_with_one_right_are_two_exceptions() {
        let json = r#"[{"allow":false},{"allow":true,"type":"a","access":"m"}]"#;
        assert_eq!(policy(json).unwrap(), (false, vec!["b *:* m".to_owned(), "c *:* m".to_owned()]));
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"[{"allow":true,"type":"c","access":"rx"}]"#,
            r#"[{"allow":true,"type":"c","major":4294967296}]"#,
            r#"[{"allow":true,"type":"p"}]"#,
        ] {
            assert!(matches!(policy(json), Err(Error::Unsupported(_))), "{json}");
        }
    }

    #[test]
    fn no_rules_allow_everything() {
        assert_eq!(policy("[]").unwrap(), (true, Vec::new()));
    }
}
