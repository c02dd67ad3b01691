//! Named contexts on disk, where and as Docker's client keeps them.
//!
//! Below `contexts` of the user's directory, `meta/<ID>/meta.json` describes a context and `tls/<ID>/<endpoint>/` has
//! the certificates that it needs; the ID is the SHA-256 of the name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::format::natural;

use super::endpoint::Endpoint;
use crate::config::{make_directories, replace};
use crate::failure::{Failure, plain};

/// The endpoint that every context has.
pub const DOCKER: &str = "docker";
/// The file that describes a context.
pub const META: &str = "meta.json";
/// The context that is not in the store: what flags and environment say.
pub const DEFAULT: &str = "default";
/// What names must look like.
const PATTERN: &str = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$";
/// Longest file that is read, in bytes.
const LONGEST: u64 = 10 << 20;

/// Files by their names, by endpoint.
pub type TlsData = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// What is known of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its description, and what other programs noted.
    pub metadata: Map<String, Value>,
    /// What it leads to, by kind.
    pub endpoints: Map<String, Value>,
}

impl Metadata {
    /// What the user wrote about it.
    pub fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    /// Changes the description, unless the new one is empty.
    pub fn describe(&mut self, description: &str) {
        if !description.is_empty() {
            self.metadata.insert("Description".to_owned(), description.into());
        }
    }

    /// Where the daemon is.
    pub fn docker(&self) -> Result<Endpoint, StoreError> {
        let value = self.endpoints.get(DOCKER).ok_or(StoreError::NoEndpoint)?;
        berth_api::json::from_value(value.clone()).map_err(|error| StoreError::Endpoint(error.to_string()))
    }

    /// Changes where the daemon is.
    pub fn set_docker(&mut self, endpoint: &Endpoint) {
        self.endpoints.insert(DOCKER.to_owned(), endpoint.to_value());
    }

    /// Reads a description; the docker endpoint gets the form that it has in all of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut found: Self = berth_api::json::from_slice(bytes).map_err(|error| error.to_string())?;
        if found.endpoints.contains_key(DOCKER) {
            let endpoint = found.docker().map_err(|error| error.to_string())?;
            found.set_docker(&endpoint);
        }
        Ok(found)
    }

    /// As it is written.
    pub fn to_json(&self) -> Vec<u8> {
        // Maps with texts as keys can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Why a context cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none of that name.
    #[error("context {name:?}: context not found: open {}: no such file or directory", .path.display())]
    NotFound {
        /// The name.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// Its description makes no sense.
    #[error("context {name:?}: parsing {}: {reason}", .path.display())]
    Broken {
        /// The name, or the ID if the name is not known.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It leads to no daemon.
    #[error("cannot find docker endpoint in context")]
    NoEndpoint,
    /// What leads to the daemon makes no sense.
    #[error("endpoint \"docker\" is not of type EndpointMeta: {0}")]
    Endpoint(String),
    /// A name that no context may have.
    #[error("{0}")]
    Name(String),
    /// The system refuses.
    #[error("{operation}: {}", plain(.source))]
    Io {
        /// What was tried.
        operation: String,
        /// Why not.
        source: io::Error,
    },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string())
    }
}

/// Checks the name of a context that is to be in the store.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::Name("context name cannot be empty".to_owned()));
    }
    if name == DEFAULT {
        return Err(StoreError::Name("\"default\" is a reserved context name".to_owned()));
    }
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    if !first || name.len() < 2 || !letters.all(|c| c.is_ascii_alphanumeric() || b"_.+-".contains(&c)) {
        return Err(StoreError::Name(format!(
            "context name {name:?} is invalid, names are validated against regexp {PATTERN:?}"
        )));
    }
    Ok(())
}

/// Whether a text names a file of a directory, and nothing elsewhere.
pub fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\\', '\0'])
}

/// The contexts of a user.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in the user's directory.
    pub fn new(directory: &Path) -> Self {
        Self { root: directory.join("contexts") }
    }

    /// Where the description of a context lies.
    pub fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(id(name))
    }

    /// Where the certificates of a context lie.
    pub fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(id(name))
    }

    /// Whether there is anything under a name.
    pub fn has(&self, name: &str) -> bool {
        self.meta_directory(name).exists()
    }

    /// The context of a name.
    pub fn get(&self, name: &str) -> Result<Metadata, StoreError> {
        read(name, &self.meta_directory(name).join(META))
    }

    /// All contexts, by name.
    pub fn list(&self) -> Result<Vec<Metadata>, StoreError> {
        let mut all = Vec::new();
        for folder in entries(&self.root.join("meta"))? {
            match read(&folder.to_string_lossy(), &self.root.join("meta").join(&folder).join(META)) {
                Ok(found) => all.push(found),
                Err(StoreError::NotFound { .. }) => {}
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| natural::compare(&a.name, &b.name));
        Ok(all)
    }

    /// Writes a context, in place of one of the same name.
    pub fn put(&self, context: &Metadata) -> Result<(), StoreError> {
        check_name(&context.name)?;
        let folder = self.meta_directory(&context.name);
        let path = folder.join(META);
        let failed = |source| StoreError::Io { operation: format!("write {}", path.display()), source };
        make_directories(&folder, 0o755).map_err(failed)?;
        replace(&path, &context.to_json(), 0o644).map_err(failed)
    }

    /// Removes a context; none of that name is no failure.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        remove_all(&self.meta_directory(name))?;
        remove_all(&self.tls_directory(name))
    }

    /// Names of the certificates of a context, by endpoint.
    pub fn tls_files(&self, name: &str) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        let folder = self.tls_directory(name);
        let mut all = BTreeMap::new();
        for endpoint in entries(&folder)? {
            let inner = folder.join(&endpoint);
            if !inner.is_dir() {
                continue;
            }
            let files = entries(&inner)?.into_iter().filter(|file| !inner.join(file).is_dir());
            let files = files.map(|file| file.to_string_lossy().into_owned()).collect();
            all.insert(endpoint.to_string_lossy().into_owned(), files);
        }
        Ok(all)
    }

    /// The certificates of a context.
    pub fn tls_data(&self, name: &str) -> Result<TlsData, StoreError> {
        let folder = self.tls_directory(name);
        let mut all = TlsData::new();
        for (endpoint, files) in self.tls_files(name)? {
            let inner = all.entry(endpoint.clone()).or_default();
            for file in files {
                let bytes = read_file(&folder.join(&endpoint).join(&file))?;
                inner.insert(file, bytes);
            }
        }
        Ok(all)
    }

    /// Replaces the certificates of a context.
    pub fn put_tls(&self, name: &str, data: &TlsData) -> Result<(), StoreError> {
        remove_all(&self.tls_directory(name))?;
        for (endpoint, files) in data {
            self.put_endpoint_tls(name, endpoint, files)?;
        }
        Ok(())
    }

    /// Replaces the certificates of one endpoint of a context.
    pub fn put_endpoint_tls(
        &self,
        name: &str,
        endpoint: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), StoreError> {
        let wrong = |name: &str| StoreError::Name(format!("invalid name in TLS data: {name:?}"));
        if !is_file_name(endpoint) {
            return Err(wrong(endpoint));
        }
        let folder = self.tls_directory(name).join(endpoint);
        remove_all(&folder)?;
        for (file, bytes) in files {
            if !is_file_name(file) {
                return Err(wrong(file));
            }
            let path = folder.join(file);
            let failed = |source| StoreError::Io { operation: format!("write {}", path.display()), source };
            make_directories(&folder, 0o700).map_err(failed)?;
            replace(&path, bytes, 0o600).map_err(failed)?;
        }
        Ok(())
    }
}

/// The ID that a name has on disk.
fn id(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(name: &str, path: &Path) -> Result<Metadata, StoreError> {
    let bytes = read_file(path).map_err(|error| match error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            StoreError::NotFound { name: name.to_owned(), path: path.to_owned() }
        }
        error => error,
    })?;
    Metadata::parse(&bytes).map_err(|reason| StoreError::Broken {
        name: name.to_owned(),
        path: path.to_owned(),
        reason,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::Io { operation: format!("open {}", path.display()), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > LONGEST {
        return Err(failed(io::Error::other(format!("longer than {LONGEST} bytes"))));
    }
    fs::read(path).map_err(failed)
}

/// Names in a directory, sorted; none if it is missing.
fn entries(folder: &Path) -> Result<Vec<OsString>, StoreError> {
    let failed = |source| StoreError::Io { operation: format!("open {}", folder.display()), source };
    let mut names = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => {
            let names: io::Result<Vec<_>> =
                found.and_then(|all| all.map(|entry| entry.map(|entry| entry.file_name())).collect());
            names.map_err(failed)?
        }
    };
    // Drafts of a program that was killed.
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    Ok(names)
}

fn remove_all(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { operation: format!("remove {}", folder.display()), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dockers() {
        assert_eq!(id("foo"), "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae");
    }

    #[test]
    fn names_are_checked() {
        for good in ["ab", "A1", "a_.+-"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "default", "-a", ".a", "a/b", "a b", "é1", "a\n"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_name("f").unwrap_err().to_string(),
            "context name \"f\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        );
    }

    #[test]
    fn descriptions_read_as_dockers() {
        let text = r#"{"Name":"foo","Metadata":{"Description":"a b"},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":false}}}"#;
        let found = Metadata::parse(text.as_bytes()).unwrap();
        assert_eq!((found.description(), found.docker().unwrap().host.as_str()), ("a b", "tcp://h:1"));
        assert_eq!(String::from_utf8(found.to_json()).unwrap(), text);
        let lower = Metadata::parse(br#"{"name":"x","endpoints":{"docker":{"Host":"h","More":1}}}"#).unwrap();
        assert_eq!(
            String::from_utf8(lower.to_json()).unwrap(),
            r#"{"Name":"x","Metadata":{},"Endpoints":{"docker":{"Host":"h","SkipTLSVerify":false}}}"#
        );
        assert!(Metadata::parse(br#"{"Endpoints":{"docker":{"Host":5}}}"#).is_err());
    }

    #[test]
    fn the_store_keeps_and_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert!(store.list().unwrap().is_empty());
        for name in ["a10", "a2"] {
            store.put(&Metadata { name: name.into(), ..Metadata::default() }).unwrap();
        }
        let names: Vec<_> = store.list().unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a2", "a10"]);
        let data = TlsData::from([("docker".into(), BTreeMap::from([("ca.pem".into(), b"x".to_vec())]))]);
        store.put_tls("a2", &data).unwrap();
        assert_eq!(store.tls_data("a2").unwrap(), data);
        let evil = TlsData::from([("..".into(), BTreeMap::from([("x".into(), Vec::new())]))]);
        assert!(store.put_tls("a2", &evil).is_err());
        store.put_tls("a2", &data).unwrap();
        store.remove("a2").unwrap();
        assert!(!store.has("a2") && store.tls_files("a2").unwrap().is_empty());
        assert!(
            store.get("a2").unwrap_err().to_string().starts_with("context \"a2\": context not found: open /")
        );
    }
}
