//! What the user has for registries: kept by helpers (`credHelpers`, `credsStore`), or in `config.json`.

mod file;
mod helper;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use berth_api::auth::AuthConfig;
use berth_oci::Reference;
use serde::Serialize;

use crate::config::ConfigFile;
use crate::failure::{Failure, Outcome};

/// What Docker Hub is called where credentials are kept.
pub const HUB: &str = "https://index.docker.io/v1/";
/// The variable with credentials that come before all others.
const VARIABLE: &str = "DOCKER_AUTH_CONFIG";
/// The account under which helpers keep tokens.
const TOKEN: &str = "<token>";

/// The value of `X-Registry-Auth` for the registry of an image; none if the user has nothing for it, or nothing that can be had.
///
/// # Errors
/// None that a user can cause.
pub async fn header(config: &ConfigFile, image: &Reference) -> Outcome<Option<String>> {
    header_for(config, address(image.domain())).await
}

/// The same for a registry by the name under which its credentials are kept.
///
/// # Errors
/// As [`header`].
pub async fn header_for(config: &ConfigFile, server: &str) -> Outcome<Option<String>> {
    let found = find(config, server).await;
    if !has_any(&found) {
        return Ok(None);
    }
    encoded(&found).map(Some)
}

/// One account or several, as headers have them.
///
/// # Errors
/// None that a user can cause.
pub fn encoded<T: Serialize>(accounts: &T) -> Outcome<String> {
    let text = serde_json::to_vec(accounts).map_err(|error| Failure::new(error.to_string()))?;
    Ok(URL_SAFE.encode(text))
}

/// All that the user has, by the names under which it is kept. As with Docker's client, what a helper cannot tell is
/// left out: the build may not need it.
///
/// # Errors
/// What is kept makes no sense.
pub async fn all(config: &ConfigFile) -> Outcome<BTreeMap<String, AuthConfig>> {
    let settings = &config.settings;
    let mut servers: BTreeSet<String> =
        settings.auths.keys().chain(settings.cred_helpers.keys()).cloned().collect();
    servers.extend(file::servers_of_environment(VARIABLE)?);
    if !settings.creds_store.is_empty() {
        servers.extend(helper::list(&settings.creds_store).await.unwrap_or_default());
    }
    let mut found = BTreeMap::new();
    for server in servers {
        match get(config, &server).await {
            Ok(auth) if has_any(&auth) => drop(found.insert(server, auth)),
            Ok(_) => {}
            Err(_) if helper_of(config, &server).is_some() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(found)
}

fn has_any(auth: &AuthConfig) -> bool {
    let secrets = [&auth.username, &auth.password, &auth.identitytoken, &auth.registrytoken];
    secrets.iter().any(|secret| !secret.is_empty())
}

/// What the user has for some registries that may be of help, by the names under which it is kept.
pub async fn of(config: &ConfigFile, domains: &BTreeSet<String>) -> BTreeMap<String, AuthConfig> {
    let mut found = BTreeMap::new();
    for server in domains.iter().map(|domain| address(domain)) {
        // It can be done without.
        if let Some(auth) = get(config, server).await.ok().filter(has_any) {
            found.insert(server.to_owned(), auth);
        }
    }
    found
}

/// The name under which credentials for a registry are kept.
pub fn address(domain: &str) -> &str {
    if matches!(domain, "docker.io" | "index.docker.io") { HUB } else { domain }
}

/// The host of an address that may be a URL.
pub fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// What the user has for `server`, as far as it can be had: most of what is pulled needs no account, so that a helper that is
/// missing or broken is told of, and not in the way.
pub async fn find(config: &ConfigFile, server: &str) -> AuthConfig {
    get(config, server).await.unwrap_or_else(|failure| {
        errln!("WARNING: {}: going on without an account for {server}", failure.message);
        AuthConfig::default()
    })
}

/// What the user has for `server`; empty if nothing.
///
/// # Errors
/// A helper fails, or what is kept makes no sense.
pub async fn get(config: &ConfigFile, server: &str) -> Outcome<AuthConfig> {
    if let Some(found) = file::of_environment(VARIABLE, server)? {
        return Ok(found);
    }
    let kept = file::get(config, server)?;
    let Some(helper) = helper_of(config, server) else { return Ok(kept) };
    let mut found = AuthConfig { serveraddress: server.to_owned(), ..AuthConfig::default() };
    if let Some(secret) = helper::get(helper, server).await? {
        if secret.username == TOKEN {
            found.identitytoken = secret.secret;
        } else {
            (found.username, found.password) = (secret.username, secret.secret);
        }
    }
    Ok(found)
}

/// Keeps credentials for their server. Gives whether they were written where everybody who can read the file can read
/// them.
///
/// # Errors
/// A helper fails, or the file cannot be written.
pub async fn store(config: &mut ConfigFile, auth: &AuthConfig) -> Outcome<bool> {
    let server = auth.serveraddress.clone();
    let Some(helper) = helper_of(config, &server).map(str::to_owned) else {
        let is_new = file::put(config, &server, auth)?;
        return Ok(is_new && !auth.password.is_empty());
    };
    let (username, secret) = match auth.identitytoken.as_str() {
        "" => (auth.username.as_str(), auth.password.as_str()),
        token => (TOKEN, token),
    };
    helper::store(&helper, &server, username, secret).await?;
    // That there is something is noted in the file, as Docker's client does.
    file::put(config, &server, &AuthConfig::default())?;
    Ok(false)
}

/// Forgets credentials; nothing there is success.
///
/// # Errors
/// As [`store`].
pub async fn erase(config: &mut ConfigFile, server: &str) -> Outcome {
    if let Some(helper) = helper_of(config, server).map(str::to_owned) {
        helper::erase(&helper, server).await?;
    }
    file::remove(config, server)
}

/// The helper that keeps what is for a server.
fn helper_of<'a>(config: &'a ConfigFile, server: &str) -> Option<&'a str> {
    let settings = &config.settings;
    let found = settings.cred_helpers.get(server).unwrap_or(&settings.creds_store);
    Some(found.as_str()).filter(|name| !name.is_empty())
}

/// `user:password` in base64.
fn encode(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// The halves of `user:password` in base64.
fn decode(text: &str) -> Outcome<(String, String)> {
    let invalid = || Failure::new("invalid auth configuration file");
    let bytes = STANDARD.decode(text).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (user, password) = text.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(invalid)?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_are_found_by_their_hosts() {
        for (address, expected) in
            [("https://r.example/v1/", "r.example"), ("r.example:5000", "r.example:5000"), ("http://x", "x")]
        {
            assert_eq!(host(address), expected);
        }
        assert_eq!(address("docker.io"), HUB);
        assert_eq!(address("r.example"), "r.example");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for text in ["*", "dXNlcg==", "OnB3"] {
            assert_eq!(decode(text).unwrap_err().message, "invalid auth configuration file");
        }
    }

    proptest! {
        #[test]
        fn both_halves_come_back(user in "[^:\\x00]{1,20}", password in "[^\\x00]{0,20}") {
            prop_assert_eq!(decode(&encode(&user, &password)).unwrap(), (user, password));
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC*") {
            let _ = (decode(&text), host(&text));
        }
    }
}
