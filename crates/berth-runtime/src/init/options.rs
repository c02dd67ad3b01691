//! Options of a mount in the OCI configuration: attributes, propagation, and what goes to the file system (mount(8)).

use std::io;

use berth_sys::mount::{Parameter, attr, propagation};

/// Options, sorted by what they act on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Attributes to set on the mount.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Attributes to set on the mount and all below it.
    pub set_recursive: u64,
    /// Attributes to clear on the mount and all below it.
    pub clear_recursive: u64,
    /// Propagation type, and whether it is for the mounts below too.
    pub propagation: Option<(u64, bool)>,
    /// A bind mount; the second is whether mounts below come along.
    pub bind: Option<bool>,
    /// Copy what the tmpfs hides into it.
    pub copy_up: bool,
    /// Parameters of the file system.
    pub parameters: Vec<Parameter>,
}

impl Options {
    /// Sorts the options of one mount.
    pub fn parse(options: &[String]) -> io::Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    /// Whether the mount is to be read-only.
    pub fn read_only(&self) -> bool {
        (self.set | self.set_recursive) & attr::RDONLY != 0
    }

    fn add(&mut self, option: &str) -> io::Result<()> {
        if let Some((set, clear)) = attribute(option) {
            self.set = self.set & !clear | set;
            self.clear = self.clear & !set | clear;
            return Ok(());
        }
        // `rro`, `rnosuid` and so on; `rw`, `rbind` and the like were or will be taken whole.
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            self.set_recursive = self.set_recursive & !clear | set;
            self.clear_recursive = self.clear_recursive & !set | clear;
            return Ok(());
        }
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "shared" => self.propagation = Some((propagation::SHARED, false)),
            "rshared" => self.propagation = Some((propagation::SHARED, true)),
            "slave" => self.propagation = Some((propagation::SLAVE, false)),
            "rslave" => self.propagation = Some((propagation::SLAVE, true)),
            "private" => self.propagation = Some((propagation::PRIVATE, false)),
            "rprivate" => self.propagation = Some((propagation::PRIVATE, true)),
            "unbindable" => self.propagation = Some((propagation::UNBINDABLE, false)),
            "runbindable" => self.propagation = Some((propagation::UNBINDABLE, true)),
            "tmpcopyup" => self.copy_up = true,
            // The state of every new mount, or without meaning for one.
            "" | "defaults" | "remount" | "async" | "iversion" | "noiversion" | "silent" | "loud"
            | "nomand" | "copy" | "nocopy" => {}
            // The source has come with it.
            "idmap" | "ridmap" => {}
            other => self.parameters.push(Parameter::parse(other)?),
        }
        Ok(())
    }
}

/// Attributes that an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "noatime" => (attr::NOATIME, 0),
        "strictatime" => (attr::STRICTATIME, 0),
        // Relative access times are the field's zero.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, attr::ATIME),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn later_options_win() {
        assert!(parse(&["rw", "ro"]).read_only());
        assert!(!parse(&["ro", "rw"]).read_only());
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let options = parse(&["rbind", "rro", "nosuid", "rprivate"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!((options.set, options.set_recursive), (attr::NOSUID, attr::RDONLY));
        assert_eq!(options.propagation, Some((propagation::PRIVATE, true)));
    }

    #[test]
    fn the_rest_goes_to_the_file_system() {
        let options = parse(&["mode=755", "size=64k", "newinstance", "relatime"]);
        assert_eq!(options.parameters.len(), 3);
        assert_eq!(options.clear, attr::ATIME);
    }
}
