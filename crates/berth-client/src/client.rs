//! Requests and their answers.

use std::io;
use std::sync::{Mutex, PoisonError};

use berth_api::system::Ping;
use berth_api::version::ApiVersion;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{ResponseBody, checked, decode, gather, refusal, text};
use crate::error::Error;
use crate::hijack::Hijacked;
use crate::host::Host;
use crate::transport::Transport;

/// Connections kept for later requests.
const MOST_IDLE: usize = 4;
/// Sent as `User-Agent`.
const AGENT: &str = concat!("Berth-Client/", env!("CARGO_PKG_VERSION"), " (linux)");

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;
type Sender = SendRequest<RequestBody>;

/// A client of one server. Requests may run at the same time; each has a connection of its own meanwhile.
#[derive(Debug)]
pub struct Client {
    host: Host,
    idle: Mutex<Vec<Sender>>,
    version: Mutex<Version>,
    /// Sent with every request.
    headers: HeaderMap,
}

/// What is known about the version to speak.
#[derive(Debug, Clone, Copy)]
struct Version {
    value: ApiVersion,
    /// The user insists on it.
    pinned: bool,
    /// The server has answered to it.
    settled: bool,
}

/// What is sent beside method and path.
enum Payload {
    /// Nothing.
    Empty,
    /// Can be sent again.
    Bytes(Bytes),
}

impl Client {
    /// Connects, so that an absent server is known before anything is asked of it.
    pub async fn connect(host: &Host) -> Result<Self, Error> {
        let client = Self {
            host: host.clone(),
            idle: Mutex::default(),
            version: Mutex::new(Version { value: ApiVersion::NEWEST, pinned: false, settled: false }),
            headers: HeaderMap::new(),
        };
        let sender = client.open().await?;
        client.put_back(sender);
        Ok(client)
    }

    /// Speaks this version and no other.
    #[must_use]
    pub fn pin_version(self, version: ApiVersion) -> Self {
        *lock(&self.version) = Version { value: version, pinned: true, settled: true };
        self
    }

    /// Sends these headers with every request, except those that HTTP or this client sets itself.
    #[must_use]
    pub fn with_headers(mut self, mut headers: HeaderMap) -> Self {
        for reserved in
            [HOST, USER_AGENT, CONNECTION, UPGRADE, CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING]
        {
            headers.remove(reserved);
        }
        self.headers = headers;
        self
    }

    /// A connection to `host` without HTTP: whatever the caller makes of it.
    pub async fn dial(host: &Host) -> Result<Hijacked, Error> {
        let transport =
            Transport::connect(host).await.map_err(|source| Error::Connect { host: host.clone(), source })?;
        Ok(Hijacked { transport, prefix: Bytes::new(), content_type: String::new() })
    }

    /// The server.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The version that requests ask for now.
    pub fn version(&self) -> ApiVersion {
        lock(&self.version).value
    }

    /// Asks what the server is, and settles the version.
    pub async fn ping(&self) -> Result<Ping, Error> {
        let request = self.request(&Method::GET, "/_ping", &Payload::Empty, false)?;
        let response = self.exchange(request, "GET /_ping").await?;
        let headers = response.headers().clone();
        let status = response.status();
        let body = gather(response, "GET /_ping").await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        self.settle(&headers);
        let text = |name: &str| text(&headers, name);
        Ok(Ping {
            api_version: text("api-version"),
            os_type: text("ostype"),
            experimental: text("docker-experimental") == "true",
            builder_version: text("builder-version"),
            swarm: text("swarm"),
            client_session: text("berth-client-session") == "1",
            build_extensions: text("berth-build"),
        })
    }

    /// `GET`, with an answer in JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        decode(&self.get_bytes(path).await?, || format!("GET {path}"))
    }

    /// `GET`, with the answer as it came.
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, Error> {
        let response = self.send(Method::GET, path, Payload::Empty).await?;
        gather(response, path).await
    }

    /// As [`Client::get`], with one more header.
    pub async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        name: &str,
        value: &str,
    ) -> Result<T, Error> {
        if !lock(&self.version).settled {
            self.ping().await?;
        }
        let operation = format!("GET {path}");
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let request = self
            .builder(&Method::GET, path, true)
            .header(name, value)
            .body(body)
            .map_err(|source| Error::Request { operation: operation.clone(), source })?;
        let response = self.exchange(request, &operation).await?;
        let bytes = gather(checked(response, &operation).await?, path).await?;
        decode(&bytes, || operation.clone())
    }

    /// `GET` with an answer that is a stream.
    pub async fn get_stream(&self, path: &str) -> Result<ResponseBody, Error> {
        Ok(ResponseBody {
            operation: format!("GET {path}"),
            response: self.send(Method::GET, path, Payload::Empty).await?,
        })
    }

    /// `HEAD`: one header of the answer; empty if it has none.
    pub async fn head(&self, path: &str, header: &str) -> Result<String, Error> {
        let response = self.send(Method::HEAD, path, Payload::Empty).await?;
        Ok(text(response.headers(), header))
    }

    /// `PUT` of a stream; whatever the answer holds is dropped.
    pub async fn put_stream<S>(&self, path: &str, content_type: &str, body: S) -> Result<(), Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.stream(Method::PUT, path, content_type, None, body).await?.all().await.map(drop)
    }

    /// `POST` without a body; whatever the answer holds is dropped.
    pub async fn post_empty(&self, path: &str) -> Result<StatusCode, Error> {
        let response = self.send(Method::POST, path, Payload::Empty).await?;
        let status = response.status();
        gather(response, path).await?;
        Ok(status)
    }

    /// `POST` of JSON, with an answer in JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let response = self.send(Method::POST, path, json(path, body)?).await?;
        decode(&gather(response, path).await?, || format!("POST {path}"))
    }

    /// `POST` of JSON; whatever the answer holds is dropped.
    pub async fn post_json(&self, path: &str, body: &impl Serialize) -> Result<StatusCode, Error> {
        let response = self.send(Method::POST, path, json(path, body)?).await?;
        let status = response.status();
        gather(response, path).await?;
        Ok(status)
    }

    /// `POST` without a body, with an answer that is a stream.
    pub async fn post_for_stream(&self, path: &str) -> Result<ResponseBody, Error> {
        Ok(ResponseBody {
            operation: format!("POST {path}"),
            response: self.send(Method::POST, path, Payload::Empty).await?,
        })
    }

    /// As [`Client::post_for_stream`], with one more header.
    pub async fn post_for_stream_with(
        &self,
        path: &str,
        name: &str,
        value: &str,
    ) -> Result<ResponseBody, Error> {
        self.post_for_stream_with_all(path, &[(name, value)]).await
    }

    /// The same with several more headers.
    pub async fn post_for_stream_with_all(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<ResponseBody, Error> {
        let operation = format!("POST {path}");
        if !lock(&self.version).settled {
            self.ping().await?;
        }
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let begun = self.builder(&Method::POST, path, true);
        let request = headers.iter().fold(begun, |request, (name, value)| request.header(*name, *value));
        let request =
            request.body(body).map_err(|source| Error::Request { operation: operation.clone(), source })?;
        let response = self.exchange(request, &operation).await?;
        Ok(ResponseBody { response: checked(response, &operation).await?, operation })
    }

    /// `POST` of a stream, with an answer that is a stream.
    pub async fn post_stream<S>(&self, path: &str, content_type: &str, body: S) -> Result<ResponseBody, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.stream(Method::POST, path, content_type, None, body).await
    }

    /// As [`Client::post_stream`], with one more header: its name and value.
    pub async fn post_stream_with<S>(
        &self,
        path: &str,
        content_type: &str,
        header: (&str, &str),
        body: S,
    ) -> Result<ResponseBody, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.stream(Method::POST, path, content_type, Some(header), body).await
    }

    async fn stream<S>(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        header: Option<(&str, &str)>,
        body: S,
    ) -> Result<ResponseBody, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let operation = format!("{method} {path}");
        if !lock(&self.version).settled {
            self.ping().await?;
        }
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed_unsync();
        let mut builder = self.builder(&method, path, true).header(CONTENT_TYPE, content_type);
        if let Some((name, value)) = header {
            builder = builder.header(name, value);
        }
        let request =
            builder.body(body).map_err(|source| Error::Request { operation: operation.clone(), source })?;
        let response = self.exchange(request, &operation).await?;
        Ok(ResponseBody { response: checked(response, &operation).await?, operation })
    }

    /// `DELETE`, with the answer as it came.
    pub async fn delete(&self, path: &str) -> Result<Bytes, Error> {
        let response = self.send(Method::DELETE, path, Payload::Empty).await?;
        gather(response, path).await
    }

    /// `POST` that takes the connection over as a stream in both directions.
    pub async fn hijack(&self, path: &str, body: Option<&impl Serialize>) -> Result<Hijacked, Error> {
        let operation = format!("POST {path}");
        let payload = body.map_or(Ok(Payload::Empty), |body| json(path, body))?;
        let response = self.send_with(&Method::POST, path, &payload, true).await?;
        upgraded(response, operation).await
    }

    /// `POST` that makes the connection one of HTTP/2, on which this end serves. `headers` go with the request.
    pub async fn session(&self, headers: HeaderMap) -> Result<Hijacked, Error> {
        let path = "/session";
        let operation = format!("POST {path}");
        if !lock(&self.version).settled {
            self.ping().await?;
        }
        let mut request = self.request(&Method::POST, path, &Payload::Empty, true)?;
        request.headers_mut().extend(headers);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
        let response = self.exchange(request, &operation).await?;
        upgraded(checked(response, &operation).await?, operation).await
    }

    /// Sends a request that can be sent again, and checks the answer's status.
    async fn send(&self, method: Method, path: &str, payload: Payload) -> Result<Response<Incoming>, Error> {
        self.send_with(&method, path, &payload, false).await
    }

    async fn send_with(
        &self,
        method: &Method,
        path: &str,
        payload: &Payload,
        upgrade: bool,
    ) -> Result<Response<Incoming>, Error> {
        let operation = format!("{method} {path}");
        loop {
            let asked = self.version();
            let mut request = self.request(method, path, payload, true)?;
            if upgrade {
                request.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
                request.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("tcp"));
            }
            let response = self.exchange(request, &operation).await?;
            let headers = response.headers().clone();
            match checked(response, &operation).await {
                Err(Error::Server { status: StatusCode::BAD_REQUEST, message })
                    if message.contains("is too new") && self.settle(&headers) && self.version() < asked =>
                {
                    continue;
                }
                outcome => {
                    lock(&self.version).settled = true;
                    return outcome;
                }
            }
        }
    }

    /// Takes the version that the server says it speaks, if it is older. False if the user insists on another.
    fn settle(&self, headers: &HeaderMap) -> bool {
        let mut version = lock(&self.version);
        if version.pinned {
            return false;
        }
        // A server that does not say is from before it was said.
        let theirs = headers
            .get("api-version")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(ApiVersion::OLDEST);
        version.value = version.value.min(theirs);
        version.settled = true;
        true
    }

    fn builder(&self, method: &Method, path: &str, versioned: bool) -> http::request::Builder {
        let uri = if versioned { format!("/v{}{path}", self.version()) } else { path.to_owned() };
        let mut builder = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, self.host.authority())
            .header(USER_AGENT, AGENT);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        payload: &Payload,
        versioned: bool,
    ) -> Result<Request<RequestBody>, Error> {
        let mut builder = self.builder(method, path, versioned);
        let bytes = match payload {
            Payload::Empty => Bytes::new(),
            Payload::Bytes(bytes) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                bytes.clone()
            }
        };
        let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        builder.body(body).map_err(|source| Error::Request { operation: format!("{method} {path}"), source })
    }

    /// Sends a request over an idle connection or a new one.
    async fn exchange(
        &self,
        request: Request<RequestBody>,
        operation: &str,
    ) -> Result<Response<Incoming>, Error> {
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.open().await?,
        };
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| Error::Http { operation: operation.to_owned(), source })?;
        self.put_back(sender);
        Ok(response)
    }

    async fn open(&self) -> Result<Sender, Error> {
        let refused = |source| Error::Connect { host: self.host.clone(), source };
        let transport = Transport::connect(&self.host).await.map_err(refused)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(transport))
            .await
            .map_err(|source| Error::Http { operation: format!("connect to {}", self.host), source })?;
        // Whoever waits for an answer is told what goes wrong later; nobody else needs to know.
        let task = tokio::spawn(connection.with_upgrades());
        // Only a sender that is ready is taken for the next request: otherwise each command would connect twice.
        if sender.ready().await.is_err()
            && let Ok(Err(source)) = task.await
        {
            return Err(Error::Http { operation: format!("connect to {}", self.host), source });
        }
        Ok(sender)
    }

    /// A connection whose last answer has been read whole.
    fn take_idle(&self) -> Option<Sender> {
        let mut idle = lock(&self.idle);
        idle.retain(|sender| !sender.is_closed());
        let index = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(index))
    }

    fn put_back(&self, sender: Sender) {
        let mut idle = lock(&self.idle);
        if idle.len() < MOST_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

/// The connection of an answer that gives it away.
async fn upgraded(response: Response<Incoming>, operation: String) -> Result<Hijacked, Error> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::NotUpgraded { status });
    }
    let content_type = text(response.headers(), CONTENT_TYPE.as_str());
    let upgraded = hyper::upgrade::on(response).await.map_err(|source| Error::Http { operation, source })?;
    match upgraded.downcast::<TokioIo<Transport>>() {
        Ok(parts) => Ok(Hijacked { transport: parts.io.into_inner(), prefix: parts.read_buf, content_type }),
        Err(_) => Err(Error::NotUpgraded { status }),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half-changed under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json(path: &str, body: &impl Serialize) -> Result<Payload, Error> {
    serde_json::to_vec(body)
        .map(|bytes| Payload::Bytes(bytes.into()))
        .map_err(|source| Error::Decode { operation: format!("POST {path}"), source })
}
