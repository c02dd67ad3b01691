//! A server whose every answer the test decides on, down to where it is cut.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::files::{self, Image};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in small letters, with their values.
    headers: Vec<(String, String)>,
    /// The body, if its length was told.
    pub body: Vec<u8>,
    /// The number of the connection that it came over.
    pub connection: usize,
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It ends, and the answer says so.
    Close,
    /// It waits for the next request.
    Keep,
    /// It ends, although the answer does not say so.
    Leave,
    /// It waits for the next request, and ends instead of answering that.
    Hang,
    /// These bytes come unasked together with the answer; then it waits.
    Say(Vec<u8>),
}

impl Asked {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The first byte of the `Range` that was asked for.
    pub fn from(&self) -> usize {
        let range = self.header("range").trim_start_matches("bytes=");
        range.split('-').next().and_then(|first| first.parse().ok()).unwrap_or(0)
    }
}

/// An answer and how it goes.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Header lines without their ends; `Content-Length` and, if it is so, `Connection: close` are added.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// What `Content-Length` says instead of the body's length.
    pub length: Option<u64>,
    /// Bytes of the whole answer, head included, after which the connection ends.
    pub cut: Option<usize>,
    /// Before anything is answered.
    pub delay: Duration,
    /// The body comes again and again until the client goes away, without a length.
    pub endless: bool,
    /// What becomes of the connection.
    pub then: Then,
}

impl Reply {
    /// An answer that is as it should be.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
            length: None,
            cut: None,
            delay: Duration::ZERO,
            endless: false,
            then: Then::Close,
        }
    }

    /// The same, and something else becomes of the connection.
    pub fn then(self, then: Then) -> Reply {
        Reply { then, ..self }
    }

    /// With one more header line.
    pub fn header(mut self, name: &str, value: impl std::fmt::Display) -> Reply {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// To somewhere else.
    pub fn redirect(to: impl std::fmt::Display) -> Reply {
        Reply::new(307, "").header("Location", to)
    }

    /// Sends it; whether the client took all of it.
    fn send(&self, mut connection: &TcpStream) -> std::io::Result<()> {
        std::thread::sleep(self.delay);
        let mut bytes = format!("HTTP/1.1 {} Test\r\n", self.status).into_bytes();
        for line in &self.headers {
            bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        if !self.endless {
            let length = self.length.unwrap_or(self.body.len() as u64);
            bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        if self.then == Then::Close {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        if let Then::Say(unasked) = &self.then {
            bytes.extend_from_slice(unasked);
        }
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        connection.write_all(&bytes)?;
        if self.endless {
            loop {
                connection.write_all(&self.body)?;
            }
        }
        connection.flush()
    }
}

/// The server; it ends with the test's process.
pub struct Faulty {
    /// Where it listens.
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Faulty {
    /// Starts one on a free port of loopback. The calling thread must be in the test's namespace.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Faulty {
        Faulty::start_at("127.0.0.1:0", answer)
    }

    /// The same at an address.
    pub fn start_at(address: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Faulty {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for (number, connection) in listener.incoming().flatten().enumerate() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&connection);
                    let mut then = Then::Keep;
                    while matches!(then, Then::Keep | Then::Say(_) | Then::Hang) {
                        // A TLS handshake is no request: it is how the client finds out that there is no TLS.
                        let Some(request) = read(&mut reader, number) else { return };
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                        if then == Then::Hang {
                            return;
                        }
                        let reply = answer(&request);
                        // A client that goes away ends its connection's thread.
                        if reply.send(&connection).is_err() {
                            return;
                        }
                        then = reply.then;
                    }
                });
            }
        });
        Faulty { address, asked }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests had this in their path.
    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }

    /// Over how many connections they came.
    pub fn connections(&self) -> usize {
        self.asked().iter().map(|asked| asked.connection).collect::<HashSet<_>>().len()
    }

    /// Whether any request brought an `Authorization`.
    pub fn saw_credentials(&self) -> bool {
        self.asked().iter().any(|asked| !asked.header("authorization").is_empty())
    }
}

fn read(reader: &mut impl BufRead, connection: usize) -> Option<Asked> {
    let mut lines = reader.by_ref().lines();
    let first = lines.next()?.ok()?;
    let mut words = first.strip_suffix(" HTTP/1.1")?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, headers, body: Vec::new(), connection };
    let length: u64 = asked.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut asked.body).ok()?;
    Some(asked)
}

/// What a registry with the image `x:y` answers, by path.
pub fn contents(image: &Image) -> HashMap<String, Reply> {
    let blobs = image.oci_blobs();
    let (manifest, rest) = blobs.split_last().unwrap();
    let mut all: HashMap<String, Reply> = rest
        .iter()
        .map(|blob| (format!("/v2/x/blobs/{}", files::digest(blob)), Reply::new(200, blob.clone())))
        .collect();
    let reply = Reply::new(200, manifest.clone())
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        .header("Docker-Content-Digest", files::digest(manifest));
    all.insert(format!("/v2/x/manifests/{}", files::digest(manifest)), reply.clone());
    all.insert("/v2/x/manifests/y".to_owned(), reply);
    all
}

/// The answer of an honest registry, ranges included.
pub fn honest(contents: &HashMap<String, Reply>, asked: &Asked) -> Reply {
    if asked.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    let Some(whole) = contents.get(&asked.path) else {
        return Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#);
    };
    let mut reply = whole.clone();
    let (from, all) = (asked.from(), whole.body.len());
    if from > 0 && from < all {
        reply.status = 206;
        reply.body.drain(..from);
        reply.headers.push(format!("Content-Range: bytes {from}-{}/{all}", all - 1));
    }
    reply
}
