//! The binary: chooses a face by its name or first argument.
//!
//! | started as | face |
//! |---|---|
//! | `berth daemon`, or under the name `dockerd` | the daemon |
//! | `berth runtime` | an OCI runtime's command line |
//! | `berth __spawner`, `berth __net` | processes that the daemon starts for itself |
//! | anything else, or under the name `docker` | the client's command line |
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use berth_api::version::Build;

/// Told by `build.rs`.
const BUILD: Build = Build { commit: env!("BERTH_COMMIT"), time: env!("BERTH_BUILD_TIME") };

/// What this process is to be.
#[derive(Debug, PartialEq, Eq)]
enum Face {
    Client,
    Daemon,
    Runtime,
    Spawner,
    Net,
}

/// Chooses by the program's name, then by the first argument.
fn face(arguments: &[OsString]) -> Face {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let first = arguments.get(1).map_or(OsStr::new(""), OsString::as_os_str);
    match (name.as_encoded_bytes(), first.as_encoded_bytes()) {
        (_, b"__spawner") => Face::Spawner,
        (_, b"__net") => Face::Net,
        (b"dockerd", _) => Face::Daemon,
        (b"docker", _) => Face::Client,
        (_, b"daemon") => Face::Daemon,
        (_, b"runtime") => Face::Runtime,
        _ => Face::Client,
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match face(&arguments) {
        Face::Client => berth_cli::main(arguments, BUILD),
        Face::Daemon => berth_server::daemon::main(arguments, BUILD),
        Face::Runtime => berth_runtime::cli::main(arguments),
        Face::Spawner => berth_shim::spawner::main(),
        Face::Net => berth_network::net::main(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Face {
        face(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn name_and_first_argument_choose() {
        assert_eq!(of("berth run hello"), Face::Client);
        assert_eq!(of("/usr/bin/berth daemon --debug"), Face::Daemon);
        assert_eq!(of("berth runtime spec"), Face::Runtime);
        assert_eq!(of("/usr/bin/dockerd -H unix:///x"), Face::Daemon);
        assert_eq!(of("docker daemon"), Face::Client);
        assert_eq!(of("dockerd __spawner"), Face::Spawner);
        assert_eq!(of("berth __net /run/berth"), Face::Net);
        assert_eq!(face(&[]), Face::Client);
    }
}
