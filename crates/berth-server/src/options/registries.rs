//! Options that are about registries.

use berth_engine::{Mirror, Proxies, Settings};

use super::{OptionError, number, value};
use crate::config::Given;

/// Fills in how registries are reached.
pub fn registries(settings: &mut Settings, given: &Given) -> Result<(), OptionError> {
    let registry = &mut settings.registry;
    registry.insecure = given.list("insecure-registry").to_vec();
    for given in given.list("registry-mirror") {
        let (of, mirror) = registry_of(given)?;
        let wrong = |why: &str| value(format!("invalid mirror: {why}: \"{mirror}\""));
        let url = url::Url::parse(mirror).map_err(|_| wrong("not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("no scheme specified: use http or https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("query and fragment are not allowed"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(value("invalid mirror: username/password not allowed in URI"));
        }
        let url = format!("{}/", url.as_str().trim_end_matches('/'));
        registry.mirrors.push(Mirror { of: of.to_owned(), url });
    }
    registry.proxies = proxies(given, Proxies::from_environment());
    let limit = |flag, name: &str, target: &mut usize| -> Result<(), OptionError> {
        if let Some(given) = number(given, flag)?.filter(|number| *number != 0) {
            *target = usize::try_from(given).map_err(|_| value(format!("invalid {name}: {given}")))?;
        }
        Ok(())
    };
    limit("max-concurrent-downloads", "max concurrent downloads", &mut registry.concurrent_downloads)?;
    limit("max-concurrent-uploads", "max concurrent uploads", &mut registry.concurrent_uploads)?;
    limit("max-download-attempts", "max download attempts", &mut registry.download_attempts)
}

/// Splits `REGISTRY=URL`, or a mirror of Docker Hub that is a URL alone.
fn registry_of(text: &str) -> Result<(&str, &str), OptionError> {
    let Some((registry, url)) = text.split_once('=').filter(|(registry, _)| !registry.contains('/')) else {
        return Ok(("docker.io", text));
    };
    // What names an image there is what names the registry.
    let name = format!("{registry}/x").parse::<berth_oci::Reference>();
    match name {
        Ok(name) if name.domain() == registry => Ok((registry, url)),
        _ => Err(value(format!("invalid mirror: {registry} is no registry: \"{text}\""))),
    }
}

/// What the environment says, and above it what was given.
fn proxies(given: &Given, mut proxies: Proxies) -> Proxies {
    for (flag, target) in [
        ("http-proxy", &mut proxies.http),
        ("https-proxy", &mut proxies.https),
        ("no-proxy", &mut proxies.none),
    ] {
        if let Some(text) = given.text(flag).filter(|text| !text.is_empty()) {
            text.clone_into(target);
        }
    }
    proxies
}

/// Variables of the environment that say something else than what was given. Names only: values may hold passwords.
pub fn overridden(given: &Given) -> Vec<String> {
    let mut names = Vec::new();
    for flag in ["http-proxy", "https-proxy", "no-proxy"] {
        let Some(text) = given.text(flag).filter(|text| !text.is_empty()) else { continue };
        let capitals = flag.to_uppercase().replace('-', "_");
        for name in [capitals.to_lowercase(), capitals] {
            if std::env::var(&name).is_ok_and(|value| !value.is_empty() && value != text) {
                names.push(name);
            }
        }
    }
    names
}
