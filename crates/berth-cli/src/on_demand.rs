//! Starting a daemon when none runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use berth_client::{Client, Error, Host};

use crate::failure::{Failure, Outcome};

/// The daemon's directory, for what it says.
const DIRECTORY: &str = "/run/berth";
/// What a daemon that was started here says.
const LOG: &str = "/run/berth/daemon.log";
/// Bytes of it that are shown when it does not start.
const SHOWN: usize = 2000;

/// Whether nothing listens.
pub fn is_absent(error: &Error) -> bool {
    let Error::Connect { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts a daemon, waits until it answers, and connects.
pub async fn start(host: &Host) -> Outcome<Client> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            "No Berth daemon runs, and only root can start one: use sudo, or have root run 'berth daemon'.",
        ));
    }
    let started = launch().map_err(|error| Failure::io("cannot start a daemon", &error))?;
    if started {
        // A closed stderr does not matter.
        let _ = writeln!(io::stderr(), "berth: started a daemon, since none was running (log: {LOG})");
        return Ok(Client::connect(host).await?);
    }
    // Another client may have been faster.
    match Client::connect(host).await {
        Ok(client) => Ok(client),
        Err(_) => Err(Failure::new(format!("The daemon did not start. It says:\n{}", last_words()))),
    }
}

/// Starts the daemon; whether it came so far as to answer.
fn launch() -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(LOG)?;
    let (mut ready, notify) = io::pipe()?;
    // The only descriptor that the daemon is to inherit; there is no other thread that could start anything.
    rustix::io::fcntl_setfd(&notify, rustix::io::FdFlags::empty())?;
    let child = Command::new("/proc/self/exe")
        .args(["daemon", "--on-demand", "--ready-fd", &notify.as_raw_fd().to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    drop(notify);
    child?;
    Ok(ready.read(&mut [0])? == 1)
}

/// The end of the daemon's log.
fn last_words() -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(Path::new(LOG)) {
        // What cannot be read cannot be shown.
        let _ = file.read_to_end(&mut text);
    }
    let start = text.len().saturating_sub(SHOWN);
    String::from_utf8_lossy(&text[start..]).trim().to_owned()
}
