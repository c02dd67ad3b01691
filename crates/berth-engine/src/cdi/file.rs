//! Files of the Container Device Interface: what a vendor says a container needs for a device.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::yaml;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// `vendor.com/class`.
    pub kind: String,
    /// The devices of that kind.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// What each of them needs beside its own.
    #[serde(default)]
    pub container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name within the kind.
    pub name: String,
    /// What a container needs for it.
    #[serde(default)]
    pub container_edits: Edits,
}

/// Changes to a container's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<Node>,
    /// Paths of the host.
    pub mounts: Vec<Mount>,
    /// Further groups of the process, as numbers.
    pub additional_gids: Vec<u32>,
    /// Programs to run while the container is made.
    pub hooks: Vec<Hook>,
    /// Cache allocation; not supported.
    pub intel_rdt: Option<Value>,
    /// Network interfaces to move inside; not supported.
    pub net_devices: Vec<Value>,
}

impl Edits {
    /// The first thing asked for that Berth does not do.
    pub fn unsupported(&self) -> Option<&'static str> {
        let asked = [("intelRdt", self.intel_rdt.is_some()), ("netDevices", !self.net_devices.is_empty())];
        asked.iter().find(|(_, asked)| *asked).map(|(name, _)| *name)
    }
}

/// A program of the host, or of the container, that is run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When: one of the names of the runtime specification, such as `createContainer`.
    pub hook_name: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments, its name the first of them.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds after which it is killed.
    pub timeout: Option<i64>,
}

/// A device node. What is not said is as on the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Path in the container.
    pub path: PathBuf,
    /// Path on the host, if it is another.
    pub host_path: Option<PathBuf>,
    /// `b`, `c`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Number of the driver.
    pub major: Option<i64>,
    /// Number of the device.
    pub minor: Option<i64>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Any of `rwm`.
    pub permissions: Option<String>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A path of the host to be mounted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Path on the host.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Options of mount(8).
    #[serde(default)]
    pub options: Vec<String>,
    /// File system; a bind mount if it is missing.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

/// All devices that the files of some directories describe, by their full names.
#[derive(Debug, Default)]
pub struct Devices {
    found: BTreeMap<String, Found>,
}

/// What is known of one name.
#[derive(Debug)]
enum Found {
    /// Index of the file in its directory's turn, the file's common edits and the device's own.
    One { directory: usize, path: PathBuf, common: Box<Edits>, own: Box<Edits> },
    /// Two files of equal rank say different things.
    Conflict { directory: usize },
}

/// A device with what it takes to use it.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// The file that describes it.
    pub path: &'a Path,
    /// What all devices of the file need.
    pub common: &'a Edits,
    /// What this one needs.
    pub own: &'a Edits,
}

impl Devices {
    /// Reads all `.json` and `.yaml` files of `directories`; a later directory outranks an earlier one. Files that
    /// cannot be read or make no sense are logged and left out, as are directories that are not there. Blocks.
    pub fn read(directories: &[PathBuf]) -> Devices {
        let mut devices = Devices::default();
        for (rank, directory) in directories.iter().enumerate() {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                match read(&path) {
                    Ok(Some(file)) => devices.add(rank, &path, file),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(path = %path.display(), error, "a CDI file is left out"),
                }
            }
        }
        devices
    }

    fn add(&mut self, directory: usize, path: &Path, file: File) {
        for device in file.devices {
            let name = format!("{}={}", file.kind, device.name);
            let known = self.found.get(&name).map(|found| match found {
                Found::One { directory, .. } | Found::Conflict { directory } => *directory,
            });
            let found = if known == Some(directory) {
                Found::Conflict { directory }
            } else {
                let common = Box::new(file.container_edits.clone());
                Found::One { directory, path: path.to_owned(), common, own: Box::new(device.container_edits) }
            };
            self.found.insert(name, found);
        }
    }

    /// The device with this full name, unless files of equal rank contradict each other.
    pub fn resolve(&self, name: &str) -> Option<Resolved<'_>> {
        match self.found.get(name)? {
            Found::One { path, common, own, .. } => Some(Resolved { path, common, own }),
            Found::Conflict { .. } => None,
        }
    }

    /// The full names of all devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found
            .iter()
            .filter(|(_, found)| matches!(found, Found::One { .. }))
            .map(|(name, _)| name.as_str())
    }

    /// Whether there is a device of this kind.
    pub fn has_kind(&self, kind: &str) -> bool {
        self.names().any(|name| name.split_once('=').is_some_and(|(known, _)| known == kind))
    }
}

/// Reads one file; `None` if it is none of ours.
fn read(path: &Path) -> Result<Option<File>, String> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_yaml = match extension {
        Some("json") => false,
        Some("yaml" | "yml") => true,
        _ => return Ok(None),
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".into());
    }
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    parse(&text, is_yaml).map(Some)
}

fn parse(text: &str, is_yaml: bool) -> Result<File, String> {
    let value = if is_yaml {
        yaml::parse(text)?
    } else {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    };
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let (vendor, class) = file.kind.split_once('/').ok_or("its kind is not vendor/class")?;
    if !is_name(vendor) || !is_name(class) {
        return Err(format!("its kind {:?} is invalid", file.kind));
    }
    Ok(file)
}

/// Whether a text can be the vendor, the class or the device of a name.
fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

/// Whether `text` is the full name of a device, `vendor.com/class=name`.
pub fn is_full_name(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, name)| {
        is_name(name) && kind.split_once('/').is_some_and(|(vendor, class)| is_name(vendor) && is_name(class))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"cdiVersion":"0.6.0","kind":"a.test/x","devices":[{"name":"one","containerEdits":{"env":["A=1"]}}]}"#;

    #[test]
    fn later_directories_outrank_earlier_ones_and_equals_conflict() {
        let (low, high) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(low.path().join("a.json"), JSON).unwrap();
        let both = [low.path().to_owned(), high.path().to_owned()];
        assert_eq!(Devices::read(&both).resolve("a.test/x=one").unwrap().own.env, ["A=1"]);
        let other = "kind: a.test/x\ndevices:\n- name: one\n  containerEdits: {env: [A=2]}\n";
        fs::write(high.path().join("b.yaml"), other).unwrap();
        assert_eq!(Devices::read(&both).resolve("a.test/x=one").unwrap().own.env, ["A=2"]);
        fs::write(low.path().join("c.json"), JSON).unwrap();
        assert_eq!(Devices::read(&both).resolve("a.test/x=one").unwrap().own.env, ["A=2"]);
        assert!(Devices::read(&both[..1]).resolve("a.test/x=one").is_none());
        assert!(Devices::read(&both).has_kind("a.test/x") && !Devices::read(&both).has_kind("a.test"));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.json", "{"), ("b.yaml", "kind: [x"), ("c.json", r#"{"kind":"nonsense"}"#), ("d.txt", JSON)]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("e.json")).unwrap();
        assert_eq!(Devices::read(&[directory.path().to_owned(), "/absent".into()]).names().count(), 0);
    }

    #[test]
    fn names_have_three_parts() {
        for good in ["vendor.com/class=name", "a/b=0", "nvidia.com/gpu=1:0"] {
            assert!(is_full_name(good), "{good}");
        }
        for bad in ["", "/dev/x", "a=b", "a/=b", "/b=c", "a/b=", "a/b c=d", "../x=y"] {
            assert!(!is_full_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_not_done_is_named() {
        let edits: Edits =
            serde_json::from_str(r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"}]}"#).unwrap();
        assert_eq!(edits.unsupported(), Some("netDevices"));
        assert_eq!(Edits::default().unsupported(), None);
    }
}
