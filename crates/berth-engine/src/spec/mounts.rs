//! The mounts of a container: Docker's defaults, then what was asked for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::spec_error;
use crate::Error;
use crate::create::Definition;
use crate::create::mounts::{MountPlan, MountSource};

/// All mounts in their order, with those whose source is passed as a descriptor: index and plan.
pub struct Mounts<'a> {
    /// For the OCI configuration.
    pub mounts: Vec<Mount>,
    /// Binds and volumes.
    pub sources: Vec<(usize, &'a MountPlan)>,
    /// Index of `/dev/shm`, if it is passed.
    pub shm: Option<usize>,
}

/// What to leave out or open up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shared {
    /// The shared memory is not a mount of its own, but one that is passed.
    pub shm: bool,
    /// No `/dev/shm` at all.
    pub no_shm: bool,
    /// `/sys/fs/cgroup` can be written.
    pub writable_cgroups: bool,
}

/// Composes the mounts of a container.
pub fn mounts<'a>(definition: &'a Definition, shared: Shared) -> Result<Mounts<'a>, Error> {
    let planned = |path: &Path| definition.mounts.iter().any(|plan| Path::new(&plan.destination) == path);
    let mut mounts = Vec::new();
    let shm_bytes = u64::try_from(definition.host.shm_size).unwrap_or(berth_runtime::defaults::SHM_BYTES);
    for mut mount in berth_runtime::defaults::mounts(definition.host.privileged, shm_bytes) {
        let destination = mount.destination().clone();
        let shm = destination == Path::new("/dev/shm");
        let unwanted = (shm && (shared.no_shm || shared.shm))
            // What the user mounts at the same place takes its place.
            || planned(&destination);
        if destination == Path::new("/sys/fs/cgroup") {
            let access = if shared.writable_cgroups { "rw" } else { "ro" };
            let mut options = mount.options().clone().unwrap_or_default();
            options.retain(|option| !matches!(option.as_str(), "ro" | "rw"));
            options.push(access.to_owned());
            mount.set_options(Some(options));
        }
        if !unwanted {
            mounts.push(mount);
        }
    }
    let mut shm = None;
    if shared.shm && !shared.no_shm && !planned(Path::new("/dev/shm")) {
        shm = Some(mounts.len());
        mounts.push(berth_runtime::defaults::mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"]));
    }
    let mut sources = Vec::new();
    for plan in &definition.mounts {
        if !matches!(plan.source, MountSource::Tmpfs { .. }) {
            sources.push((mounts.len(), plan));
        }
        mounts.push(planned_mount(plan)?);
    }
    Ok(Mounts { mounts, sources, shm })
}

fn planned_mount(plan: &MountPlan) -> Result<Mount, Error> {
    let builder = MountBuilder::default().destination(&plan.destination);
    let access = match (plan.read_only, plan.read_only_top) {
        (true, false) => "rro",
        (true, true) => "ro",
        (false, _) => "rw",
    };
    let builder = match &plan.source {
        MountSource::Tmpfs { options } => {
            // Docker's defaults, which the user's options override by coming later.
            let mut all = strings(&["noexec", "nosuid", "nodev"]);
            all.extend(options.iter().cloned());
            builder.typ("tmpfs").source("tmpfs").options(all)
        }
        MountSource::Bind { path, recursive, .. } => {
            let bind = if *recursive { "rbind" } else { "bind" };
            let options = vec![bind.to_owned(), access.to_owned(), plan.propagation.clone()];
            builder.typ("bind").source(path.clone()).options(options)
        }
        MountSource::Lent { number } => builder
            .typ("bind")
            .source(PathBuf::from(number.to_string()))
            .options(strings(&["bind", access, "rprivate"])),
        MountSource::Volume { name, .. } | MountSource::Image { name, .. } => {
            builder.typ("bind").source(PathBuf::from(name)).options(strings(&["rbind", access, "rprivate"]))
        }
    };
    builder.build().map_err(spec_error)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;

    fn find<'a>(mounts: &'a Mounts<'_>, path: &str) -> Option<&'a Mount> {
        mounts.mounts.iter().find(|m| m.destination() == Path::new(path))
    }

    fn options<'a>(mounts: &'a Mounts<'_>, path: &str) -> &'a [String] {
        find(mounts, path).unwrap().options().as_deref().unwrap()
    }

    #[test]
    fn sys_is_writable_only_when_privileged() {
        let mut one = definition();
        assert!(options(&mounts(&one, Shared::default()).unwrap(), "/sys").contains(&"ro".into()));
        one.host.privileged = true;
        let found = mounts(&one, Shared::default()).unwrap();
        assert!(!options(&found, "/sys").contains(&"ro".into()));
    }

    #[test]
    fn shared_memory_has_its_size() {
        let mut one = definition();
        one.host.shm_size = 4096;
        let own = mounts(&one, Shared::default()).unwrap();
        assert!(options(&own, "/dev/shm").contains(&"size=4096".into()));
        let host = mounts(&one, Shared { shm: true, ..Shared::default() }).unwrap();
        assert_eq!(host.mounts[host.shm.unwrap()].destination(), Path::new("/dev/shm"));
        assert!(own.shm.is_none());
        assert_eq!(find(&host, "/dev/shm").unwrap().source().as_deref(), Some(Path::new("/dev/shm")));
        let none = mounts(&one, Shared { no_shm: true, ..Shared::default() }).unwrap();
        assert!(find(&none, "/dev/shm").is_none());
    }

    #[test]
    fn planned_mounts_follow_and_replace_defaults() {
        let mut one = definition();
        one.mounts = vec![
            MountPlan {
                source: MountSource::Tmpfs { options: vec!["exec".into()] },
                destination: "/dev/shm".into(),
                read_only: false,
                read_only_top: false,
                mode: String::new(),
                propagation: String::new(),
                wish: Default::default(),
            },
            MountPlan {
                source: MountSource::Bind { path: "/src".into(), create: true, recursive: true, idmap: None },
                destination: "/dst".into(),
                read_only: true,
                read_only_top: false,
                mode: "ro".into(),
                propagation: "rslave".into(),
                wish: Default::default(),
            },
        ];
        let found = mounts(&one, Shared::default()).unwrap();
        assert_eq!(found.mounts.iter().filter(|m| m.destination() == Path::new("/dev/shm")).count(), 1);
        assert_eq!(options(&found, "/dev/shm"), ["noexec", "nosuid", "nodev", "exec"]);
        assert_eq!(options(&found, "/dst"), ["rbind", "rro", "rslave"]);
        assert_eq!(found.sources.len(), 1);
        let mut flat = one.clone();
        flat.mounts[1].read_only_top = true;
        assert_eq!(options(&mounts(&flat, Shared::default()).unwrap(), "/dst"), ["rbind", "ro", "rslave"]);
        assert_eq!(found.mounts[found.sources[0].0].destination(), Path::new("/dst"));
    }
}
