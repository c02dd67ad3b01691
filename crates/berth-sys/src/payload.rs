//! Tiny static programs that run inside containers, compiled by `build.rs` from `payload/`.
//!
//! They use no library, not even the C one, and need nothing of the root that they run in.

/// The tiny init: `docker-init [--] PROGRAM [ARGUMENT…]`.
///
/// As process 1 it starts PROGRAM, a path, in a process group of its own, which becomes the terminal's foreground; it hands every
/// signal on to it, reaps what ends, and ends with PROGRAM's exit code, or 128 and the number of the signal.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// The program of the image `hello`, which prints what has just happened.
pub const HELLO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, ExitStatus, Output, Stdio};

    use rustix::pty::OpenptFlags;

    use super::*;

    /// The same bytes as [`INIT`], as a file: one just written could be open for writing in a sibling test's child.
    const INIT_FILE: &str = concat!(env!("OUT_DIR"), "/init");
    const HELLO_FILE: &str = concat!(env!("OUT_DIR"), "/hello");

    fn init(arguments: &[&str]) -> Output {
        Command::new(INIT_FILE).args(arguments).output().unwrap()
    }

    fn shell(script: &str) -> Output {
        init(&["--", "/bin/sh", "-c", script])
    }

    #[test]
    fn they_are_static_and_small() {
        for program in [INIT, HELLO] {
            assert_eq!(program.get(..4), Some(&b"\x7fELF"[..]));
            // The type: EXEC, not DYN, so that no relocation is left to anybody.
            assert_eq!(program.get(16), Some(&2));
            assert!(program.len() < 8192, "{}", program.len());
        }
    }

    #[test]
    fn hello_greets() {
        let output = Command::new(HELLO_FILE).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(text.contains("Hello from Berth!"), "{text}");
        let host = rustix::system::uname();
        assert!(text.contains(&format!("of host {}.", host.nodename().to_str().unwrap())), "{text}");
    }

    #[test]
    fn init_ends_as_its_program_does() {
        assert_eq!(shell("exit 0").status.code(), Some(0));
        assert_eq!(shell("exit 5").status.code(), Some(5));
        assert_eq!(shell("exit 255").status.code(), Some(255));
        assert_eq!(shell("kill -9 $$").status.code(), Some(137));
        assert_eq!(shell("kill -SEGV $$").status.code(), Some(139));
    }

    #[test]
    fn init_passes_arguments_and_environment() {
        let output = Command::new(INIT_FILE)
            .args(["/bin/sh", "-c", "echo \"$0|$1|$2|$A\"", "zero", "--", ""])
            .env("A", "b c")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "zero|--||b c\n");
    }

    #[test]
    fn init_says_why_nothing_runs() {
        let output = init(&["--", "/nowhere/x"]);
        assert_eq!(output.status.code(), Some(127));
        let expected = "docker-init: exec /nowhere/x failed: no such file or directory\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(init(&["/etc/passwd/x"]).status.code(), Some(127));
        let output = init(&["/etc/passwd"]);
        assert_eq!(output.status.code(), Some(126));
        assert!(String::from_utf8_lossy(&output.stderr).ends_with("permission denied\n"));
        assert_eq!(init(&["--"]).status.code(), Some(1));
    }

    #[test]
    fn the_program_has_the_signals_that_init_had() {
        let status = ["/bin/cat", "/proc/self/status"];
        let signals = |output: Output| {
            let text = String::from_utf8(output.stdout).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let direct = Command::new(status[0]).arg(status[1]).output().unwrap();
        let through = signals(init(&status));
        assert_eq!(through, signals(direct));
        assert!(through.contains(&"SigBlk:\t0000000000000000".to_owned()), "{through:?}");
    }

    /// Starts a script that says `ready`, and waits for that.
    fn ready(script: &str) -> Child {
        let mut command = Command::new(INIT_FILE);
        let mut child = command.args(["--", "/bin/sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    fn signalled(mut child: Child, signal: rustix::process::Signal) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        child.wait().unwrap()
    }

    #[test]
    fn signals_are_handed_on() {
        use rustix::process::Signal;
        let script = "trap 'kill $!; exit 9' USR1; sleep 1000 & echo ready; wait";
        assert_eq!(signalled(ready(script), Signal::USR1).code(), Some(9));
        let script = "echo ready; exec sleep 1000 > /dev/null";
        assert_eq!(signalled(ready(script), Signal::TERM).code(), Some(143));
        assert_eq!(signalled(ready(script), Signal::QUIT).code(), Some(131));
    }

    /// Needs root, for the PID namespace.
    #[test]
    fn orphans_are_reaped() {
        let script = "pid=$( (true > /dev/null & echo $!) ); n=0; \
            while kill -0 $pid 2> /dev/null; do n=$((n + 1)); [ $n -gt 1000000 ] && exit 1; done; [ $PPID = 1 ] && exit 4";
        let status = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", INIT_FILE, "--", "/bin/sh", "-c", script])
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(4));
    }

    #[test]
    fn the_program_gets_the_terminal() {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        // Process, group and the terminal's foreground group are fields 1, 5 and 8.
        let script = "read -r pid name state parent group session terminal foreground rest < /proc/$$/stat; \
            [ $pid = $group ] && [ $group = $foreground ] && [ $pid != $session ] && exit 6";
        let status = Command::new("setsid")
            .args(["--ctty", "--wait", INIT_FILE, "--", "/bin/sh", "-c", script])
            .stdin(Stdio::from(terminal))
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(6));
    }
}
