//! Tokens from realms (<https://distribution.github.io/distribution/spec/auth/token/>).

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use url::Url;

use crate::auth::{Token, TokenAnswer};
use crate::client::{SHORT, Wanted, authority_of, read_all, without_query, words};
use crate::patience::{self, Waiting};
use crate::upload::host_of;
use crate::{Client, Credentials, Error, Result};

/// What this client is called to realms; they know Docker's.
const CLIENT: &str = "docker";

/// What a token is wanted for.
#[derive(Debug, Default)]
pub(crate) struct Grant<'a> {
    /// The service that the registry named.
    pub service: Option<&'a str>,
    /// Scopes, divided by spaces; empty for none.
    pub scope: &'a str,
    /// Whether a token for further logins is wanted too.
    pub offline: bool,
}

impl Client {
    /// A token for `scope` from `realm`.
    pub(crate) async fn token(
        &self,
        registry: &Url,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Token> {
        self.grant(registry, realm, &Grant { service, scope, offline: false }, credentials).await
    }

    /// A token from `realm`, which the registry at `registry` named.
    pub(crate) async fn grant(
        &self,
        registry: &Url,
        realm: &str,
        grant: &Grant<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Token> {
        if let Some(Credentials::Token(token)) = credentials {
            let lifetime = Duration::from_secs(60);
            return Ok(Token { token: token.clone(), lifetime, identity: None });
        }
        let malformed =
            |reason: String| Error::Malformed { operation: format!("authorize for {registry}"), reason };
        let url = Url::parse(realm).map_err(|error| malformed(format!("realm {realm:?}: {error}")))?;
        // A registry that is itself in the clear has nothing to lose; another must not make secrets go in the clear.
        let encrypted = url.scheme() == "https";
        if !encrypted && (url.scheme() != "http" || registry.scheme() == "https") {
            return Err(Error::Realm { authority: authority_of(registry), realm: realm.to_owned() });
        }
        let (answer, operation) = match credentials {
            Some(Credentials::Identity(token)) => self.exchange(&url, token, grant).await?,
            _ => self.ask(url, grant, credentials).await?,
        };
        let status = answer.status();
        let headers = answer.headers().clone();
        let bytes = read_all(answer, SHORT, &operation).await?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let otherwise = match (status, credentials) {
                (StatusCode::FORBIDDEN, _) => {
                    let shown = String::from_utf8_lossy(bytes.get(..200).unwrap_or(&bytes));
                    &format!("error parsing HTTP 403 response body: {shown:?}")
                }
                (_, None) => "unauthorized: authentication required",
                (_, Some(_)) => "unauthorized: incorrect username or password",
            };
            let message = words(&bytes, otherwise);
            return Err(Error::Denied { repository: repository_of(grant.scope), message });
        }
        if patience::is_overload(status) {
            let message = words(&bytes, "no reason given");
            return Err(patience::overload(host_of(&operation), status, &headers, message));
        }
        if !status.is_success() {
            return Err(Error::Status { operation, status, message: words(&bytes, "no token") });
        }
        TokenAnswer::read(&bytes).map_err(malformed)
    }

    /// Asks with a password, or with nothing.
    async fn ask(
        &self,
        mut url: Url,
        grant: &Grant<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<(http::Response<hyper::body::Incoming>, String)> {
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = grant.service {
                query.append_pair("service", service);
            }
            for scope in grant.scope.split(' ').filter(|scope| !scope.is_empty()) {
                query.append_pair("scope", scope);
            }
            if let Some(Credentials::Password { user, .. }) = credentials {
                query.append_pair("account", user);
                if grant.offline {
                    query.append_pair("offline_token", "true").append_pair("client_id", CLIENT);
                }
            }
        }
        let header = credentials.and_then(Credentials::header);
        self.follow(url, &Wanted::default(), header.as_deref()).await
    }

    /// Asks with what an earlier login gave.
    async fn exchange(
        &self,
        url: &Url,
        token: &str,
        grant: &Grant<'_>,
    ) -> Result<(http::Response<hyper::body::Incoming>, String)> {
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
            form.append_pair("service", grant.service.unwrap_or_default()).append_pair("client_id", CLIENT);
            if !grant.scope.is_empty() {
                form.append_pair("scope", grant.scope);
            }
            form.finish()
        };
        let operation = format!("POST {}", without_query(url));
        let request = || {
            let body = Full::new(Bytes::from(form.clone())).map_err(|never| match never {}).boxed_unsync();
            let request = self.request(Method::POST, url, None, &operation)?;
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
            request.map_err(|error| Error::malformed(&operation, error))
        };
        let mut waiting = Waiting::new(self.config().patience);
        // Not redirected: the token is for this realm.
        let answer = self.insist(url, &operation, &mut waiting, request).await?;
        Ok((answer, operation))
    }
}

fn repository_of(scope: &str) -> String {
    scope.split(':').nth(1).unwrap_or(scope).to_owned()
}
