//! Further processes in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_api::exec;
use berth_runtime::launch::ExecLaunch;
use berth_shim::client::{ExecError, ExecRequest, ShimClient};
use berth_shim::protocol::{Framing, Target};
use berth_shim::spawner::Attach;
use bytes::BytesMut;
use tokio::sync::Notify;

use super::attach::{detach_keys, framing, send_all};
use super::files::view;
use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::create::security::SecurityOptions;
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::spec::{self, process};
use crate::{Engine, Error, name, op};

/// How long an exec instance that has ended can be inspected.
const KEPT: Duration = Duration::from_secs(300);
/// How long the end of an exec may take to be told after its shim has gone.
const LAST_NEWS: Duration = Duration::from_secs(1);
/// Exec instances of one container that may exist at once.
const MAX_PER_CONTAINER: usize = 4096;

/// A process that was added to a container, or is to be.
pub struct Exec {
    /// Its ID.
    pub id: String,
    container: Arc<Container>,
    op: op::ExecCreate,
    keys: Vec<u8>,
    created: Instant,
    state: Mutex<ExecState>,
    over: Notify,
}

/// What an exec instance is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ExecState {
    Created,
    Starting,
    Running { pid: i32 },
    Ended { pid: i32, code: i32, at: Instant },
}

impl Exec {
    fn lock(&self) -> MutexGuard<'_, ExecState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> ExecState {
        *self.lock()
    }

    /// Marks it as running, unless its end was told already.
    fn started(&self, pid: i32) {
        let mut state = self.lock();
        match *state {
            ExecState::Ended { code, at, .. } => *state = ExecState::Ended { pid, code, at },
            _ => *state = ExecState::Running { pid },
        }
    }

    /// Marks it as ended; true if it ran until now.
    fn end(&self, code: i32) -> bool {
        let mut state = self.lock();
        let (ran, pid) = match *state {
            ExecState::Running { pid } => (true, pid),
            ExecState::Starting => (true, 0),
            ExecState::Created | ExecState::Ended { .. } => return false,
        };
        *state = ExecState::Ended { pid, code, at: Instant::now() };
        self.over.notify_waiters();
        ran
    }

    /// The ID of its container.
    pub(super) fn container_id(&self) -> &str {
        self.container.id()
    }

    /// How it ended, if it has.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self.state() {
            ExecState::Ended { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(&self) {
        loop {
            let mut over = pin!(self.over.notified());
            // What is told from here on is heard.
            over.as_mut().enable();
            if self.exit_code().is_some() {
                return;
            }
            over.await;
        }
    }

    fn is_stale(&self) -> bool {
        matches!(self.state(), ExecState::Ended { at, .. } if at.elapsed() > KEPT)
    }

    /// Since when nobody is likely to ask for it any more.
    fn idle_since(&self) -> Option<Instant> {
        match self.state() {
            ExecState::Ended { at, .. } => Some(at),
            ExecState::Created if self.created.elapsed() > KEPT => Some(self.created),
            ExecState::Created | ExecState::Starting | ExecState::Running { .. } => None,
        }
    }
}

/// All exec instances.
#[derive(Default)]
pub struct Execs {
    by_id: Mutex<BTreeMap<String, Arc<Exec>>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NoSuchExec(id.to_owned()))
    }

    fn insert(&self, exec: Arc<Exec>) -> Result<(), Error> {
        let mut all = self.lock();
        all.retain(|_, exec| !exec.is_stale());
        let container = exec.container.id();
        let others = all.values().filter(|other| other.container.id() == container);
        if others.clone().count() >= MAX_PER_CONTAINER {
            let idle = others.filter_map(|other| Some((other.idle_since()?, other.id.clone())));
            let Some((_, oldest)) = idle.min() else {
                return Err(Error::Unavailable(format!(
                    "container {container} has {MAX_PER_CONTAINER} exec instances already"
                )));
            };
            all.remove(&oldest);
        }
        all.insert(exec.id.clone(), exec);
        Ok(())
    }

    /// IDs of a container's instances that have not ended, for `inspect`.
    pub fn of(&self, container: &str) -> Vec<String> {
        let all = self.lock();
        let live = all.values().filter(|exec| {
            exec.container.id() == container
                && matches!(exec.state(), ExecState::Starting | ExecState::Running { .. })
        });
        live.map(|exec| exec.id.clone()).collect()
    }

    /// Its shim says that it has ended; the instance, if it is known and ran until now.
    pub(super) fn ended(&self, id: &str, code: i32) -> Option<Arc<Exec>> {
        let exec = self.find(id).ok()?;
        exec.end(code).then_some(exec)
    }

    /// The container has ended, and all its processes with it; those that ran until now. As in Docker, what was not
    /// started by then can no longer be.
    pub(super) fn end_all(&self, container: &str, code: i32) -> Vec<Arc<Exec>> {
        let mut all = self.lock();
        all.retain(|_, exec| exec.container.id() != container || !matches!(exec.state(), ExecState::Created));
        all.values().filter(|e| e.container.id() == container && e.end(code)).cloned().collect()
    }

    /// Nobody will ask for it any more.
    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The container is gone.
    pub(super) fn forget(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container.id() != container);
    }
}

/// An exec instance that may start, with no connection yet.
pub struct PendingExec {
    /// Whether the streams are raw (a terminal) instead of framed.
    pub tty: bool,
    /// Whether nothing is to be connected.
    pub detach: bool,
    parts: Arc<Parts>,
    exec: Arc<Exec>,
    shim: Arc<ShimClient>,
    size: Option<(u16, u16)>,
    framing: Framing,
    ends_with_client: bool,
}

impl PendingExec {
    /// Starts the process. With a connection (and what was read from it beyond the request), a failure is also
    /// written to it, as Docker does.
    pub async fn start(self, connection: Option<(OwnedFd, Vec<u8>)>) -> Result<(), Error> {
        // What is told to the client when the connection is given away already.
        let spare = connection.as_ref().and_then(|(connection, _)| connection.try_clone().ok());
        let tty = self.tty;
        let outcome = self.run(connection).await;
        if let (Err(error), Some(connection)) = (&outcome, spare) {
            let text = format!("{error}\r\n");
            let mut framed = BytesMut::new();
            if tty {
                framed.extend_from_slice(text.as_bytes());
            } else {
                berth_api::stream::encode(berth_api::stream::Stream::Stdout, text.as_bytes(), &mut framed);
            }
            // A client that went away needs no message.
            let _ = send_all(&connection, &framed).await;
        }
        outcome
    }

    /// Starts the process; failures are told to the caller alone.
    pub(super) async fn run(&self, connection: Option<(OwnedFd, Vec<u8>)>) -> Result<(), Error> {
        let (exec, container) = (&self.exec, &self.exec.container);
        let launch = match self.launch() {
            Ok(launch) => launch,
            Err(error) => {
                exec.end(126);
                return Err(error);
            }
        };
        let attach = connection.map(|(connection, prefix)| Attach {
            connection,
            prefix,
            stdin: exec.op.stdin,
            stdout: exec.op.stdout,
            stderr: exec.op.stderr,
            framing: self.framing,
            detach_keys: if exec.op.tty { exec.keys.clone() } else { Vec::new() },
        });
        let (id, command) = (exec.id.clone(), command_line(&exec.op.command));
        self.parts.events.publish(container.event(ContainerEvent::ExecStart { id, command }));
        let request = ExecRequest {
            id: exec.id.clone(),
            launch,
            tty: exec.op.tty,
            stdin_open: exec.op.stdin && attach.is_some(),
            attach,
            ends_with_client: self.ends_with_client,
        };
        match self.shim.exec(request).await {
            Ok(pid) => {
                exec.started(pid);
                Ok(())
            }
            Err(ExecError::Failed(error)) => {
                exec.end(error.exit_code());
                Err(error.into())
            }
            Err(ExecError::Shim(error)) => {
                exec.end(126);
                Err(error.into())
            }
        }
    }

    /// Output comes as it is, both streams mixed, and the process ends at the latest with its connection.
    pub(super) fn for_check(mut self) -> PendingExec {
        self.framing = Framing::Raw;
        self.ends_with_client = true;
        self
    }

    /// Who starts it.
    pub(super) fn shim(&self) -> Arc<ShimClient> {
        Arc::clone(&self.shim)
    }

    fn launch(&self) -> Result<ExecLaunch, Error> {
        let op = &self.exec.op;
        let settings = self.parts.current.get();
        let effective = self.parts.effective(&self.exec.container.definition);
        let definition = settings.defaults.complete(&effective);
        let definition = definition.as_ref();
        let security = SecurityOptions::parse(&definition.host)?;
        let privileged = op.privileged || definition.host.privileged;
        let mut env = definition.config.env.clone().unwrap_or_default();
        env.extend(op.env.iter().cloned());
        let size = self.size.or(op.size);
        let wanted = process::Wanted {
            args: op.command.clone(),
            env,
            working_dir: op.working_dir.as_deref().unwrap_or(&definition.config.working_dir),
            tty: op.tty,
            size,
            privileged,
        };
        let user = op.user.clone().unwrap_or_else(|| definition.config.user.clone());
        let groups = definition.host.group_add.clone().unwrap_or_default();
        let mut process = process::process(wanted, &definition.config, &definition.host, &security)?;
        self.parts.apparmor.confine(&mut process, &definition.host);
        Ok(ExecLaunch {
            process,
            cgroups_path: Some(spec::cgroup_path(definition, &self.parts.settings.cgroup_parent)),
            seccomp: spec::seccomp(definition, &security)?,
            terminal: size,
            user: Some(user),
            groups,
            die_with_parent: true,
            preserve_fds: 0,
        })
    }
}

/// The state of an exec. A client asks when its stream has ended, which may be before the news of the exit is here.
async fn latest(exec: &Exec) -> ExecState {
    let pid = match exec.state() {
        ExecState::Running { pid } => pid,
        ExecState::Starting => 0,
        settled => return settled,
    };
    if let Some(shim) = exec.container.shim()
        && let Ok(code) = shim.exec_exit(&exec.id).await
    {
        return match code {
            Some(code) => ExecState::Ended { pid, code, at: Instant::now() },
            None => exec.state(),
        };
    }
    // The shim has gone, and with it the container: its owner is about to say so.
    let deadline = Instant::now() + LAST_NEWS;
    while matches!(exec.state(), ExecState::Running { .. } | ExecState::Starting) && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    exec.state()
}

/// The shim of a running container that can be joined; `called` is what the user calls a paused one.
fn joinable(container: &Container, called: &str) -> Result<Arc<ShimClient>, Error> {
    let id = container.id();
    match container.state() {
        State::Running(running) if running.paused => {
            Err(Error::Paused(format!("Container {called} is paused, unpause the container before exec")))
        }
        State::Running(_) => container.shim().ok_or_else(|| Error::NotRunning(id.to_owned())),
        State::Restarting(_) => Err(Error::restarting(id)),
        _ => Err(Error::NotRunning(id.to_owned())),
    }
}

/// Makes an instance for a process in a running container, which the user calls `called`.
pub(super) fn prepare(
    parts: &Parts,
    container: &Arc<Container>,
    called: &str,
    op: op::ExecCreate,
    keys: Vec<u8>,
) -> Result<Arc<Exec>, Error> {
    joinable(container, called)?;
    let id = name::new_id().map_err(|source| Error::Io { operation: "read random bytes".into(), source })?;
    let command = command_line(&op.command);
    let exec = Arc::new(Exec {
        id: id.clone(),
        container: Arc::clone(container),
        op,
        keys,
        created: Instant::now(),
        state: Mutex::new(ExecState::Created),
        over: Notify::new(),
    });
    parts.execs.insert(Arc::clone(&exec))?;
    parts.events.publish(container.event(ContainerEvent::ExecCreate { id, command }));
    Ok(exec)
}

/// Takes an instance into use, once.
pub(super) fn begin(parts: &Arc<Parts>, exec: &Arc<Exec>, op: &op::ExecStart) -> Result<PendingExec, Error> {
    let shim = joinable(&exec.container, exec.container.id())?;
    {
        let (id, mut state) = (&exec.id, exec.lock());
        match *state {
            ExecState::Created => *state = ExecState::Starting,
            ExecState::Ended { .. } => {
                return Err(Error::Conflict(format!("exec command {id} has already run")));
            }
            ExecState::Starting | ExecState::Running { .. } => {
                return Err(Error::Conflict(format!("exec command {id} is already running")));
            }
        }
    }
    let (parts, exec) = (Arc::clone(parts), Arc::clone(exec));
    Ok(PendingExec {
        // As in Docker, the one who starts it says how the streams come, terminal or not.
        tty: op.tty,
        detach: op.detach,
        parts,
        exec,
        shim,
        size: op.size,
        framing: framing(op.tty),
        ends_with_client: false,
    })
}

/// Program and arguments as events have them: Docker joins the two with a space, also where there are none.
fn command_line(command: &[String]) -> String {
    match command.split_first() {
        Some((program, arguments)) => format!("{program} {}", arguments.join(" ")),
        None => String::new(),
    }
}

#[expect(clippy::unused_async, reason = "some operations need not wait")]
impl Engine {
    /// Prepares a process in a running container.
    pub async fn exec_create(&self, name: &str, op: op::ExecCreate) -> Result<exec::CreateResponse, Error> {
        let keys = detach_keys(op.detach_keys.as_deref())?;
        let container = self.parts.containers.find(name)?;
        if let Some(user) = op.user.clone().filter(|user| !user.is_empty()) {
            joinable(&container, name)?;
            let view = view::open(&self.parts, &container).await?;
            // As in Docker, looked up once before: who is not there by then is refused with a status.
            blocking(move || match berth_runtime::user::resolve(view.root.as_fd(), &user, &[]) {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::InvalidParameter(error.to_string())),
            })
            .await?;
        }
        Ok(exec::CreateResponse { id: prepare(&self.parts, &container, name, op, keys)?.id.clone() })
    }

    /// Checks the start of an exec instance; send the answer's head, then [`PendingExec::start`].
    pub async fn exec_start(&self, id: &str, op: op::ExecStart) -> Result<PendingExec, Error> {
        let exec = self.parts.execs.find(id)?;
        begin(&self.parts, &exec, &op)
    }

    /// Everything about an exec instance.
    pub async fn exec_inspect(&self, id: &str) -> Result<exec::Inspect, Error> {
        let exec = self.parts.execs.find(id)?;
        let (running, exit_code, pid) = match latest(&exec).await {
            ExecState::Created => (false, None, 0),
            ExecState::Starting => (true, None, 0),
            ExecState::Running { pid } => (true, None, pid),
            ExecState::Ended { pid, code, .. } => (false, Some(i64::from(code)), pid),
        };
        let op = &exec.op;
        Ok(exec::Inspect {
            id: exec.id.clone(),
            running,
            exit_code,
            process_config: exec::ProcessConfig {
                tty: op.tty,
                entrypoint: op.command.first().cloned().unwrap_or_default(),
                arguments: op.command.iter().skip(1).cloned().collect(),
                privileged: Some(op.privileged),
                user: op.user.clone().unwrap_or_default(),
            },
            open_stdin: op.stdin,
            open_stderr: op.stderr,
            open_stdout: op.stdout,
            can_remove: exit_code.is_some(),
            container_id: exec.container.id().to_owned(),
            detach_keys: String::new(),
            pid: i64::from(pid),
        })
    }

    /// Sets the size of an exec instance's terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let exec = self.parts.execs.find(id)?;
        let shim = exec.container.shim();
        let shim = shim.ok_or_else(|| Error::NotRunning(exec.container.id().to_owned()))?;
        if !matches!(exec.state(), ExecState::Running { .. }) {
            return Err(Error::InvalidParameter("exec process is not started".into()));
        }
        Ok(shim.resize(Target::Exec(exec.id.clone()), rows, columns).await?)
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        let Some(shim) = container.shim() else {
            return Err(Error::NotRunning(container.id().to_owned()));
        };
        shim.resize(Target::Init, rows, columns).await?;
        self.parts.events.publish(container.event(ContainerEvent::Resize { rows, columns }));
        Ok(())
    }
}

/// A start that never came to its shim.
impl Drop for PendingExec {
    fn drop(&mut self) {
        let mut state = self.exec.lock();
        if *state == ExecState::Starting {
            *state = ExecState::Ended { pid: 0, code: 126, at: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Kept;
    use crate::create::tests::definition;

    fn exec(id: &str, container: &Arc<Container>) -> Arc<Exec> {
        Arc::new(Exec {
            id: id.into(),
            container: Arc::clone(container),
            op: op::ExecCreate::default(),
            keys: Vec::new(),
            created: Instant::now(),
            state: Mutex::new(ExecState::Starting),
            over: Notify::new(),
        })
    }

    fn container() -> Arc<Container> {
        let kept = Kept::new("c".into());
        Arc::new(Container::new(definition(), kept).0)
    }

    #[test]
    fn an_end_that_is_told_before_the_start_is_kept() {
        let one = exec("a", &container());
        assert!(one.end(3));
        one.started(77);
        assert!(matches!(one.state(), ExecState::Ended { pid: 77, code: 3, .. }));
        assert!(!one.end(4), "it ends once");
    }

    #[test]
    fn at_the_limit_the_oldest_that_has_ended_makes_room() {
        let container = container();
        let execs = Execs::default();
        let fill = (0..MAX_PER_CONTAINER).map(|n| (format!("{n:05}"), exec(&format!("{n:05}"), &container)));
        execs.lock().extend(fill);
        let refused = execs.insert(exec("new", &container)).unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
        let now = Instant::now();
        for (ended, at) in [("00003", now + Duration::from_secs(1)), ("00007", now)] {
            *execs.find(ended).unwrap().lock() = ExecState::Ended { pid: 1, code: 0, at };
        }
        execs.insert(exec("new", &container)).unwrap();
        assert!(execs.find("00007").is_err() && execs.find("00003").is_ok());
    }

    #[test]
    fn a_containers_end_is_the_end_of_its_processes_and_of_no_others() {
        let (mine, other) = (container(), container());
        let execs = Execs::default();
        for (id, of) in [("a", &mine), ("b", &mine), ("c", &other)] {
            execs.insert(exec(id, of)).unwrap();
        }
        assert!(execs.ended("a", 0).is_some());
        let ended: Vec<_> = execs.end_all(mine.id(), 137).iter().map(|e| e.id.clone()).collect();
        assert_eq!(ended, ["b"]);
        assert_eq!(execs.of(other.id()), ["c"]);
        execs.forget(mine.id());
        assert!(matches!(execs.find("a"), Err(Error::NoSuchExec(_))));
        assert!(execs.find("c").is_ok());
    }
}
