//! The state of a container: an enum with data, from which everything that clients see follows.

use berth_api::container::{State as ApiState, Status};
use berth_api::time::{Time, words};
use berth_network::Endpoint;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::health::HealthStatus;

/// What a container is doing. Kept as its row's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was never started, or its only start failed.
    Created {
        /// Why the last start failed.
        failure: Option<Failure>,
    },
    /// Intent to start: written before anything is made.
    Starting {
        /// Its endpoints, taken before the clone, in the order of their links.
        #[serde(default, alias = "endpoint", deserialize_with = "endpoints")]
        endpoints: Vec<Endpoint>,
        /// How it ended before.
        before: Option<Exited>,
        /// Its policy starts it: it is shown as restarting until it runs.
        #[serde(default)]
        again: bool,
    },
    /// Its program runs.
    Running(Running),
    /// It ended, and its policy will start it again.
    Restarting(Exited),
    /// It ended.
    Exited(Exited),
    /// Intent to remove: what is left of it goes at the next start of the engine.
    Removing,
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 125, 126 or 127.
    pub code: i32,
    /// Why.
    pub error: String,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Process ID of its init on the host.
    pub pid: i32,
    /// Since when.
    pub started_at: Timestamp,
    /// Whether it is frozen.
    pub paused: bool,
    /// Its endpoints, in the order of their links.
    #[serde(default, alias = "endpoint", deserialize_with = "endpoints")]
    pub endpoints: Vec<Endpoint>,
    /// Whether it has run out of memory since it started.
    #[serde(default)]
    pub oom_killed: bool,
    /// What its `/etc/resolv.conf` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Resolver>,
}

/// The `/etc/resolv.conf` of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Digest of the file as it was written last: one that is no longer so was changed by its users, and stays.
    pub written: String,
    /// Whether the container has a name server of its own.
    pub served: bool,
}

/// Reads a list; in records that are older than several networks, it is one or none.
fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Endpoint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Many(Vec<Endpoint>),
        One(Option<Box<Endpoint>>),
    }
    Ok(match Kept::deserialize(from)? {
        Kept::Many(endpoints) => endpoints,
        Kept::One(endpoint) => endpoint.into_iter().map(|endpoint| *endpoint).collect(),
    })
}

/// A container that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Its exit code.
    pub code: i32,
    /// Whether the kernel killed for want of memory.
    pub oom_killed: bool,
    /// What went wrong beside.
    pub error: String,
    /// When it had started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl State {
    /// A container that was just created.
    pub const NEW: State = State::Created { failure: None };

    /// Docker's word.
    pub fn status(&self) -> Status {
        match self {
            State::Restarting(_) | State::Starting { again: true, .. } => Status::Restarting,
            State::Created { .. } | State::Starting { before: None, .. } => Status::Created,
            State::Running(Running { paused: true, .. }) => Status::Paused,
            State::Running(_) => Status::Running,
            State::Starting { before: Some(_), .. } | State::Exited(_) => Status::Exited,
            State::Removing => Status::Removing,
        }
    }

    /// The running container, if it is one.
    pub fn running(&self) -> Option<&Running> {
        match self {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The endpoints that it holds.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            State::Running(running) => &running.endpoints,
            State::Starting { endpoints, .. } => endpoints,
            _ => &[],
        }
    }

    /// How it ended last.
    pub fn last_exit(&self) -> Option<&Exited> {
        match self {
            State::Exited(exited) | State::Restarting(exited) => Some(exited),
            State::Starting { before, .. } => before.as_ref(),
            _ => None,
        }
    }

    /// The state after a start that failed.
    pub fn failed(before: Option<Exited>, failure: Failure) -> State {
        match before {
            None => State::Created { failure: Some(failure) },
            Some(exited) => State::Exited(Exited { code: failure.code, error: failure.error, ..exited }),
        }
    }

    /// The exit code that `wait` reports for a container that does not run.
    pub fn exit_code(&self) -> i32 {
        match self {
            State::Created { failure: Some(failure) } => failure.code,
            other => other.last_exit().map_or(0, |exited| exited.code),
        }
    }

    /// As `inspect` shows it.
    pub fn to_api(&self) -> ApiState {
        let status = self.status();
        let mut shown = ApiState {
            status,
            // As in Docker, one that is about to be started again counts as running.
            running: matches!(status, Status::Running | Status::Paused | Status::Restarting),
            paused: status == Status::Paused,
            restarting: status == Status::Restarting,
            exit_code: i64::from(self.exit_code()),
            ..ApiState::default()
        };
        match self {
            State::Created { failure: Some(failure) } => shown.error.clone_from(&failure.error),
            State::Running(running) => {
                shown.pid = i64::from(running.pid);
                shown.oom_killed = running.oom_killed;
                shown.started_at = Time(running.started_at);
            }
            other => {
                if let Some(exited) = other.last_exit() {
                    shown.error.clone_from(&exited.error);
                    shown.oom_killed = exited.oom_killed;
                    shown.started_at = exited.started_at.into();
                    shown.finished_at = Time(exited.finished_at);
                }
            }
        }
        shown
    }

    /// As `ps` shows it: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub fn describe(&self, now: Timestamp, health: Option<HealthStatus>) -> String {
        match self {
            State::Running(running) => {
                let since = words(now.duration_since(running.started_at).as_secs());
                match health {
                    _ if running.paused => format!("Up {since} (Paused)"),
                    Some(health) => format!("Up {since} ({})", health.describe()),
                    None => format!("Up {since}"),
                }
            }
            State::Removing => "Removal In Progress".into(),
            State::Created { .. } => "Created".into(),
            State::Restarting(exited) | State::Starting { again: true, before: Some(exited), .. } => {
                let ago = words(now.duration_since(exited.finished_at).as_secs());
                format!("Restarting ({}) {ago} ago", exited.code)
            }
            other => match other.last_exit() {
                Some(exited) => {
                    let ago = words(now.duration_since(exited.finished_at).as_secs());
                    let word = if other.status() == Status::Restarting { "Restarting" } else { "Exited" };
                    format!("{word} ({}) {ago} ago", exited.code)
                }
                None => "Created".into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exited(code: i32) -> Exited {
        Exited {
            code,
            oom_killed: false,
            error: String::new(),
            started_at: Some(at(100)),
            finished_at: at(200),
        }
    }

    fn running(paused: bool) -> State {
        State::Running(Running {
            pid: 7,
            started_at: at(100),
            paused,
            endpoints: vec![],
            oom_killed: false,
            resolver: None,
        })
    }

    fn starting(again: bool) -> State {
        State::Starting { endpoints: vec![], before: Some(exited(1)), again }
    }

    #[test]
    fn a_start_by_the_policy_is_part_of_the_restart() {
        let shown = starting(true).to_api();
        assert!(shown.restarting && shown.running && shown.exit_code == 1);
        let shown = starting(false).to_api();
        assert!(!shown.restarting && !shown.running);
    }

    #[test]
    fn each_state_has_its_word_and_description() {
        let now = at(200 + 7200);
        for (state, word, text) in [
            (State::NEW, "created", "Created"),
            (State::Starting { endpoints: vec![], before: None, again: false }, "created", "Created"),
            (running(false), "running", "Up 2 hours"),
            (running(true), "paused", "Up 2 hours (Paused)"),
            (State::Exited(exited(3)), "exited", "Exited (3) 2 hours ago"),
            (State::Restarting(exited(3)), "restarting", "Restarting (3) 2 hours ago"),
            (starting(false), "exited", "Exited (1) 2 hours ago"),
            (starting(true), "restarting", "Restarting (1) 2 hours ago"),
            (State::Removing, "removing", "Removal In Progress"),
        ] {
            assert_eq!((state.status().as_str(), state.describe(now, None).as_str()), (word, text));
        }
    }

    #[test]
    fn health_is_shown_of_what_runs() {
        let shown = |state: State, health| state.describe(at(160), Some(health));
        assert_eq!(shown(running(false), HealthStatus::Starting), "Up About a minute (health: starting)");
        assert_eq!(shown(running(false), HealthStatus::Unhealthy), "Up About a minute (unhealthy)");
        assert_eq!(shown(running(true), HealthStatus::Healthy), "Up About a minute (Paused)");
    }

    #[test]
    fn a_failed_start_keeps_what_was() {
        let failure = Failure { code: 127, error: "not found".into() };
        let new = State::failed(None, failure.clone());
        assert_eq!((new.status(), new.exit_code()), (Status::Created, 127));
        assert_eq!(new.to_api().error, "not found");
        let again = State::failed(Some(exited(0)), failure);
        assert_eq!((again.status(), again.exit_code()), (Status::Exited, 127));
        assert_eq!(again.to_api().finished_at, Time(at(200)));
    }

    #[test]
    fn inspection_shows_the_right_fields() {
        let shown = running(true).to_api();
        assert!(shown.running && shown.paused && shown.pid == 7 && shown.finished_at.is_zero());
        let shown = State::Exited(Exited { oom_killed: true, ..exited(137) }).to_api();
        assert!(!shown.running && shown.oom_killed && shown.exit_code == 137 && shown.pid == 0);
        assert!(State::NEW.to_api().started_at.is_zero());
    }

    #[test]
    fn older_rows_have_one_endpoint_or_none() {
        let row = |endpoint: &str| format!(r#"{{"starting":{{"endpoint":{endpoint},"before":null}}}}"#);
        assert_eq!(serde_json::from_str::<State>(&row("null")).unwrap(), starting_new(vec![]));
        let old = r#"{"host_link":"veth1","name":"eth0","mac":[0,0,0,0,0,0],"addresses":[],"gateways":[],"ports":[]}"#;
        let one = Endpoint { host_link: "veth1".into(), name: "eth0".into(), ..Endpoint::default() };
        assert_eq!(serde_json::from_str::<State>(&row(old)).unwrap(), starting_new(vec![one]));
    }

    fn starting_new(endpoints: Vec<Endpoint>) -> State {
        State::Starting { endpoints, before: None, again: false }
    }

    #[test]
    fn states_survive_their_row() {
        let states = [
            State::NEW,
            running(true),
            State::Exited(exited(1)),
            State::Restarting(exited(1)),
            State::Removing,
            starting(true),
        ];
        for state in states {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }
}
