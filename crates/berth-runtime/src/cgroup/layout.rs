//! Which cgroup hierarchies are mounted where: `/proc/self/mountinfo`, `/proc/self/cgroup` and cgroups(7).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::error::{Error, Result};

/// Version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller or group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Version of the hierarchy.
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers; for a named hierarchy the one string `name=…`.
    pub controllers: BTreeSet<String>,
}

impl Hierarchy {
    /// Whether the hierarchy has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }
}

/// All mounted hierarchies of the process's mount namespace: version 1 first, the unified one last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The hierarchies.
    pub hierarchies: Vec<Hierarchy>,
}

/// The mode of the host, as administrators speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 hierarchies only.
    Legacy,
    /// Controllers on version 1, and a unified hierarchy beside them.
    Hybrid,
    /// The unified hierarchy only.
    Unified,
}

impl Layout {
    /// The layout of this process, found at the first call and kept.
    pub fn current() -> Result<&'static Layout> {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return Ok(layout);
        }
        let layout = Layout::detect()?;
        Ok(LAYOUT.get_or_init(|| layout))
    }

    fn detect() -> Result<Layout> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let text = fs::read(mountinfo).map_err(Error::file("read", mountinfo))?;
        let mut layout = Layout::parse(&text);
        for hierarchy in &mut layout.hierarchies {
            if hierarchy.version == Version::V2 {
                let file = hierarchy.mount.join("cgroup.controllers");
                let names = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
                hierarchy.controllers = names.split_whitespace().map(str::to_owned).collect();
            }
        }
        if layout.hierarchies.is_empty() { Err(Error::NotMounted) } else { Ok(layout) }
    }

    /// Reads the text of a `mountinfo` file. The controllers of the unified hierarchy are not in it.
    fn parse(mountinfo: &[u8]) -> Layout {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.split(|&byte| byte == b'\n') {
            let Some(found) = parse_line(line) else { continue };
            // The same hierarchy can be mounted in several places: the first is the one that everybody uses.
            let known = hierarchies.iter().any(|have| {
                have.version == found.version
                    && (found.version == Version::V2 || !have.controllers.is_disjoint(&found.controllers))
            });
            if !known {
                hierarchies.push(found);
            }
        }
        hierarchies.sort_by_key(|hierarchy| hierarchy.version == Version::V2);
        Layout { hierarchies }
    }

    /// The mode of the host.
    pub fn mode(&self) -> Mode {
        let v1 = self.hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V1);
        match (v1, self.unified().is_some()) {
            (true, true) => Mode::Hybrid,
            (false, true) => Mode::Unified,
            _ => Mode::Legacy,
        }
    }

    /// The index of the unified hierarchy.
    pub fn unified(&self) -> Option<usize> {
        self.hierarchies.iter().position(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The index of the hierarchy that has `controller`. The kernel has a controller in one hierarchy only. The
    /// two controllers that version 2 has without naming them are found too.
    pub fn find(&self, controller: &str) -> Option<usize> {
        let named = self.hierarchies.iter().position(|hierarchy| hierarchy.has(controller));
        match controller {
            "devices" | "freezer" => named.or_else(|| self.unified()),
            // The unified hierarchy calls blkio io, and has cpuacct's figures in cpu.stat always.
            "blkio" => named.or_else(|| self.hierarchies.iter().position(|hierarchy| hierarchy.has("io"))),
            "cpuacct" => named.or_else(|| self.unified()),
            _ => named,
        }
    }
}

/// One line of mountinfo, see proc_pid_mountinfo(5); none when it is no cgroup mount.
fn parse_line(line: &[u8]) -> Option<Hierarchy> {
    let separator = line.windows(3).position(|window| window == b" - ")?;
    let mut tail = line[separator + 3..].split(|&byte| byte == b' ');
    let version = match tail.next()? {
        b"cgroup" => Version::V1,
        b"cgroup2" => Version::V2,
        _ => return None,
    };
    let mount = unescape(line[..separator].split(|&byte| byte == b' ').nth(4)?);
    let options = String::from_utf8_lossy(tail.nth(1)?).into_owned();
    let controllers = match version {
        Version::V2 => BTreeSet::new(),
        Version::V1 => options.split(',').filter(|option| is_controller(option)).map(str::to_owned).collect(),
    };
    Some(Hierarchy { version, mount: PathBuf::from(std::ffi::OsString::from_vec(mount)), controllers })
}

/// The super block options of a version 1 hierarchy list its controllers among these words.
fn is_controller(option: &str) -> bool {
    let flags =
        ["rw", "ro", "noprefix", "clone_children", "xattr", "cpuset_v2_mode", "favordynmods", "none", "all"];
    if option.starts_with("name=") {
        return true;
    }
    !flags.contains(&option) && !option.contains('=') && !option.is_empty()
}

/// Undoes the octal escapes of blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match digits {
            Some(digits) if first == b'\\' => {
                out.push(
                    digits.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// The path of the calling process in the hierarchy, from `/proc/self/cgroup`.
pub(super) fn own_path(hierarchy: &Hierarchy) -> Result<String> {
    let file = Path::new("/proc/self/cgroup");
    let text = fs::read_to_string(file).map_err(Error::file("read", file))?;
    find_own_path(&text, hierarchy)
        .ok_or_else(|| Error::Content { path: file.to_path_buf(), content: text.chars().take(200).collect() })
}

fn find_own_path(text: &str, hierarchy: &Hierarchy) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match hierarchy.version {
            Version::V2 => id == "0" && controllers.is_empty(),
            Version::V1 => controllers.split(',').any(|controller| hierarchy.has(controller)),
        };
        matches.then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
23 1 0:22 / / rw shared:1 - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:29 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
";

    fn names(hierarchy: &Hierarchy) -> Vec<&str> {
        hierarchy.controllers.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_hybrid_host_is_understood() {
        let layout = Layout::parse(HYBRID.as_bytes());
        assert_eq!(layout.mode(), Mode::Hybrid);
        let mounts: Vec<_> =
            layout.hierarchies.iter().map(|hierarchy| hierarchy.mount.to_str().unwrap()).collect();
        assert_eq!(
            mounts,
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"],
            "the second mount of a hierarchy is left out, and the unified one is last"
        );
        assert_eq!(names(&layout.hierarchies[0]), ["cpu", "cpuacct"]);
        assert_eq!(names(&layout.hierarchies[1]), ["name=systemd"]);
        assert_eq!(layout.find("cpuacct"), Some(0));
        assert_eq!(layout.find("devices"), Some(2), "without a version 1 hierarchy devices are a v2 program");
        assert_eq!(layout.find("memory"), None);
    }

    #[test]
    fn unified_and_legacy_hosts_are_told_apart() {
        let unified = Layout::parse(b"30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
        assert_eq!(unified.mode(), Mode::Unified);
        let legacy = Layout::parse(b"30 23 0:26 / /sys/fs/cgroup/pids rw shared:3 - cgroup none rw,pids\n");
        assert_eq!(legacy.mode(), Mode::Legacy);
        assert!(Layout::parse(b"garbage\n\n - \n").hierarchies.is_empty());
    }

    #[test]
    fn mount_points_are_unescaped() {
        let layout = Layout::parse(b"30 23 0:26 / /mnt/a\\040b\\134c rw - cgroup2 cgroup2 rw\n");
        assert_eq!(layout.hierarchies[0].mount, Path::new("/mnt/a b\\c"));
        assert_eq!(unescape(b"tail\\04"), b"tail\\04");
    }

    #[test]
    fn the_own_path_differs_by_hierarchy() {
        let layout = Layout::parse(HYBRID.as_bytes());
        let text = "9:name=systemd:/user.slice\n4:cpu,cpuacct:/a:b\n0::/deep/er\n";
        let paths: Vec<_> =
            layout.hierarchies.iter().map(|hierarchy| find_own_path(text, hierarchy).unwrap()).collect();
        assert_eq!(paths, ["/a:b", "/user.slice", "/deep/er"]);
        assert_eq!(find_own_path("1:pids:/\n", &layout.hierarchies[0]), None);
    }

    #[test]
    fn this_host_has_a_layout() {
        let layout = Layout::current().unwrap();
        assert!(layout.hierarchies.iter().all(|hierarchy| hierarchy.mount.is_dir()));
        for hierarchy in &layout.hierarchies {
            assert!(own_path(hierarchy).unwrap().starts_with('/'));
        }
    }
}
