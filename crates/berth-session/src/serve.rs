//! The client's end: what is offered, and the calls that ask for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt as _};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::agent::{self, AHEAD, DEFAULT};
use crate::descriptors::{Giving, Invitation};
use crate::filter::Filter;
use crate::protocol::fsutil::types::Packet;
use crate::protocol::grpc::health::v1::health_check_response::ServingStatus;
use crate::protocol::grpc::health::v1::health_server::{Health, HealthServer};
use crate::protocol::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use crate::protocol::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use crate::protocol::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use crate::protocol::moby::filesync::v1::auth_server::{Auth, AuthServer};
use crate::protocol::moby::filesync::v1::file_send_server::{FileSend, FileSendServer};
use crate::protocol::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use crate::protocol::moby::filesync::v1::{self as filesync, CredentialsRequest, CredentialsResponse};
use crate::protocol::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use crate::protocol::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use crate::send::{Directory, Sending, send};
use crate::words::{self, header};
use crate::{Error, method, packet};

/// Bytes that may be on their way to this end.
const WINDOW: u32 = 1 << 20;
/// The largest frame.
const FRAME: u32 = 1 << 20;
/// Bytes of answers that wait for the other end.
const BUFFER: usize = 4 << 20;

/// Where a secret is. It is read when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

/// The largest secret, as with BuildKit.
const LARGEST_SECRET: u64 = 500 << 10;

/// Takes an output of a build, piece by piece.
pub type Output = Box<dyn std::io::Write + Send>;
/// Tells the account at a registry: user and password.
pub type Accounts = Box<dyn Fn(&str) -> Option<(String, String)> + Send + Sync>;

/// What a client offers. What is empty is not offered.
#[derive(Default)]
pub struct Services {
    /// Directories, by name.
    pub directories: HashMap<String, Arc<Directory>>,
    /// Secrets, by name.
    pub secrets: HashMap<String, Secret>,
    /// Sockets of agents, by name.
    pub agents: HashMap<String, PathBuf>,
    /// Places for outputs, by number. Each takes one.
    pub outputs: Mutex<HashMap<u32, Output>>,
    /// Accounts at registries.
    pub accounts: Option<Accounts>,
}

impl Services {
    /// The calls that are answered, as paths.
    pub fn methods(&self) -> Vec<&'static str> {
        let has_outputs = !self.outputs.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        [
            (method::HEALTH, true),
            (method::FILES, !self.directories.is_empty()),
            (method::SECRET, !self.secrets.is_empty()),
            (method::AGENT, !self.agents.is_empty()),
            (method::FORWARD, !self.agents.is_empty()),
            (method::OUTPUT, has_outputs),
            (method::ACCOUNT, self.accounts.is_some()),
        ]
        .into_iter()
        .filter_map(|(method, offered)| offered.then_some(method))
        .collect()
    }

    /// Answers calls over a connection until it ends.
    pub async fn serve<I>(self: Arc<Self>, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let offered = Offered(self);
        let routes = Routes::new(HealthServer::new(offered.clone()))
            .add_service(FileSyncServer::new(offered.clone()).max_decoding_message_size(packet::LARGEST))
            .add_service(SecretsServer::new(offered.clone()))
            .add_service(SshServer::new(offered.clone()))
            .add_service(FileSendServer::new(offered.clone()).max_decoding_message_size(packet::LARGEST))
            .add_service(AuthServer::new(offered))
            .prepare();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            routes.clone().call(request)
        });
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(BUFFER)
            .serve_connection(TokioIo::new(io), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a session ended early");
        }
    }
}

#[derive(Clone)]
struct Offered(Arc<Services>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
}

#[tonic::async_trait]
impl Health for Offered {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}

#[tonic::async_trait]
impl FileSync for Offered {
    type DiffCopyStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Answers<Packet>>, Status> {
        let name = words::get(request.metadata(), header::DIRECTORY).pop().unwrap_or_default();
        let directory = self.0.directories.get(&name).cloned();
        let directory =
            directory.ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let all = |name| words::get(request.metadata(), name);
        let (include, exclude, follow) = (all(header::INCLUDE), all(header::EXCLUDE), all(header::FOLLOW));
        let filter = Filter::new(&include, &exclude, follow);
        let filter = filter.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (packets, sent) = mpsc::channel(crate::send::AHEAD);
        let failed = |error: &Error| Status::aborted(crate::send::chain(error));
        let sending = Sending::new(directory, packets.clone()).map_err(|error| failed(&error))?;
        let giving = (!all(header::DESCRIPTORS).is_empty()).then(|| give(&sending)).flatten();
        let (invitation, giving) = giving.unzip();
        tokio::spawn(async move {
            let _giving = giving;
            if let Err(error) = send(sending, filter, request.into_inner()).await {
                tracing::debug!(%error, "a directory was not sent whole");
                let _ = packets.send(Err(failed(&error))).await;
            }
        });
        let mut response = Response::<Answers<Packet>>::new(Box::pin(answers(sent)));
        if let Some(invitation) = invitation {
            words::put(response.metadata_mut(), header::DESCRIPTORS, &[invitation.text()]);
        }
        Ok(response)
    }
}

/// Hands over files that are sent; none if that cannot be.
fn give(sending: &Arc<Sending>) -> Option<(Invitation, Giving)> {
    // The end of the packets is that of all who could send some.
    let sending = Arc::downgrade(sending);
    Giving::begin(Arc::new(move |number| sending.upgrade()?.handed(number)))
        .inspect_err(|error| tracing::debug!(%error, "files are not handed over"))
        .ok()
}

#[tonic::async_trait]
impl Secrets for Offered {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let missing = || Status::not_found(format!("secret {id} not found"));
        let data = match self.0.secrets.get(&id).ok_or_else(missing)? {
            Secret::Value(value) => value.clone(),
            Secret::File(path) => {
                let told = |error: std::io::Error| {
                    Status::failed_precondition(format!("secret {id}: {}: {error}", path.display()))
                };
                // A small file is read at once; a pipe, which might be waited for, is refused.
                let about = std::fs::metadata(path).map_err(told)?;
                if !about.is_file() || about.len() > LARGEST_SECRET {
                    let text = format!("secret {id}: {} is no file of at most 500 KB", path.display());
                    return Err(Status::failed_precondition(text));
                }
                std::fs::read(path).map_err(told)?
            }
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl Ssh for Offered {
    type ForwardAgentStream = Answers<BytesMessage>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.agent(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Answers<BytesMessage>>, Status> {
        let id = words::get(request.metadata(), header::AGENT).pop().unwrap_or_default();
        let socket = self.agent(&id)?;
        let input = request.into_inner().take_while(|piece| std::future::ready(piece.is_ok()));
        let input = Box::pin(input.filter_map(|piece| async { piece.ok().map(|piece| piece.data) }));
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            if let Err(error) = agent::connect(socket, input, sender).await {
                tracing::debug!(%error, "a connection to an agent ended early");
            }
        });
        Ok(Response::new(Box::pin(answers(receiver).map(Ok))))
    }
}

impl Offered {
    fn agent(&self, id: &str) -> Result<PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT } else { id };
        let socket = self.0.agents.get(id).cloned();
        socket.ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl FileSend for Offered {
    type DiffCopyStream = Answers<filesync::BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<filesync::BytesMessage>>,
    ) -> Result<Response<Answers<filesync::BytesMessage>>, Status> {
        let number = words::get(request.metadata(), header::OUTPUT).pop();
        let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        let output = self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let mut output = output.ok_or_else(|| Status::not_found(format!("exporter {number} not found")))?;
        let mut pieces = request.into_inner();
        let failed = |error: std::io::Error| Status::aborted(error.to_string());
        while let Some(piece) = pieces.message().await? {
            // A file's write is short; pieces are bounded.
            output.write_all(&piece.data).map_err(failed)?;
        }
        output.flush().map_err(failed)?;
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }
}

#[tonic::async_trait]
impl Auth for Offered {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let account = self.0.accounts.as_ref().and_then(|accounts| accounts(&host));
        let (username, secret) = account.unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }
}
