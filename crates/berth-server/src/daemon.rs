//! `berth daemon`: from arguments to a served engine, and to its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::level_filters::LevelFilter;

use crate::connection;
use crate::host::{Host, is_loopback};
use crate::listen::{self, Listener};
use crate::options::{LogLevel, OptionError, Options, Resolved};
use crate::pidfile::PidFile;
use crate::process;

/// How long requests under way get to finish once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a daemon with a command line as `dockerd`'s, program name first; `daemon` may follow it.
///
/// Returns when the daemon was asked to end (0), or could not start (1).
pub fn main(args: Vec<OsString>) -> ExitCode {
    let options = match Options::parse_from_args(&args) {
        Ok(options) => options,
        Err(OptionError::Usage(error)) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            // Nobody is left to be told that even this cannot be printed.
            let _ = error.print();
            return code;
        }
        Err(error) => return fail(&error),
    };
    if options.version {
        // A closed output is no failure of the daemon's.
        let _ = writeln!(io::stdout(), "Berth version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match options.resolve(&args) {
        Ok(resolved) => match run(resolved) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.as_ref()),
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    // A closed stderr is no reason for another end.
    let _ = writeln!(io::stderr(), "failed to start daemon: {error}");
    ExitCode::FAILURE
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is done while there is one thread: descriptors taken over, the process prepared, sockets opened.
fn run(resolved: Resolved) -> Result<(), AnyError> {
    start_logging(resolved.log_level);
    if !rustix::process::geteuid().is_root() {
        return Err("the daemon needs to be started as root".into());
    }
    // First of all: nothing opened here may take the place of a passed-in descriptor.
    let ready = resolved.ready_fd.map(berth_sys::inherited::take).transpose();
    let ready = ready.map_err(|error| format!("--ready-fd: {error}"))?;
    process::prepare();
    let listeners = listen::open_all(&resolved.hosts, &resolved.group, resolved.insecure_tcp)?;
    // The pidfile may be the first thing in it.
    make_private(&resolved.settings.exec_root)?;
    let pidfile = PidFile::create(&resolved.pidfile)?;
    if resolved.on_demand {
        process::leave(&resolved.settings.cgroup_parent);
    }
    warn_of_tcp(&listeners);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_name("berth")
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(resolved, listeners, ready.map(File::from)));
    // Blocking work that is still under way must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    drop(pidfile);
    result
}

/// Makes a directory that root alone may enter; one that is there already is the engine's to check.
fn make_private(path: &Path) -> Result<(), AnyError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| format!("create {}: {error}", parent.display()))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("create {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// Says how far each TCP socket opens this host (R23).
fn warn_of_tcp(listeners: &[Listener]) {
    for address in listeners.iter().filter_map(Listener::tcp_address) {
        let who = if is_loopback(address.ip()) {
            "every user and program of this host, containers on the host's network included,"
        } else {
            "whoever can connect, containers included,"
        };
        tracing::warn!("the API answers on tcp://{address} without TLS: {who} is root on this host");
    }
}

/// Opens the engine, answers until asked to end, and ends.
async fn serve(resolved: Resolved, listeners: Vec<Listener>, ready: Option<File>) -> Result<(), AnyError> {
    let mut signals = Signals::new()?;
    // The sockets listen already: clients that come now wait in their queues instead of being refused.
    let engine = Engine::open(resolved.settings).await?;
    let (stop, stopped) = watch::channel(false);
    let (acceptors, conversations) = (TaskTracker::new(), TaskTracker::new());
    for listener in listeners {
        acceptors.spawn(connection::serve(listener, engine.clone(), stopped.clone(), conversations.clone()));
    }
    acceptors.close();
    conversations.close();
    if let Some(mut ready) = ready {
        // Whoever waited may have gone.
        let _ = ready.write_all(b"1");
    }
    let hosts: Vec<String> = resolved.hosts.iter().map(Host::to_string).collect();
    tracing::info!(hosts = hosts.join(" "), "API listens");
    notify_systemd("READY=1");

    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    notify_systemd("STOPPING=1");
    // Receivers that are gone need no telling.
    let _ = stop.send(true);
    let end = async {
        acceptors.wait().await;
        // Streams may last for ever; they end with the process.
        let _ = tokio::time::timeout(DRAIN, conversations.wait()).await;
        engine.shutdown().await;
    };
    tokio::select! {
        () = end => {}
        name = signals.next() => tracing::warn!(signal = name, "stopping at once"),
    }
    Ok(())
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells systemd, if it started this process with `Type=notify` (sd_notify(3)).
fn notify_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let result = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::net::SocketAddr;

        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = result {
        tracing::debug!(%error, "systemd was not told");
    }
}

fn start_logging(level: LogLevel) {
    let level = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Fatal => LevelFilter::ERROR,
    };
    let started = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was set up before");
    }
}
