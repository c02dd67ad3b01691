//! Random operations and daemons killed in the midst of them, held against a model and against the kernel.
//!
//! `BERTH_MODEL_SEED` replays a run, `BERTH_MODEL_OPERATIONS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::output::{eventually, eventually_within};

/// Names that containers of the model can have; none of them could be the beginning of an ID.
const NAMES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];
/// A network beside the default one.
const NETWORK: &str = "model";
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
    Create { network: &'static str, published: bool },
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove { force: bool },
    Rename { to: &'static str },
    Update { shares: u64 },
    Exec,
}

impl Operation {
    fn any(random: &mut Random) -> Operation {
        match random.below(14) {
            0..2 => {
                let network = random.of(&["none", "bridge", NETWORK]);
                Operation::Create { network, published: random.below(2) == 0 }
            }
            2..4 => Operation::Start,
            4 => Operation::Stop,
            5 => Operation::Kill,
            6 => Operation::Restart,
            7 => Operation::Pause,
            8 => Operation::Unpause,
            9 => Operation::Remove { force: random.below(2) == 0 },
            10 => Operation::Rename { to: random.of(&NAMES) },
            11 => Operation::Update { shares: 2 + random.below(1000) },
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
            // To a name that nobody has; the container is absent under its old one.
            (Operation::Rename { .. }, _) => (204, Absent),
            (Operation::Update { .. }, _) => (200, state),
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
            Operation::Create { network, published } => {
                let body = serde_json::json!({
                    "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": { "80/tcp": {} },
                    "HostConfig": {
                        "NetworkMode": network, "Binds": [format!("volume-{name}:/data")],
                        "PortBindings": if published { serde_json::json!({ "80/tcp": [{}] }) } else { Value::Null },
                    },
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
            Operation::Rename { to } => ("POST", of(&format!("rename?name={to}")), String::new()),
            Operation::Update { shares } => {
                ("POST", of("update"), serde_json::json!({ "CpuShares": shares }).to_string())
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

/// What the daemon says of a container.
struct Reported {
    state: State,
    id: String,
    /// Its address, while it has one.
    address: Option<String>,
    /// The port of the host where it is published, while it is.
    port: Option<u64>,
}

/// What the daemon says of all containers, by name.
fn reported(daemon: &Daemon) -> BTreeMap<String, Reported> {
    let (status, body) = ask(&daemon.socket(), "GET", "/containers/json?all=1", "").unwrap();
    assert_eq!(status, 200, "{body}");
    let list: Vec<Value> = serde_json::from_str(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|container| {
            let name = text(&container["Names"][0]).trim_start_matches('/').to_owned();
            let networks = container["NetworkSettings"]["Networks"].as_object().unwrap();
            let addresses = networks.values().filter_map(|network| network["IPAddress"].as_str());
            let ports = container["Ports"].as_array().into_iter().flatten();
            let reported = Reported {
                state: State::named(&text(&container["State"])),
                id: text(&container["Id"]),
                address: addresses.filter(|address| !address.is_empty()).map(str::to_owned).next(),
                port: ports.filter_map(|port| port["PublicPort"].as_u64()).next(),
            };
            (name, reported)
        })
        .collect()
}

struct Run {
    daemon: Daemon,
    random: Random,
    states: BTreeMap<&'static str, State>,
    /// Every address that a container had.
    addresses: BTreeSet<String>,
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
        if let Operation::Rename { to } = operation {
            self.rename(name, to, &path);
        } else if self.random.below(KILLED) == 0 {
            self.killed_during(method, path, body);
            let found = reported(&self.daemon).get(name).map_or(Absent, |found| found.state);
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

    /// Sends a request, and has the daemon killed while it is carried out, or shortly before or after.
    fn killed_during(&mut self, method: &'static str, path: String, body: String) {
        let delay = Duration::from_micros(self.random.below(20_000));
        self.history.push(format!("killed after {delay:?}"));
        let socket = self.daemon.socket();
        // The answer, if there is one, tells nothing: the daemon may be killed before or after it.
        let request = std::thread::spawn(move || ask(&socket, method, &path, &body).is_ok());
        std::thread::sleep(delay);
        self.daemon.kill();
        request.join().unwrap();
        self.daemon.launch();
    }

    /// A container has its old name or its new one, whatever happens meanwhile.
    fn rename(&mut self, name: &'static str, to: &'static str, path: &str) {
        let (before, there) = (self.states[name], self.states[to]);
        let status = match (before, there) {
            (Absent, _) => 404,
            _ if name == to => 400,
            (_, Absent) => 204,
            _ => 409,
        };
        let renamed = if self.random.below(KILLED) == 0 {
            self.killed_during("POST", path.to_owned(), String::new());
            status == 204 && reported(&self.daemon).contains_key(to)
        } else {
            let answer = ask(&self.daemon.socket(), "POST", path, "").unwrap();
            assert_eq!(answer.0, status, "{answer:?}");
            status == 204
        };
        if renamed {
            self.states.insert(name, Absent);
            self.states.insert(to, before);
        }
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
    fn compare(&mut self) {
        let reported = reported(&self.daemon);
        let expected: BTreeMap<&str, State> = self
            .states
            .iter()
            .filter(|(_, state)| **state != Absent)
            .map(|(name, state)| (*name, *state))
            .collect();
        let states: BTreeMap<&str, State> =
            reported.iter().map(|(name, found)| (name.as_str(), found.state)).collect();
        assert_eq!(states, expected);
        for found in reported.values() {
            let processes = processes(&found.id);
            let alive = matches!(found.state, Running | Paused);
            assert_eq!(processes > 0, alive, "{} is {:?} with {processes} processes", found.id, found.state);
            assert!(alive || found.address.is_none() && found.port.is_none(), "{} has not ended", found.id);
        }
        self.compare_network(&reported);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for folder in [self.daemon.data_root(), self.daemon.exec_root()] {
            let containers = folder.join("containers");
            assert!(!mounts.contains(containers.to_str().unwrap()), "{mounts}");
        }
    }

    /// No address is given twice, what is published leads to its container, and each has one link.
    fn compare_network(&mut self, reported: &BTreeMap<String, Reported>) {
        let addresses: Vec<&String> = reported.values().filter_map(|found| found.address.as_ref()).collect();
        let different: BTreeSet<String> = addresses.iter().map(|address| (*address).clone()).collect();
        assert_eq!(different.len(), addresses.len(), "{addresses:?}");
        self.addresses.extend(different);
        if reported.values().any(|found| found.port.is_some()) {
            let rules = rules();
            for found in reported.values().filter(|found| found.port.is_some()) {
                let (address, port) = (found.address.as_ref().unwrap(), found.port.unwrap());
                let port = port.to_string();
                let leads = words(&rules).is_superset(&BTreeSet::from([address.as_str(), &port]));
                assert!(leads, "{address}:{port} in {rules}");
            }
        }
        eventually("one link for each", || (links() == addresses.len()).then_some(()));
    }

    /// With every container removed, nothing is left of any.
    fn end(&self) {
        let ids: Vec<String> = reported(&self.daemon).into_values().map(|found| found.id).collect();
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
        // No volume is in use any more.
        for name in NAMES {
            let (status, body) =
                ask(&self.daemon.socket(), "DELETE", &format!("/volumes/volume-{name}"), "").unwrap();
            assert!([204, 404].contains(&status), "{status} {body}");
        }
        // Daemon, spawner and net process. A shim that has still something to deliver may stay for half a minute.
        eventually_within(Duration::from_secs(45), "no process is left", || {
            (self.daemon.processes().len() <= 3).then_some(())
        });
        eventually("no link is left", || (links() == 0).then_some(()));
        eventually("no rule for an address is left", || {
            let rules = rules();
            let words = words(&rules);
            self.addresses.iter().all(|address| !words.contains(address.as_str())).then_some(())
        });
    }
}

/// Processes of a container, by the kernel.
fn processes(id: &str) -> usize {
    let places = ["/sys/fs/cgroup/pids/berth", "/sys/fs/cgroup/berth", "/sys/fs/cgroup/unified/berth"];
    let files = places.map(|place| Path::new(place).join(id).join("cgroup.procs"));
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.lines().count())
        .max()
        .unwrap_or(0)
}

/// Links of containers, at any bridge.
fn links() -> usize {
    let mut command = std::process::Command::new("ip");
    let links = crate::output::run(command.args(["-o", "link", "show", "type", "veth"]));
    links.stdout.lines().filter(|line| line.contains(" master ")).count()
}

/// Numbers and addresses.
fn words(rules: &str) -> BTreeSet<&str> {
    rules.split(|c: char| c != '.' && !c.is_ascii_digit()).collect()
}

/// All that filters and translates packets here.
fn rules() -> String {
    crate::output::run(std::process::Command::new("nft").args(["list", "ruleset"])).stdout
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
    let daemon = Daemon::start();
    let network = serde_json::json!({ "Name": NETWORK }).to_string();
    let (status, body) = ask(&daemon.socket(), "POST", "/networks/create", &network).unwrap();
    assert_eq!(status, 201, "{body}");
    let mut run =
        Run { daemon, random: Random::new(seed), states, addresses: BTreeSet::new(), history: Vec::new() };
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
