//! Commands that other programs add: the plugins of Docker's client.
//!
//! A plugin is a program `docker-NAME` in one of a few directories. Asked with [`METADATA`] it tells what it is;
//! run with this program's own command line it is the command `NAME`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::config::ConfigFile;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// What the names of such programs begin with.
const PREFIX: &str = "docker-";
/// Asks a plugin what it is.
const METADATA: &str = "docker-cli-plugin-metadata";
/// Tells a plugin how its caller was called.
const ORIGINAL: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// Longest answer of a plugin about itself, in bytes.
const LONGEST: u64 = 1 << 20;
/// Where plugins for all users are.
const DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// What a plugin says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Metadata {
    schema_version: String,
    vendor: String,
    version: String,
    short_description: String,
    hidden: bool,
}

/// Becomes the plugin of a name; comes back only if there is none that can be used.
pub fn run(context: &Context, arguments: &[OsString], name: &str) -> Outcome {
    let unknown = || Failure::new(crate::usage::unknown_command(context.program, name));
    if !is_name(name) {
        return Err(unknown());
    }
    let file = format!("{PREFIX}{name}");
    let path =
        directories(&context.config).into_iter().map(|folder| folder.join(&file)).find(|path| path.exists());
    let path = path.filter(|path| ask(path).is_ok()).ok_or_else(unknown)?;
    let mut command = Command::new(&path);
    command.args(arguments.iter().skip(1));
    command.env(ORIGINAL, arguments.first().map_or(OsStr::new(context.program), OsString::as_os_str));
    if let Some(host) = context.host_for_plugins()? {
        // Plugins know nothing of where this program's daemon usually is.
        command.env("DOCKER_HOST", host.to_string());
    }
    Err(Failure::io(format!("cannot run {}", path.display()), &command.exec()))
}

/// The plugins as help lists them; empty without any.
pub fn help(arguments: &[OsString]) -> String {
    let config = ConfigFile::read(crate::context::directory(configured(arguments)));
    let mut found = BTreeMap::new();
    for folder in directories(&config) {
        for (name, path) in candidates(&folder) {
            found.entry(name).or_insert(path);
        }
    }
    let told = found.into_iter().filter_map(|(name, path)| Some((name, ask(&path).ok()?)));
    let shown: Vec<_> = told.filter(|(_, metadata)| !metadata.hidden).collect();
    if shown.is_empty() {
        return String::new();
    }
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = "\nPlugins:\n".to_owned();
    for (name, metadata) in shown {
        let from = match metadata.version.as_str() {
            "" => metadata.vendor,
            version => format!("{}, {version}", metadata.vendor),
        };
        text.push_str(&format!("  {name:width$}  {} ({from})\n", metadata.short_description));
    }
    text
}

/// The directory that `--config` names, from a command line that was not understood, as one with `--help` is not.
fn configured(arguments: &[OsString]) -> Option<&str> {
    let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word.strip_prefix("--config") {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return rest.get(1..),
            _ => {}
        }
    }
    None
}

/// Where plugins are looked for, the first place first.
fn directories(config: &ConfigFile) -> Vec<PathBuf> {
    let mut all = config.settings.plugin_directories.clone();
    all.push(config.directory().join("cli-plugins"));
    all.extend(DIRECTORIES.map(PathBuf::from));
    all
}

/// What looks like plugins in a directory, which need not exist.
fn candidates(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned();
        (is_name(&name) && entry.path().is_file()).then(|| (name, entry.path()))
    });
    named.collect()
}

/// Whether a plugin may be called so: small letters and digits, a letter first.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Asks a program whether it is a plugin, and what for.
fn ask(path: &Path) -> Result<Metadata, String> {
    let mut child = Command::new(path)
        .arg(METADATA)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST).read_to_end(&mut answer).map_err(|error| error.to_string())?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("failed to fetch metadata: {status}"));
    }
    check(&answer)
}

fn check(answer: &[u8]) -> Result<Metadata, String> {
    let metadata: Metadata =
        berth_api::json::from_slice(answer).map_err(|error| format!("invalid metadata: {error}"))?;
    // Every version 0 and 1 is said to be understood.
    let major = metadata.schema_version.split_once('.').and_then(|(major, _)| major.parse::<u32>().ok());
    if !matches!(major, Some(0 | 1)) {
        return Err(format!("plugin SchemaVersion {:?} is not supported", metadata.schema_version));
    }
    if metadata.vendor.is_empty() {
        return Err("plugin metadata does not define a vendor".to_owned());
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_checked() {
        assert!(check(br#"{"SchemaVersion": "0.1.0", "Vendor": "x"}"#).is_ok());
        assert!(check(br#"{"SchemaVersion": "1.2.3", "Vendor": "x", "Other": 1}"#).is_ok());
        for bad in [
            r#"{"SchemaVersion": "2.0.0", "Vendor": "x"}"#,
            r#"{"SchemaVersion": "0", "Vendor": "x"}"#,
            r#"{"Vendor": "x"}"#,
            r#"{"SchemaVersion": "0.1.0"}"#,
            "nonsense",
            "",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_words() {
        assert!(is_name("compose") && is_name("a1"));
        for bad in ["", "1a", "A", "a-b", "../x", "a/b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_directory_is_found_before_the_line_is_understood() {
        let found = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            configured(&words).map(str::to_owned)
        };
        assert_eq!(found("berth --config /x --help").as_deref(), Some("/x"));
        assert_eq!(found("berth --config=/x --help").as_deref(), Some("/x"));
        assert_eq!(found("berth --help"), None);
    }
}
