//! The daemon's end: what a client offers, asked for when a build needs it.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};

use crate::descriptors::{self, Invitation};
use crate::protocol::grpc::health::v1::HealthCheckRequest;
use crate::protocol::grpc::health::v1::health_client::HealthClient;
use crate::protocol::moby::buildkit::secrets::v1::GetSecretRequest;
use crate::protocol::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use crate::protocol::moby::filesync::v1::auth_client::AuthClient;
use crate::protocol::moby::filesync::v1::file_send_client::FileSendClient;
use crate::protocol::moby::filesync::v1::file_sync_client::FileSyncClient;
use crate::protocol::moby::filesync::v1::{BytesMessage, CredentialsRequest};
use crate::receive::{Bounds, Learned, REQUESTS, Received, receive};
use crate::tree::Tree;
use crate::words::{self, header};
use crate::{Entry, Error, method, packet};

/// Between two questions whether a client still answers.
const BEAT: Duration = Duration::from_secs(5);
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it may fail to.
const FAILURES: u32 = 2;
/// Bytes that may be on their way, in one stream and in all of them.
const WINDOW: u32 = 4 << 20;
/// The same of all streams.
const WINDOWS: u32 = 8 << 20;
/// The largest frame.
const FRAME: u32 = 1 << 20;
/// The largest secret, as with BuildKit.
const LARGEST_SECRET: usize = 500 << 10;

/// What a client says of itself when it connects.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Its session's name, which builds refer to.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// What its directories have in common with those of earlier sessions.
    pub shared_key: String,
    /// The calls that it answers, as paths.
    pub methods: Vec<String>,
}

/// Which files of a client are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The directory, by the client's name for it.
    pub directory: String,
    /// Patterns of files to be told; empty for all.
    pub include: Vec<String>,
    /// Patterns of files to be left out.
    pub exclude: Vec<String>,
    /// Files that are wanted with whatever they link to.
    pub follow: Vec<String>,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Session {
    offer: Offer,
    methods: HashSet<String>,
    channel: Channel,
    ended: CancellationToken,
}

impl Session {
    /// Begins to talk over a connection whose other end serves. The session lives until that ends.
    pub(crate) async fn begin<I>(offer: Offer, io: I) -> Result<Arc<Session>, Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .max_frame_size(FRAME)
            .handshake(io)
            .await
            .map_err(Error::Connection)?;
        let ended = CancellationToken::new();
        let over = ended.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = connection => outcome,
                () = over.cancelled() => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "a session ended early");
            }
            over.cancel();
        });
        let methods = offer.methods.iter().map(|method| method.to_lowercase()).collect();
        let session = Arc::new(Session { offer, methods, channel: Channel(sender), ended });
        tokio::spawn(watch(Arc::clone(&session)));
        Ok(session)
    }

    /// What the client said of itself.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Waits until the client is gone.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends it.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Whether the client answers a call.
    pub fn offers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Makes the directory `root`, which holds what `known` says, the same as one of the client's. Blocks the thread while
    /// files are written. `learned` is told what was found out about files on the way.
    ///
    /// # Errors
    /// As what refuses says; the directory is then good for nothing.
    pub async fn files(
        &self,
        wanted: &Wanted,
        root: OwnedFd,
        known: Vec<Entry>,
        bounds: Bounds<'_>,
        learned: Learned<'_>,
    ) -> Result<Received, Error> {
        if !self.offers(method::FILES) {
            return Err(Error::NotOffered("files"));
        }
        let (requests, asked) = mpsc::channel(REQUESTS);
        let asked = futures_util::stream::unfold(asked, |mut asked| async move {
            let packet = asked.recv().await?;
            Some((packet, asked))
        });
        let mut request = Request::new(asked);
        words::put(request.metadata_mut(), header::DIRECTORY, std::slice::from_ref(&wanted.directory));
        words::put(request.metadata_mut(), header::INCLUDE, &wanted.include);
        words::put(request.metadata_mut(), header::EXCLUDE, &wanted.exclude);
        words::put(request.metadata_mut(), header::FOLLOW, &wanted.follow);
        words::put(request.metadata_mut(), header::DESCRIPTORS, &[descriptors::WANTED.to_owned()]);
        let mut client = FileSyncClient::new(self.channel()).max_decoding_message_size(packet::LARGEST);
        let answer = client.diff_copy(request).await?;
        let invitation = words::get(answer.metadata(), header::DESCRIPTORS).pop();
        let invitation = invitation.and_then(|text| Invitation::of(&text));
        let stream = answer.into_inner().map_err(Error::from);
        receive(stream, &requests, invitation, Tree::new(root, known), bounds, learned).await
    }

    /// A secret; none if the client has no such one.
    ///
    /// # Errors
    /// The client cannot tell.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        if !self.offers(method::SECRET) {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel()).max_decoding_message_size(LARGEST_SECRET + 1024);
        let request = GetSecretRequest { id: id.to_owned(), annotations: HashMap::new() };
        match client.get_secret(request).await {
            Ok(answer) => Ok(Some(answer.into_inner().data)),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The account that the client has at a registry: user and password; none if it has none.
    ///
    /// # Errors
    /// The client cannot tell.
    pub async fn account(&self, host: &str) -> Result<Option<(String, String)>, Error> {
        if !self.offers(method::ACCOUNT) {
            return Ok(None);
        }
        let request = CredentialsRequest { host: host.to_owned() };
        match AuthClient::new(self.channel()).credentials(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let known = !answer.username.is_empty() || !answer.secret.is_empty();
                Ok(known.then_some((answer.username, answer.secret)))
            }
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Sends the client one of the build's outputs, by its number; `about` tells of it.
    ///
    /// # Errors
    /// The client does not take it.
    pub async fn output<S>(&self, number: u32, about: &[(&str, &str)], pieces: S) -> Result<(), Error>
    where
        S: futures_util::Stream<Item = Vec<u8>> + Send + 'static,
    {
        if !self.offers(method::OUTPUT) {
            return Err(Error::NotOffered("place for outputs"));
        }
        let mut request = Request::new(pieces.map(|data| BytesMessage { data }));
        words::put(request.metadata_mut(), header::OUTPUT, &[number.to_string()]);
        for (name, value) in about {
            put_about(request.metadata_mut(), name, value);
        }
        let mut answer = FileSendClient::new(self.channel()).diff_copy(request).await?.into_inner();
        // The end of its answer says that it has all.
        while answer.message().await?.is_some() {}
        Ok(())
    }
}

fn put_about(metadata: &mut MetadataMap, name: &str, value: &str) {
    let key = AsciiMetadataKey::from_bytes(format!("{}{name}", header::ABOUT_OUTPUT).as_bytes());
    if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value)) {
        metadata.insert(key, value);
    }
}

/// Ends a session whose client does not answer any more.
async fn watch(session: Arc<Session>) {
    let mut client = HealthClient::new(session.channel());
    let mut failures = 0;
    while failures < FAILURES {
        tokio::select! {
            () = session.ended() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
        let answer = tokio::time::timeout(PATIENCE, client.check(HealthCheckRequest::default())).await;
        failures = match answer {
            // Whoever does not know the question answers, too.
            Ok(Ok(_)) => 0,
            Ok(Err(status)) if status.code() == Code::Unimplemented => 0,
            _ => failures + 1,
        };
    }
    tracing::info!(session = session.offer.id, "a client of builds does not answer any more");
    session.end();
}

/// Calls over the one connection that there is.
#[derive(Debug, Clone)]
pub(crate) struct Channel(http2::SendRequest<tonic::body::Body>);

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(context).map_err(|_| gone())
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let mut sender = self.0.clone();
        Box::pin(async move {
            poll_fn(|context| sender.poll_ready(context)).await.map_err(|_| gone())?;
            let (mut parts, body) = request.into_parts();
            // Whom a call is for is part of it in HTTP/2; there is only one other end.
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let uri = http::Uri::builder().scheme("http").authority("localhost").path_and_query(path);
            parts.uri = uri.build().map_err(|error| Status::internal(error.to_string()))?;
            sender.send_request(http::Request::from_parts(parts, body)).await.map_err(|_| gone())
        })
    }
}

fn gone() -> Status {
    Status::unavailable("the client of the build is gone")
}
