//! The host's forwarding: turned on for containers, and for nothing else.
//!
//! A host that did not forward before must not become a router because of containers. Which families were turned on here
//! is kept in a file of the exec root, which goes with the boot as the kernel's parameter does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use berth_network::{Host, forwards};

use crate::{Error, NetworkSettings};

/// What is turned on, and what is dropped in return.
pub struct Forwarding {
    enabled: bool,
    drop: bool,
    file: PathBuf,
    /// By family: it was off.
    was_off: [AtomicBool; 2],
}

impl Forwarding {
    /// Reads what an earlier engine turned on.
    pub fn open(settings: &NetworkSettings, exec_root: &Path) -> Forwarding {
        let file = exec_root.join("forwarding");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let was_off = match text.split_once(' ') {
            Some((namespace, families)) if namespace == namespace_id() => {
                ['4', '6'].map(|family| AtomicBool::new(families.contains(family)))
            }
            _ => Default::default(),
        };
        Forwarding { enabled: settings.forward, drop: settings.forward_drop, file, was_off }
    }

    /// By family: whether what is no container's is not forwarded.
    pub fn drops(&self) -> [bool; 2] {
        self.was_off.each_ref().map(|was_off| self.drop && was_off.load(Ordering::Relaxed))
    }

    /// Notes that a family is about to be turned on, if it is off: the firewall has to drop more from then on
    /// ([`Forwarding::drops`]). Blocks.
    pub fn note(&self, v6: bool) -> Result<(), Error> {
        let was_off = &self.was_off[usize::from(v6)];
        if !self.enabled || !self.drop || was_off.load(Ordering::Relaxed) || forwards(v6)? {
            return Ok(());
        }
        was_off.store(true, Ordering::Relaxed);
        let families = ["4", "6"].into_iter().zip(&self.was_off);
        let families: String =
            families.filter(|(_, off)| off.load(Ordering::Relaxed)).map(|(name, _)| name).collect();
        let failed =
            |source: io::Error| Error::Io { operation: format!("write {}", self.file.display()), source };
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{} {families}", namespace_id())).map_err(failed)?;
        fs::rename(&next, &self.file).map_err(failed)?;
        Ok(())
    }

    /// Turns a family on; the firewall is there already. Blocks.
    pub fn enable(&self, host: &Host, v6: bool) -> Result<(), Error> {
        match self.enabled {
            true => Ok(host.forward(v6)?),
            false => Ok(()),
        }
    }
}

/// What tells this network namespace from others.
fn namespace_id() -> String {
    fs::metadata("/proc/self/ns/net").map_or_else(|_| String::new(), |found| found.ino().to_string())
}
