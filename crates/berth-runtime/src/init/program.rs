//! Finding and executing the program.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::process::{self, CStrings};
use berth_sys::sealed::Sealed;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::launch::{Stage, StartError};

/// A program with its arguments and environment, ready for `execve`.
pub(crate) struct Program {
    path: CString,
    argv: CStrings,
    env: CStrings,
    /// What is executed in its place, with the program's path and arguments behind its own.
    init: Option<Sealed>,
}

/// The name that the tiny init is executed by, as in Docker.
const INIT_NAME: &str = "/sbin/docker-init";

impl Program {
    /// Looks `args[0]` up as execvp(3) does, by `PATH` of `env`, in the present root and directory.
    pub fn find(args: &[String], env: &[String], init: bool) -> Result<Self, StartError> {
        let name = args.first().map(String::as_str).unwrap_or_default();
        let found = look_up(name, env)?;
        let invalid = |error: io::Error| StartError::io(Stage::Program, format!("exec: {name:?}"), &error);
        let path = CString::new(found.as_os_str().as_bytes()).map_err(|error| invalid(error.into()))?;
        let env = CStrings::convert(env).map_err(invalid)?;
        if !init {
            return Ok(Self { path, argv: CStrings::convert(args).map_err(invalid)?, env, init: None });
        }
        let mut argv: Vec<&[u8]> = vec![INIT_NAME.as_bytes(), b"--", path.as_bytes()];
        argv.extend(args[1..].iter().map(String::as_bytes));
        let argv = CStrings::convert(argv).map_err(invalid)?;
        let sealed = Sealed::from_bytes("docker-init", berth_sys::payload::INIT).map_err(invalid)?;
        Ok(Self { path, argv, env, init: Some(sealed) })
    }

    /// Executes it; returns only on failure.
    pub fn execute(&self) -> StartError {
        let error = match &self.init {
            Some(init) => process::execve_fd(init, &self.argv, &self.env),
            None => process::execve(&self.path, &self.argv, &self.env),
        };
        StartError::io(Stage::Program, format!("exec {}", self.path.to_string_lossy()), &error)
    }
}

fn look_up(name: &str, env: &[String]) -> Result<PathBuf, StartError> {
    let failure = |what: String, error: Errno| StartError::io(Stage::Program, what, &error.into());
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
                Err(failure(format!("exec: {name:?}: stat {name}"), error))
            }
            Err(error) => Err(failure(format!("exec: {name:?}"), error)),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let directories = path.split(':').filter(|_| !name.is_empty() && !path.is_empty());
    for directory in directories {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        if check(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    let message = format!("exec: {name:?}: executable file not found in $PATH");
    Err(StartError { errno: Some(libc::ENOENT), ..StartError::new(Stage::Program, message) })
}

fn check(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, path: &str) -> Result<PathBuf, StartError> {
        look_up(name, &[format!("PATH={path}")])
    }

    #[test]
    fn names_are_looked_up_in_path_order() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("sh")).unwrap();
        let path = format!("{}:/nowhere:/bin", temp.path().display());
        // A directory of that name is passed over.
        assert_eq!(find("sh", &path).unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn failures_read_as_dockers() {
        let message = |name, path| find(name, path).unwrap_err();
        let error = message("nope", "/bin");
        assert_eq!(error.message, "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(error.exit_code(), 127);
        assert_eq!(message("sh", "").exit_code(), 127);
        let error = message("/nope/x", "/bin");
        assert_eq!(error.message, "exec: \"/nope/x\": stat /nope/x: no such file or directory");
        let error = message("/etc/", "/bin");
        assert_eq!((error.message.as_str(), error.exit_code()), ("exec: \"/etc/\": is a directory", 126));
        let error = message("/etc/passwd", "/bin");
        assert_eq!(
            (error.message.as_str(), error.exit_code()),
            ("exec: \"/etc/passwd\": permission denied", 126)
        );
    }
}
