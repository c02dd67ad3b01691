//! Binds that are to pass mounts on: whether what they are of does so (mount_namespaces(7), "Shared subtrees").

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::Error;
use crate::create::Definition;
use crate::create::mounts::{MountPlan, MountSource};

/// The mounts of the caller's namespace (proc_pid_mountinfo(5)).
const TABLE: &str = "/proc/self/mountinfo";

/// Refuses a container with binds that would not pass on what they are asked to. Those of the data root, or of what is
/// around it, are slaves unless told otherwise, and stay what they are where nothing is passed on. Blocks.
///
/// # Errors
/// Docker's words; the table of mounts cannot be read.
pub fn check(definition: &Definition, data_root: &Path) -> Result<(), Error> {
    let asks =
        |plan: &&MountPlan| matches!(plan.propagation.as_str(), "shared" | "rshared" | "slave" | "rslave");
    let mut plans = definition.mounts.iter().filter(asks).peekable();
    if plans.peek().is_none() {
        return Ok(());
    }
    let failed = |source| Error::Io { operation: format!("read {TABLE}"), source };
    let table = std::fs::read_to_string(TABLE).map_err(failed)?;
    plans.try_for_each(|plan| {
        let MountSource::Bind { path, .. } = &plan.source else { return Ok(()) };
        let is_slave = plan.propagation.ends_with("slave");
        if is_slave && (path.starts_with(data_root) || data_root.starts_with(path)) {
            return Ok(());
        }
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).map_err(|error| Error::Io {
            operation: format!("find the mount of {}", path.display()),
            source: error.into(),
        })?;
        // One that has gone meanwhile passes nothing on either.
        let mount = table.lines().filter_map(Mount::parse).find(|mount| mount.id == found.stx_mnt_id);
        let fits = mount.as_ref().is_some_and(|mount| mount.shared || (is_slave && mount.slave));
        if fits {
            return Ok(());
        }
        let (place, wanted) = (
            mount.map_or("nothing", |mount| mount.place),
            if is_slave { "shared or slave" } else { "shared" },
        );
        Err(Error::InvalidParameter(format!(
            "path {} is mounted on {place} but it is not a {wanted} mount",
            path.display()
        )))
    })
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    id: u64,
    place: &'a str,
    /// Passes mounts on to others.
    shared: bool,
    /// Is passed those of others.
    slave: bool,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ');
        let id = fields.next()?.parse().ok()?;
        let place = fields.nth(3)?;
        let tags: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
        let has = |kind: &str| tags.iter().any(|tag| tag.starts_with(kind));
        Some(Self { id, place, shared: has("shared:"), slave: has("master:") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_who_passes_on() {
        let parse = |tags: &str| {
            Mount::parse(&format!("36 35 98:0 / /mnt rw,noatime {tags}- ext3 /dev/root rw"))
                .map(|mount| (mount.id, mount.shared, mount.slave))
        };
        assert_eq!(parse(""), Some((36, false, false)));
        assert_eq!(parse("shared:1 "), Some((36, true, false)));
        assert_eq!(parse("master:2 propagate_from:1 "), Some((36, false, true)));
        assert_eq!(parse("shared:3 master:2 "), Some((36, true, true)));
        assert_eq!(Mount::parse("").or(Mount::parse("x y z")), None);
    }
}
