//! Sets of capabilities: Docker's default, and what `--cap-add`, `--cap-drop` and `--privileged` make of it (capabilities(7)).

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;

/// The capabilities that Docker gives a container by default.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Every capability, at the index of its kernel number.
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CapAdd or CapDrop: unknown capability: {0:?}")]
pub struct UnknownCapability(pub String);

/// The kernel's number of a capability.
pub fn number(capability: Capability) -> u8 {
    // Every value is in the table: the test holds it.
    ALL.iter().position(|candidate| *candidate == capability).unwrap_or_default() as u8
}

/// The set as the kernel's bit mask.
pub fn mask(capabilities: impl IntoIterator<Item = Capability>) -> u64 {
    capabilities.into_iter().fold(0, |mask, capability| mask | 1 << number(capability))
}

/// The capability with this name, in any case, with or without `CAP_`.
pub fn parse(name: &str) -> Result<Capability, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.iter()
        .copied()
        .find(|capability| capability.to_string().trim_start_matches("CAP_") == bare)
        .ok_or_else(|| UnknownCapability(name.to_owned()))
}

/// What Docker makes of `--cap-add`, `--cap-drop` and `--privileged`; sorted by kernel number.
///
/// `ALL` stands for every capability. An explicit name wins over the `ALL` of the other list.
pub fn adjust(
    add: &[String],
    drop: &[String],
    privileged: bool,
) -> Result<Vec<Capability>, UnknownCapability> {
    let added = Names::parse(add)?;
    let dropped = Names::parse(drop)?;
    let everything = || ALL.iter().map(|capability| number(*capability)).collect::<BTreeSet<_>>();
    let numbers = if privileged {
        everything()
    } else {
        let mut set = match (added.all, dropped.all) {
            (true, _) => everything(),
            (false, true) => BTreeSet::new(),
            (false, false) => DEFAULT.iter().map(|capability| number(*capability)).collect(),
        };
        if added.all {
            set.retain(|number| !dropped.numbers.contains(number));
        } else if dropped.all {
            set = added.numbers;
        } else {
            set.retain(|number| !dropped.numbers.contains(number));
            set.extend(added.numbers.iter().copied());
        }
        set
    };
    Ok(numbers.into_iter().map(|number| ALL[usize::from(number)]).collect())
}

struct Names {
    all: bool,
    numbers: BTreeSet<u8>,
}

impl Names {
    fn parse(names: &[String]) -> Result<Self, UnknownCapability> {
        let mut parsed = Self { all: false, numbers: BTreeSet::new() };
        for name in names {
            if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
                parsed.all = true;
            } else {
                parsed.numbers.insert(number(parse(name)?));
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        for (name, expected) in
            [("CHOWN", 0), ("sys_admin", 21), ("CAP_CHECKPOINT_RESTORE", 40), ("cap_bpf", 39)]
        {
            assert_eq!(number(parse(name).unwrap()), expected);
        }
        assert!(parse("NOPE").is_err());
        for (index, capability) in ALL.iter().enumerate() {
            assert_eq!(usize::from(number(*capability)), index);
        }
    }

    #[test]
    fn default_mask_is_dockers() {
        assert_eq!(mask(DEFAULT), 0xa804_25fb);
    }

    #[test]
    fn additions_and_drops_combine_as_dockers() {
        let adjusted =
            |add: &[&str], drop: &[&str]| mask(adjust(&strings(add), &strings(drop), false).unwrap());
        assert_eq!(adjusted(&[], &[]), mask(DEFAULT));
        assert_eq!(adjusted(&["NET_ADMIN"], &["ALL"]), 1 << 12);
        assert_eq!(adjusted(&["ALL"], &["CHOWN"]), mask(ALL) & !1);
        assert_eq!(adjusted(&["sys_time"], &["kill"]), (mask(DEFAULT) | 1 << 25) & !(1 << 5));
        assert_eq!(adjusted(&[], &["all"]), 0);
        assert_eq!(mask(adjust(&[], &strings(&["ALL"]), true).unwrap()), mask(ALL));
    }
}
