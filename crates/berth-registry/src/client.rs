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
use crate::connection::{Endpoint, Outgoing, SILENCE, Via};
use crate::mirrors::Mirrors;
use crate::patience::{self, Teller, Waiting};
use crate::pool::Pool;
use crate::{Caller, Credentials, Error, RegistryConfig, Result, caller, tls};

/// Redirections followed.
pub(crate) const REDIRECTS: usize = 10;
/// Longest error or token that is read.
pub(crate) const SHORT: u64 = 1 << 20;
/// Docker Hub's API is not at its name.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A client of registries. Copies share tokens and what is known about registries.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// Credentials, each with the name of the registry that it is for.
    credentials: Arc<[(String, Credentials)]>,
    /// What the program calls itself for which registries are asked.
    upstream: Option<Arc<[u8]>>,
    /// Who is told when a server wants to be asked later.
    pub(crate) teller: Option<Teller>,
    /// What is known of mirrors.
    pub(crate) mirrors: Mirrors,
}

#[derive(Debug)]
pub(crate) struct Shared {
    config: RwLock<Arc<RegistryConfig>>,
    tokens: Tokens,
    /// Settings of TLS by what they are for.
    tls: tls::Cache,
    /// Connections that wait for their next request.
    pub pool: Pool,
    /// Whether registries that may do without TLS do.
    pub plain: Mutex<HashMap<String, bool>>,
    /// Registries by name that have an address in a network that may do without TLS.
    pub within: Mutex<HashMap<String, bool>>,
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
    /// Whether the server can be done without: it is not waited for if it is slow, or wants to be asked later.
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
        let shared = Shared {
            config,
            tokens: Tokens::default(),
            tls: tls::Cache::default(),
            pool: Pool::default(),
            plain: Mutex::default(),
            within: Mutex::default(),
        };
        let mirrors = Mirrors::default();
        Self { shared: Arc::new(shared), credentials: Arc::default(), upstream: None, teller: None, mirrors }
    }

    /// The same client with `credentials` for the registry `domain`, and for no other.
    #[must_use]
    pub fn with_credentials(&self, domain: &str, credentials: Credentials) -> Self {
        Self { credentials: Arc::new([(domain.to_owned(), credentials)]), ..self.clone() }
    }

    /// The same client on behalf of `caller`, whose credentials are for the registry `domain`, and for no other but those that
    /// it names itself. It asks all mirrors, whichever of them others found to be of no use.
    #[must_use]
    pub fn on_behalf(&self, domain: &str, caller: Caller) -> Self {
        let own = caller.credentials.map(|found| (domain.to_owned(), found));
        let others = caller.others.into_iter().filter(|(name, _)| name != domain);
        let credentials = own.into_iter().chain(others).collect();
        let upstream = caller.agent.map(Arc::from);
        Self { credentials, upstream, mirrors: Mirrors::default(), ..self.clone() }
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
        self.shared.tls.clear();
        self.shared.pool.clear();
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
        if let Some(found) = self.get_mirrored(reference, rest, wanted).await {
            return Ok(found);
        }
        let from = self.source(reference.domain()).await?;
        let (before, authority) = (from.base.clone(), from.authority);
        let outcome = self.get_from(from, reference, rest, wanted).await;
        if !self.doubts(authority, &before, &outcome) {
            return outcome;
        }
        let again = self.source(reference.domain()).await?;
        if again.base == before { outcome } else { self.get_from(again, reference, rest, wanted).await }
    }

    /// The registry of a domain itself, with the credentials that are for it.
    pub(crate) async fn source<'a>(&'a self, domain: &'a str) -> Result<Source<'a>> {
        let authority = if domain == HUB.0 { HUB.1 } else { domain };
        let base = self.base(authority).await?;
        let credentials = self.credentials.iter().find(|(name, _)| name == domain);
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

    pub(crate) async fn get_from(
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
        let mut waiting = if wanted.hasty { Waiting::hasty() } else { Waiting::new(self.config().patience) };
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
        let via = match self.config().proxies.for_url(url)? {
            Some(proxy) => {
                let tls = if proxy.is_secure { Some(self.tls(&proxy.authority())?) } else { None };
                Some(Via { proxy, tls })
            }
            None => None,
        };
        Ok(Endpoint { host: host.trim_matches(['[', ']']).to_owned(), port, tls, via })
    }

    fn tls(&self, authority: &str) -> Result<Arc<ClientConfig>> {
        let within = lock(&self.shared.within).get(authority).copied().unwrap_or_default();
        self.shared
            .tls
            .settings(&self.config(), authority, within)
            .map_err(|error| Error::Tls { authority: authority.to_owned(), source: error })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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
