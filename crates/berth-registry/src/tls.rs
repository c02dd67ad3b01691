//! TLS: which certificates are believed, and which one is shown.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use berth_tls::{Identity, Trust};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::RegistryConfig;
use crate::client::lock;

/// How long settings are used again: the system's authorities may change meanwhile.
const FRESH: Duration = Duration::from_secs(60);
/// Settings that are kept.
const MOST: usize = 128;

/// Settings by authority, and whether it is in a network whose certificates are not checked. Who uses them again also takes
/// up sessions with servers again, which spares them and us the longer handshake.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: Mutex<HashMap<(String, bool), Kept>>,
    /// The system's authorities, and since when they are known: they are the same for all, and many.
    system: Mutex<Option<(Instant, RootCertStore)>>,
}

#[derive(Debug)]
struct Kept {
    settings: Arc<ClientConfig>,
    since: Instant,
    /// The files of the registry that they were made of.
    files: Vec<State>,
}

/// A file and how it was: when it was changed, and its length.
type State = (PathBuf, Option<SystemTime>, u64);

impl Cache {
    /// The TLS settings for one registry, as its files are now. `within`: it is in a network whose certificates are not
    /// checked.
    pub fn settings(
        &self,
        config: &RegistryConfig,
        authority: &str,
        within: bool,
    ) -> io::Result<Arc<ClientConfig>> {
        let key = (authority.to_owned(), within);
        let files = states(&directories(config, &names(authority)));
        if let Some(kept) = self.kept().get(&key)
            && kept.since.elapsed() < FRESH
            && kept.files == files
        {
            return Ok(Arc::clone(&kept.settings));
        }
        let settings = settings(config, authority, within, || self.system())?;
        let mut kept = self.kept();
        kept.retain(|_, kept| kept.since.elapsed() < FRESH);
        if kept.len() < MOST {
            let (settings, since) = (Arc::clone(&settings), Instant::now());
            kept.insert(key, Kept { settings, since, files });
        }
        Ok(settings)
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.kept().clear();
        *lock(&self.system) = None;
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(String, bool), Kept>> {
        lock(&self.kept)
    }

    /// The system's authorities.
    fn system(&self) -> RootCertStore {
        let mut known = lock(&self.system);
        if let Some((since, store)) = &*known
            && since.elapsed() < FRESH
        {
            return store.clone();
        }
        let store = berth_tls::system_authorities(|error| {
            tracing::debug!(error, "a certificate of the system is left out");
        });
        *known = Some((Instant::now(), store.clone()));
        store
    }
}

/// How the files of some directories are.
fn states(directories: &[PathBuf]) -> Vec<State> {
    let entries = directories.iter().flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten());
    let state = |entry: std::fs::DirEntry| {
        // What a link points to is read.
        let metadata = std::fs::metadata(entry.path()).ok();
        let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        (entry.path(), changed, metadata.map_or(0, |metadata| metadata.len()))
    };
    let mut states: Vec<State> = entries.flatten().map(state).collect();
    states.sort();
    states
}

/// The TLS settings for one registry. `within`: it is in a network whose certificates are not checked; `system` gives the
/// authorities of the others.
fn settings(
    config: &RegistryConfig,
    authority: &str,
    within: bool,
    system: impl FnOnce() -> RootCertStore,
) -> io::Result<Arc<ClientConfig>> {
    let names = names(authority);
    let directories = directories(config, &names);
    let trust = match within || names.iter().any(|name| config.is_insecure(name)) {
        true => Trust::Anyone,
        false => Trust::Authorities(with_own(system(), &directories)),
    };
    berth_tls::client(trust, identity(&directories)?).map(Arc::new)
}

/// What a registry may be called in settings: addresses leave the usual port out, and users do not.
fn names(authority: &str) -> Vec<String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        && !authority.ends_with(']');
    let with_port = (!has_port).then(|| format!("{authority}:443"));
    std::iter::once(authority.to_owned()).chain(with_port).collect()
}

/// Where files for a registry may be.
fn directories(config: &RegistryConfig, names: &[String]) -> Vec<PathBuf> {
    // The authority is a host and port: it cannot name another directory.
    let names = || names.iter().filter(|name| !name.contains('/') && !name.starts_with('.'));
    config.certificates.iter().flat_map(|directory| names().map(move |name| directory.join(name))).collect()
}

/// Authorities, and those for this registry.
fn with_own(mut store: RootCertStore, directories: &[PathBuf]) -> RootCertStore {
    for path in directories.iter().flat_map(|directory| files(directory, "crt")) {
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => {
                store.add_parsable_certificates(certificates.flatten());
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read a certificate"),
        }
    }
    store
}

/// What the client shows: the first `NAME.cert` with its `NAME.key`.
fn identity(directories: &[PathBuf]) -> io::Result<Option<Identity>> {
    let missing = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = None;
    for directory in directories {
        if let Some(key) = files(directory, "key").find(|key| !key.with_extension("cert").exists()) {
            let certificate = key.with_extension("cert");
            return Err(missing(format!(
                "missing client certificate {} for key {}",
                name(&certificate),
                name(&key)
            )));
        }
        for certificate in files(directory, "cert") {
            let key = certificate.with_extension("key");
            if !key.exists() {
                return Err(missing(format!(
                    "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                    name(&key),
                    name(&certificate)
                )));
            }
            if found.is_none() {
                found = Some(Identity::read(&certificate, &key)?);
            }
        }
    }
    Ok(found)
}

/// The files of a directory that end so, in the order of their names; none if there is no such directory.
fn files(directory: &Path, extension: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_may_be_named_or_not() {
        assert_eq!(names("r.example"), ["r.example", "r.example:443"]);
        assert_eq!(names("r.example:5000"), ["r.example:5000"]);
        assert_eq!(names("[::1]"), ["[::1]", "[::1]:443"]);
        assert_eq!(names("[::1]:5000"), ["[::1]:5000"]);
    }

    #[test]
    fn settings_are_made_again_when_files_change() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = vec![folder.path().to_owned()];
        let config = RegistryConfig { certificates, ..RegistryConfig::default() };
        let cache = Cache::default();
        let settings = || cache.settings(&config, "r.example", false).unwrap();
        let first = settings();
        assert!(Arc::ptr_eq(&first, &settings()), "nothing has changed");
        assert!(!Arc::ptr_eq(&first, &cache.settings(&config, "q.example", false).unwrap()));
        std::fs::create_dir(folder.path().join("r.example")).unwrap();
        std::fs::write(folder.path().join("r.example/ca.crt"), "").unwrap();
        let second = settings();
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &settings()));
        std::fs::write(folder.path().join("r.example/x.key"), "").unwrap();
        assert!(cache.settings(&config, "r.example", false).is_err(), "what is wrong is told at once");
        cache.clear();
        assert!(cache.settings(&config, "r.example", true).is_err());
    }

    #[test]
    fn halves_of_an_identity_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let directories = [folder.path().to_owned()];
        assert!(identity(&directories).unwrap().is_none());
        std::fs::write(folder.path().join("a.cert"), "x").unwrap();
        let error = identity(&directories).unwrap_err().to_string();
        assert_eq!(
            error,
            "missing key a.key for client certificate a.cert. CA certificates must use the extension .crt"
        );
        std::fs::rename(folder.path().join("a.cert"), folder.path().join("b.key")).unwrap();
        let error = identity(&directories).unwrap_err().to_string();
        assert_eq!(error, "missing client certificate b.cert for key b.key");
    }
}
