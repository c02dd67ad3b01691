//! Where a container's output is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_tls::{Identity, Trust};
use serde::{Deserialize, Serialize};

use super::LogSettings;
use super::remote::Protocol;

/// Where a container's output is kept; nowhere by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The files on this host.
    pub file: Option<FilePlan>,
    /// Where it is sent as well.
    #[serde(default)]
    pub remote: Option<RemotePlan>,
    /// The container does not wait for the files: about so many bytes may wait to be written to them, and what finds
    /// no room is lost, and counted.
    #[serde(default)]
    pub file_buffer: Option<usize>,
}

/// Where a container's output is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePlan {
    /// Who gets it.
    pub endpoint: Endpoint,
    /// A connection to it comes beside the launch, after the directory of [`Endpoint::Unix`].
    pub connected: bool,
    /// What is sent.
    pub protocol: Protocol,
    /// The container waits for room in the queue; else what finds no room is lost, and counted.
    pub blocking: bool,
    /// Bytes that may wait to be sent.
    pub queue_bytes: usize,
    /// Time between two attempts to connect, at first; doubled after each, up to 32 times.
    pub retry_wait: Duration,
    /// After so many failed attempts one after the other, the container waits no longer.
    pub attempts: u32,
    /// A connection that takes nothing for so long, or answers nothing, is given up; `None` for never.
    pub patience: Option<Duration>,
    /// What is sent over a stream is hidden from others.
    #[serde(default)]
    pub tls: Option<TlsPlan>,
}

/// How an endpoint proves who it is, and the container's host who that is. Shims do not see the host's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPlan {
    /// The name that the endpoint's certificate is for.
    pub server: String,
    /// The authorities that are believed, in PEM; `None` believes any endpoint.
    pub authorities: Option<String>,
    /// Certificate and key, in PEM.
    pub identity: Option<(String, String)>,
}

impl TlsPlan {
    /// The configuration of the client, and the endpoint's name.
    ///
    /// # Errors
    /// When something of it cannot be used.
    pub fn client(&self) -> std::io::Result<(rustls::ClientConfig, berth_tls::ServerName<'static>)> {
        let trust = match &self.authorities {
            Some(text) => Trust::Authorities(berth_tls::parse_authorities(text)?),
            None => Trust::Anyone,
        };
        let identity = self.identity.as_ref().map(|(certificate, key)| Identity::parse(certificate, key));
        let name = berth_tls::ServerName::try_from(self.server.clone()).map_err(std::io::Error::other)?;
        Ok((berth_tls::client(trust, identity.transpose()?)?, name))
    }
}

/// Who gets a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// A TCP port, at any of these addresses.
    Tcp(Vec<SocketAddr>),
    /// A UDP port, at any of these addresses.
    Udp(Vec<SocketAddr>),
    /// A socket in a directory whose descriptor comes beside the launch: shims do not see the host's.
    Unix {
        /// Its name in the directory.
        name: String,
        /// It takes datagrams, not a stream.
        datagrams: bool,
    },
}

impl FilePlan {
    /// What names the log in messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Segments { directory, .. } => directory,
            Self::JsonFile { path, .. } => path,
        }
    }
}

/// The files of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilePlan {
    /// Berth's own format.
    Segments {
        /// Made (0700) if it is missing.
        directory: PathBuf,
        /// Its bounds.
        settings: LogSettings,
    },
    /// Docker's format.
    JsonFile {
        /// The file that is written; its directory exists.
        path: PathBuf,
        /// Its bounds.
        settings: LogSettings,
        /// Rotated files are compressed.
        compress: bool,
        /// What goes into every line.
        attributes: BTreeMap<String, String>,
    },
}
