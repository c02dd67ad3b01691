//! Docker's plugins of the first kind: programs of the host that answer HTTP on a socket, found by their names.
//!
//! A call is a POST of a JSON document to `/Interface.Method`; the answer is another one. Each call has a connection of
//! its own, so that a plugin may be restarted between any two of them.

mod discovery;
mod transport;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use discovery::Address;
pub use discovery::Directories;
use transport::Failed;

/// Longest that a plugin is tried to be reached, and that most calls may take with that.
const CALL: Duration = Duration::from_secs(30);
/// How long a plugin that is there has to say what it is.
const ACTIVATION: Duration = Duration::from_secs(5);
/// How long is waited after the first attempt that reached nobody; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A plugin that said what it can do.
#[derive(Debug, Clone)]
pub struct Plugin {
    name: String,
    address: Address,
}

/// A plugin is not there, or does not do what it was asked for. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No socket and no file has this name.
    #[error("plugin {0:?} not found")]
    NotFound(String),
    /// Its file makes no sense.
    #[error("legacy plugin: {path}: {reason}")]
    Specification {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// It is of another kind.
    #[error(
        "Plugin does not implement the requested driver: plugin={name:?}, requested implementation={interface:?}"
    )]
    NotImplemented {
        /// Its name.
        name: String,
        /// What it should have been.
        interface: &'static str,
    },
    /// It could not be reached.
    #[error("{method}: {reason}")]
    Unreachable {
        /// What was to be called.
        method: String,
        /// Why there is no answer.
        reason: String,
    },
    /// It was reached, but broke off, or took too long: what it was asked for may be done.
    #[error("{method}: {reason}")]
    Unanswered {
        /// What was called.
        method: String,
        /// Why there is no answer.
        reason: String,
    },
    /// It refused a call, or its answer is none.
    #[error("{method}: {reason}")]
    Call {
        /// What was called.
        method: String,
        /// What it said.
        reason: String,
    },
    /// It does not know the call.
    #[error("{method}: {reason}")]
    NoMethod {
        /// What was called.
        method: String,
        /// What it said.
        reason: String,
    },
}

/// What a plugin says it can do.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Implements", default)]
    implements: Option<Vec<String>>,
}

/// What a plugin says when it fails.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(rename = "Err")]
    error: String,
    /// The same, of those that keep addresses.
    #[serde(rename = "Error")]
    of_addresses: String,
}

impl Refusal {
    /// What the answer to a call says is wrong, if anything is.
    fn of(method: &str, answer: &[u8]) -> Option<String> {
        let refusal: Refusal = serde_json::from_slice(answer).ok()?;
        let text = if method.starts_with("IpamDriver.") { refusal.of_addresses } else { refusal.error };
        Some(text).filter(|text| !text.is_empty())
    }
}

impl Plugin {
    /// Finds the plugin called `name` and asks whether it implements `interface`. One that is not there yet is waited for
    /// as long as `patience`.
    pub async fn activate(
        directories: &Directories,
        name: &str,
        interface: &'static str,
        patience: Duration,
    ) -> Result<Plugin, PluginError> {
        let until = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let address = loop {
            let (directories, wanted) = (directories.clone(), name.to_owned());
            let found = tokio::task::spawn_blocking(move || directories.find(&wanted)).await;
            match found.unwrap_or_else(|_| Err(PluginError::NotFound(name.to_owned()))) {
                Err(PluginError::NotFound(_)) if Instant::now() + pause < until => sleep(pause).await,
                found => break found?,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let plugin = Plugin { name: name.to_owned(), address };
        // One that is there may take a moment.
        let until = until.max(Instant::now() + ACTIVATION);
        let manifest: Manifest = plugin.call_until("Plugin.Activate", Bytes::new(), until, until).await?;
        if !manifest.implements.unwrap_or_default().iter().any(|other| other == interface) {
            return Err(PluginError::NotImplemented { name: plugin.name, interface });
        }
        Ok(plugin)
    }

    /// The plugin called `name` wherever it is now, without asking it anything. Reads files.
    pub fn locate(directories: &Directories, name: &str) -> Result<Plugin, PluginError> {
        Ok(Plugin { name: name.to_owned(), address: directories.find(name)? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls `method`, such as `VolumeDriver.Create`. A plugin that cannot be reached is tried again for a while; one that
    /// was reached gets a call once.
    pub async fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
    ) -> Result<R, PluginError> {
        self.call_for(method, arguments, CALL).await
    }

    /// Calls `method` as [`Plugin::call`] does, and waits as long as `limit` for the answer.
    pub async fn call_for<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
        limit: Duration,
    ) -> Result<R, PluginError> {
        let body = serde_json::to_vec(arguments).map_err(|error| failed(method, error.to_string()))?;
        let now = Instant::now();
        self.call_until(method, body.into(), now + limit.min(CALL), now + limit).await
    }

    /// Calls `method` as [`Plugin::call`] does, but waits no longer than `limit`, and for nobody who is not there.
    pub async fn call_once<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &A,
        limit: Duration,
    ) -> Result<R, PluginError> {
        let body = serde_json::to_vec(arguments).map_err(|error| failed(method, error.to_string()))?;
        let attempt = timeout_at(Instant::now() + limit, self.address.post(method, body.into())).await;
        match attempt.unwrap_or_else(|_| Err(Failed::silent())) {
            Ok((status, answer)) => read(method, status, &answer),
            Err(failure) => Err(failure.about(method)),
        }
    }

    async fn call_until<R: DeserializeOwned>(
        &self,
        method: &str,
        body: Bytes,
        reached: Instant,
        answered: Instant,
    ) -> Result<R, PluginError> {
        let mut pause = FIRST_PAUSE;
        let (status, answer) = loop {
            let attempt = timeout_at(answered, self.address.post(method, body.clone())).await;
            match attempt.unwrap_or_else(|_| Err(Failed::silent())) {
                Ok(answer) => break answer,
                Err(Failed::Unreachable(error)) if Instant::now() + pause < reached => {
                    tracing::warn!(plugin = self.name, method, error, "cannot reach a plugin, trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure.about(method)),
            }
        };
        read(method, status, &answer)
    }
}

impl Failed {
    fn silent() -> Failed {
        Failed::Broken("timed out waiting for the plugin".into())
    }

    fn about(self, method: &str) -> PluginError {
        let method = method.to_owned();
        match self {
            Failed::Unreachable(reason) => PluginError::Unreachable { method, reason },
            Failed::Broken(reason) => PluginError::Unanswered { method, reason },
        }
    }
}

/// Reads what a plugin answered to a call.
fn read<R: DeserializeOwned>(method: &str, status: StatusCode, answer: &[u8]) -> Result<R, PluginError> {
    let said = || String::from_utf8_lossy(answer).trim_end().to_owned();
    match (status.is_success(), Refusal::of(method, answer)) {
        (_, Some(reason)) => Err(failed(method, reason)),
        (false, None) if status == StatusCode::NOT_FOUND => {
            Err(PluginError::NoMethod { method: method.to_owned(), reason: said() })
        }
        (false, None) => Err(failed(method, said())),
        (true, None) => serde_json::from_slice(answer).map_err(|error| failed(method, error.to_string())),
    }
}

fn failed(method: &str, reason: String) -> PluginError {
    PluginError::Call { method: method.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// A plugin that gives its answers in turn, the last one for ever, and counts its requests.
    fn plugin(path: std::path::PathBuf, answers: Vec<(u16, &'static str)>) -> Arc<AtomicUsize> {
        let listener = UnixListener::bind(path).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (status, body) = answers[counted.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                assert!(head.contains("accept: application/vnd.docker.plugins.v1.2+json"), "{head}");
                let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                stream.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
                let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        count
    }

    const ACTIVE: (u16, &str) = (200, r#"{"Implements": ["authz"]}"#);

    async fn activated(answers: Vec<(u16, &'static str)>) -> (tempfile::TempDir, Plugin) {
        let folder = tempfile::tempdir().unwrap();
        plugin(folder.path().join("p.sock"), answers);
        let directories = Directories::of(folder.path(), &[]);
        let active = Plugin::activate(&directories, "p", "authz", Duration::ZERO).await.unwrap();
        (folder, active)
    }

    #[tokio::test]
    async fn calls_give_what_the_plugin_answers_or_why_not() {
        let (_folder, plugin) = activated(vec![
            ACTIVE,
            (200, r#"{"Allow": true, "Err": ""}"#),
            (200, r#"{"Err": "no"}"#),
            (500, r#"{"Err": "broken"}"#),
            (404, "no such page"),
            (200, r#"{"Allow": false, "Error": "of those that keep addresses"}"#),
            (200, "nonsense"),
        ])
        .await;
        let call =
            || async { plugin.call::<_, Value>("A.B", &json!({})).await.map_err(|error| error.to_string()) };
        assert_eq!(call().await.unwrap()["Allow"], true);
        for text in ["A.B: no", "A.B: broken", "A.B: no such page"] {
            assert_eq!(call().await.unwrap_err(), text);
        }
        assert_eq!(call().await.unwrap()["Allow"], false);
        assert!(call().await.unwrap_err().starts_with("A.B: expected"));
    }

    #[tokio::test]
    async fn who_is_only_told_is_not_waited_for() {
        let (folder, plugin) = activated(vec![ACTIVE, (200, "null"), (200, r#"{"Error": "no"}"#)]).await;
        let tell = |method, limit| {
            let plugin = plugin.clone();
            async move { plugin.call_once::<_, Value>(method, &json!({}), limit).await }
        };
        let long = Duration::from_secs(60);
        assert_eq!(tell("A.B", long).await.unwrap(), Value::Null);
        assert_eq!(tell("IpamDriver.B", long).await.unwrap_err().to_string(), "IpamDriver.B: no");
        std::fs::remove_file(folder.path().join("p.sock")).unwrap();
        let silent = UnixListener::bind(folder.path().join("p.sock")).unwrap();
        let error = tell("A.B", Duration::from_millis(1)).await.unwrap_err().to_string();
        assert_eq!(error, "A.B: timed out waiting for the plugin");
        drop(silent);
        let error = tell("A.B", long).await.unwrap_err().to_string();
        assert!(error.starts_with("A.B: dial unix "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_the_caller_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.sock");
        let directories = Directories::of(folder.path(), &[]);
        // It accepts, and says nothing.
        let silent = UnixListener::bind(&path).unwrap();
        let plugin = Plugin::locate(&directories, "p").unwrap();
        let called = Instant::now();
        let limit = CALL * 4;
        let error = plugin.call_for::<_, Value>("A.B", &json!({}), limit).await.unwrap_err();
        assert!(matches!(error, PluginError::Unanswered { .. }), "{error}");
        assert!(called.elapsed() >= limit, "{:?}", called.elapsed());
        drop(silent);
        let called = Instant::now();
        let error = plugin.call_for::<_, Value>("A.B", &json!({}), limit).await.unwrap_err();
        assert!(matches!(error, PluginError::Unreachable { .. }), "{error}");
        assert!(called.elapsed() <= CALL, "{:?}", called.elapsed());
    }

    #[tokio::test]
    async fn a_plugin_must_be_there_and_of_the_kind() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::of(folder.path(), &[]);
        let activate = |interface| Plugin::activate(&directories, "p", interface, Duration::from_millis(1));
        let missing = activate("authz").await.unwrap_err().to_string();
        assert_eq!(missing, "plugin \"p\" not found");
        plugin(folder.path().join("p.sock"), vec![ACTIVE]);
        let error = activate("VolumeDriver").await.unwrap_err().to_string();
        assert!(error.ends_with("plugin=\"p\", requested implementation=\"VolumeDriver\""), "{error}");
    }

    #[tokio::test]
    async fn a_plugin_that_comes_later_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::of(folder.path(), &[]);
        let path = folder.path().join("p.sock");
        let found = Plugin::activate(&directories, "p", "authz", Duration::from_secs(20));
        let (found, count) = tokio::join!(found, async {
            sleep(Duration::from_millis(80)).await;
            plugin(path, vec![ACTIVE])
        });
        assert_eq!((found.unwrap().name(), count.load(Ordering::SeqCst)), ("p", 1));
    }
}
