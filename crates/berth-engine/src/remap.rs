//! Containers in a user namespace: `userns-remap`.
//!
//! On the disk everything belongs to whom it belongs inside of containers, so that images, commits and volumes are the same
//! with and without. What a container sees of it, it sees through idmapped mounts; binds of the user's keep the owners
//! that they have on the host, as in Docker.
//!
//! Where the file system or the kernel has no idmapped mounts, each container has a whole copy of its image, and it, new
//! volumes and the engine's files belong on the disk to whom they belong outside. Images still are the same: what reads such
//! files turns the owners back ([`berth_storage::Options::owners`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use berth_api::container::HostConfig;
use berth_runtime::ids::{Mappings, configured};
use berth_storage::Storage;
use berth_sys::mount::{Attributes, attr, clone_at, set_attributes};
use berth_sys::user_namespace::user_namespace;
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use crate::engine::Parts;
use crate::spec::Joined;
use crate::spec::profile::at_least;
use crate::{Error, Settings};

/// The users and groups of containers.
#[derive(Debug, Clone)]
pub struct Remap {
    /// Who is who.
    pub mappings: Mappings,
    /// A namespace with these mappings, for mounts; made when it is first needed.
    namespace: Arc<OnceLock<OwnedFd>>,
}

impl Remap {
    /// Containers get these users and groups.
    pub fn new(mappings: Mappings) -> Self {
        Self { mappings, namespace: Arc::default() }
    }

    /// User and group outside of a container's root.
    pub fn root(&self) -> Option<(u32, u32)> {
        self.mappings.outside(0, 0)
    }

    /// Shows the files of a detached mount in containers as they belong on the disk. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` where the file system, or one that is mounted below, has no idmapped mounts.
    pub fn map(&self, tree: impl AsFd) -> io::Result<()> {
        map(tree, self.namespace()?)
    }

    fn namespace(&self) -> io::Result<&OwnedFd> {
        if let Some(namespace) = self.namespace.get() {
            return Ok(namespace);
        }
        let made = made(&self.mappings)?;
        Ok(self.namespace.get_or_init(|| made))
    }

    /// Why mounts cannot show the files of this data root in containers as they belong on the disk; none if they can. The
    /// data root need not be there yet. Blocks.
    ///
    /// # Errors
    /// There can be no user namespaces.
    pub fn problem(&self, data_root: &Path) -> Result<Option<String>, Error> {
        self.namespace().map_err(|error| {
            let why = berth_runtime::launch::describe(&error);
            Error::InvalidParameter(format!(
                "userns-remap needs user namespaces, and none can be made: {why}"
            ))
        })?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        if !at_least(&release, OVERLAYS_OF_MAPPED_LAYERS) {
            return Ok(Some(format!("Linux {release} makes no overlays of idmapped mounts")));
        }
        let there = data_root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let tried = clone_at(rustix::fs::CWD, there, false).and_then(|tree| self.map(tree));
        Ok(tried.err().map(|error| {
            let why = berth_runtime::launch::describe(&error);
            format!("the file system of {} has no idmapped mounts: {why}", data_root.display())
        }))
    }
}

/// The first Linux whose overlays take idmapped mounts as layers.
const OVERLAYS_OF_MAPPED_LAYERS: &str = "5.19";

/// To whom containers' files belong on the disk, where mounts cannot show them as they belong inside, or could not when the
/// data root was begun. Says so in the log. Blocks.
///
/// # Errors
/// There can be no user namespaces.
pub(crate) fn owners_on_disk(settings: &Settings) -> Result<Option<Mappings>, Error> {
    let Some(remap) = &settings.remap else { return Ok(None) };
    let root = &settings.data_root;
    let begun = || Storage::has_owners(root).then(|| "the data root was begun so".to_owned());
    let Some(problem) = remap.problem(root)?.or_else(begun) else { return Ok(None) };
    tracing::warn!(
        root = %root.display(), problem,
        "userns-remap without idmapped mounts: each container copies its image, with the owners outside"
    );
    Ok(Some(remap.mappings.clone()))
}

/// Shows the files of a detached mount to the host as containers see them, if the topmost is one of theirs: in what is
/// nobody's there, the host's root could no longer change anything. Blocks.
pub(crate) fn map_back(tree: impl AsFd, mappings: &Mappings) -> io::Result<()> {
    let top = rustix::fs::fstat(&tree)?;
    if mappings.user_inside(top.st_uid).is_none() || mappings.group_inside(top.st_gid).is_none() {
        return Ok(());
    }
    map(tree, &made(&mappings.reversed())?)
}

fn made(mappings: &Mappings) -> io::Result<OwnedFd> {
    let (users, groups) = mappings.lines();
    user_namespace(&users, &groups)
}

fn map(tree: impl AsFd, namespace: &OwnedFd) -> io::Result<()> {
    let change = Attributes { set: attr::IDMAP, recursive: true, ..Attributes::default() };
    set_attributes(tree, change, Some(namespace.as_fd()))
}

impl Parts {
    /// The users and groups of a container that has a user namespace.
    pub(crate) fn remap(&self, host: &HostConfig) -> Option<&Remap> {
        self.settings.remap.as_ref().filter(|_| host.userns_mode != "host")
    }

    /// User and group on the disk of the files that the engine makes for a container's root, if not root themselves.
    pub(crate) fn owner_on_disk(&self, host: &HostConfig) -> Option<(u32, u32)> {
        self.remap(host)?;
        self.storage.owners()?.outside(0, 0)
    }

    /// Refuses what a container in a user namespace cannot have, in Docker's words.
    pub(crate) fn check_remapped(&self, host: &HostConfig) -> Result<(), Error> {
        if self.remap(host).is_none() {
            return Ok(());
        }
        let refused = if host.privileged {
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"
        } else if host.network_mode == "host" {
            "cannot share the host's network namespace when user namespaces are enabled"
        } else if host.pid_mode == "host" {
            "cannot share the host PID namespace when user namespaces are enabled"
        } else if host.ipc_mode == "host" {
            // Its message queues cannot be mounted.
            "cannot share the host's IPC namespace when user namespaces are enabled"
        } else {
            return Ok(());
        };
        Err(Error::InvalidParameter(refused.into()))
    }
}

/// Puts a container into a user namespace: a new one, or that of whose other namespaces it joins.
pub(crate) fn apply(spec: &mut Spec, remap: &Remap, joined: &Joined) -> Result<(), Error> {
    let failed = |error| Error::InvalidParameter(format!("OCI configuration: {error}"));
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let builder = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User);
    let other = [&joined.network, &joined.ipc, &joined.pid].into_iter().flatten().next();
    let builder = match other.and_then(|path| path.parent()) {
        Some(directory) => builder.path(directory.join("user")),
        None => builder,
    };
    namespaces.push(builder.build().map_err(failed)?);
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(Some(configured(&remap.mappings.users)));
    linux.set_gid_mappings(Some(configured(&remap.mappings.groups)));
    if let Some(parameters) = linux.sysctl_mut().as_mut()
        && let Some(range) = parameters.get_mut(PING_GROUPS)
        && range == "0 2147483647"
    {
        // The kernel takes none but groups that there are.
        let last = remap.mappings.groups.first().map_or(0, |first| first.count.saturating_sub(1));
        *range = format!("0 {last}");
    }
    spec.set_linux(Some(linux));
    Ok(())
}

const PING_GROUPS: &str = "net.ipv4.ping_group_range";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use berth_runtime::ids::{Range, of_spec};

    use super::*;

    fn remap() -> Remap {
        let range = vec![Range { inside: 0, outside: 100_000, count: 65536 }];
        Remap::new(Mappings { users: range.clone(), groups: range })
    }

    #[test]
    fn a_container_gets_a_namespace_and_the_groups_that_there_are() {
        let mut spec = berth_runtime::defaults::spec(&["true"]);
        apply(&mut spec, &remap(), &Joined::default()).unwrap();
        assert_eq!(of_spec(&spec), Some(remap().mappings));
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.sysctl().as_ref().unwrap()[PING_GROUPS], "0 65535");
    }

    #[test]
    fn who_joins_another_joins_its_users() {
        let mut spec = berth_runtime::defaults::spec(&["true"]);
        let joined = Joined { ipc: Some("/proc/7/ns/ipc".into()), ..Joined::default() };
        apply(&mut spec, &remap(), &joined).unwrap();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        let user = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User).unwrap();
        assert_eq!(user.path(), &Some(PathBuf::from("/proc/7/ns/user")));
    }
}
