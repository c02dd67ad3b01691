//! What files hold before they are written, so that a change that fails half-way can be taken back.

use super::creation;
use super::directory::Directory;
use super::error::Result;
use super::setting::Setting;

/// Writes all settings; where one is refused, the files get back what they held.
pub(super) fn write_all_or_none(
    settings: &[Setting],
    place: impl Fn(&Setting) -> Result<Directory>,
) -> Result<()> {
    let before: Vec<Setting> = settings.iter().filter_map(|setting| held(setting, &place)).collect();
    creation::write(settings, &place).inspect_err(|_| {
        if let Err(error) = creation::write(&before, &place) {
            tracing::warn!(%error, "a limit that was set before another was refused stays");
        }
    })
}

/// The setting by which a file gets back what it holds now. Files with a line for each device have none: another
/// device's line is no value for this one's.
fn held(setting: &Setting, place: impl Fn(&Setting) -> Result<Directory>) -> Option<Setting> {
    if setting.value.contains(':') {
        return None;
    }
    let text = place(setting).ok()?.read_if_present(&setting.file).ok()??;
    // An empty write would be none; of several lines the first is the default for devices without one.
    let value = text.lines().next().filter(|line| !line.is_empty()).unwrap_or("\n").to_owned();
    Some(Setting { value, ..setting.clone() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::layout::Version;
    use super::*;

    fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_refused_value_leaves_all_files_as_they_were() {
        let folder = files(&[("pids.max", "max\n"), ("cpu.weight", "100\n"), ("cpuset.cpus", "\n")]);
        // A directory takes no value.
        fs::create_dir(folder.path().join("memory.max")).unwrap();
        let place = |_: &Setting| Ok(Directory { version: Version::V2, path: folder.path().to_path_buf() });
        let settings = [
            Setting::new("pids", "pids.max", 5),
            Setting::new("cpu", "cpu.weight", 7),
            Setting::new("cpuset", "cpuset.cpus", "0"),
            Setting::new("memory", "memory.max", 1),
        ];
        write_all_or_none(&settings, place).unwrap_err();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("pids.max").starts_with("max"), "{}", read("pids.max"));
        assert!(read("cpu.weight").starts_with("100") && read("cpuset.cpus").starts_with('\n'));
        write_all_or_none(&settings[..3], place).unwrap();
        // Unlike the kernel's, these files keep what was longer.
        assert!(read("pids.max").starts_with('5'), "{}", read("pids.max"));
    }

    #[test]
    fn a_devices_line_is_left_alone() {
        let folder =
            files(&[("io.max", "8:0 rbps=1\n8:16 rbps=2\n"), ("io.weight", "default 100\n8:0 50\n")]);
        let place = |_: &Setting| Ok(Directory { version: Version::V2, path: folder.path().to_path_buf() });
        assert_eq!(held(&Setting::new("io", "io.max", "8:16 rbps=5"), place), None);
        assert_eq!(held(&Setting::new("io", "io.weight", "default 5"), place).unwrap().value, "default 100");
        assert_eq!(held(&Setting::new("io", "io.gone", "5"), place), None);
    }
}
