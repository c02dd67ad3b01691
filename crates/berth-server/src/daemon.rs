//! `berth daemon`: from arguments to a served engine, and to its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use berth_api::version::Build;
use berth_engine::Engine;
use berth_engine::plugin::Plugin;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::authorization::Authorization;
use crate::host::{Host, is_loopback};
use crate::listen::{self, Listener};
use crate::logging::{self, Verbosity};
use crate::options::{OpenTcp, OptionError, Options, Resolved};
use crate::pidfile::PidFile;
use crate::routes::Serving;
use crate::signals::{Asked, Signals};
use crate::{connection, metrics, process, remap, systemd};

/// How long requests under way get to finish once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a daemon under Docker's name waits before it opens the host to others, as `dockerd` does.
const HESITATION: Duration = Duration::from_secs(15);
/// How long authorization plugins are waited for when the daemon starts; they may be containers.
const PLUGINS_AT_START: Duration = Duration::from_secs(15);
/// How long they are waited for when the settings change, while nothing else is done.
const PLUGINS_LATER: Duration = Duration::from_secs(2);

/// Runs a daemon with a command line as `dockerd`'s, program name first; `daemon` may follow it.
///
/// `build` is what the program was made of.
/// Returns when the daemon was asked to end (0), or could not start (1).
pub fn main(args: Vec<OsString>, build: Build) -> ExitCode {
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
        let _ = writeln!(io::stdout(), "Berth version {}, build {}", env!("CARGO_PKG_VERSION"), build.commit);
        return ExitCode::SUCCESS;
    }
    let outcome = match options.resolve() {
        Ok(resolved) if options.validate => validate(&resolved),
        Ok(mut resolved) => {
            resolved.settings.build = build;
            run(options, resolved)
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    // A closed stderr is no reason for another end.
    let _ = writeln!(io::stderr(), "failed to start daemon: {error}");
    ExitCode::FAILURE
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Says that the options can be used. What they need of the host is tried only when the daemon starts.
fn validate(resolved: &Resolved) -> Result<(), AnyError> {
    resolved.tls.as_ref().map(|files| files.acceptor()).transpose()?;
    // As dockerd, on standard error; whoever closed it looks at the exit code.
    let _ = writeln!(io::stderr(), "configuration OK");
    Ok(())
}

/// What the daemon listens on.
struct Sockets {
    api: Vec<Listener>,
    tls: Option<TlsAcceptor>,
    metrics: Vec<Listener>,
}

/// What is done while there is one thread: descriptors taken over, the process prepared, sockets opened.
fn run(options: Options, mut resolved: Resolved) -> Result<(), AnyError> {
    let verbosity = logging::start(resolved.log_level, resolved.log_format, resolved.raw_logs);
    if !rustix::process::geteuid().is_root() {
        return Err("the daemon needs to be started as root".into());
    }
    // First of all: nothing opened here may take the place of a passed-in descriptor.
    let ready = resolved.ready_fd.map(berth_sys::inherited::take).transpose();
    let ready = ready.map_err(|error| format!("--ready-fd: {error}"))?;
    if let Some(remap) = &resolved.userns_remap {
        remap::settle(&mut resolved.settings, remap)?;
    }
    process::prepare();
    let tls = resolved.tls.as_ref().map(|files| files.acceptor()).transpose()?;
    if resolved.open_tcp == OpenTcp::Tolerated {
        hesitate();
    }
    let encrypted = resolved.insecure_tcp || tls.is_some();
    let api = listen::open_all(&resolved.hosts, &resolved.group, encrypted)?;
    let metrics = resolved.metrics.as_slice();
    let metrics = listen::open_all(metrics, &resolved.group, true)?;
    let sockets = Sockets { api, tls, metrics };
    // The pidfile may be the first thing in it.
    make_private(&resolved.settings.exec_root)?;
    let pidfile = PidFile::create(&resolved.pidfile)?;
    if resolved.on_demand {
        process::leave(&resolved.settings.cgroup_parent);
    }
    warn_of_tcp(&sockets, &resolved);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_name("berth")
        .enable_all()
        .build()?;
    let daemon = Daemon { options, verbosity };
    let result = runtime.block_on(daemon.serve(resolved, sockets, ready.map(File::from)));
    // Blocking work that is still under way must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    drop(pidfile);
    result
}

/// Gives whoever watches the time to think again (R23).
fn hesitate() {
    tracing::warn!(
        "listening on TCP without TLS makes everyone who can connect, containers included, root on this host: the start \
         is slowed down to show this; use --tlsverify, or --tls=false to insist"
    );
    std::thread::sleep(HESITATION);
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

/// Says how far each TCP socket opens this host (R23), and what was asked for and is not there.
fn warn_of_tcp(sockets: &Sockets, resolved: &Resolved) {
    let verified = resolved.tls.as_ref().is_some_and(|files| files.authority.is_some());
    for address in sockets.api.iter().filter_map(Listener::tcp_address).filter(|_| !verified) {
        let who = if is_loopback(address.ip()) {
            "every user and program of this host, containers on the host's network included,"
        } else {
            "whoever can connect, containers included,"
        };
        let lack = if sockets.tls.is_some() { "asking clients for certificates" } else { "TLS" };
        tracing::warn!("the API answers on tcp://{address} without {lack}: {who} is root on this host");
    }
    for name in &resolved.overridden {
        tracing::warn!(name, "overriding existing proxy variable with value from configuration");
    }
    let useless: Vec<_> = resolved.settings.runtimes.useless().collect();
    if !useless.is_empty() {
        tracing::warn!(
            runtimes = useless.join(", "),
            "Berth starts containers itself; none can be started with these runtimes"
        );
    }
    if !resolved.without_effect.is_empty() {
        tracing::warn!(options = resolved.without_effect.join(", "), "these options have no effect in Berth");
    }
}

/// What outlives a change of settings.
struct Daemon {
    options: Options,
    verbosity: Verbosity,
}

impl Daemon {
    /// Opens the engine, answers until asked to end, and ends.
    async fn serve(self, resolved: Resolved, sockets: Sockets, ready: Option<File>) -> Result<(), AnyError> {
        let mut signals = Signals::new()?;
        // The sockets listen already: clients that come now wait in their queues instead of being refused.
        let (registry, shutdown) = (&resolved.settings.registry, resolved.settings.shutdown_timeout);
        tracing::debug!("Max Concurrent Downloads: {}", registry.concurrent_downloads);
        tracing::debug!("Max Concurrent Uploads: {}", registry.concurrent_uploads);
        tracing::debug!("Max Download Attempts: {}", registry.download_attempts);
        tracing::debug!("daemon configured with a {} seconds minimum shutdown timeout", seconds(shutdown));
        let plugins = resolved.settings.authorization_plugins.clone();
        let mut settings = resolved.settings;
        settings.own_addresses = sockets.api.iter().filter_map(Listener::tcp_address).collect();
        let engine = Engine::open(settings).await?;
        let serving =
            Arc::new(Serving { engine: Arc::clone(&engine), authorization: Authorization::default() });
        // Nothing is answered before they are there.
        match Authorization::find(&plugins, PLUGINS_AT_START).await {
            Ok(found) => serving.authorization.replace(found),
            Err(error) => {
                engine.shutdown(false).await;
                return Err(format!("failed to validate authorization plugin: {error}").into());
            }
        }
        let (stop, stopped) = watch::channel(false);
        let (acceptors, conversations) = (TaskTracker::new(), TaskTracker::new());
        for listener in sockets.api {
            let (tls, serving, stopped) = (sockets.tls.clone(), Arc::clone(&serving), stopped.clone());
            acceptors.spawn(connection::serve(listener, tls, serving, stopped, conversations.clone()));
        }
        for listener in sockets.metrics {
            acceptors.spawn(metrics::serve(listener, Arc::clone(&engine), stopped.clone()));
        }
        acceptors.close();
        conversations.close();
        if let Some(mut ready) = ready {
            // Whoever waited may have gone.
            let _ = ready.write_all(b"1");
        }
        let hosts: Vec<String> = resolved.hosts.iter().map(Host::to_string).collect();
        tracing::info!(hosts = hosts.join(" "), "API listens");
        systemd::ready();
        if let Err(error) = berth_sys::memory::release_code() {
            tracing::debug!(%error, "pages that only the start needed stay");
        }

        let mut host_goes_down = false;
        let name = loop {
            match signals.next().await {
                Asked::End(name) => break name,
                Asked::Reload => self.reload(&serving).await,
                Asked::Report => report(),
                Asked::HostGoesDown => {
                    tracing::info!("the host goes down: containers will be stopped with the daemon");
                    host_goes_down = true;
                }
            }
        };
        tracing::info!(signal = name, "stopping");
        systemd::stopping();
        // Receivers that are gone need no telling.
        let _ = stop.send(true);
        let end = async {
            acceptors.wait().await;
            // Streams may last for ever; they end with the process.
            let _ = tokio::time::timeout(DRAIN, conversations.wait()).await;
            engine.shutdown(host_goes_down).await;
        };
        tokio::select! {
            () = end => {}
            name = signals.end() => tracing::warn!(signal = name, "stopping at once"),
        }
        Ok(())
    }

    /// Reads the file again. One that cannot be used changes nothing.
    async fn reload(&self, serving: &Serving) {
        tracing::info!("got signal to reload configuration");
        systemd::reloading();
        match self.read_again().await {
            Ok((resolved, plugins)) => {
                serving.authorization.replace(plugins);
                serving.engine.reload(&resolved.settings);
                self.verbosity.set(resolved.log_level);
                let registry = &resolved.settings.registry;
                tracing::debug!("Reset Shutdown Timeout: {}", seconds(resolved.settings.shutdown_timeout));
                tracing::debug!("Reset Max Concurrent Downloads: {}", registry.concurrent_downloads);
                tracing::debug!("Reset Max Concurrent Uploads: {}", registry.concurrent_uploads);
                tracing::debug!("Reset Max Download Attempts: {}", registry.download_attempts);
                tracing::info!(config = resolved.shown, "Reloaded configuration");
            }
            Err(error) => tracing::error!(%error, "Error reloading configuration"),
        }
        systemd::ready();
    }

    /// The settings as they are now, and the plugins that they name.
    async fn read_again(&self) -> Result<(Resolved, Vec<Plugin>), AnyError> {
        // It reads files.
        let resolved = tokio::task::block_in_place(|| self.options.resolve())?;
        let plugins = Authorization::find(&resolved.settings.authorization_plugins, PLUGINS_LATER).await?;
        Ok((resolved, plugins))
    }
}

/// Seconds as Docker writes them: -1 for ever.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(-1)
}

/// What can be told about a daemon that seems to hang.
fn report() {
    let metrics = tokio::runtime::Handle::current().metrics();
    tracing::info!(
        tasks = metrics.num_alive_tasks(),
        queued = metrics.global_queue_depth(),
        "asked for a report"
    );
}
