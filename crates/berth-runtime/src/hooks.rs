//! Hooks of the OCI configuration: programs of the host that run at points of a container's life.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

/// How much of a failed hook's output the error repeats, in bytes.
const MAX_OUTPUT: u64 = 4096;

/// Why a hook failed; `index` counts the hooks of its list from 0.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of the configuration is not absolute.
    #[error("hook #{index}: the path {path:?} is not absolute")]
    RelativePath {
        /// Place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
    },
    /// It was not started, or not waited for.
    #[error("error running hook #{index} ({path}): {source}", path = path.display())]
    Run {
        /// Place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// It ended with another code than 0, or by a signal.
    #[error("error running hook #{index} ({path}): {status}, output: {output:?}", path = path.display())]
    Failed {
        /// Place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it wrote to stdout and stderr.
        output: String,
    },
    /// It ran longer than its configuration allows, and was killed.
    #[error("hook #{index} ({path}) ran past its timeout of {seconds} s", path = path.display())]
    TimedOut {
        /// Place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// What the configuration allows.
        seconds: i64,
    },
}

/// Runs `hooks` in their order, each with `state` (JSON) on its standard input and no environment but its own.
///
/// Stops at the first that fails.
pub fn run(hooks: &[Hook], state: &str) -> Result<(), Error> {
    hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(index, hook, state))
}

/// Runs all of `hooks`; one that fails does not keep the others from running. Returns what failed.
pub fn run_all(hooks: &[Hook], state: &str) -> Vec<Error> {
    hooks.iter().enumerate().filter_map(|(index, hook)| run_one(index, hook, state).err()).collect()
}

fn run_one(index: usize, hook: &Hook, state: &str) -> Result<(), Error> {
    let path = hook.path().clone();
    if !path.is_absolute() {
        return Err(Error::RelativePath { index, path });
    }
    let failed = |source| Error::Run { index, path: path.clone(), source };
    let mut output = memory("hook output").map_err(failed)?;
    let mut child = start(hook, state, &output).map_err(failed)?;
    let Some(status) = wait(&mut child, hook.timeout()).map_err(failed)? else {
        return Err(Error::TimedOut { index, path, seconds: hook.timeout().unwrap_or_default() });
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { index, path, status, output: beginning(&mut output) })
}

fn start(hook: &Hook, state: &str, output: &File) -> io::Result<Child> {
    let mut input = memory("hook state")?;
    input.write_all(state.as_bytes())?;
    input.seek(SeekFrom::Start(0))?;
    let mut command = Command::new(hook.path());
    if let Some([name, rest @ ..]) = hook.args().as_deref() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !key.is_empty() {
            command.env(key, value);
        }
    }
    let (stdout, stderr) = (output.try_clone()?, output.try_clone()?);
    command.stdin(Stdio::from(input)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).spawn()
}

/// A file in memory: unlike a pipe it neither blocks a writer nor has to be read at the same time, and what a hook leaves running in
/// the background does not hold it up.
fn memory(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// `None` if it had to be killed after `timeout` seconds.
fn wait(child: &mut Child, timeout: Option<i64>) -> io::Result<Option<ExitStatus>> {
    let Some(seconds) = timeout.filter(|seconds| *seconds > 0) else {
        return child.wait().map(Some);
    };
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let end = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec.saturating_add(seconds);
    loop {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let left = Duration::from_secs(u64::try_from(end - now.tv_sec).unwrap_or(0));
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => break,
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

fn beginning(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = output.seek(SeekFrom::Start(0)).and_then(|_| output.take(MAX_OUTPUT).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => format!("(unreadable: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn shell(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned);
        HookBuilder::default().path("/bin/sh").args(args).build().unwrap()
    }

    #[test]
    fn hooks_read_the_state_and_have_their_own_environment() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        let mut hook = shell(&format!("{{ /bin/cat; echo; echo \"$A|$HOME|$0\"; }} > {}", file.display()));
        hook.set_env(Some(vec!["A=b=c".to_owned(), "=".to_owned()]));
        run(&[hook], "{\"id\":\"x\"}").unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"id\":\"x\"}\nb=c||sh\n");
    }

    #[test]
    fn the_first_failure_stops_the_list() {
        let temp = tempfile::tempdir().unwrap();
        let touch = |name: &str| shell(&format!(": > {}", temp.path().join(name).display()));
        let hooks = [touch("a"), shell("echo oops >&2; exit 3"), touch("b")];
        let error = run(&hooks, "{}").unwrap_err();
        assert_eq!(error.to_string(), "error running hook #1 (/bin/sh): exit status: 3, output: \"oops\"");
        assert!(temp.path().join("a").exists() && !temp.path().join("b").exists());
        assert_eq!(run_all(&hooks, "{}").len(), 1);
        assert!(temp.path().join("b").exists());
    }

    #[test]
    fn a_hook_that_does_not_end_is_killed() {
        let mut hook = shell("exec /bin/sleep 1000");
        hook.set_timeout(Some(1));
        assert!(matches!(run(&[hook], "{}"), Err(Error::TimedOut { seconds: 1, .. })));
    }

    #[test]
    fn what_a_hook_leaves_behind_does_not_hold_it_up() {
        let mut hook = shell("/bin/sleep 5 & exit 0");
        hook.set_timeout(Some(3));
        run(&[hook], "{}").unwrap();
    }

    #[test]
    fn a_state_that_nobody_reads_does_not_block() {
        run(&[shell("exit 0")], &" ".repeat(1 << 20)).unwrap();
    }

    #[test]
    fn paths_are_absolute_and_exist() {
        let hook = |path: &str| HookBuilder::default().path(path).build().unwrap();
        assert!(matches!(run(&[hook("sh")], "{}"), Err(Error::RelativePath { .. })));
        let error = run(&[hook("/nowhere")], "{}").unwrap_err();
        assert!(matches!(&error, Error::Run { path, .. } if path == Path::new("/nowhere")), "{error}");
    }
}
