//! The process itself: `berth __net <exec root>`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::reservation::Reservation;
use super::{Answer, LOCK, MESSAGE_LIMIT, Request, SOCKET};
use crate::PortMapping;

/// A daemon that stops in the middle of a request must not keep the next one waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the net process until it is told to stop. Arguments: program, `__net`, the exec root.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let Some(exec_root) = arguments.get(2).map(PathBuf::from) else {
        eprintln!("berth: the net process is started by the daemon, with its exec root");
        return ExitCode::from(2);
    };
    match serve(&exec_root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth: net process in {}: {error}", exec_root.display());
            ExitCode::FAILURE
        }
    }
}

fn serve(exec_root: &Path) -> io::Result<()> {
    // Its own session: a terminal's Ctrl-C is for others. Failure means that it leads one already.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    let lock =
        rustix::fs::open(exec_root.join(LOCK), OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(()); // Another one serves already.
    }
    let listener = listen(exec_root)?;
    let mut held = BTreeMap::new();
    loop {
        let (connection, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        // A broken connection is its daemon's loss, not ours.
        if let Ok(true) = answer(connection, &mut held) {
            let _ = fs::remove_file(exec_root.join(SOCKET));
            return Ok(());
        }
    }
}

fn listen(exec_root: &Path) -> io::Result<UnixListener> {
    let directory =
        rustix::fs::open(exec_root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // By way of the descriptor: an exec root may be longer than a socket's address (unix(7)).
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(old);
    listener
}

/// Handles one request; true when the process is to end.
fn answer(mut connection: UnixStream, held: &mut BTreeMap<String, Vec<Reservation>>) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(&connection)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut body = Vec::new();
    (&connection).take(MESSAGE_LIMIT).read_to_end(&mut body)?;
    let (answer, end) = match serde_json::from_slice(&body) {
        Ok(request) => handle(request, held),
        Err(error) => (Answer::Unknown(error.to_string()), false),
    };
    connection.write_all(&serde_json::to_vec(&answer)?)?;
    Ok(end)
}

fn handle(request: Request, held: &mut BTreeMap<String, Vec<Reservation>>) -> (Answer, bool) {
    match request {
        Request::Reserve { owner, ports } => (reserve(owner, &ports, held), false),
        Request::Release { owner } => {
            held.remove(&owner);
            (Answer::Done, false)
        }
        Request::List => {
            let list = held.iter().map(|(owner, all)| (owner.clone(), mappings(all))).collect();
            (Answer::Held(list), false)
        }
        Request::Stop => (Answer::Done, held.is_empty()),
    }
}

fn mappings(reservations: &[Reservation]) -> Vec<PortMapping> {
    reservations.iter().map(|r| r.mapping.clone()).collect()
}

fn reserve(owner: String, ports: &[PortMapping], held: &mut BTreeMap<String, Vec<Reservation>>) -> Answer {
    // Asking again for what is held already is how a daemon fills this process after adopting a container.
    if let Some(existing) = held.get(&owner)
        && mappings(existing) == ports
    {
        return Answer::Reserved(ports.to_vec());
    }
    let mut reservations = Vec::with_capacity(ports.len());
    for port in ports {
        match Reservation::bind(port) {
            Ok(reservation) => reservations.push(reservation),
            Err(error) => {
                return Answer::Refused {
                    port: port.clone(),
                    errno: error.raw_os_error().unwrap_or_default(),
                };
            }
        }
    }
    let settled = mappings(&reservations);
    held.insert(owner, reservations);
    Answer::Reserved(settled)
}
