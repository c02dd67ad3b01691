//! Searching: the one part of Docker's first registry protocol that is still spoken, `GET /v1/search?q=TERM&n=LIMIT`.

use http::StatusCode;
use serde::Deserialize;
use url::Url;

use crate::challenge::Challenge;
use crate::client::{Source, Wanted, read_all, words};
use crate::patience;
use crate::upload::{as_refusal, challenge_of};
use crate::{Client, Credentials, Error, Result};

/// Longest answer to a search, in bytes. A hundred results have about thirty thousand.
const LONGEST: u64 = 4 << 20;
/// Where Docker Hub is searched.
const HUB_INDEX: &str = "index.docker.io";
/// What a token is for where searching needs one.
const SCOPE: &str = "registry:catalog:search";

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name, without the registry's.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What its owner says of it.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// How many like it.
    #[serde(default, deserialize_with = "or_default")]
    pub star_count: i64,
    /// Whether the registry vouches for it.
    #[serde(default, deserialize_with = "or_default")]
    pub is_official: bool,
}

/// Registries send null where they have nothing.
fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    results: Vec<Found>,
}

impl Client {
    /// Asks the registry `domain` for repositories that `term` fits, `limit` at most. As a registry may answer with more,
    /// so may this.
    ///
    /// # Errors
    /// Refusals; registries that cannot be searched; failures to connect.
    pub async fn search(&self, domain: &str, term: &str, limit: u32) -> Result<Vec<Found>> {
        let mut source = self.source(domain).await?;
        if domain == "docker.io" {
            source.authority = HUB_INDEX;
            source.base = Url::parse(&format!("https://{HUB_INDEX}/"))
                .map_err(|error| Error::malformed("search", error))?;
        }
        let mut url = source.base.join("v1/search").map_err(|error| Error::malformed("search", error))?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let (answer, operation) = self.ask_to_search(&source, &url).await?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let is_json = answer
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.contains("json"));
        let bytes = read_all(answer, LONGEST, &operation).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let message = words(&bytes, &format!("unexpected status code {}", status.as_u16()));
                return Err(Error::Refused { message });
            }
            status if patience::is_overload(status) => {
                let message = words(&bytes, "no reason given");
                return Err(patience::overload(source.authority.to_owned(), status, &headers, message));
            }
            // What speaks only today's protocol has no such page.
            StatusCode::NOT_FOUND => {
                let reason = format!("{} cannot be searched", source.authority);
                let message = format!("unexpected status code 404: {reason}");
                return Err(Error::Search { message });
            }
            status => {
                let code = format!("unexpected status code {}", status.as_u16());
                let message = words(&bytes, "");
                let message = if message.is_empty() { code } else { format!("{code}: {message}") };
                return Err(Error::Search { message });
            }
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| {
            let hint = if is_json { "" } else { ": it is no JSON" };
            Error::Search { message: format!("error decoding registry search results{hint}: {error}") }
        })?;
        Ok(answer.results)
    }

    /// Asks with a password if there is one, and with a token if that is what the registry wants.
    async fn ask_to_search(
        &self,
        source: &Source<'_>,
        url: &Url,
    ) -> Result<(http::Response<hyper::body::Incoming>, String)> {
        let unasked = match source.credentials {
            Some(password @ Credentials::Password { .. }) => password.header(),
            _ => None,
        };
        let (answer, operation) = self.follow(url.clone(), &Wanted::default(), unasked.as_deref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok((answer, operation));
        }
        let Some(Challenge::Bearer { realm, service, scope }) = challenge_of(answer.headers()) else {
            return Ok((answer, operation));
        };
        let scope = scope.unwrap_or_else(|| SCOPE.to_owned());
        let token = self.token(url, &realm, service.as_deref(), &scope, source.credentials).await;
        let header = format!("Bearer {}", token.map_err(as_refusal)?.token);
        self.follow(url.clone(), &Wanted::default(), Some(&header)).await
    }
}

/// Splits a term into the registry that it names, or Docker Hub, and what is searched there.
///
/// # Errors
/// A term with a scheme, which names no registry; the text is Docker's.
pub fn split_term(term: &str) -> std::result::Result<(&str, &str), String> {
    if term.contains("://") {
        return Err(format!("invalid repository name: repository name ({term}) should not have a scheme"));
    }
    let is_host = |name: &str| name.contains(['.', ':']) || name == "localhost";
    match term.split_once('/') {
        Some((host, rest)) if is_host(host) && !matches!(host, "docker.io" | "index.docker.io") => {
            Ok((host, rest))
        }
        Some((host, rest)) if is_host(host) => Ok(("docker.io", official(rest))),
        _ => Ok(("docker.io", official(term))),
    }
}

/// Docker Hub's own images have no owner in its index.
fn official(term: &str) -> &str {
    term.strip_prefix("library/").unwrap_or(term)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_name_registries() {
        for (term, expected) in [
            ("busybox", ("docker.io", "busybox")),
            ("library/busybox", ("docker.io", "busybox")),
            ("someone/thing", ("docker.io", "someone/thing")),
            ("docker.io/library/x", ("docker.io", "x")),
            ("index.docker.io/x", ("docker.io", "x")),
            ("r.example/library/x", ("r.example", "library/x")),
            ("localhost/x", ("localhost", "x")),
            ("h:5000/a/b", ("h:5000", "a/b")),
            ("[::1]:5000/a", ("[::1]:5000", "a")),
            ("", ("docker.io", "")),
        ] {
            assert_eq!(split_term(term), Ok(expected), "{term}");
        }
        let error = split_term("https://x/y").unwrap_err();
        assert_eq!(error, "invalid repository name: repository name (https://x/y) should not have a scheme");
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let text = br#"{"results":[{"name":"a","description":null,"star_count":3},{"is_official":true}]}"#;
        let answer: Answer = serde_json::from_slice(text).unwrap();
        assert_eq!(answer.results[0].star_count, 3);
        assert_eq!((answer.results[0].description.as_str(), answer.results[1].is_official), ("", true));
        assert_eq!(serde_json::from_slice::<Answer>(b"{\"results\":null}").unwrap().results, []);
    }

    proptest! {
        #[test]
        fn any_term_is_split_or_refused(term in "\\PC*") {
            if let Ok((host, rest)) = split_term(&term) {
                prop_assert!(!host.is_empty() && term.ends_with(rest));
            }
        }
    }
}
