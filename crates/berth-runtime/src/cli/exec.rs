//! `exec`.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{Process, User};

use super::arguments::{Exec, Global};
use super::create::send_console;
use super::error::{Context as _, Error, Result};
use super::state::{Directory, State, Status, replace_file};
use super::{foreground, inherited};
use crate::capability;
use crate::defaults;
use crate::launch::{self, ExecLaunch, ExecStarted, Stdio};

/// Runs another program in a container; gives its exit code.
pub(super) fn exec(global: &Global, exec: &Exec) -> Result<u8> {
    let preserve_fds = inherited::check(exec.preserve_fds)?;
    let directory = Directory::new(&global.root, &exec.id)?;
    let state = directory.read()?;
    match state.status(&directory)? {
        Status::Running | Status::Created => {}
        Status::Paused if exec.ignore_paused => {}
        status => return Err(Error::Status { action: "exec in", id: exec.id.clone(), status }),
    }
    let (process, user) = process(exec, &state)?;
    let tty = process.terminal().unwrap_or_default();
    if tty && exec.detach && exec.console_socket.is_none() {
        return Err(Error::Invalid("a terminal needs --console-socket with --detach".into()));
    }
    let launch = ExecLaunch {
        process,
        cgroups_path: Some(state.cgroup_path.clone()),
        seccomp: state.config.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
        terminal: None,
        user,
        groups: Vec::new(),
        die_with_parent: false,
        preserve_fds,
    };
    let init = state.process().ok_or(Error::NotRunning)?;
    let signals = if exec.detach { None } else { Some(foreground::catch()?) };
    let stdio = Stdio::inherit().context(|| "copy the standard descriptors".to_owned())?;
    let started = launch::exec(&launch, std::os::fd::AsFd::as_fd(&init), stdio)
        .map_err(|source| Error::Start { command: "exec", source })?;
    if let Err(error) = hand_over(exec, &started) {
        // Nobody would know of it.
        let _ = rustix::process::pidfd_send_signal(&started.pidfd, rustix::process::Signal::KILL);
        return Err(error);
    }
    match signals {
        None => Ok(0),
        Some(signals) => {
            let console = started.console.filter(|_| exec.console_socket.is_none());
            foreground::attend(&started.pidfd, console, &signals)
        }
    }
}

/// Gives the terminal away and writes the process ID down.
fn hand_over(exec: &Exec, started: &ExecStarted) -> Result<()> {
    if let (Some(socket), Some(console)) = (&exec.console_socket, &started.console) {
        send_console(socket, console)?;
    }
    match &exec.pid_file {
        Some(path) => replace_file(path, started.pid.to_string().as_bytes()),
        None => Ok(()),
    }
}

/// The process to start, and its user if that is to be looked up inside.
fn process(exec: &Exec, state: &State) -> Result<(Process, Option<String>)> {
    if let Some(path) = &exec.process {
        return Ok((read(path)?, None));
    }
    if exec.command.is_empty() {
        return Err(Error::Invalid("process args cannot be empty".into()));
    }
    let configured = state.config.process().clone();
    let mut process = configured.ok_or_else(|| Error::Invalid("config.json has no process".into()))?;
    process.set_args(Some(exec.command.clone())).set_terminal(Some(exec.tty));
    if let Some(directory) = &exec.cwd {
        process.set_cwd(directory.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(exec.env.iter().cloned());
    process.set_env(Some(env));
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(label) = &exec.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &exec.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if !exec.cap.is_empty() {
        let mut set = Vec::new();
        for name in &exec.cap {
            set.push(capability::parse(name).map_err(|error| Error::Invalid(error.to_string()))?);
        }
        let held = process.capabilities().as_ref().and_then(|held| held.bounding().clone());
        set.extend(held.unwrap_or_default());
        process.set_capabilities(Some(defaults::capabilities(&set)));
    }
    if !exec.additional_gids.is_empty() {
        let mut user: User = process.user().clone();
        user.set_additional_gids(Some(exec.additional_gids.clone()));
        process.set_user(user);
    }
    Ok((process, exec.user.clone()))
}

fn read(path: &Path) -> Result<Process> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}
