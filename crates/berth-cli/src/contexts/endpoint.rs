//! Where a context's daemon is: `--docker host=…,ca=…`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_client::{Host, TlsFiles, Trust};
use serde::Deserialize;
use serde_json::{Value, json};

use super::store::{DOCKER, Store};
use crate::failure::{Failure, Outcome};
use crate::values::{self, csv};

/// Names of the certificates in the store.
const CA: &str = "ca.pem";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Where a daemon is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its address; empty is the usual one.
    #[serde(rename = "Host")]
    pub host: String,
    /// Any server is believed.
    #[serde(rename = "SkipTLSVerify")]
    pub skip_verification: bool,
}

impl Endpoint {
    /// As it is written.
    pub fn to_value(&self) -> Value {
        match self.host.as_str() {
            "" => json!({"SkipTLSVerify": self.skip_verification}),
            host => json!({"Host": host, "SkipTLSVerify": self.skip_verification}),
        }
    }

    /// How its daemon is reached over TCP, with the certificates in a directory; none for no TLS.
    pub fn tls(&self, folder: &Path) -> Option<TlsFiles> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        if !folder.exists() && !self.skip_verification {
            return None;
        }
        let trust = match file(CA) {
            _ if self.skip_verification => Trust::Anyone,
            Some(path) => Trust::Authority(path),
            None => Trust::System,
        };
        Some(TlsFiles { trust, identity: file(CERT).zip(file(KEY)) })
    }
}

/// What one `--docker` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

/// Reads `key=value,key=value`, as Go's flags of this kind do: a single pair may hold commas.
pub fn pairs(text: &str) -> Result<Pairs, String> {
    let fields = match text.matches('=').count() {
        0 => return Err(format!("{text} must be formatted as key=value")),
        1 => vec![text.trim_matches('"').to_owned()],
        _ => csv::record(text).ok_or("parse error: bare or unterminated \" in the list")?,
    };
    let pairs = fields.iter().map(|field| {
        let (key, value) = field.split_once('=').ok_or(format!("{field} must be formatted as key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    pairs.collect::<Result<_, String>>().map(Pairs)
}

/// The endpoint that `--docker` asks for, and its certificates; none if it has none.
pub fn read(
    store: &Store,
    get: impl Fn(&str) -> Outcome<super::store::Metadata>,
    given: &BTreeMap<String, String>,
) -> Outcome<(Endpoint, BTreeMap<String, Vec<u8>>)> {
    const KEYS: [&str; 6] = ["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    let unknown: Vec<_> = given.keys().filter(|key| !KEYS.contains(&key.as_str())).collect();
    if !unknown.is_empty() {
        let lines: Vec<_> = unknown.iter().map(|key| format!("unrecognized config key: {key}")).collect();
        return Err(Failure::new(lines.join("\n")));
    }
    if let Some(name) = given.get("from") {
        let found = get(name)?.docker().map_err(Failure::from)?;
        // Docker's client leaves the certificates behind; a copy that cannot connect is no copy.
        let files = store.tls_data(name)?.remove(DOCKER).unwrap_or_default();
        return Ok((found, files));
    }
    let mut files = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for (key, name) in [("ca", CA), ("cert", CERT), ("key", KEY)] {
        if let Some(path) = given.get(key).filter(|path| !path.is_empty()) {
            let bytes = fs::read(path).map_err(|error| Failure::io(format!("open {path}"), &error))?;
            files.insert(name.to_owned(), bytes);
            paths.insert(name, PathBuf::from(path));
        }
    }
    let skip_verification = match given.get("skip-tls-verify") {
        Some(text) => values::boolean(text)
            .map_err(|_| Failure::new(format!("skip-tls-verify: parsing {text:?}: invalid syntax")))?,
        None => false,
    };
    let host = given.get("host").cloned().unwrap_or_default();
    check(&host, &paths)?;
    Ok((Endpoint { host, skip_verification }, files))
}

/// Refuses what can never connect.
fn check(host: &str, paths: &BTreeMap<&str, PathBuf>) -> Outcome {
    let invalid = |reason: String| Failure::new(format!("invalid docker endpoint options: {reason}"));
    if host.is_empty() {
        return Ok(());
    }
    if !host.contains("://") {
        return Err(Failure::new(format!(
            "unable to apply docker endpoint options: unable to parse docker host `{host}`"
        )));
    }
    if host.starts_with("ssh://") {
        return Host::parse(host).map(drop).map_err(|error| invalid(error.to_string()));
    }
    if host.starts_with("unix://") {
        return Ok(());
    }
    let told = |reason: &str| invalid(format!("failed to retrieve context tls info: {reason}"));
    if let Some(path) = paths.get(CA) {
        let files = TlsFiles { trust: Trust::Authority(path.clone()), identity: None };
        files.check().map_err(|_| told("ca.pem seems invalid"))?;
    }
    let identity = paths.get(CERT).cloned().zip(paths.get(KEY).cloned());
    if identity.is_some() {
        let files = TlsFiles { trust: Trust::Anyone, identity };
        files.check().map_err(|error| told(&error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> BTreeMap<String, String> {
        pairs(text).unwrap().0.into_iter().collect()
    }

    fn told(text: &str) -> String {
        let store = Store::new(Path::new("/nonexistent"));
        let get = |name: &str| store.get(name).map_err(Failure::from);
        read(&store, get, &given(text)).unwrap_err().message
    }

    #[test]
    fn pairs_are_read_as_go_reads_them() {
        assert_eq!(given("host=tcp://a,b")["host"], "tcp://a,b");
        assert_eq!(given("\"host=tcp://a,b\"")["host"], "tcp://a,b");
        assert_eq!(given("host=x,\"ca=/a,b\"")["ca"], "/a,b");
        assert_eq!(pairs("host").unwrap_err(), "host must be formatted as key=value");
        assert_eq!(pairs("a=b,c,d=e").unwrap_err(), "c must be formatted as key=value");
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for (text, message) in [
            ("bogus=1,zip=2", "unrecognized config key: bogus\nunrecognized config key: zip"),
            ("host=tcp://x,ca=/nope", "open /nope: no such file or directory"),
            ("host=tcp://h,skip-tls-verify=maybe", "skip-tls-verify: parsing \"maybe\": invalid syntax"),
            ("host=foo", "unable to apply docker endpoint options: unable to parse docker host `foo`"),
            (
                "host=ssh://u:p@h",
                "invalid docker endpoint options: ssh host connection is not valid: invalid SSH URL: \
                 plain-text password is not supported",
            ),
            (
                "host=tcp://x,ca=/dev/null",
                "invalid docker endpoint options: failed to retrieve context tls info: ca.pem seems invalid",
            ),
        ] {
            assert_eq!(told(text), message, "{text}");
        }
    }

    #[test]
    fn certificates_decide_about_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let plain = Endpoint::default();
        assert_eq!(plain.tls(&path.join("none")), None);
        assert_eq!(plain.tls(path).unwrap().trust, Trust::System);
        let skipping = Endpoint { skip_verification: true, ..Endpoint::default() };
        assert_eq!(skipping.tls(&path.join("none")).unwrap().trust, Trust::Anyone);
        fs::write(path.join(CA), "x").unwrap();
        fs::write(path.join(CERT), "x").unwrap();
        assert_eq!(plain.tls(path).unwrap().trust, Trust::Authority(path.join(CA)));
        assert_eq!(plain.tls(path).unwrap().identity, None);
        fs::write(path.join(KEY), "x").unwrap();
        assert_eq!(plain.tls(path).unwrap().identity, Some((path.join(CERT), path.join(KEY))));
    }
}
