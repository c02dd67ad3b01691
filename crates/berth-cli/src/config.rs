//! The user's settings: `config.json`, which is shared with Docker's client.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_api::auth::AuthConfig;
use serde::{Deserialize, Serialize as _};
use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome, plain};

/// The file's name in its directory.
const NAME: &str = "config.json";
/// Longest file that is read, in bytes.
const LONGEST: u64 = 16 << 20;
/// Most symbolic links that are followed to the file.
const MOST_LINKS: usize = 40;

/// What of the file concerns this program; what it holds beside is left as it is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Settings {
    /// How `ps` shows containers, as its `--format`; empty: as a table. The following likewise.
    pub ps_format: String,
    /// For `images`.
    pub images_format: String,
    /// For lists of networks.
    pub networks_format: String,
    /// For lists of volumes.
    pub volumes_format: String,
    /// For `stats`.
    pub stats_format: String,
    /// Keys that detach; empty: the usual ones.
    pub detach_keys: String,
    /// Sent with every request.
    #[serde(rename = "HttpHeaders")]
    pub http_headers: BTreeMap<String, String>,
    /// Proxies for containers, by the daemon's address; `default` is for all others.
    pub proxies: BTreeMap<String, Proxies>,
    /// The context that is used if nothing says otherwise; empty: the default one.
    pub current_context: String,
    /// Filters of all `prune` commands, as `name=value`.
    pub prune_filters: Vec<String>,
    /// Accounts of registries.
    pub auths: BTreeMap<String, AuthConfig>,
    /// The helper that keeps accounts; empty: this file does.
    pub creds_store: String,
    /// Other helpers, by the registry.
    pub cred_helpers: BTreeMap<String, String>,
    /// Directories with plugins, beside the usual ones.
    #[serde(rename = "cliPluginsExtraDirs")]
    pub plugin_directories: Vec<PathBuf>,
}

/// Proxies that containers are told of; what is empty, they are not.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxies {
    /// For HTTP.
    pub http_proxy: String,
    /// For HTTPS.
    pub https_proxy: String,
    /// Hosts that are reached without a proxy.
    pub no_proxy: String,
    /// For FTP.
    pub ftp_proxy: String,
    /// For everything.
    pub all_proxy: String,
}

/// The file as it was read.
#[derive(Debug, Default)]
pub struct ConfigFile {
    directory: PathBuf,
    whole: Map<String, Value>,
    /// Why some or all of it cannot be used.
    fault: Option<String>,
    /// What of it is used here.
    pub settings: Settings,
}

impl ConfigFile {
    /// Reads the file of a directory. One that is missing is empty; what makes no sense is left out, and told.
    pub fn read(directory: PathBuf) -> Self {
        let path = directory.join(NAME);
        let loaded = load(&path);
        let mut file = Self { directory, ..Self::default() };
        match loaded {
            Ok(whole) => file.take(whole, &path),
            Err(fault) => file.fault = Some(fault),
        }
        file
    }

    /// The directory that it lies in, with everything else that is the user's.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Why some or all of the file cannot be used.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Takes what can be used.
    fn take(&mut self, whole: Map<String, Value>, path: &Path) {
        let mut usable = Map::new();
        for (name, value) in &whole {
            let single = Map::from_iter([(name.clone(), value.clone())]);
            match berth_api::json::from_value::<Settings>(Value::Object(single)) {
                Ok(_) => drop(usable.insert(name.clone(), value.clone())),
                // Only the first is told, as Go's decoder does.
                Err(error) if self.fault.is_none() => {
                    let reason = mismatch(name, value).unwrap_or_else(|| error.to_string());
                    self.fault = Some(format!("parsing config file ({}): {reason}", path.display()));
                }
                Err(_) => {}
            }
        }
        self.settings = berth_api::json::from_value(Value::Object(usable)).unwrap_or_default();
        self.whole = whole;
    }

    /// Writes another current context into the file; an empty name is the default one.
    ///
    /// # Errors
    /// The file cannot be written, or makes no sense: nothing of it is to be lost.
    pub fn set_current_context(&mut self, name: &str) -> Outcome {
        self.change(|whole| {
            whole.retain(|known, _| !known.eq_ignore_ascii_case("currentContext"));
            if !name.is_empty() {
                whole.insert("currentContext".to_owned(), name.into());
            }
            true
        })?;
        name.clone_into(&mut self.settings.current_context);
        Ok(())
    }

    /// The file's path.
    pub fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Lets `edit` change what the file holds, and writes it if that says that it did; gives what it said.
    ///
    /// # Errors
    /// The file cannot be written, or makes no sense: nothing of it is to be lost.
    pub fn change(&mut self, edit: impl FnOnce(&mut Map<String, Value>) -> bool) -> Outcome<bool> {
        if let Some(fault) = &self.fault {
            return Err(Failure::new(format!(
                "Error {fault}\nIt was not changed: correct or remove it first."
            )));
        }
        if !edit(&mut self.whole) {
            return Ok(false);
        }
        // Docker's client never leaves it out.
        self.whole.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        self.write().map_err(|error| Failure::io(self.path().display(), &error))?;
        Ok(true)
    }

    fn write(&self) -> io::Result<()> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.whole.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
        make_directories(&self.directory, 0o700)?;
        let path = resolved(self.directory.join(NAME))?;
        replace(&path, &text, 0o600)
    }
}

fn load(path: &Path) -> Result<Map<String, Value>, String> {
    let failed =
        |error: &io::Error| format!("loading config file: open {}: {}", path.display(), plain(error));
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(failed(&error)),
        Ok(data) if data.len() > LONGEST => {
            return Err(format!("loading config file: {} is too long", path.display()));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let reason = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(whole)) => return Ok(whole),
        Ok(Value::Null) => return Ok(Map::new()),
        Ok(other) => {
            format!("json: cannot unmarshal {} into Go value of type configfile.ConfigFile", kind(&other))
        }
        Err(error) if error.is_eof() => "unexpected EOF".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("parsing config file ({}): {reason}", path.display()))
}

/// The words of Go's decoder for a value of the wrong kind.
fn mismatch(name: &str, value: &Value) -> Option<String> {
    let wanted = match name {
        "HttpHeaders" | "credHelpers" => "map[string]string",
        "auths" => "map[string]types.AuthConfig",
        "proxies" => "map[string]configfile.ProxyConfig",
        "pruneFilters" | "cliPluginsExtraDirs" => "[]string",
        _ => "string",
    };
    let fits = matches!(
        (wanted.as_bytes().first(), value),
        (Some(b'm'), Value::Object(_)) | (Some(b'['), Value::Array(_))
    );
    let kind = kind(value);
    (!fits).then(|| {
        format!("json: cannot unmarshal {kind} into Go struct field ConfigFile.{name} of type {wanted}")
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The file that a path leads to, which need not exist.
fn resolved(path: PathBuf) -> io::Result<PathBuf> {
    let mut path = path;
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            // No link, or nothing yet.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Makes a directory and those above it.
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Writes a file so that whoever looks sees the old one or the new one, also after a crash. Its owner stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = directory.join(format!(".{name}.{}.tmp", std::process::id()));
    let outcome = (|| {
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        // Whatever the umask says.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Ok(before) = fs::metadata(path) {
            // Only root may, and only root needs to.
            let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if outcome.is_err() {
        let _ = fs::remove_file(&draft);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), text).unwrap();
        folder
    }

    fn read(text: &str) -> ConfigFile {
        ConfigFile::read(folder(text).path().to_owned())
    }

    #[test]
    fn settings_are_read() {
        let file = read(
            r#"{"psFormat": "x", "HttpHeaders": {"A": "b"}, "proxies": {"default": {"httpProxy": "p"}},
                "currentContext": "c", "detachKeys": null, "experimental": "enabled", "aliases": {"builder": "x"}}"#,
        );
        assert_eq!(file.fault(), None);
        assert_eq!((file.settings.ps_format.as_str(), file.settings.current_context.as_str()), ("x", "c"));
        assert_eq!(file.settings.proxies["default"].http_proxy, "p");
        assert_eq!(file.settings.http_headers["A"], "b");
        assert_eq!(ConfigFile::read("/no/such".into()).fault(), None);
        assert_eq!(read("").fault(), None);
    }

    #[test]
    fn what_makes_no_sense_is_told_and_the_rest_is_used() {
        let told = |text: &str| read(text).fault().unwrap().split_once("): ").unwrap().1.to_owned();
        assert_eq!(told(r#"{"auths": {}, "#), "unexpected EOF");
        assert_eq!(
            told(r#"{"psFormat": 5}"#),
            "json: cannot unmarshal number into Go struct field ConfigFile.psFormat of type string"
        );
        assert_eq!(told("[]"), "json: cannot unmarshal array into Go value of type configfile.ConfigFile");
        let file = read(r#"{"psFormat": 5, "currentContext": "c", "proxies": []}"#);
        assert_eq!(file.settings.current_context, "c");
        assert!(file.fault().unwrap().contains("ConfigFile.proxies"), "the first in the order of names");
    }

    #[test]
    fn writing_keeps_what_is_unknown() {
        let folder = folder(r#"{"future": {"a": [1, 2]}, "credsStore": "x"}"#);
        let path = folder.path().join(NAME);
        let mut file = ConfigFile::read(folder.path().to_owned());
        file.set_current_context("one").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            whole,
            serde_json::json!({"auths": {}, "future": {"a": [1, 2]}, "credsStore": "x", "currentContext": "one"})
        );
        assert!(text.contains("\n\t\"auths\": {}"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file.set_current_context("").unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("currentContext"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn links_are_followed_and_broken_files_are_kept() {
        let folder = folder("{");
        let mut file = ConfigFile::read(folder.path().to_owned());
        assert!(file.set_current_context("one").unwrap_err().message.contains("unexpected EOF"));
        assert_eq!(fs::read_to_string(folder.path().join(NAME)).unwrap(), "{");
        let links = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path().join("target"), links.path().join(NAME)).unwrap();
        ConfigFile::read(links.path().to_owned()).set_current_context("two").unwrap();
        assert!(fs::read_to_string(folder.path().join("target")).unwrap().contains("two"));
    }
}
