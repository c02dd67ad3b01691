//! Real-time CPU time on version 1: a cgroup has none of which its parent was given nothing.

use super::creation;
use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::{Hierarchy, Version};
use super::setting::Setting;

/// Time for threads of real-time classes; zero is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RealTime {
    /// The period in which it is counted, in microseconds.
    pub period: i64,
    /// The time in each period, in microseconds.
    pub runtime: i64,
}

impl RealTime {
    /// Whether there is anything to set.
    pub fn is_set(self) -> bool {
        self != RealTime::default()
    }

    fn settings(self) -> Vec<Setting> {
        [("cpu.rt_period_us", self.period), ("cpu.rt_runtime_us", self.runtime)]
            .into_iter()
            .filter(|(_, value)| *value != 0)
            .map(|(file, value)| Setting::new("cpu", file, value))
            .collect()
    }
}

/// Sets `time` in the cgroup at `path` and all above it but the root, which are made where they are missing.
pub(super) fn give(hierarchy: &Hierarchy, path: &str, time: RealTime) -> Result<()> {
    if hierarchy.version != Version::V1 {
        return Err(Error::Unsupported("version 2 has no cgroups with real-time CPU time".to_owned()));
    }
    let mut directory = Directory { version: hierarchy.version, path: hierarchy.mount.clone() };
    for component in path.split('/') {
        directory.path.push(component);
        directory.make().map_err(Error::file("create", &directory.path))?;
        creation::write(&time.settings(), |_| Ok(directory.clone()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_cgroup_on_the_way_is_given_what_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let root =
            |version| Hierarchy { version, mount: folder.path().to_owned(), controllers: BTreeSet::new() };
        for path in ["a", "a/b"] {
            fs::create_dir(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join("cpu.rt_runtime_us"), "").unwrap();
        }
        let time = RealTime { period: 0, runtime: 20 };
        assert!(time.is_set() && !RealTime::default().is_set());
        give(&root(Version::V1), "a/b", time).unwrap();
        for path in ["a", "a/b"] {
            let text = fs::read_to_string(folder.path().join(path).join("cpu.rt_runtime_us")).unwrap();
            assert_eq!(text, "20", "{path}");
        }
        let error = give(&root(Version::V1), "a/b", RealTime { period: 5, runtime: 20 }).unwrap_err();
        assert!(error.to_string().contains("cpu.rt_period_us"), "{error}");
        assert!(give(&root(Version::V2), "a/b", time).is_err());
    }
}
