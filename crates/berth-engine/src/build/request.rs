//! What a client asks for.

use std::collections::{BTreeMap, HashMap};

use berth_api::auth::AuthConfig;
use berth_api::build::{self, Lint};
use berth_api::container::HostConfig;
use berth_build::variables::EPOCH;
use berth_oci::{Platform, Reference};
use jiff::Timestamp;

use super::keys::SharedKeys;
use crate::{Caller, Error};

/// An image to build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Where the Dockerfile is in the context.
    pub dockerfile: String,
    /// Names that the image gets.
    pub tags: Vec<String>,
    /// Instead of a context that is sent: the address of an archive, or of a Dockerfile; `client-session` for files that the
    /// client sends by its session.
    pub remote: Option<String>,
    /// Nothing is told but the image's ID.
    pub quiet: bool,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Steps are taken from these images and no others; empty for all that were done here.
    pub cache_from: Vec<String>,
    /// Base images are looked for at their registries even if they are here.
    pub pull: bool,
    /// Containers of steps are removed.
    pub remove: bool,
    /// Also those of a step that failed.
    pub force_remove: bool,
    /// Build arguments; those without a value are only named.
    pub arguments: BTreeMap<String, Option<String>>,
    /// Labels that the image gets at the end.
    pub labels: BTreeMap<String, String>,
    /// The stage to build; empty for the last one.
    pub target: String,
    /// What the image is made for.
    pub platform: Option<Platform>,
    /// What the containers of steps get of the host.
    pub host: HostConfig,
    /// Stages, by their names in lower case, whose steps are not taken from the cache.
    pub no_cache_filter: Vec<String>,
    /// The image gets one layer for all that is new in it.
    pub squash: bool,
    /// What its steps may do beyond what containers do, by BuildKit's names of entitlements.
    pub allow: Vec<String>,
    /// What names mean in the Dockerfile, as BuildKit writes it: `docker-image://NAME`, `local:NAME` and `oci-layout:NAME` of
    /// the client's session, or an address.
    pub contexts: BTreeMap<String, String>,
    /// Whether warnings about the Dockerfile are told.
    pub lint: Lint,
    /// What the client gets of the image, over its session.
    pub outputs: Vec<build::Output>,
    /// Where steps are kept that were done before.
    pub cache_sources: Vec<build::Cache>,
    /// Where the steps of this build are to be kept.
    pub cache_targets: Vec<build::Cache>,
    /// Secrets and agents that the client lends.
    pub keys: SharedKeys,
    /// The session over which the client offers files, secrets and agents.
    pub session: Option<String>,
    /// Whether the image's ID is told as data, too.
    pub aux: bool,
    /// What the client calls itself.
    pub agent: Option<Vec<u8>>,
    /// Accounts at registries.
    pub accounts: HashMap<String, AuthConfig>,
}

impl BuildRequest {
    /// The names that the image gets, each once.
    pub(super) fn names(&self) -> Result<Vec<Reference>, Error> {
        let mut names: Vec<Reference> = Vec::new();
        for text in self.tags.iter().filter(|text| !text.is_empty()) {
            let invalid =
                |error: berth_oci::reference::ReferenceError| Error::InvalidParameter(error.to_string());
            let name: Reference = text.parse().map_err(invalid)?;
            if name.digest().is_some() {
                return Err(Error::InvalidParameter("build tag cannot contain a digest".into()));
            }
            let name = name.with_default_tag();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Arguments that have a value.
    pub(super) fn given_arguments(&self) -> BTreeMap<String, String> {
        let given = self.arguments.iter();
        given.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// The time that all is to have been done at, in seconds since 1970, so that a build can be repeated.
    pub(super) fn epoch(&self) -> Option<i64> {
        self.argument(EPOCH).and_then(seconds)
    }

    /// Refuses a time that is none: a build that is to be repeated would not be.
    pub(super) fn check_epoch(&self) -> Result<(), Error> {
        match self.argument(EPOCH) {
            Some(text) if seconds(text).is_none() => {
                Err(Error::InvalidParameter(format!("invalid {EPOCH}: {text}")))
            }
            _ => Ok(()),
        }
    }

    /// An argument for the builder.
    pub(super) fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.get(name)?.as_deref().filter(|value| !value.is_empty())
    }

    /// Arguments that have none.
    pub(super) fn named_arguments(&self) -> Vec<String> {
        let named = self.arguments.iter().filter(|(_, value)| value.is_none());
        named.map(|(name, _)| name.clone()).collect()
    }

    /// On whose behalf the registry of an image is asked.
    pub(super) fn caller(&self, reference: &Reference) -> Caller {
        let domain = reference.domain();
        let keys: &[&str] = match domain {
            "docker.io" => &["https://index.docker.io/v1/", "index.docker.io", "docker.io"],
            domain => &[domain],
        };
        let of = |key: &&str| {
            let bare = |text: &str| {
                let text = text.trim_start_matches("https://").trim_start_matches("http://");
                text.trim_end_matches('/').to_owned()
            };
            self.accounts
                .iter()
                .find(|(own, _)| own == key || bare(own) == bare(key))
                .map(|(_, auth)| auth.clone())
        };
        Caller { auth: keys.iter().find_map(of), agent: self.agent.clone(), ..Caller::default() }
    }
}

/// Seconds since 1970 that are a time.
fn seconds(text: &str) -> Option<i64> {
    text.parse().ok().filter(|seconds| *seconds >= 0 && Timestamp::from_second(*seconds).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_or_refused() {
        let request = |text: &str| BuildRequest {
            arguments: BTreeMap::from([(EPOCH.to_owned(), Some(text.to_owned()))]),
            ..BuildRequest::default()
        };
        for (text, seconds) in [("", None), ("0", Some(0)), ("1700000000", Some(1_700_000_000))] {
            assert_eq!(request(text).epoch(), seconds, "{text}");
            request(text).check_epoch().unwrap();
        }
        for text in ["-1", "yesterday", "1.5", "99999999999999999"] {
            assert_eq!(request(text).epoch(), None);
            let error = request(text).check_epoch().unwrap_err().to_string();
            assert_eq!(error, format!("invalid SOURCE_DATE_EPOCH: {text}"));
        }
    }
}
