//! Pushing: what is there already, mounts, uploads that go on after a cut, manifests.

use std::io;
use std::time::Duration;

use berth_oci::media_type::ACCEPTED;
use berth_oci::{Descriptor, Digest, Reference};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use url::Url;

use crate::auth::Key;
use crate::body::Going;
use crate::challenge::{self, Challenge};
use crate::client::{REDIRECTS, SHORT, Source, Wanted, authority_of, read_all, without_query, words};
use crate::connection::CONNECT;
use crate::patience::{self, Waiting};
use crate::{Client, Credentials, Error, Result};

/// How long a password that a registry took is sent unasked.
const PASSWORD: Duration = Duration::from_secs(600);

/// The bytes of a blob from an offset on.
pub type Feed = dyn Fn(u64) -> BoxStream<'static, io::Result<Bytes>> + Send + Sync;

/// An upload that has begun.
#[derive(Debug, Clone)]
pub struct Begun(Url);

/// What became of a wish to mount a blob of another repository.
#[derive(Debug)]
pub enum Mount {
    /// The target has it now.
    Mounted,
    /// It has not; it began an upload instead.
    Begun(Begun),
}

/// What became of bytes that were sent.
enum Patched {
    /// The registry has them; the upload goes on here.
    Taken(Url),
    /// They are to be sent here instead.
    Moved(Url),
}

/// A short request.
struct Call<'a> {
    method: Method,
    url: Url,
    content_type: Option<&'a str>,
    body: Bytes,
}

impl Call<'_> {
    fn new(method: Method, url: Url) -> Self {
        Self { method, url, content_type: None, body: Bytes::new() }
    }
}

/// A repository that is pushed to.
struct Target<'a> {
    source: Source<'a>,
    path: &'a str,
}

impl Target<'_> {
    fn url(&self, rest: &str) -> Result<Url> {
        let text = format!("v2/{}/{rest}", self.path);
        self.source.base.join(&text).map_err(|error| Error::malformed(&text, error))
    }

    /// What a token must allow, to mount from another repository too.
    fn scope(&self, from: Option<&str>) -> String {
        let own = format!("repository:{}:pull,push", self.path);
        from.map_or(own.clone(), |from| format!("{own} repository:{from}:pull"))
    }

    fn key(&self, scope: &str) -> Key {
        (self.source.authority.to_owned(), scope.to_owned(), self.source.credentials.cloned())
    }
}

impl Client {
    async fn target<'a>(&'a self, reference: &'a Reference) -> Result<Target<'a>> {
        Ok(Target { source: self.source(reference.domain()).await?, path: reference.path() })
    }

    /// Whether the repository of `to` has a blob.
    ///
    /// # Errors
    /// Refusals, and failures to connect.
    pub async fn has_blob(&self, to: &Reference, digest: &Digest) -> Result<bool> {
        self.has(to, &format!("blobs/{digest}"), &[]).await
    }

    /// Whether the repository of `to` has a manifest or index.
    ///
    /// # Errors
    /// Refusals, and failures to connect.
    pub async fn has_manifest(&self, to: &Reference, digest: &Digest) -> Result<bool> {
        self.has(to, &format!("manifests/{digest}"), &ACCEPTED).await
    }

    async fn has(&self, to: &Reference, what: &str, accept: &[&str]) -> Result<bool> {
        let target = self.target(to).await?;
        let mut outcome = self.head(&target, what, accept).await;
        // This is what a push asks first: how the registry is spoken to may have changed since the last one.
        if self.doubts(target.source.authority, &target.source.base, &outcome) {
            let again = self.target(to).await?;
            if again.source.base != target.source.base {
                outcome = self.head(&again, what, accept).await;
            }
        }
        let (answer, operation) = outcome?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(answer, operation).await),
        }
    }

    async fn head(
        &self,
        target: &Target<'_>,
        what: &str,
        accept: &[&str],
    ) -> Result<(Response<Incoming>, String)> {
        let wanted = Wanted { head: true, accept, ..Wanted::default() };
        self.authorized(target, None, Call::new(Method::HEAD, target.url(what)?), &wanted).await
    }

    /// Asks the registry of `to` to take a blob from another of its repositories, `from`, or to begin an upload.
    ///
    /// # Errors
    /// Refusals, and failures to connect.
    pub async fn mount(&self, to: &Reference, digest: &Digest, from: &str) -> Result<Mount> {
        let target = self.target(to).await?;
        let mut url = target.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let (answer, operation) = self
            .authorized(&target, Some(from), Call::new(Method::POST, url.clone()), &Wanted::default())
            .await?;
        match answer.status() {
            StatusCode::CREATED => Ok(Mount::Mounted),
            StatusCode::ACCEPTED => Ok(Mount::Begun(Begun(location(&answer, &url, &operation)?))),
            _ => Err(refused(answer, operation).await),
        }
    }

    /// Uploads a blob, of which `feed` gives the bytes. An upload that is cut goes on where the registry says that it
    /// stopped, up to `attempts` times in all.
    ///
    /// # Errors
    /// Refusals, failures to connect or to read; a blob that is not what its digest says is refused by the registry.
    pub async fn upload(
        &self,
        to: &Reference,
        blob: &Descriptor,
        mut begun: Option<Begun>,
        feed: &Feed,
        attempts: usize,
    ) -> Result<()> {
        let target = self.target(to).await?;
        let mut attempt = 1;
        // What has just begun has nothing yet, and need not be asked.
        let mut resumed = false;
        let mut waiting = Waiting::new(self.config().patience);
        loop {
            match self.upload_once(&target, blob, &mut begun, resumed, feed).await {
                Err(error) if attempt < attempts && (error.is_transient() || is_lost(&error)) => {
                    tracing::info!(blob = blob.digest.short(), %error, attempt, "going on with an upload");
                    if is_lost(&error) {
                        begun = None;
                    }
                    resumed = begun.is_some();
                    tokio::time::sleep(Duration::from_millis(200 << attempt.min(8))).await;
                    attempt += 1;
                }
                Err(Error::Overload { authority, is_limit, message, wait }) => {
                    let status = if is_limit {
                        StatusCode::TOO_MANY_REQUESTS
                    } else {
                        StatusCode::SERVICE_UNAVAILABLE
                    };
                    let Some(pause) = waiting.pause(wait) else {
                        return Err(Error::Overload { authority, is_limit, message, wait });
                    };
                    resumed = begun.is_some();
                    self.wait(authority, status, pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn upload_once(
        &self,
        target: &Target<'_>,
        blob: &Descriptor,
        begun: &mut Option<Begun>,
        resumed: bool,
        feed: &Feed,
    ) -> Result<()> {
        let known = match begun.take() {
            Some(upload) if resumed => self.progress(target, upload).await?,
            Some(upload) => Some((upload, 0)),
            None => None,
        };
        let (upload, offset) = match known.filter(|(_, offset)| *offset <= blob.size) {
            Some(found) => found,
            None => (self.begin(target).await?, 0),
        };
        *begun = Some(upload.clone());
        let mut place = upload.0;
        if offset < blob.size {
            place = self.patch(target, &place, blob, offset, feed).await?;
            *begun = Some(Begun(place.clone()));
        }
        place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let mut call = Call::new(Method::PUT, place);
        call.content_type = Some("application/octet-stream");
        let (answer, operation) = self.authorized(target, None, call, &Wanted::default()).await?;
        if answer.status().is_success() { Ok(()) } else { Err(refused(answer, operation).await) }
    }

    async fn begin(&self, target: &Target<'_>) -> Result<Begun> {
        let url = target.url("blobs/uploads/")?;
        let call = Call::new(Method::POST, url.clone());
        let (answer, operation) = self.authorized(target, None, call, &Wanted::default()).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(refused(answer, operation).await);
        }
        Ok(Begun(location(&answer, &url, &operation)?))
    }

    /// How many bytes of an upload the registry has; none if it knows nothing of it any more.
    async fn progress(&self, target: &Target<'_>, upload: Begun) -> Result<Option<(Begun, u64)>> {
        let call = Call::new(Method::GET, upload.0.clone());
        let (answer, operation) = self.authorized(target, None, call, &Wanted::default()).await?;
        if !answer.status().is_success() {
            tracing::debug!(operation, status = %answer.status(), "an upload begins again");
            return Ok(None);
        }
        let place = location(&answer, &upload.0, &operation).unwrap_or(upload.0);
        let range = answer.headers().get(RANGE).and_then(|value| value.to_str().ok());
        Ok(range.and_then(received).map(|offset| (Begun(place), offset)))
    }

    /// Sends the rest of a blob, and gives the place where the upload goes on.
    async fn patch(
        &self,
        target: &Target<'_>,
        place: &Url,
        blob: &Descriptor,
        offset: u64,
        feed: &Feed,
    ) -> Result<Url> {
        let mut place = place.clone();
        for _ in 0..=REDIRECTS {
            match self.patch_once(target, &place, blob, offset, feed).await? {
                Patched::Taken(next) => return Ok(next),
                Patched::Moved(elsewhere) => place = elsewhere,
            }
        }
        Err(Error::malformed(&format!("PATCH {}", without_query(&place)), "redirected too often"))
    }

    /// Sends the rest of a blob to one place.
    async fn patch_once(
        &self,
        target: &Target<'_>,
        place: &Url,
        blob: &Descriptor,
        offset: u64,
        feed: &Feed,
    ) -> Result<Patched> {
        let operation = format!("PATCH {}", without_query(place));
        let is_own = place.origin() == target.source.base.origin();
        let header = self.known(&target.key(&target.scope(None))).filter(|_| is_own);
        let mut request = self
            .request(Method::PATCH, place, header.as_deref(), &operation)?
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size - offset);
        if offset > 0 {
            request = request.header(CONTENT_RANGE, format!("{offset}-{}", blob.size - 1));
        }
        let (going, body) = Going::new(feed(offset));
        let mut request = request.body(body).map_err(|error| Error::malformed(&operation, error))?;
        request.extensions_mut().insert(going.sent.clone());
        let endpoint = self.endpoint(place, &operation)?;
        // Its bytes are read as they go: over a connection that may have ended, it would have to begin again.
        let outcome = self.shared.pool.send_once(&endpoint, request, &operation, CONNECT).await;
        if let Some(source) = going.failure() {
            return Err(Error::Feed { digest: blob.digest.clone(), source });
        }
        let answer = outcome?;
        if let Some(elsewhere) = moved(&answer, place) {
            going.stop();
            return Ok(Patched::Moved(elsewhere));
        }
        if answer.status() == StatusCode::UNAUTHORIZED
            && is_own
            && let Some(fresh) = self.authorize(target, place, &answer, &target.scope(None)).await?
            && header.as_ref() != Some(&fresh)
        {
            // The token ended while bytes went: the next attempt has another.
            going.stop();
            return Err(Error::Timeout { operation, seconds: 0 });
        }
        if !answer.status().is_success() {
            going.stop();
            return Err(refused(answer, operation).await);
        }
        location(&answer, place, &operation).map(Patched::Taken)
    }

    /// Puts a manifest or index under the tag or digest of `to`.
    ///
    /// # Errors
    /// Refusals; a registry that computes another digest.
    pub async fn put_manifest(&self, to: &Reference, media_type: &str, bytes: Vec<u8>) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        let name = match (to.digest(), to.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let target = self.target(to).await?;
        let mut call = Call::new(Method::PUT, target.url(&format!("manifests/{name}"))?);
        call.content_type = Some(media_type);
        call.body = bytes.into();
        let (answer, operation) = self.authorized(&target, None, call, &Wanted::default()).await?;
        if !answer.status().is_success() {
            return Err(refused(answer, operation).await);
        }
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match said.map(str::parse::<Digest>) {
            Some(Ok(actual)) if actual.algorithm() == digest.algorithm() && actual != digest => {
                Err(Error::WrongDigest { reference: to.familiar(), actual, expected: digest.to_string() })
            }
            _ => Ok(digest),
        }
    }

    /// A short request, with what authorization it needs; `from` is a repository that it reads too.
    async fn authorized(
        &self,
        target: &Target<'_>,
        from: Option<&str>,
        call: Call<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<(Response<Incoming>, String)> {
        // Uploads may go on elsewhere; what authorizes is for the registry alone.
        let own = call.url.origin() == target.source.base.origin();
        let scope = target.scope(from);
        let known = self.known(&target.key(&scope)).filter(|_| own);
        let (answer, operation) = self.call(&call, known.as_deref(), wanted).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !own {
            return Ok((answer, operation));
        }
        match self.authorize(target, &call.url, &answer, &scope).await? {
            Some(header) => self.call(&call, Some(&header), wanted).await,
            None => Ok((answer, operation)),
        }
    }

    /// What a refused request lacked; none if there is nothing more to offer.
    async fn authorize(
        &self,
        target: &Target<'_>,
        url: &Url,
        answer: &Response<Incoming>,
        scope: &str,
    ) -> Result<Option<String>> {
        let credentials = target.source.credentials;
        let (header, lifetime) = match challenge_of(answer.headers()) {
            Some(Challenge::Bearer { realm, service, .. }) => {
                let token = self.token(url, &realm, service.as_deref(), scope, credentials).await;
                let token = token.map_err(as_refusal)?;
                (format!("Bearer {}", token.token), token.lifetime)
            }
            Some(Challenge::Basic) => match credentials.and_then(Credentials::header) {
                Some(header) => (header, PASSWORD),
                None => return Err(Error::Refused { message: "no basic auth credentials".to_owned() }),
            },
            None => return Ok(None),
        };
        self.keep(target.key(scope), header.clone(), lifetime);
        Ok(Some(header))
    }

    async fn call(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
        wanted: &Wanted<'_>,
    ) -> Result<(Response<Incoming>, String)> {
        if wanted.head {
            return self.follow(call.url.clone(), wanted, authorization).await;
        }
        let mut url = call.url.clone();
        let mut waiting = Waiting::new(self.config().patience);
        for _ in 0..=REDIRECTS {
            let operation = format!("{} {}", call.method, without_query(&url));
            let request = || {
                let mut request = self.request(call.method.clone(), &url, authorization, &operation)?;
                if let Some(content_type) = call.content_type {
                    request = request.header(CONTENT_TYPE, content_type);
                }
                let body = Full::new(call.body.clone()).map_err(|never| match never {}).boxed_unsync();
                request.body(body).map_err(|error| Error::malformed(&operation, error))
            };
            let answer = self.insist(&url, &operation, &mut waiting, request).await?;
            match moved(&answer, &url) {
                Some(place) => url = place,
                None => return Ok((answer, operation)),
            }
        }
        let operation = format!("{} {}", call.method, without_query(&call.url));
        Err(Error::malformed(&operation, "redirected too often"))
    }
}

/// Where the same request is to be sent instead (RFC 9110, 15.4.8 and 15.4.9). What writes goes nowhere but to the server that
/// it is for.
fn moved(answer: &Response<Incoming>, asked: &Url) -> Option<Url> {
    let is_moved = matches!(answer.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let place = answer.headers().get(LOCATION).filter(|_| is_moved)?;
    let place = asked.join(place.to_str().ok()?).ok()?;
    (place.origin() == asked.origin()).then_some(place)
}

pub(crate) fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    challenge::choose(values.filter_map(|value| value.to_str().ok()))
}

/// The words for a realm that refuses are those of a pull; here they are the registry's alone.
pub(crate) fn as_refusal(error: Error) -> Error {
    match error {
        Error::Denied { message, .. } if message.contains(": ") => Error::Refused { message },
        Error::Denied { message, .. } => Error::Refused { message: format!("unauthorized: {message}") },
        Error::Overload { is_limit: true, message, .. } => {
            let words = message.trim_start_matches("toomanyrequests: ");
            Error::Refused { message: format!("toomanyrequests: {words}") }
        }
        error => error,
    }
}

/// The registry lost the upload, or holds something else of it.
fn is_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::Status { status: StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE, operation, .. }
            if operation.contains("/blobs/uploads/")
    )
}

/// Where an upload goes on.
fn location(answer: &Response<Incoming>, asked: &Url, operation: &str) -> Result<Url> {
    let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let place = text.and_then(|text| asked.join(text).ok());
    let place = place.ok_or_else(|| Error::malformed(operation, "the answer does not say where to go on"))?;
    if asked.scheme() == "https" && place.scheme() != "https" {
        return Err(Error::malformed(operation, "the upload is to go on without TLS"));
    }
    Ok(place)
}

/// Bytes received, of a `Range` such as `0-99`; registries say `0-0` for nothing too.
fn received(range: &str) -> Option<u64> {
    let last: u64 = range.trim().trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// Turns an answer that is no success into an error, in the registry's words.
async fn refused(answer: Response<Incoming>, operation: String) -> Error {
    let status = answer.status();
    let headers = answer.headers().clone();
    let bytes = read_all(answer, SHORT, &operation).await.unwrap_or_default();
    match status {
        StatusCode::UNAUTHORIZED => {
            Error::Refused { message: words(&bytes, "unauthorized: authentication required") }
        }
        StatusCode::FORBIDDEN => {
            Error::Refused { message: words(&bytes, "denied: requested access to the resource is denied") }
        }
        status if patience::is_overload(status) => {
            patience::overload(host_of(&operation), status, &headers, words(&bytes, "no reason given"))
        }
        _ => Error::Status { operation, status, message: words(&bytes, "no reason given") },
    }
}

/// Host and port of the address that an operation names.
pub(crate) fn host_of(operation: &str) -> String {
    let address = operation.split(' ').nth(1).and_then(|address| Url::parse(address).ok());
    address.map_or_else(|| operation.to_owned(), |address| authority_of(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_read_from_ranges() {
        assert_eq!(received("0-99"), Some(100));
        assert_eq!(received("bytes=0-99"), Some(100));
        assert_eq!(received("0-0"), Some(0));
        assert_eq!(received(&format!("0-{}", u64::MAX)), None);
        assert_eq!(received("x"), None);
    }
}
