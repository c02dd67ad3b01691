//! What authorization plugins are shown, in the form of Docker's protocol.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Response};
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::call::Call;
use crate::certificate::Peer;

/// A request and, the second time, its answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(rename = "UserAuthNMethod", skip_serializing_if = "Option::is_none")]
    user_method: Option<&'static str>,
    request_method: String,
    request_uri: String,
    /// In base64, as Go writes bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    request_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_peer_certificates: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    response_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_headers: BTreeMap<String, String>,
}

/// What a plugin says.
#[derive(Debug, Deserialize)]
pub struct Judgement {
    /// Whether it lets the request or the answer through. Silence denies.
    #[serde(rename = "Allow", default)]
    pub allow: bool,
    /// Why not.
    #[serde(rename = "Msg", default)]
    pub message: String,
}

impl Message {
    /// A request with the part of its body that is shown.
    pub fn of(call: &Call, peer: Option<&Peer>, body: Bytes) -> Self {
        Self {
            user: peer.map(|peer| peer.user.clone()).unwrap_or_default(),
            user_method: peer.map(|_| "TLS"),
            request_method: call.method.to_string(),
            request_uri: uri(&call.whole_path, call.request.uri().query()),
            request_body: STANDARD.encode(body),
            request_headers: headers(call.request.headers()),
            request_peer_certificates: peer.map_or_else(Vec::new, |peer| {
                peer.certificates.iter().map(|pem| STANDARD.encode(pem)).collect()
            }),
            ..Self::default()
        }
    }

    /// Adds the answer: its body too if that is a document that is known whole.
    pub fn answer(&mut self, response: &Response<Body>, document: bool) {
        self.response_status_code = Some(response.status().as_u16());
        self.response_headers = headers(response.headers());
        if let (true, Body::Full(bytes)) = (document, response.body()) {
            self.response_body = STANDARD.encode(bytes);
        }
    }

    /// What was asked for.
    pub fn uri(&self) -> &str {
        &self.request_uri
    }
}

/// The path as it was understood, in the one way to write it, and the parameters. A plugin that compares text must not be
/// fooled by `//` or by `%63`.
fn uri(path: &str, query: Option<&str>) -> String {
    let mut uri = String::with_capacity(path.len() + 1);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        uri.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if uri.is_empty() {
        uri.push('/');
    }
    if let Some(query) = query {
        uri.push('?');
        uri.push_str(query);
    }
    uri
}

/// Headers with the names that Go gives them, without credentials. Of several with one name the last counts.
fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    const LEFT_OUT: [&str; 5] =
        ["authorization", "x-registry-auth", "x-registry-config", "host", "transfer-encoding"];
    headers
        .iter()
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .map(|(name, value)| {
            (canonical(name.as_str()), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// `Content-Type` of `content-type`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|letter| {
            let letter = if upper { letter.to_ascii_uppercase() } else { letter };
            upper = letter == '-';
            letter
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_path_is_written_in_one_way() {
        for (path, query, expected) in [
            ("/v1.44/containers/json", Some("all=1&x=%2F"), "/v1.44/containers/json?all=1&x=%2F"),
            ("//v1.44//containers/create/", None, "/v1.44/containers/create"),
            ("/images/a/b:1@sha256:cc/json", None, "/images/a/b:1@sha256:cc/json"),
            ("/containers/a b?ü/json", None, "/containers/a%20b%3F%C3%BC/json"),
            ("/containers/100%/json", None, "/containers/100%25/json"),
            ("/", None, "/"),
        ] {
            assert_eq!(uri(path, query), expected, "{path}");
        }
    }

    #[test]
    fn headers_are_told_without_credentials() {
        let list = [
            ("content-type", "application/json"),
            ("authorization", "Basic x"),
            ("x-registry-auth", "secret"),
            ("x-registry-config", "secret"),
            ("user-agent", "one"),
            ("user-agent", "two"),
        ];
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let expected = [("Content-Type", "application/json"), ("User-Agent", "two")];
        assert_eq!(headers(&map), expected.map(|(name, value)| (name.into(), value.into())).into());
    }

    #[test]
    fn the_protocol_is_dockers() {
        let mut message = Message {
            user: "client".into(),
            user_method: Some("TLS"),
            request_method: "GET".into(),
            request_uri: "/info".into(),
            request_body: STANDARD.encode("{}"),
            ..Message::default()
        };
        let shown = serde_json::to_value(&message).unwrap();
        let expected = serde_json::json!({
            "User": "client", "UserAuthNMethod": "TLS", "RequestMethod": "GET", "RequestUri": "/info",
            "RequestBody": "e30=",
        });
        assert_eq!(shown, expected);
        message.answer(&Response::new(Body::from("x")), true);
        let shown = serde_json::to_value(&message).unwrap();
        assert_eq!((&shown["ResponseStatusCode"], &shown["ResponseBody"]), (&200.into(), &"eA==".into()));
    }

    #[test]
    fn silence_denies() {
        assert!(!serde_json::from_str::<Judgement>("{}").unwrap().allow);
        assert!(serde_json::from_str::<Judgement>(r#"{"Allow": true}"#).unwrap().allow);
    }
}
