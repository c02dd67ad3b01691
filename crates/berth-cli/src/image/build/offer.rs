//! What a build is offered over a session: its directory, secrets and agents.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_archive::ignore::Ignore;
use berth_client::{Client, HeaderMap, HeaderName, HeaderValue};
use berth_session::{DEFAULT_AGENT, Directory, Secret, Services};
use clap::ArgMatches;
use sha2::{Digest as _, Sha256};

use super::sinks::Sink;
use crate::failure::{Failure, Outcome, causes};
use crate::flags::list;
use crate::values::csv;

/// The daemon's name for the build's own directory.
pub const CONTEXT: &str = "context";
/// The largest secret in the environment, in bytes, as with BuildKit.
const LARGEST: usize = 500 << 10;
/// Where the agent of ssh is.
const AGENT: &str = "SSH_AUTH_SOCK";

/// Secrets and agents, as flags name them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys {
    secrets: HashMap<String, Secret>,
    agents: HashMap<String, PathBuf>,
}

impl Keys {
    /// What the flags name.
    ///
    /// # Errors
    /// They cannot be understood; there is no such variable or agent.
    pub fn of(matches: &ArgMatches) -> Outcome<Self> {
        let variable = |name: &str| std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes);
        let mut keys = Self::default();
        for text in list(matches, "secret") {
            let (id, secret) = secret(&text, &variable)?;
            keys.secrets.extend(secret.map(|secret| (id, secret)));
        }
        for text in list(matches, "ssh") {
            let (id, socket) = agent(&text, &variable)?;
            if keys.agents.insert(id.clone(), socket).is_some() {
                return Err(Failure::new(format!("invalid duplicate ID {id}")));
            }
        }
        Ok(keys)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.agents.is_empty()
    }
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// `id=NAME[,src=FILE|,env=VARIABLE]`: without either the variable of that name if there is one, else the file. None for a
/// variable that is not set.
fn secret(text: &str, variable: Variable<'_>) -> Outcome<(String, Option<Secret>)> {
    let fields = csv::record(text).ok_or_else(|| Failure::new("failed to parse csv secret"))?;
    let (mut id, mut path, mut name, mut kind) = (String::new(), None, None, String::new());
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid field '{field}' must be a key=value pair")))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if !matches!(value, "file" | "env") => {
                return Err(Failure::new(format!("unsupported secret type {value:?}")));
            }
            "type" => value.clone_into(&mut kind),
            "id" => value.clone_into(&mut id),
            "source" | "src" => path = Some(value.to_owned()),
            "env" => name = Some(value.to_owned()),
            key => return Err(Failure::new(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if id.is_empty() {
        return Err(Failure::new("secret missing ID"));
    }
    if kind == "env" && name.is_none() {
        name = path.take();
    }
    // As with BuildKit, a name alone is that of a variable before it is that of a file.
    let from = match (name, &path) {
        (None, None) if kind != "file" => Some(id.clone()).filter(|id| variable(id).is_some()),
        (name, _) => name,
    };
    let Some(from) = from else {
        let path = PathBuf::from(path.as_ref().unwrap_or(&id));
        let about = std::fs::metadata(&path)
            .map_err(|error| Failure::io(format!("failed to stat {}", path.display()), &error))?;
        if !about.is_file() || about.len() > LARGEST as u64 {
            let text = format!("invalid secret {id}: {} is no file of at most 500 KB", path.display());
            return Err(Failure::new(text));
        }
        let whole = std::path::absolute(&path).map_err(|error| Failure::io("current directory", &error))?;
        return Ok((id, Some(Secret::File(whole))));
    };
    match variable(&from) {
        Some(value) if value.len() > LARGEST => {
            Err(Failure::new(format!("invalid secret {id}: {from} has more than 500 KB")))
        }
        value => Ok((id, value.map(Secret::Value))),
    }
}

/// `default`, `NAME` or `NAME=SOCKET`.
fn agent(text: &str, variable: Variable<'_>) -> Outcome<(String, PathBuf)> {
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::FileTypeExt as _;

    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT_AGENT } else { id };
    let path = match path {
        "" => variable(AGENT)
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(std::ffi::OsString::from_vec(path)))
            .ok_or_else(|| {
                Failure::new(format!("invalid empty ssh agent socket: make sure {AGENT} is set"))
            })?,
        path if path.contains(',') => {
            return Err(Failure::new(format!("invalid ssh agent {id}: one socket, not several files")));
        }
        path => PathBuf::from(path),
    };
    let about = std::fs::metadata(&path)
        .map_err(|error| Failure::io(format!("failed to open {}", path.display()), &error))?;
    if !about.file_type().is_socket() {
        let text = format!(
            "invalid ssh agent {id}: {} is no socket; add keys to an agent (ssh-add) and name its socket",
            path.display()
        );
        return Err(Failure::new(text));
    }
    let whole = std::path::absolute(&path).map_err(|error| Failure::io("current directory", &error))?;
    Ok((id.to_owned(), whole))
}

/// All that a build is offered.
#[derive(Default)]
pub struct Offered {
    /// Directories, by the names that the daemon has for them.
    pub directories: HashMap<String, Directory>,
    /// Secrets and agents.
    pub keys: Keys,
    /// Where outputs go: their places are their numbers.
    pub outputs: Vec<Sink>,
}

impl Offered {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.keys.is_empty() && self.outputs.is_empty()
    }

    /// Offers a directory.
    pub fn directory(&mut self, name: &str, path: PathBuf, ignore: Ignore) {
        let directory = Directory { path, ignore, inserts: Vec::new(), progress: Box::new(|_| {}) };
        self.directories.insert(name.to_owned(), directory);
    }

    /// Offers a place for an output. Gives its number.
    pub fn output(&mut self, sink: Sink) -> usize {
        self.outputs.push(sink);
        self.outputs.len() - 1
    }
}

/// Offers something to the daemon, for as long as this process lives. Gives the session's name.
///
/// # Errors
/// The daemon refuses.
pub async fn open(client: &Client, offered: Offered) -> Outcome<String> {
    let random = || -> std::io::Result<String> {
        let mut bytes = [0; 18];
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(URL_SAFE_NO_PAD.encode(&bytes[..read]))
    };
    let id = random().map_err(|error| Failure::io("random bytes", &error))?;
    let mut headers = HeaderMap::new();
    put(&mut headers, "uuid", &id);
    if let Some(directory) = offered.directories.get(CONTEXT) {
        let name = directory.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A header holds nothing else; it is only shown.
        put(&mut headers, "name", &name.chars().filter(char::is_ascii_graphic).collect::<String>());
        put(&mut headers, "sharedkey", &shared_key(directory));
    }
    let Offered { directories, keys, outputs } = offered;
    let services = Services {
        directories: directories.into_iter().map(|(name, one)| (name, Arc::new(one))).collect(),
        secrets: keys.secrets,
        agents: keys.agents,
        outputs: Mutex::new((0..).zip(outputs.into_iter().map(Sink::open)).collect()),
        accounts: None,
    };
    for method in services.methods() {
        put(&mut headers, "grpc-method", method);
    }
    let connection = client
        .session(headers)
        .await
        .map_err(|error| Failure::new(format!("the daemon takes no session: {}", causes(&error))))?;
    tokio::spawn(Arc::new(services).serve(connection));
    Ok(id)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::try_from(format!("x-docker-expose-session-{name}"));
    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
        headers.append(name, value);
    }
}

/// What tells a directory apart from those of other machines, users and places.
fn shared_key(directory: &Directory) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname();
    let user = rustix::process::getuid().as_raw().to_le_bytes();
    let mut hash = Sha256::new();
    for part in [&machine, host.nodename().to_bytes(), &user, directory.path.as_os_str().as_bytes()] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn variable(name: &str) -> Option<Vec<u8>> {
        (name == "TOKEN").then(|| b"t".to_vec())
    }

    #[test]
    fn secrets_come_from_files_and_the_environment() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a file, with a comma");
        std::fs::write(&path, "s").unwrap();
        let file = Secret::File(path.clone());
        let value = Secret::Value(b"t".to_vec());
        let path = path.display();
        for (text, expected) in [
            (format!("id=x,\"src={path}\""), &file),
            (format!("type=file,id=x,\"source={path}\""), &file),
            ("id=x,env=TOKEN".into(), &value),
            ("id=x,type=env,src=TOKEN".into(), &value),
        ] {
            assert_eq!(secret(&text, &variable).unwrap(), ("x".to_owned(), Some(expected.clone())), "{text}");
        }
        assert_eq!(secret("id=TOKEN", &variable).unwrap().1, Some(value));
        assert_eq!(secret("ID=x,env=ABSENT", &variable).unwrap(), ("x".to_owned(), None));
        for (text, words) in [
            ("src=x", "secret missing ID"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("id=x,size=1", "unexpected key 'size' in 'size=1'"),
            ("id=x,type=vault", "unsupported secret type \"vault\""),
            ("id=x,src=/nonexistent", "failed to stat /nonexistent"),
            ("id=x,src=/proc", "is no file"),
            ("id=\"x", "failed to parse csv secret"),
        ] {
            let told = secret(text, &variable).unwrap_err().message;
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn agents_are_sockets() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent");
        let _listener = UnixListener::bind(&path).unwrap();
        let known = |name: &str| (name == AGENT).then(|| path.as_os_str().as_encoded_bytes().to_vec());
        for (text, id) in [("default", "default"), ("", "default"), ("own", "own")] {
            assert_eq!(agent(text, &known).unwrap(), (id.to_owned(), path.clone()), "{text:?}");
        }
        let named = format!("own={}", path.display());
        assert_eq!(agent(&named, &variable).unwrap(), ("own".to_owned(), path.clone()));
        let key = temp.path().join("id_rsa");
        std::fs::write(&key, "key").unwrap();
        for (text, words) in [
            ("default".to_owned(), "make sure SSH_AUTH_SOCK is set"),
            ("own=/nonexistent".into(), "failed to open /nonexistent"),
            (format!("own={}", key.display()), "is no socket"),
        ] {
            let told = agent(&text, &variable).unwrap_err().message;
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
