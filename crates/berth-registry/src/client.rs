//! Requests, with authorization and redirections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use berth_oci::Reference;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::auth::{Key, Tokens};
use crate::challenge::{self, Challenge};
use crate::connection::{Endpoint, Outgoing, SILENCE};
use crate::patience::{self, Patience, Teller, Waiting};
use crate::{Caller, Credentials, Error, RegistryConfig, Result, caller, config, tls};

/// Redirections followed.
const REDIRECTS: usize = 10;
/// Longest error or token that is read.
pub(crate) const SHORT: u64 = 1 << 20;
/// Docker Hub's API is not at its name.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A client of registries. Copies share tokens and what is known about registries.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Credentials, and the registry's name that they are for.
    credentials: Option<(String, Credentials)>,
    /// What the program calls itself for which registries are asked.
    upstream: Option<Arc<[u8]>>,
    /// Who is told when a server wants to be asked later.
    pub(crate) teller: Option<Teller>,
}

#[derive(Debug)]
struct Shared {
    config: RwLock<Arc<RegistryConfig>>,
    tokens: Tokens,
    /// Registries that were found to speak plain HTTP.
    plain: Mutex<HashMap<String, bool>>,
    /// Registries by name that have an address in a network that may do without TLS.
    within: Mutex<HashMap<String, bool>>,
}

/// What is asked for beside the address.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wanted<'a> {
    /// Media types.
    pub accept: &'a [&'a str],
    /// First byte.
    pub from: u64,
    /// Only the answer's head.
    pub head: bool,
    /// Whether a server that wants to be asked later is not waited for.
    pub hasty: bool,
}

/// Where something is asked for.
pub(crate) struct Source<'a> {
    /// The address before `v2/`.
    pub base: Url,
    /// Its `host[:port]`, to which tokens belong.
    pub authority: &'a str,
    pub credentials: Option<&'a Credentials>,
}

impl Client {
    /// A client without credentials.
    pub fn new(config: RegistryConfig) -> Self {
        let config = RwLock::new(Arc::new(config));
        let shared =
            Shared { config, tokens: Tokens::default(), plain: Mutex::default(), within: Mutex::default() };
        Self { shared: Arc::new(shared), credentials: None, upstream: None, teller: None }
    }

    /// The same client with `credentials` for the registry `domain`, and for no other.
    #[must_use]
    pub fn with_credentials(&self, domain: &str, credentials: Credentials) -> Self {
        Self { credentials: Some((domain.to_owned(), credentials)), ..self.clone() }
    }

    /// The same client on behalf of `caller`, whose credentials are for the registry `domain`, and for no other.
    #[must_use]
    pub fn on_behalf(&self, domain: &str, caller: Caller) -> Self {
        let credentials = caller.credentials.map(|found| (domain.to_owned(), found));
        Self { credentials, upstream: caller.agent.map(Arc::from), ..self.clone() }
    }

    /// The same client, which tells when a server wants to be asked later. `tell` must not block.
    #[must_use]
    pub fn telling(&self, tell: impl Fn(patience::Pause) + Send + Sync + 'static) -> Self {
        Self { teller: Some(Teller::new(tell)), ..self.clone() }
    }

    /// Takes other settings into use, for all copies of this client. Requests under way keep the ones before.
    pub fn configure(&self, config: RegistryConfig) {
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        // A registry may have become insecure, or may not be any more.
        lock(&self.shared.plain).clear();
        lock(&self.shared.within).clear();
    }

    pub(crate) fn config(&self) -> Arc<RegistryConfig> {
        Arc::clone(&self.shared.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `GET /v2/<repository>/<rest>` of the registry of `reference`: the answer, whatever its status, and what was
    /// asked for in words. Mirrors of the registry are asked first; what they do not have is no error.
    pub(crate) async fn get(
        &self,
        reference: &Reference,
        rest: &str,
        wanted: &Wanted<'_>,
    ) -> Result<(Response<Incoming>, String)> {
        let domain = reference.domain();
        for mirror in self.config().mirrors.iter().filter(|mirror| mirror.of == domain) {
            if let Some(found) = self.get_mirrored(&mirror.url, reference, rest, wanted).await {
                return Ok(found);
            }
        }
        let from = self.source(domain).await?;
        self.get_from(from, reference, rest, wanted).await
    }

    /// The registry of a domain itself, with the credentials that are for it.
    pub(crate) async fn source<'a>(&'a self, domain: &'a str) -> Result<Source<'a>> {
        let authority = if domain == HUB.0 { HUB.1 } else { domain };
        let base = self.base(authority).await?;
        let credentials = self.credentials.as_ref().filter(|(name, _)| name == domain);
        Ok(Source { base, authority, credentials: credentials.map(|(_, found)| found) })
    }

    /// Authorization that was given before.
    pub(crate) fn known(&self, key: &Key) -> Option<String> {
        self.shared.tokens.get(key)
    }

    /// Keeps authorization for further requests.
    pub(crate) fn keep(&self, key: Key, header: String, lifetime: std::time::Duration) {
        self.shared.tokens.put(key, header, lifetime);
    }

    /// What a mirror has; none, and a note in the log, if it has not.
    async fn get_mirrored(
        &self,
        mirror: &str,
        reference: &Reference,
        rest: &str,
        wanted: &Wanted<'_>,
    ) -> Option<(Response<Incoming>, String)> {
        let base = Url::parse(mirror).ok()?;
        let authority = authority_of(&base);
        self.look_up(&authority).await;
        // Credentials are the registry's, and not for its mirrors; and what is slow is no use as one.
        let from = Source { base, authority: &authority, credentials: None };
        let wanted = Wanted { hasty: true, ..wanted.clone() };
        match self.get_from(from, reference, rest, &wanted).await {
            Ok(found) if found.0.status().is_success() => return Some(found),
            Ok((answer, operation)) => {
                tracing::info!(operation, status = %answer.status(), "a mirror does not have it")
            }
            Err(error) => tracing::warn!(mirror, %error, "a mirror cannot be used"),
        }
        None
    }

    async fn get_from(
        &self,
        from: Source<'_>,
        reference: &Reference,
        rest: &str,
        wanted: &Wanted<'_>,
    ) -> Result<(Response<Incoming>, String)> {
        let Source { base, authority, credentials } = from;
        let url = base.join(&format!("v2/{}/{rest}", reference.path()));
        let url = url.map_err(|error| Error::Malformed {
            operation: format!("GET {authority}/v2/{}/{rest}", reference.path()),
            reason: error.to_string(),
        })?;
        let scope = format!("repository:{}:pull", reference.path());
        let key = (authority.to_owned(), scope.clone(), credentials.cloned());
        let known = self.known(&key);
        let (answer, operation) = self.follow(url.clone(), wanted, known.as_deref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok((answer, operation));
        }
        let values = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let header = match challenge::choose(values.filter_map(|value| value.to_str().ok())) {
            Some(Challenge::Bearer { realm, service, scope: asked }) => {
                let scope = asked.unwrap_or(scope);
                let token = self.token(&url, &realm, service.as_deref(), &scope, credentials).await?;
                let header = format!("Bearer {}", token.token);
                self.keep(key, header.clone(), token.lifetime);
                header
            }
            Some(Challenge::Basic) => match credentials.and_then(Credentials::header) {
                Some(header) => header,
                None => {
                    let message = "no basic auth credentials".to_owned();
                    return Err(Error::Denied { repository: reference.familiar_repository(), message });
                }
            },
            None => return Ok((answer, operation)),
        };
        self.follow(url, wanted, Some(&header)).await
    }

    /// Sends a request and follows redirections. Authorization stays with the first host.
    pub(crate) async fn follow(
        &self,
        first: Url,
        wanted: &Wanted<'_>,
        authorization: Option<&str>,
    ) -> Result<(Response<Incoming>, String)> {
        let mut url = first.clone();
        let patience = self.config().patience;
        let patience = if wanted.hasty { Patience { pauses: 0, ..patience } } else { patience };
        let mut waiting = Waiting::new(patience);
        for _ in 0..=REDIRECTS {
            let method = if wanted.head { Method::HEAD } else { Method::GET };
            let operation = format!("{method} {}", without_query(&url));
            let header = authorization.filter(|_| url.origin() == first.origin());
            let request = || self.wanted(method.clone(), &url, wanted, header, &operation);
            let answer = self.insist(&url, &operation, &mut waiting, request).await?;
            if !answer.status().is_redirection() {
                return Ok((answer, operation));
            }
            let malformed =
                |reason: &str| Error::Malformed { operation: operation.clone(), reason: reason.to_owned() };
            let target = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            let target = target.ok_or_else(|| malformed("redirected to nowhere"))?;
            if url.scheme() == "https" && target.scheme() != "https" {
                return Err(malformed("redirected away from TLS"));
            }
            url = target;
        }
        Err(Error::Malformed {
            operation: format!("GET {}", without_query(&first)),
            reason: "redirected too often".into(),
        })
    }

    fn wanted(
        &self,
        method: Method,
        url: &Url,
        wanted: &Wanted<'_>,
        authorization: Option<&str>,
        operation: &str,
    ) -> Result<Request<Outgoing>> {
        let mut request = self.request(method, url, authorization, operation)?;
        for media_type in wanted.accept {
            request = request.header(ACCEPT, *media_type);
        }
        if wanted.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", wanted.from));
        }
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        request.body(body).map_err(|error| Error::malformed(operation, error))
    }

    /// The beginning of a request, with the headers that all have.
    pub(crate) fn request(
        &self,
        method: Method,
        url: &Url,
        authorization: Option<&str>,
        operation: &str,
    ) -> Result<http::request::Builder> {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut request = Request::builder().method(method).uri(path);
        let agent = caller::user_agent(&self.config().agent, self.upstream.as_deref());
        request = request.header(HOST, authority_of(url)).header(USER_AGENT, agent);
        if let Some(value) = authorization {
            let mut value =
                HeaderValue::from_str(value).map_err(|error| Error::malformed(operation, error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request)
    }

    pub(crate) fn endpoint(&self, url: &Url, operation: &str) -> Result<Endpoint> {
        let malformed =
            |reason: &str| Error::Malformed { operation: operation.to_owned(), reason: reason.to_owned() };
        let host = url.host_str().ok_or_else(|| malformed("the address has no host"))?;
        let port =
            url.port_or_known_default().ok_or_else(|| malformed("the address is neither http nor https"))?;
        let tls = match url.scheme() {
            "https" => Some(self.tls(&authority_of(url))?),
            "http" => None,
            _ => return Err(malformed("the address is neither http nor https")),
        };
        let proxy = self.config().proxies.for_url(url);
        Ok(Endpoint { host: host.trim_matches(['[', ']']).to_owned(), port, tls, proxy })
    }

    fn tls(&self, authority: &str) -> Result<Arc<ClientConfig>> {
        let within = lock(&self.shared.within).get(authority).copied().unwrap_or_default();
        tls::settings(&self.config(), authority, within)
            .map_err(|error| Error::Tls { authority: authority.to_owned(), source: error })
    }

    /// The address of a registry. One that may do without TLS is asked once whether it has it.
    async fn base(&self, authority: &str) -> Result<Url> {
        let address = |scheme: &str| {
            let text = format!("{scheme}://{authority}/");
            Url::parse(&text).map_err(|error| Error::Malformed { operation: text, reason: error.to_string() })
        };
        let secure = address("https")?;
        if !self.look_up(&authority_of(&secure)).await && !self.config().is_insecure(authority) {
            return Ok(secure);
        }
        let known = lock(&self.shared.plain).get(authority).copied();
        let plain = match known {
            Some(plain) => plain,
            None => {
                let mut probe = secure.clone();
                probe.set_path("/v2/");
                let plain = match self.follow(probe, &Wanted::default(), None).await {
                    Ok(_) => false,
                    // Something that does not speak TLS.
                    Err(Error::Tls { .. } | Error::Http { .. }) => true,
                    // Nothing at the default port of TLS; there may be soon.
                    Err(Error::Connect { .. }) => return address("http"),
                    Err(error) => return Err(error),
                };
                let mut registries = lock(&self.shared.plain);
                if registries.len() < 1024 {
                    registries.insert(authority.to_owned(), plain);
                }
                plain
            }
        };
        if plain { address("http") } else { Ok(secure) }
    }

    /// Whether a registry that has a name has an address in a network that may do without TLS. As with Docker, such a
    /// network is meant for the registries in it by whatever name; without such networks nothing is looked up.
    async fn look_up(&self, authority: &str) -> bool {
        /// Names that are remembered.
        const MOST: usize = 1024;
        let config = self.config();
        let host = config::host_of(authority);
        if config.networks().next().is_none() || host.parse::<std::net::IpAddr>().is_ok() {
            return false;
        }
        if let Some(known) = lock(&self.shared.within).get(authority).copied() {
            return known;
        }
        let found = tokio::net::lookup_host((host, 443)).await;
        // A name that is not found now may be later.
        let Ok(mut found) = found else { return false };
        let is_within = found.any(|address| config.is_within(address.ip()));
        let mut within = lock(&self.shared.within);
        if within.len() < MOST {
            within.insert(authority.to_owned(), is_within);
        }
        is_within
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half-changed under this lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Addresses of storages carry signatures in their queries, which are not for logs.
pub(crate) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// The whole body of an answer, if it is no longer than `limit` bytes.
pub(crate) async fn read_all(answer: Response<Incoming>, limit: u64, operation: &str) -> Result<Vec<u8>> {
    let limited = Limited::new(answer.into_body(), usize::try_from(limit).unwrap_or(usize::MAX));
    let collected = timeout(SILENCE, limited.collect())
        .await
        .map_err(|_| Error::Timeout { operation: operation.to_owned(), seconds: SILENCE.as_secs() })?;
    match collected {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(source) => Err(Error::Http { operation: operation.to_owned(), source: *source }),
            Err(_) => Err(Error::TooLarge { operation: operation.to_owned(), limit }),
        },
    }
}

/// Turns an answer that is no success into an error. `unknown` makes the one for what is not there.
pub(crate) async fn refusal(
    answer: Response<Incoming>,
    operation: String,
    reference: &Reference,
    unknown: impl FnOnce(String) -> Error,
) -> Error {
    let status = answer.status();
    let headers = answer.headers().clone();
    let bytes = read_all(answer, SHORT, &operation).await.unwrap_or_default();
    let repository = reference.familiar_repository();
    match status {
        StatusCode::NOT_FOUND => unknown(words(&bytes, "not found")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Denied { repository, message: words(&bytes, "authentication required") }
        }
        status if patience::is_overload(status) => {
            let message = words(&bytes, "no reason given");
            patience::overload(reference.domain().to_owned(), status, &headers, message)
        }
        _ => Error::Status { operation, status, message: words(&bytes, "no reason given") },
    }
}

/// The registry's own words (distribution specification, section "Error Codes"), or `otherwise`.
pub(crate) fn words(bytes: &[u8], otherwise: &str) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<Item>,
        #[serde(default)]
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item {
        // Go's servers and clients do not mind the case of names.
        #[serde(default, alias = "Code")]
        code: String,
        #[serde(default)]
        message: String,
    }
    let found: Option<Errors> = serde_json::from_slice(bytes).ok();
    let text = match found {
        Some(Errors { errors, .. }) if !errors.is_empty() => errors
            .iter()
            .map(|item| {
                let code = item.code.to_lowercase().replace('_', " ");
                match (code.as_str(), item.message.as_str()) {
                    (_, "") => code,
                    ("", message) => message.to_owned(),
                    (code, message) => format!("{code}: {message}"),
                }
            })
            .collect::<Vec<_>>()
            .join(", "),
        Some(Errors { details: Some(details), .. }) => details,
        _ => String::new(),
    };
    // A terminal shows this: nothing from outside may steer it.
    let clean: String = text.chars().filter(|character| !character.is_control()).take(500).collect();
    if clean.trim().is_empty() { otherwise.to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_registries_are_kept_without_control_characters() {
        let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\u001b[2J unknown"}]}"#;
        assert_eq!(words(text, "x"), "manifest unknown: manifest[2J unknown");
        assert_eq!(words(b"<html>", "x"), "x");
        assert_eq!(
            words(br#"{"details":"incorrect username or password"}"#, "x"),
            "incorrect username or password"
        );
    }

    #[test]
    fn queries_stay_out_of_messages() {
        let url = Url::parse("https://u:p@s3.example/blob?X-Signature=secret").unwrap();
        assert_eq!(without_query(&url), "https://s3.example/blob");
    }
}
