//! What a shim is told about its log, and where that is read.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_shim::log::{FilePlan, LogSettings, Plan, Reader};

use super::value::{boolean, decimal_size, integer};
use super::{CACHE, Options, attributes, remote};
use crate::create::Definition;

/// Bytes in each file of a log that has no bounds of its own.
const MAX_FILE_BYTES: u64 = 20 << 20;
/// Files of a log that has no bounds of its own.
const MAX_FILES: u32 = 5;

/// A container as its log knows it.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// What it is.
    pub definition: &'a Definition,
    /// Its name now.
    pub name: &'a str,
}

impl Subject<'_> {
    pub(super) fn short_id(&self) -> &str {
        self.definition.id.get(..12).unwrap_or(&self.definition.id)
    }

    pub(super) fn command(&self) -> String {
        let mut command = self.definition.path.clone();
        for argument in &self.definition.args {
            command.push(' ');
            command.push_str(argument);
        }
        command
    }
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The file of the driver `json-file`.
pub(crate) fn json_path(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}-json.log"))
}

fn segments(directory: &Path) -> PathBuf {
    directory.join("log")
}

/// Where a container's log is read; `None` if it is not kept on this host.
pub(crate) fn reader(definition: &Definition, directory: &Path) -> Option<Reader> {
    let config = &definition.host.log_config;
    let cached = || !flag(config.config.as_ref().and_then(|options| options.get("cache-disabled")));
    match config.driver.as_str() {
        "none" => None,
        "json-file" => Some(Reader::JsonFile(json_path(directory, &definition.id))),
        "local" => Some(Reader::open(segments(directory))),
        _ => cached().then(|| Reader::open(segments(directory))),
    }
}

/// What the shim of a container is told, and the descriptors that come beside it. `directory` is the container's own.
///
/// # Errors
/// Why the driver cannot be had, in Docker's words.
pub(crate) async fn plan(subject: Subject<'_>, directory: &Path) -> Result<(Plan, Vec<OwnedFd>), String> {
    let config = &subject.definition.host.log_config;
    let empty = Options::new();
    let options = config.config.as_ref().unwrap_or(&empty);
    let file = match config.driver.as_str() {
        "none" => None,
        "json-file" => Some(FilePlan::JsonFile {
            path: json_path(directory, &subject.definition.id),
            settings: bounds(options, ""),
            compress: flag(options.get("compress")),
            attributes: attributes::of_files(&subject, options)?,
        }),
        "local" => Some(FilePlan::Segments { directory: segments(directory), settings: bounds(options, "") }),
        _ if flag(options.get("cache-disabled")) => None,
        _ => Some(FilePlan::Segments { directory: segments(directory), settings: bounds(options, CACHE) }),
    };
    match config.driver.as_str() {
        "none" | "json-file" | "local" => {
            Ok((Plan { file, remote: None, file_buffer: remote::buffer(options) }, Vec::new()))
        }
        driver => {
            let (remote, descriptors) = remote::plan(driver, subject, options).await?;
            // The copy that is kept here has everything, also what the endpoint was too slow for.
            Ok((Plan { file, remote: Some(remote), file_buffer: None }, descriptors))
        }
    }
}

/// The options were checked when the container was created.
fn bounds(options: &Options, prefix: &str) -> LogSettings {
    let get = |name: &str| options.get(&format!("{prefix}{name}"));
    let files = get("max-file").and_then(|text| integer(text).ok());
    LogSettings {
        max_file_bytes: get("max-size").and_then(|text| decimal_size(text).ok()).unwrap_or(MAX_FILE_BYTES),
        max_files: files.and_then(|files| u32::try_from(files).ok()).unwrap_or(MAX_FILES),
    }
}

fn flag(text: Option<&String>) -> bool {
    text.is_some_and(|text| boolean(text).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_bounded_unless_told_otherwise() {
        let standard = LogSettings { max_file_bytes: MAX_FILE_BYTES, max_files: MAX_FILES };
        assert_eq!(bounds(&Options::new(), ""), standard);
        let given = Options::from([("max-size".into(), "2k".into()), ("cache-max-file".into(), "2".into())]);
        assert_eq!(bounds(&given, ""), LogSettings { max_file_bytes: 2_000, ..standard });
        assert_eq!(bounds(&given, CACHE), LogSettings { max_files: 2, ..standard });
    }
}
