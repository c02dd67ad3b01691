//! One request, taken apart: version, path, parameters, body.

use std::sync::Arc;

use berth_api::filter::Filters;
use berth_api::json;
use berth_api::version::ApiVersion;
use berth_engine::{Caller, Engine};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::accounts;
use crate::failure::Failure;
use crate::incoming::{ReadError, RequestBody};
use crate::words;

/// Largest JSON body that is read, in bytes. Real ones have a few kilobytes.
const JSON_CAP: usize = 4 << 20;

/// A request whose route is not yet known.
pub struct Call {
    /// What answers it.
    pub engine: Arc<Engine>,
    /// The version asked for; the newest if none was.
    pub version: ApiVersion,
    /// The method.
    pub method: Method,
    /// The path below the version, decoded, without the leading slash.
    pub path: String,
    /// The path with the version, decoded.
    pub whole_path: String,
    /// The parameters.
    pub query: Query,
    /// The request itself, for its headers, its body, or its connection.
    pub request: http::Request<RequestBody>,
}

impl Call {
    /// Takes a request apart. Fails for a version that is not spoken here, and for a path that is not text.
    pub fn new(engine: Arc<Engine>, request: http::Request<RequestBody>) -> Result<Self, Failure> {
        let whole_path =
            decode(request.uri().path()).ok_or_else(|| Failure::invalid("invalid URL escape in path"))?;
        let (asked, path) = split_version(&whole_path, engine.oldest_api())?;
        Ok(Self {
            engine,
            version: understood(asked, request.headers()),
            method: request.method().clone(),
            path: path.to_owned(),
            whole_path: whole_path.clone(),
            query: Query::parse(request.uri().query().unwrap_or_default()),
            request,
        })
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// Reads the body as JSON with Go's tolerance; no body gives the default where Docker allows that.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, Failure> {
        let bytes = self.body().await?;
        if bytes.is_empty() { Ok(T::default()) } else { parse_json(&bytes) }
    }

    /// Reads the body as JSON with Go's tolerance; there must be one.
    pub async fn required_json<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let bytes = self.body().await?;
        parse_json(&bytes)
    }

    /// Reads a body that is to be a document, which is empty or has the type of one.
    async fn body(&mut self) -> Result<Bytes, Failure> {
        let content_type = self.headers().get(CONTENT_TYPE).cloned();
        let withheld = self.request.body().is_withheld();
        let bytes = match self.request.body_mut().read_ahead(JSON_CAP).await {
            Ok(bytes) if bytes.is_empty() => return Ok(bytes),
            Ok(bytes) => bytes,
            Err(ReadError::TooLarge) => {
                return Err(Failure::invalid(format!("request body larger than {JSON_CAP} bytes")));
            }
            Err(ReadError::Broken(why)) => {
                return Err(Failure::invalid(format!("cannot read the request body: {why}")));
            }
        };
        let Some(value) = content_type.filter(|value| !value.is_empty()) else {
            return Err(Failure::invalid("malformed Content-Type header (): mime: no media type"));
        };
        let text = value.to_str().unwrap_or_default();
        let media_type = text.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Failure::invalid(format!(
                "unsupported Content-Type header ({text}): must be 'application/json'"
            )));
        }
        if withheld {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "the request's body was not shown to the authorization plugins",
            ));
        }
        Ok(bytes)
    }

    /// On whose behalf registries are asked.
    pub fn caller(&self) -> Caller {
        let agent = self.headers().get(USER_AGENT).map(|value| value.as_bytes().to_vec());
        Caller { auth: accounts::one(self.headers()), accounts: accounts::all(self.headers()), agent }
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // serde reports what follows a document as a syntax error; Docker has a text of its own for it.
    json::from_slice(bytes).map_err(|error| match error.to_string() {
        text if text.starts_with("trailing characters") => Failure::invalid("unexpected content after JSON"),
        _ => Failure::invalid(format!("invalid JSON: {}", words::json(bytes, &error))),
    })
}

/// Splits `/v1.44/containers/json` into the version, which is `oldest` or newer, and `containers/json`.
fn split_version(path: &str, oldest: ApiVersion) -> Result<(ApiVersion, &str), Failure> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let Some((first, below)) = rest.split_once('/') else { return Ok((ApiVersion::NEWEST, rest)) };
    let Some(text) = first.strip_prefix('v').filter(|text| {
        text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    }) else {
        return Ok((ApiVersion::NEWEST, rest));
    };
    let version: ApiVersion = text.parse().map_err(|error| Failure::invalid(format!("{error}")))?;
    if version > ApiVersion::NEWEST {
        return Err(Failure::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            ApiVersion::NEWEST
        )));
    }
    if version < oldest {
        return Err(Failure::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client \
             to a newer version",
            oldest
        )));
    }
    Ok((version, below))
}

/// The newest version whose answers a client understands, at most the one it asked for. Compose 1 asks for the newest that
/// the daemon speaks, but knows the answers of Docker 20.10, which it came with: without their `ContainerConfig` it
/// cannot make a container again, and without events' `id` it cannot follow logs. It will not be mended.
fn understood(asked: ApiVersion, headers: &HeaderMap) -> ApiVersion {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    if agent.starts_with("docker-compose/1.") { asked.min(ApiVersion::new(1, 41)) } else { asked }
}

/// Decodes `%2F` and the like; none if that does not give text.
fn decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`; empty if it was not given.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All values of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of `name`, unless it is empty or missing.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// A switch, on for everything but nothing, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A switch with a default for a missing parameter.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.0.iter().all(|(key, _)| key != name) {
            return default;
        }
        !matches!(self.get(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A whole number; none if missing or empty.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.given(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Failure::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
            })
            .transpose()
    }

    /// The `filters` parameter, in either form.
    pub fn filters(&self) -> Result<Filters, Failure> {
        Filters::parse(self.get("filters")).map_err(|error| Failure::invalid(error.to_string()))
    }

    /// A moment: seconds since 1970 with an optional fraction, or RFC 3339. None if missing, empty, or zero.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, Failure> {
        let Some(text) = self.given(name).filter(|text| *text != "0") else { return Ok(None) };
        parse_moment(text).map(Some).ok_or_else(|| {
            Failure::invalid(format!("invalid value for {name:?}: failed to parse timestamp {text:?}"))
        })
    }
}

fn parse_moment(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else { return text.parse().ok() };
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off_and_checked() {
        let split = |path| {
            split_version(path, ApiVersion::OLDEST)
                .map(|(version, rest)| (version.to_string(), rest.to_owned()))
        };
        assert_eq!(split("/v1.44/containers/json").unwrap(), ("1.44".into(), "containers/json".into()));
        assert_eq!(split("/containers/json").unwrap(), ("1.55".into(), "containers/json".into()));
        assert_eq!(split("/_ping").unwrap(), ("1.55".into(), "_ping".into()));
        assert_eq!(split("/volumes/x").unwrap(), ("1.55".into(), "volumes/x".into()));
        assert_eq!(
            split("/v1.99/info").unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.55"
        );
        assert_eq!(
            split("/v1.23/info").unwrap_err().message,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a \
             newer version"
        );
        let newer = split_version("/v1.40/info", ApiVersion::new(1, 44)).unwrap_err().message;
        assert!(newer.contains("Minimum supported API version is 1.44"), "{newer}");
        for bad in ["/v1/info", "/v1.2.3/info", "/v1.99999/info", "/v1./info"] {
            assert_eq!(split(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn compose_1_gets_the_answers_that_it_understands() {
        let version = |agent: &'static str, minor| {
            let headers = [(USER_AGENT, http::HeaderValue::from_static(agent))].into_iter().collect();
            understood(ApiVersion::new(1, minor), &headers)
        };
        assert_eq!(version("docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1", 55), ApiVersion::new(1, 41));
        assert_eq!(version("docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1", 38), ApiVersion::new(1, 38));
        assert_eq!(version("compose/2.40.3", 55), ApiVersion::new(1, 55));
        assert_eq!(understood(ApiVersion::NEWEST, &HeaderMap::new()), ApiVersion::NEWEST);
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(decode("/images/a%2Fb%3A1/json").unwrap(), "/images/a/b:1/json");
        assert_eq!(decode("/a+b%2520").unwrap(), "/a+b%20");
        for bad in ["/%", "/%2", "/%zz", "/%ff", "/%00", "/%+1"] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn switches_are_read_as_docker_reads_them() {
        let query = Query::parse("a=1&b=0&c=False&d=&e=none&f=yes&g=no&h=%20true%20");
        let on: Vec<&str> = ["a", "b", "c", "d", "e", "f", "g", "h", "missing"]
            .into_iter()
            .filter(|name| query.flag(name))
            .collect();
        assert_eq!(on, ["a", "f", "h"]);
        assert!(query.flag_or("missing", true));
        assert!(!query.flag_or("b", true));
    }

    #[test]
    fn numbers_and_moments_are_checked() {
        let query = Query::parse(
            "t=5&n=-1&x=ten&s=1700000000.25&r=2024-01-02T03:04:05.5Z&z=0&w=yesterday&l=1.1234567890",
        );
        assert_eq!(query.number("t").unwrap(), Some(5));
        assert_eq!(query.number("n").unwrap(), Some(-1));
        assert_eq!(query.number("missing").unwrap(), None);
        assert_eq!(query.number("x").unwrap_err().message, "strconv.Atoi: parsing \"ten\": invalid syntax");
        assert_eq!(query.moment("s").unwrap().unwrap().as_nanosecond(), 1_700_000_000_250_000_000);
        assert_eq!(query.moment("r").unwrap().unwrap().to_string(), "2024-01-02T03:04:05.5Z");
        assert_eq!(query.moment("z").unwrap(), None);
        assert!(query.moment("w").is_err());
        assert!(query.moment("l").is_err());
    }

    #[test]
    fn bad_json_has_dockers_words() {
        let message = |text: &str| parse_json::<Vec<u8>>(text.as_bytes()).unwrap_err().message;
        assert_eq!(message(" "), "invalid JSON: EOF");
        assert_eq!(message("[1] x"), "unexpected content after JSON");
        assert!(message("{").starts_with("invalid JSON: "));
        assert!(message("\"text\"").starts_with("invalid JSON: "));
    }
}
