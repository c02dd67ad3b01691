//! Random operations and daemons killed in the midst of them, held against a model and against the kernel.
//!
//! `BERTH_MODEL_SEED` replays a run, `BERTH_MODEL_OPERATIONS` makes it longer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::output::eventually;

/// Names that containers of the model can have; none of them could be the beginning of an ID.
const NAMES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];
/// One operation in this many has the daemon killed while it runs.
const KILLED: u64 = 6;

/// xorshift64*: the same numbers for the same seed, everywhere.
pub struct Random(u64);

impl Random {
    /// A generator; a seed of zero would give zeros for ever.
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    Running,
    Paused,
    Exited,
}

use State::{Absent, Created, Exited, Paused, Running};

impl State {
    fn named(text: &str) -> State {
        match text {
            "created" => Created,
            "running" => Running,
            "paused" => Paused,
            "exited" => Exited,
            other => panic!("a container is {other}, which the model does not know"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create { network: &'static str },
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove { force: bool },
    Exec,
}

impl Operation {
    fn any(random: &mut Random) -> Operation {
        match random.below(12) {
            0..2 => Operation::Create { network: random.of(&["none", "bridge"]) },
            2..4 => Operation::Start,
            4 => Operation::Stop,
            5 => Operation::Kill,
            6 => Operation::Restart,
            7 => Operation::Pause,
            8 => Operation::Unpause,
            9 => Operation::Remove { force: random.below(2) == 0 },
            _ => Operation::Exec,
        }
    }

    /// The answer's status, and the state afterwards, as Docker has them.
    fn expected(self, state: State) -> (u16, State) {
        match (self, state) {
            (Operation::Create { .. }, Absent) => (201, Created),
            (Operation::Create { .. }, _) => (409, state),
            (_, Absent) => (404, Absent),
            (Operation::Start, Created | Exited) => (204, Running),
            (Operation::Start, Running) => (304, Running),
            (Operation::Start, Paused) => (409, Paused),
            (Operation::Stop, Running | Paused) => (204, Exited),
            (Operation::Stop, Created | Exited) => (304, state),
            (Operation::Kill, Running | Paused) => (204, Exited),
            (Operation::Kill, Created | Exited) => (409, state),
            (Operation::Restart, _) => (204, Running),
            (Operation::Pause, Running) => (204, Paused),
            (Operation::Unpause, Paused) => (204, Running),
            (Operation::Pause | Operation::Unpause, _) => (409, state),
            (Operation::Remove { force: false }, Running | Paused) => (409, state),
            (Operation::Remove { .. }, _) => (204, Absent),
            (Operation::Exec, Running) => (201, Running),
            (Operation::Exec, _) => (409, state),
        }
    }

    /// Where an interrupted operation may leave a container, besides before and after.
    fn between(self, state: State) -> &'static [State] {
        match (self, state) {
            (Operation::Restart | Operation::Remove { force: true }, Running) => &[Exited],
            (operation, Paused) if operation.ends() => &[Running, Exited],
            _ => &[],
        }
    }

    /// A signal that ends the container may be on its way when the daemon is killed.
    fn ends(self) -> bool {
        matches!(
            self,
            Operation::Stop | Operation::Kill | Operation::Restart | Operation::Remove { force: true }
        )
    }

    fn request(self, name: &str) -> (&'static str, String, String) {
        let of = |what: &str| format!("/containers/{name}/{what}");
        match self {
            Operation::Create { network } => {
                let body = serde_json::json!({
                    "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": network },
                });
                ("POST", format!("/containers/create?name={name}"), body.to_string())
            }
            Operation::Start => ("POST", of("start"), String::new()),
            Operation::Stop => ("POST", of("stop?t=0"), String::new()),
            Operation::Kill => ("POST", of("kill"), String::new()),
            Operation::Restart => ("POST", of("restart?t=0"), String::new()),
            Operation::Pause => ("POST", of("pause"), String::new()),
            Operation::Unpause => ("POST", of("unpause"), String::new()),
            Operation::Remove { force } => {
                ("DELETE", format!("/containers/{name}?force={force}"), String::new())
            }
            Operation::Exec => ("POST", of("exec"), r#"{"Cmd": ["true"]}"#.to_owned()),
        }
    }
}

/// Sends one request; the answer's status and body.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// What the daemon says of all containers: states and IDs by name.
fn reported(daemon: &Daemon) -> BTreeMap<String, (State, String)> {
    let (status, body) = ask(&daemon.socket(), "GET", "/containers/json?all=1", "").unwrap();
    assert_eq!(status, 200, "{body}");
    let list: Vec<Value> = serde_json::from_str(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|container| {
            let name = text(&container["Names"][0]).trim_start_matches('/').to_owned();
            (name, (State::named(&text(&container["State"])), text(&container["Id"])))
        })
        .collect()
}

struct Run {
    daemon: Daemon,
    random: Random,
    states: BTreeMap<&'static str, State>,
    /// What was done, for the one who reads a failure.
    history: Vec<String>,
}

impl Run {
    fn step(&mut self) {
        let name = self.random.of(&NAMES);
        let operation = Operation::any(&mut self.random);
        let before = self.states[name];
        let (status, after) = operation.expected(before);
        let (method, path, body) = operation.request(name);
        self.history.push(format!("{operation:?} {name} ({before:?})"));
        if self.random.below(KILLED) == 0 {
            let delay = Duration::from_micros(self.random.below(20_000));
            self.history.push(format!("killed after {delay:?}"));
            let socket = self.daemon.socket();
            // The answer, if there is one, tells nothing: the daemon may be killed before or after it.
            let request = std::thread::spawn(move || ask(&socket, method, &path, &body).is_ok());
            std::thread::sleep(delay);
            self.daemon.kill();
            request.join().unwrap();
            self.daemon.launch();
            let found = reported(&self.daemon).get(name).map_or(Absent, |(state, _)| *state);
            let allowed = [before, after].contains(&found) || operation.between(before).contains(&found);
            assert!(allowed, "{name} is {found:?}");
            let settled = if operation.ends() { self.settle(name, found) } else { found };
            self.states.insert(name, settled);
        } else {
            let answer = ask(&self.daemon.socket(), method, &path, &body).unwrap();
            assert_eq!(answer.0, status, "{answer:?}");
            self.states.insert(name, after);
        }
        self.compare();
    }

    /// What may be about to end is ended.
    fn settle(&self, name: &str, found: State) -> State {
        if !matches!(found, Running | Paused) {
            return found;
        }
        let (method, path, body) = Operation::Kill.request(name);
        let (status, body) = ask(&self.daemon.socket(), method, &path, &body).unwrap();
        assert!([204, 409].contains(&status), "{status} {body}");
        Exited
    }

    /// Daemon, model and kernel agree.
    fn compare(&self) {
        let reported = reported(&self.daemon);
        let expected: BTreeMap<&str, State> = self
            .states
            .iter()
            .filter(|(_, state)| **state != Absent)
            .map(|(name, state)| (*name, *state))
            .collect();
        let states: BTreeMap<&str, State> =
            reported.iter().map(|(name, (state, _))| (name.as_str(), *state)).collect();
        assert_eq!(states, expected);
        for (state, id) in reported.values() {
            let cgroup = Path::new("/sys/fs/cgroup/pids/berth").join(id).join("cgroup.procs");
            let processes = fs::read_to_string(&cgroup).unwrap_or_default().lines().count();
            let alive = matches!(state, Running | Paused);
            assert_eq!(processes > 0, alive, "{id} is {state:?} with {processes} processes");
        }
    }

    /// With every container removed, nothing is left of any.
    fn end(&self) {
        let ids: Vec<String> = reported(&self.daemon).into_values().map(|(_, id)| id).collect();
        for id in &ids {
            let (status, body) =
                ask(&self.daemon.socket(), "DELETE", &format!("/containers/{id}?force=true"), "").unwrap();
            assert_eq!(status, 204, "{body}");
        }
        for folder in [self.daemon.data_root(), self.daemon.exec_root()] {
            let left: Vec<_> = fs::read_dir(folder.join("containers"))
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for id in &ids {
                let cgroup = hierarchy.path().join("berth").join(id);
                assert!(!cgroup.exists(), "{}", cgroup.display());
            }
        }
        // Daemon, spawner and net process; shims may need a moment to go.
        eventually("no process is left", || (self.daemon.processes().len() <= 3).then_some(()));
        eventually("no link is left", || {
            let links = crate::output::run(
                std::process::Command::new("ip")
                    .args(["-o", "link", "show", "type", "veth", "master", "berth0"]),
            );
            links.stdout.is_empty().then_some(())
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.history.len().saturating_sub(30);
            eprintln!("the last operations:\n{}", self.history[last..].join("\n"));
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(seed: u64) {
    let seed = number("BERTH_MODEL_SEED", seed);
    eprintln!("BERTH_MODEL_SEED={seed}");
    let states = NAMES.iter().map(|name| (*name, Absent)).collect();
    let mut run = Run { daemon: Daemon::start(), random: Random::new(seed), states, history: Vec::new() };
    for _ in 0..number("BERTH_MODEL_OPERATIONS", 500) {
        run.step();
    }
    run.end();
}

#[test]
fn killed_daemons_agree_with_the_model_first() {
    run(0x5eed_0001);
}

#[test]
fn killed_daemons_agree_with_the_model_second() {
    run(0xfeed_f00d);
}
