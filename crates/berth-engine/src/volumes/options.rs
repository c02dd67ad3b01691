//! Options of the local driver: what is mounted where the volume is, and how large it may become.

use std::net::{IpAddr, ToSocketAddrs as _};

use berth_api::StringMap;

use crate::logging::value::binary_size;

/// Options of the local driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The type of file system that is mounted, as mount(8) has it.
    pub kind: String,
    /// What is mounted.
    pub device: String,
    /// Mount options, as mount(8) has them.
    pub mount: String,
    /// Bytes that its files may take, if that is limited.
    pub size: Option<u64>,
}

impl Options {
    /// Reads options; on failure, Docker's words. `quotas` is whether a size can be kept.
    pub fn parse(given: Option<&StringMap>, quotas: bool) -> Result<Self, String> {
        let mut options = Self::default();
        let Some(given) = given else { return Ok(options) };
        for (name, value) in given {
            match name.as_str() {
                "type" => options.kind.clone_from(value),
                "device" => options.device.clone_from(value),
                "o" => options.mount.clone_from(value),
                "size" => options.size = Some(binary_size(value)?).filter(|size| *size > 0),
                other => return Err(format!("invalid option: {other:?}")),
            }
        }
        if options.kind == "cifs" && has_port(&options.device) {
            return Err("port not allowed in CIFS device URL, include 'port' in 'o='".into());
        }
        if options.size.is_some() && !quotas {
            return Err("quota size requested but no quota support".into());
        }
        for (name, needed) in [("device", &["type"][..]), ("type", &["device"]), ("o", &["device", "type"])] {
            if let Some(missing) = needed.iter().find(|other| !given.contains_key(**other))
                && given.contains_key(name)
            {
                return Err(format!("missing required option: {missing:?}"));
            }
        }
        Ok(options)
    }

    /// Whether the volume is a mount of its own.
    pub fn needs_mount(&self) -> bool {
        !self.device.is_empty() || !self.kind.is_empty()
    }

    /// Whether it is a directory of the host, mounted in one more place.
    pub fn is_bind(&self) -> bool {
        Flags::parse(&self.mount).flags & berth_sys::mount::BIND != 0
    }

    /// The device and the mount options with names of hosts resolved, which the kernel cannot do. Blocks.
    pub fn resolved(&self) -> Result<(String, String), String> {
        if self.device.is_empty() {
            return Err("missing device in volume options".into());
        }
        let (mut device, mut mount) = (self.device.clone(), self.mount.clone());
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs") {
            return Ok((device, mount));
        }
        if let Some(address) = self.value("addr") {
            if address.parse::<IpAddr>().is_err() {
                mount = mount.replacen(&format!("addr={address}"), &format!("addr={}", resolve(address)?), 1);
            }
        } else if self.kind == "cifs"
            && let Some(host) = device.strip_prefix("//").and_then(|rest| rest.split('/').next())
            && !host.is_empty()
            && host.parse::<IpAddr>().is_err()
        {
            device = device.replacen(host, &resolve(host)?, 1);
        }
        Ok((device, mount))
    }

    /// An error's text without the password in the options.
    pub fn without_password(&self, text: &str) -> String {
        match self.value("password").filter(|password| !password.is_empty()) {
            Some(password) => text.replace(&format!("password={password}"), "password=********"),
            None => text.to_owned(),
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.mount.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

fn has_port(device: &str) -> bool {
    let host = device.split_once("//").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn resolve(host: &str) -> Result<String, String> {
    let failed = |why: String| format!("error resolving passed in network volume address: {why}");
    let mut found = (host, 0).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let address = found.next().ok_or_else(|| failed(format!("lookup {host}: no such host")))?;
    Ok(address.ip().to_string())
}

/// Flags of mount(2) and what is left of the options for the file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `MS_…`, without propagation.
    pub flags: u64,
    /// `MS_SHARED` and its like.
    pub propagation: u64,
    /// The rest.
    pub data: String,
}

impl Flags {
    /// Reads the options of mount(8).
    pub fn parse(text: &str) -> Self {
        use rustix::mount::{MountFlags as F, MountPropagationFlags as P};
        let bits = |flag: F| u64::from(flag.bits());
        let mut flags = Self::default();
        let mut data = Vec::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (set, clear) = match option {
                "defaults" => (0, 0),
                "ro" => (bits(F::RDONLY), 0),
                "rw" => (0, bits(F::RDONLY)),
                "nosuid" => (bits(F::NOSUID), 0),
                "suid" => (0, bits(F::NOSUID)),
                "nodev" => (bits(F::NODEV), 0),
                "dev" => (0, bits(F::NODEV)),
                "noexec" => (bits(F::NOEXEC), 0),
                "exec" => (0, bits(F::NOEXEC)),
                "sync" => (bits(F::SYNCHRONOUS), 0),
                "async" => (0, bits(F::SYNCHRONOUS)),
                "dirsync" => (bits(F::DIRSYNC), 0),
                "noatime" => (bits(F::NOATIME), 0),
                "atime" => (0, bits(F::NOATIME)),
                "nodiratime" => (bits(F::NODIRATIME), 0),
                "diratime" => (0, bits(F::NODIRATIME)),
                "relatime" => (bits(F::RELATIME), 0),
                "norelatime" => (0, bits(F::RELATIME)),
                "strictatime" => (bits(F::STRICTATIME), 0),
                "nostrictatime" => (0, bits(F::STRICTATIME)),
                "bind" => (berth_sys::mount::BIND, 0),
                "rbind" => (berth_sys::mount::BIND | berth_sys::mount::RECURSIVE, 0),
                other => {
                    let (name, recursive) = match other.strip_prefix('r') {
                        Some(name) => (name, u64::from(P::REC.bits())),
                        None => (other, 0),
                    };
                    let kind = match name {
                        "shared" => P::SHARED,
                        "private" => P::PRIVATE,
                        "slave" => P::DOWNSTREAM,
                        "unbindable" => P::UNBINDABLE,
                        _ => {
                            data.push(other);
                            continue;
                        }
                    };
                    flags.propagation = u64::from(kind.bits()) | recursive;
                    (0, 0)
                }
            };
            flags.flags = (flags.flags | set) & !clear;
        }
        flags.data = data.join(",");
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Options, String> {
        let map = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::parse(Some(&map), false)
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        assert_eq!(Options::parse(None, false), Ok(Options::default()));
        assert!(!parse(&[]).unwrap().needs_mount());
        assert!(parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]).unwrap().needs_mount());
        for (pairs, message) in [
            (&[("colour", "red")][..], "invalid option: \"colour\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "tmpfs")], "missing required option: \"type\""),
            (&[("o", "size=1m")], "missing required option: \"device\""),
            (&[("size", "1m")], "quota size requested but no quota support"),
            (&[("size", "big")], "invalid size: 'big'"),
            (
                &[("type", "cifs"), ("device", "//host:445/x")],
                "port not allowed in CIFS device URL, include 'port' in 'o='",
            ),
        ] {
            assert_eq!(parse(pairs), Err(message.to_owned()));
        }
        let bind = |o| parse(&[("type", "none"), ("device", "/x"), ("o", o)]).unwrap().is_bind();
        assert!(bind("ro,bind") && bind("rbind") && !bind("ro"));
        let map = [("size".to_owned(), "1m".to_owned())].into();
        assert_eq!(Options::parse(Some(&map), true).unwrap().size, Some(1 << 20));
    }

    #[test]
    fn addresses_are_resolved_and_passwords_hidden() {
        let nfs = parse(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=127.0.0.1,rw")]).unwrap();
        assert_eq!(nfs.resolved().unwrap(), (":/x".to_owned(), "addr=127.0.0.1,rw".to_owned()));
        let cifs = parse(&[("type", "cifs"), ("device", "//127.0.0.1/x"), ("o", "password=dog")]).unwrap();
        assert_eq!(cifs.resolved().unwrap().0, "//127.0.0.1/x");
        assert_eq!(cifs.without_password("a password=dog b"), "a password=******** b");
    }

    #[test]
    fn mount_options_become_flags() {
        use rustix::mount::MountFlags as F;
        let flags = Flags::parse("ro,nosuid,uid=5,suid,size=1m,defaults");
        assert_eq!((flags.flags, flags.data.as_str()), (u64::from(F::RDONLY.bits()), "uid=5,size=1m"));
        let flags = Flags::parse("rbind,rshared");
        assert_eq!(flags.flags, berth_sys::mount::BIND | berth_sys::mount::RECURSIVE);
        assert_ne!(flags.propagation, 0);
    }

    proptest! {
        #[test]
        fn any_mount_options_are_read(text in "[a-z=,]{0,40}") {
            let flags = Flags::parse(&text);
            prop_assert!(!flags.data.starts_with(',') && !flags.data.contains(",,"));
        }
    }
}
