//! Agents that hold the keys of ssh: a socket at the daemon whose connections end at the client's agent.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tonic::Request;

use crate::protocol::moby::sshforward::v1::ssh_client::SshClient;
use crate::protocol::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use crate::session::Session;
use crate::words::{self, header};
use crate::{Error, method};

/// The agent that is meant where none is named.
pub const DEFAULT: &str = "default";
/// Bytes read at a time.
const PIECE: usize = 32 << 10;
/// Pieces that wait for a slow end.
pub(crate) const AHEAD: usize = 4;
/// Connections of one step that are open at the same time.
const MOST: usize = 64;
/// The longest message of the agents' protocol.
const LONGEST: usize = 256 << 10;
/// Messages that change nothing: the list of keys, a signature, an extension.
const ALLOWED: [u8; 3] = [11, 13, 27];
/// What an agent says to what it does not do.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// A socket whose connections end at an agent of the client. It goes with this.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Session {
    /// Listens at `path` for programs that talk to the client's agent `id` (empty for the usual one). Only `owner` may
    /// connect: user and group, as the host knows them.
    ///
    /// # Errors
    /// The client has no such agent; the socket cannot be made.
    pub async fn agent(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<Agent, Error> {
        if !self.offers(method::AGENT) || !self.offers(method::FORWARD) {
            return Err(Error::NotOffered("ssh agent"));
        }
        let id = if id.is_empty() { DEFAULT } else { id }.to_owned();
        SshClient::new(self.channel()).check_agent(CheckAgentRequest { id: id.clone() }).await?;
        let failed =
            |error: io::Error| Error::file("listening at", path.as_os_str().as_encoded_bytes(), error);
        let listener = bind(path).map_err(failed)?;
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        let serving = tokio::spawn(listen(Arc::clone(self), listener, id));
        Ok(Agent { path: path.to_owned(), serving })
    }
}

impl Agent {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket of an agent is gone already");
        }
    }
}

/// Listens at a path of any length.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // An address of a socket holds no more than 107 bytes.
    let directory = std::fs::File::open(directory)?;
    UnixListener::bind(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

async fn listen(session: Arc<Session>, listener: UnixListener, id: String) {
    let places = Arc::new(Semaphore::new(MOST));
    // Connections end with the socket.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = session.ended() => return,
        };
        let Ok((stream, _)) = stream else {
            // Out of descriptors, most likely.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (session, id) = (Arc::clone(&session), id.clone());
        connections.spawn(async move {
            if let Err(error) = forward(&session, stream, &id).await {
                tracing::debug!(%error, "a connection to an agent ended early");
            }
            drop(place);
        });
    }
}

/// Carries one connection to the client.
async fn forward(session: &Session, stream: UnixStream, id: &str) -> Result<(), Error> {
    let (input, output) = stream.into_split();
    let pieces = futures_util::stream::unfold(input, |mut input| async move {
        let data = read(&mut input).await.ok().filter(|data| !data.is_empty())?;
        Some((BytesMessage { data }, input))
    });
    let mut request = Request::new(pieces);
    words::put(request.metadata_mut(), header::AGENT, &[id.to_owned()]);
    let answer = SshClient::new(session.channel()).forward_agent(request).await?.into_inner();
    let pieces = answer.map(|piece| piece.map(|piece| piece.data));
    write(pieces, output).await
}

async fn read(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(PIECE);
    input.read_buf(&mut data).await?;
    Ok(data)
}

async fn write<S, E>(mut pieces: S, mut output: impl AsyncWrite + Unpin) -> Result<(), Error>
where
    S: Stream<Item = Result<Vec<u8>, E>> + Unpin,
    Error: From<E>,
{
    while let Some(piece) = pieces.next().await {
        let written = output.write_all(&piece?).await;
        written.map_err(|error| Error::file("writing to", b"the agent's socket", error))?;
    }
    output.shutdown().await.map_err(|error| Error::file("closing", b"the agent's socket", error))
}

/// Carries one connection to the agent that listens at `socket`. Only what changes nothing there goes to it.
pub(crate) async fn connect<S>(
    socket: PathBuf,
    input: S,
    answers: mpsc::Sender<BytesMessage>,
) -> io::Result<()>
where
    S: Stream<Item = Vec<u8>> + Unpin,
{
    let (mut from_agent, mut to_agent) = UnixStream::connect(socket).await?.into_split();
    let refusals = answers.clone();
    let back = async {
        loop {
            let data = read(&mut from_agent).await?;
            if data.is_empty() || answers.send(BytesMessage { data }).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let there = async {
        let mut messages = Messages::default();
        let mut input = input;
        while let Some(piece) = input.next().await {
            messages.held.extend_from_slice(&piece);
            while let Some(message) = messages.next()? {
                if message.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
                    to_agent.write_all(&message).await?;
                } else {
                    let _ = refusals.send(BytesMessage { data: FAILURE.to_vec() }).await;
                }
            }
        }
        to_agent.shutdown().await
    };
    tokio::try_join!(there, back).map(drop)
}

/// Bytes of the agents' protocol, as messages: their length in four bytes, their kind in one, and the rest.
#[derive(Default)]
struct Messages {
    held: Vec<u8>,
}

impl Messages {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.held.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message to an agent is too long"));
        }
        if self.held.len() < 4 + length {
            return Ok(None);
        }
        let rest = self.held.split_off(4 + length);
        Ok(Some(std::mem::replace(&mut self.held, rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_changes_nothing_reaches_an_agent() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
            stream.write_all(b"answer").await.unwrap();
            asked
        });
        // The list of keys, in two pieces; then the removal of all keys, and a signature.
        let pieces = [vec![0, 0], vec![0, 1, 11, 0, 0, 0, 1, 19, 0], vec![0, 0, 3, 13, 7, 8]];
        let (answers, mut answered) = mpsc::channel(AHEAD);
        connect(path, futures_util::stream::iter(pieces), answers).await.unwrap();
        assert_eq!(agent.await.unwrap(), [0, 0, 0, 1, 11, 0, 0, 0, 3, 13, 7, 8]);
        let mut all = Vec::new();
        while let Some(piece) = answered.recv().await {
            all.push(piece.data);
        }
        assert_eq!(all, [FAILURE.to_vec(), b"answer".to_vec()]);
        let mut endless = Messages { held: vec![0xff; 8] };
        assert!(endless.next().is_err());
    }
}
