//! Builds of small contexts by the classic builder, whichever client asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

/// The clients.
pub const BOTH: [Client; 2] = [Client::Berth, Client::Docker];

/// A directory with these files.
pub fn context(daemon: &Daemon, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = daemon.root.path().join(name);
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// The command that builds a context: a directory, or an address.
pub fn command(daemon: &Daemon, client: Client, context: &str, arguments: &[&str]) -> Command {
    let mut command = daemon.client(client, &[&["build"], arguments, &[context]].concat());
    command.env("DOCKER_BUILDKIT", "0");
    command
}

/// Builds a directory.
#[track_caller]
pub fn build(daemon: &Daemon, client: Client, context: &Path, arguments: &[&str]) -> Output {
    run(&mut command(daemon, client, context.to_str().unwrap(), arguments))
}
