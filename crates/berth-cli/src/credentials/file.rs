//! Credentials in `config.json`, readable by whoever reads the file.

use std::collections::BTreeMap;

use berth_api::auth::AuthConfig;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{decode, encode, host};
use crate::config::ConfigFile;
use crate::failure::{Failure, Outcome};

/// The section of the file.
const SECTION: &str = "auths";

/// What the file has for a server, also under an address that older clients wrote.
pub fn get(config: &ConfigFile, server: &str) -> Outcome<AuthConfig> {
    let auths = &config.settings.auths;
    let found = auths
        .get(server)
        .or_else(|| auths.iter().find(|(address, _)| host(address) == server).map(|(_, found)| found));
    let mut found = found.cloned().unwrap_or_default();
    if !found.auth.is_empty() {
        (found.username, found.password) = decode(&found.auth)?;
        found.auth.clear();
    }
    server.clone_into(&mut found.serveraddress);
    Ok(found)
}

/// What a variable of the environment has for a server.
pub fn of_environment(name: &str, server: &str) -> Outcome<Option<AuthConfig>> {
    let Some(mut found) = environment(name)?.remove(server) else { return Ok(None) };
    (found.username, found.password) = decode(&found.auth)?;
    found.auth.clear();
    server.clone_into(&mut found.serveraddress);
    Ok(Some(found))
}

/// The servers for which a variable of the environment has something.
pub fn servers_of_environment(name: &str) -> Outcome<Vec<String>> {
    Ok(environment(name)?.into_keys().collect())
}

fn environment(name: &str) -> Outcome<BTreeMap<String, AuthConfig>> {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        auths: BTreeMap<String, AuthConfig>,
    }
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let whole: Whole = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("Failed to create credential store from {name}:  {error}")))?;
    Ok(whole.auths)
}

/// Writes what is for a server; whether that changed anything.
pub fn put(config: &mut ConfigFile, server: &str, auth: &AuthConfig) -> Outcome<bool> {
    let mut entry = Map::new();
    if !auth.username.is_empty() || !auth.password.is_empty() {
        entry.insert("auth".to_owned(), encode(&auth.username, &auth.password).into());
    }
    for (name, value) in [("identitytoken", &auth.identitytoken), ("registrytoken", &auth.registrytoken)] {
        if !value.is_empty() {
            entry.insert(name.to_owned(), value.as_str().into());
        }
    }
    let entry = Value::Object(entry);
    config.change(|whole| {
        let auths = whole.entry(SECTION).or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else { return false };
        auths.insert(server.to_owned(), entry.clone()).as_ref() != Some(&entry)
    })
}

/// Removes what is for a server.
pub fn remove(config: &mut ConfigFile, server: &str) -> Outcome {
    let removed = config.change(|whole| {
        let auths = whole.get_mut(SECTION).and_then(Value::as_object_mut);
        auths.is_some_and(|auths| auths.remove(server).is_some())
    });
    removed.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let file = ConfigFile::read(folder.path().to_owned());
        (folder, file)
    }

    #[test]
    fn entries_are_written_read_and_removed_and_the_rest_stays() {
        let (folder, mut file) =
            config(r#"{"future": 1, "auths": {"https://old.example/v1/": {"auth": "dTpw"}}}"#);
        let auth = AuthConfig { username: "me".into(), password: "a:b".into(), ..AuthConfig::default() };
        assert!(put(&mut file, "r.example", &auth).unwrap());
        assert!(!put(&mut file, "r.example", &auth).unwrap(), "nothing changed");
        let again = ConfigFile::read(folder.path().to_owned());
        let found = get(&again, "r.example").unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "a:b"));
        assert_eq!(get(&again, "old.example").unwrap().username, "u");
        assert_eq!(get(&again, "other.example").unwrap().username, "");
        remove(&mut file, "r.example").unwrap();
        let text = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        assert!(
            text.contains("future") && text.contains("old.example") && !text.contains("r.example"),
            "{text}"
        );
    }

    #[test]
    fn tokens_are_kept_as_such() {
        let (folder, mut file) = config("");
        let auth = AuthConfig { username: "me".into(), identitytoken: "t".into(), ..AuthConfig::default() };
        put(&mut file, "r", &auth).unwrap();
        let found = get(&ConfigFile::read(folder.path().to_owned()), "r").unwrap();
        assert_eq!((found.username.as_str(), found.identitytoken.as_str()), ("me", "t"));
    }
}
