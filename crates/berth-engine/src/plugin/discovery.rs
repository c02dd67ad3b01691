//! Where a plugin answers, by its name.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::PluginError;

/// Largest file of a plugin, in bytes.
const LARGEST: u64 = 64 << 10;

/// Where plugins are looked for.
#[derive(Debug, Clone)]
pub struct Directories {
    sockets: PathBuf,
    specifications: Vec<PathBuf>,
}

impl Default for Directories {
    /// Docker's.
    fn default() -> Self {
        Self::of(
            Path::new("/run/docker/plugins"),
            &[Path::new("/etc/docker/plugins"), Path::new("/usr/lib/docker/plugins")],
        )
    }
}

/// Where a plugin answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On a unix socket.
    Unix(PathBuf),
    /// On TCP, at `host:port`.
    Tcp(String),
    /// On TCP with TLS.
    Tls(String, Tls),
}

/// How a plugin and this daemon prove who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Tls {
    /// The plugin's authority; without one any certificate will do, as in Docker.
    #[serde(rename = "CAFile")]
    pub authority: String,
    /// Our certificate.
    #[serde(rename = "CertFile")]
    pub certificate: String,
    /// Its key.
    #[serde(rename = "KeyFile")]
    pub key: String,
    /// Believe any certificate.
    pub insecure_skip_verify: bool,
}

/// A plugin's file, where it is JSON.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "Addr", default)]
    address: String,
    #[serde(rename = "TLSConfig", default)]
    tls: Option<Tls>,
}

impl Directories {
    /// These directories for sockets and for files.
    pub fn of(sockets: &Path, specifications: &[&Path]) -> Self {
        let specifications = specifications.iter().map(|path| path.to_path_buf()).collect();
        Self { sockets: sockets.to_owned(), specifications }
    }

    /// Looks for a socket of that name, and then for a file that says where the plugin is. Reads files.
    pub fn find(&self, name: &str) -> Result<Address, PluginError> {
        let absent = || PluginError::NotFound(name.to_owned());
        // A name is no way out of the directories.
        if name.contains('\0') || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(absent());
        }
        let socket = places(&self.sockets, name, "sock")
            .into_iter()
            .find(|path| path.metadata().is_ok_and(|found| found.file_type().is_socket()));
        if let Some(path) = socket {
            return Ok(Address::Unix(path));
        }
        let files = self
            .specifications
            .iter()
            .flat_map(|folder| places(folder, name, "spec").into_iter().chain(places(folder, name, "json")));
        for path in files {
            let wrong =
                |reason: String| PluginError::Specification { path: path.display().to_string(), reason };
            let text = match read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|error| wrong(error.to_string()))?,
            };
            let address = match path.extension() {
                Some(extension) if extension == "json" => from_json(&text),
                _ => from_text(text.trim(), None),
            };
            return address.map_err(wrong);
        }
        Err(absent())
    }
}

/// `NAME.ext` and `NAME/NAME.ext`.
fn places(folder: &Path, name: &str, extension: &str) -> [PathBuf; 2] {
    let file = format!("{name}.{extension}");
    [folder.join(&file), folder.join(name).join(&file)]
}

/// Reads a regular file that is not large.
fn read(path: &Path) -> io::Result<String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let mut text = String::new();
    if !file.metadata()?.is_file() || file.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
        return Err(io::Error::other("not a small regular file"));
    }
    Ok(text)
}

fn from_json(text: &str) -> Result<Address, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    from_text(&document.address, document.tls)
}

fn from_text(text: &str, tls: Option<Tls>) -> Result<Address, String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Err("Unknown protocol".into()) };
    let authority = rest.split('/').next().unwrap_or_default();
    let with_port = |port: u16| match authority {
        "" => Err(format!("no host in {text:?}")),
        named if named.ends_with(']') || !named.contains(':') => Ok(format!("{named}:{port}")),
        named => Ok(named.to_owned()),
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.into())),
        "tcp" | "http" => Ok(Address::Tcp(with_port(80)?)),
        "https" => Ok(Address::Tls(with_port(443)?, tls.unwrap_or_default())),
        _ => Err(format!("unsupported protocol in {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses_are_those_of_docker() {
        for (text, expected) in [
            ("unix:///run/a.sock", Address::Unix("/run/a.sock".into())),
            ("tcp://127.0.0.1:99", Address::Tcp("127.0.0.1:99".into())),
            ("http://127.0.0.1:99/", Address::Tcp("127.0.0.1:99".into())),
            ("http://[::1]", Address::Tcp("[::1]:80".into())),
            ("https://host", Address::Tls("host:443".into(), Tls::default())),
        ] {
            assert_eq!(from_text(text, None), Ok(expected), "{text}");
        }
        for text in ["", "/run/a.sock", "unix://a", "ftp://x", "tcp://", "tcp:///x"] {
            assert!(from_text(text, None).is_err(), "{text}");
        }
        let json = r#"{"Name": "x", "Addr": "https://h:1/p", "TLSConfig": {"InsecureSkipVerify": false, "CAFile": "/ca",
                      "CertFile": "/c", "KeyFile": "/k"}}"#;
        let tls = Tls {
            authority: "/ca".into(),
            certificate: "/c".into(),
            key: "/k".into(),
            insecure_skip_verify: false,
        };
        assert_eq!(from_json(json), Ok(Address::Tls("h:1".into(), tls)));
    }

    #[test]
    fn a_socket_comes_before_a_file_and_a_name_stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let (sockets, files) = (folder.path().join("run"), folder.path().join("etc"));
        fs::create_dir_all(sockets.join("deep")).unwrap();
        fs::create_dir_all(files.join("deep")).unwrap();
        let directories = Directories::of(&sockets, &[&files]);
        fs::write(files.join("a.spec"), "tcp://h:1\n").unwrap();
        fs::write(files.join("a.json"), "{}").unwrap();
        assert_eq!(directories.find("a").unwrap(), Address::Tcp("h:1".into()));
        let _listeners =
            ["a.sock", "deep/deep.sock"].map(|name| UnixListener::bind(sockets.join(name)).unwrap());
        assert_eq!(directories.find("a").unwrap(), Address::Unix(sockets.join("a.sock")));
        assert_eq!(directories.find("deep").unwrap(), Address::Unix(sockets.join("deep/deep.sock")));
        fs::write(files.join("b.json"), "nonsense").unwrap();
        assert!(matches!(directories.find("b"), Err(PluginError::Specification { .. })));
        fs::write(folder.path().join("out.spec"), "tcp://h:1").unwrap();
        for name in ["", "c", "../out", "a/../a", "/etc/passwd", "a\0"] {
            assert!(matches!(directories.find(name), Err(PluginError::NotFound(_))), "{name:?}");
        }
    }
}
