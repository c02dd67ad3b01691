//! Authorization plugins: programs that see every request before it is obeyed, and every answer before it is sent.
//!
//! What a plugin judges is what is done (R13): it is shown the path as it was understood, and the very bytes that are
//! parsed afterwards. A body that cannot be shown whole is refused. Archives and streams are not shown; the routes that
//! take them cannot read a document from them, and those that take documents refuse a body that was not shown.

mod message;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use berth_engine::plugin::{Directories, Plugin, PluginError};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::call::Call;
use crate::certificate::Peer;
use crate::failure::Failure;
use crate::incoming::ReadError;
use message::{Judgement, Message};

/// What plugins of this kind say they implement.
const INTERFACE: &str = "authz";
/// Asks about a request.
const REQUEST: &str = "AuthZPlugin.AuthZReq";
/// Asks about an answer.
const RESPONSE: &str = "AuthZPlugin.AuthZRes";
/// Largest body that is shown, in bytes; as large as a document may be.
pub const LARGEST_BODY: usize = 4 << 20;

type Chain = Arc<[Plugin]>;

/// The plugins that are asked, in order.
#[derive(Debug, Default)]
pub struct Authorization(RwLock<Chain>);

/// A request that all plugins let through, and those that will be asked about its answer.
#[derive(Debug)]
pub struct Admitted {
    chain: Chain,
    message: Message,
}

impl Authorization {
    /// Finds the plugins with these names, each once. One that is not there yet is waited for as long as `patience`.
    pub async fn find(names: &[String], patience: Duration) -> Result<Vec<Plugin>, PluginError> {
        let directories = Directories::default();
        let mut found: Vec<Plugin> = Vec::with_capacity(names.len());
        for name in names {
            if !found.iter().any(|plugin| plugin.name() == name) {
                found.push(Plugin::activate(&directories, name, INTERFACE, patience).await?);
            }
        }
        Ok(found)
    }

    /// Asks these from now on. Requests that were admitted already are judged to their end by those that admitted them.
    pub fn replace(&self, plugins: Vec<Plugin>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = plugins.into();
    }

    fn chain(&self) -> Chain {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows a request to all plugins. Fails if one of them denies it or cannot be asked; none if there are no plugins.
    pub async fn admit(&self, call: &mut Call, peer: Option<&Peer>) -> Result<Option<Admitted>, Failure> {
        let chain = self.chain();
        if chain.is_empty() {
            return Ok(None);
        }
        let body = shown_body(call).await?;
        let message = Message::of(call, peer, body);
        let admitted = Admitted { chain, message };
        admitted.ask(REQUEST).await?;
        Ok(Some(admitted))
    }
}

/// The body as plugins see it: documents only, and never credentials.
async fn shown_body(call: &mut Call) -> Result<Bytes, Failure> {
    if call.path.split('/').find(|part| !part.is_empty()) == Some("auth") {
        return Ok(Bytes::new());
    }
    if !is_document(call.request.headers()) {
        call.request.body_mut().withhold();
        return Ok(Bytes::new());
    }
    body_failure(call.request.body_mut().read_ahead(LARGEST_BODY).await)
}

fn body_failure(read: Result<Bytes, ReadError>) -> Result<Bytes, Failure> {
    read.map_err(|error| match error {
        ReadError::TooLarge => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("request body too large for authorization plugin: size exceeds {LARGEST_BODY} bytes"),
        ),
        ReadError::Broken(why) => Failure::invalid(format!("cannot read the request body: {why}")),
    })
}

/// Whether a body is a document by its headers.
fn is_document(headers: &HeaderMap) -> bool {
    let value = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

impl Admitted {
    /// Shows the answer to all plugins; what one of them denies is not sent. A stream is judged by its head, before any
    /// of it is sent. What failed is told as it is.
    pub async fn release(mut self, response: Response<Body>) -> Response<Body> {
        let failed = !response.status().is_success() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        self.message.answer(&response, is_document(response.headers()));
        match self.ask(RESPONSE).await {
            Err(failure) if !failed => failure.into_response(),
            _ => response,
        }
    }

    async fn ask(&self, method: &'static str) -> Result<(), Failure> {
        for plugin in self.chain.iter() {
            let name = plugin.name();
            let judgement: Judgement = plugin.call(method, &self.message).await.map_err(|error| {
                tracing::error!(plugin = name, %error, "an authorization plugin failed");
                let text = format!("plugin {name} failed with error: {error}");
                Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            })?;
            if !judgement.allow {
                let text = format!("authorization denied by plugin {name}: {}", judgement.message);
                tracing::info!(
                    plugin = name,
                    uri = self.message.uri(),
                    "an authorization plugin denied a request"
                );
                return Err(Failure::new(StatusCode::FORBIDDEN, text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, HeaderValue};

    use super::*;

    #[test]
    fn documents_are_told_by_their_type() {
        for (text, document) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/x-tar", false),
            ("text/plain", false),
            ("application/json-seq", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(is_document(&headers), document, "{text}");
        }
        assert!(!is_document(&HeaderMap::new()));
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let failure = body_failure(Err(ReadError::TooLarge)).unwrap_err();
        assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(failure.message.ends_with("size exceeds 4194304 bytes"), "{}", failure.message);
        assert_eq!(body_failure(Err(ReadError::Broken("x".into()))).unwrap_err().status, 400);
    }
}
