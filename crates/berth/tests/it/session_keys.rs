//! Secrets and agents on their way from the client of a build to its steps, and nowhere else.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::building;
use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};

/// What the protocol of ssh agents asks for keys with, and an answer that there are none
/// (draft-ietf-sshm-ssh-agent, sections 3.5 and 6.1).
const ASK: [u8; 5] = [0, 0, 0, 1, 11];
const NO_KEYS: [u8; 9] = [0, 0, 0, 5, 12, 0, 0, 0, 0];

fn context(daemon: &Daemon, name: &str, dockerfile: &str) -> std::path::PathBuf {
    building::context(daemon, name, &[("Dockerfile", dockerfile)])
}

#[test]
fn secrets_reach_a_step_and_stay_nowhere() {
    let daemon = Daemon::start();
    let secret = daemon.root.path().join("secret");
    fs::write(&secret, "hush-4711\n").unwrap();
    let from_file = format!("id=token,src={}", secret.display());
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=token,required cat /run/secrets/token | wc -c; stat -c '%a %u' /run/secrets/token\n\
        RUN --mount=type=secret,id=token,target=/key,mode=0440,uid=7 stat -c 'key %a %u' /key\n\
        RUN --mount=type=secret,id=word,env=WORD echo \"$WORD\" | tr a-z A-Z\n\
        RUN ls /run/secrets /key 2>&1 | grep -c 'No such'\n";
    let folder = context(&daemon, "secrets", dockerfile);
    let build = |flags: &[&str]| {
        let mut command = daemon.client(Client::Berth, &["build", "-t", "made", "--secret", &from_file]);
        command.args(["--secret", "id=word,env=OWN_WORD"]).env("OWN_WORD", "whisper-0815");
        run(command.args(flags).arg(&folder))
    };
    let told = build(&[]).ok();
    for line in ["10", "400 0", "key 440 7", "WHISPER-0815", "2"] {
        assert!(told.lines().any(|own| own.trim() == line), "{line}: {told}");
    }
    // What a secret says is not part of what a step is known by.
    fs::write(&secret, "hush-4712\n").unwrap();
    assert_eq!(build(&[]).ok().matches("Using cache").count(), 4);
    let saved = daemon.root.path().join("saved.tar");
    daemon.berth(&["save", "-o", saved.to_str().unwrap(), "made"]).ok();
    let data = daemon.data_root();
    for words in ["hush-471", "whisper-0815"] {
        let found = run(Command::new("grep").args(["-rl", words]).arg(&saved).arg(&data));
        assert_eq!(found.stdout, "", "{words} was kept");
    }
    let lent = fs::read_dir(daemon.exec_root()).unwrap().flatten();
    let lent: Vec<_> = lent
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with("secret"))
        .collect();
    assert!(lent.is_empty(), "{lent:?}");
    daemon.berth(&["build", "--no-cache", folder.to_str().unwrap()]).fails(1, "secret token: not found");
}

/// An agent without keys.
fn agent(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    // It ends with the test.
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut asked = [0; 5];
            while client.read_exact(&mut asked).is_ok() && asked == ASK {
                if client.write_all(&NO_KEYS).is_err() {
                    break;
                }
            }
        }
    });
}

#[test]
fn an_agent_answers_inside_of_a_step() {
    let daemon = Daemon::start();
    let socket = daemon.root.path().join("agent.sock");
    agent(&socket);
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /socket && \
        while ! test -e /go; do usleep 10000; done\n";
    let folder = context(&daemon, "agents", dockerfile);
    let flag = format!("default={}", socket.display());
    let mut command = daemon.client(Client::Berth, &["build", "-t", "made", "--ssh", &flag]);
    let mut child = command.arg(&folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let root = eventually("the step waits", || {
        let id = daemon.berth(&["ps", "-q"]).ok();
        let pid = daemon.berth(&["inspect", "-f", "{{.State.Pid}}", id.lines().next()?]);
        let root = format!("/proc/{}/root", pid.stdout.trim());
        fs::metadata(format!("{root}/socket")).is_ok().then_some(root)
    });
    let inside = eventually("the step says where", || {
        fs::read_to_string(format!("{root}/socket")).ok().filter(|text| text.ends_with('\n'))
    });
    let mut connection = UnixStream::connect(format!("{root}{}", inside.trim())).unwrap();
    connection.write_all(&ASK).unwrap();
    let mut answer = [0; 9];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(answer, NO_KEYS);
    fs::write(format!("{root}/go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    daemon.berth(&["run", "--rm", "made", "ls", "/run"]).fails(1, "No such file");
}

/// Stages that run at once and ask for one agent do not change each other's socket.
#[test]
fn a_socket_is_as_its_own_step_asks_for() {
    let daemon = Daemon::start();
    let socket = daemon.root.path().join("agent.sock");
    agent(&socket);
    let stage = |name: &str, other: &str, flags: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c --mount=type=ssh,{flags} touch /c/{name} && \
            while ! test -e /c/{other}; do usleep 10000; done; stat -c '%a %u:%g' $SSH_AUTH_SOCK > /{name}\n"
        )
    };
    let dockerfile = stage("one", "two", "mode=0640,uid=3,gid=4")
        + &stage("two", "one", "mode=0666")
        + "FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let folder = context(&daemon, "sockets", &dockerfile);
    let flag = format!("default={}", socket.display());
    let mut command = daemon.client(Client::Berth, &["build", "-q", "-t", "made", "--ssh", &flag]);
    run(command.arg(&folder)).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "made", "cat", "/one", "/two"]).ok(), "640 3:4\n666 0:0");
}

/// Repositories are fetched with what the client lends, and with nothing of the daemon's.
#[test]
fn secrets_open_repositories() {
    let daemon = Daemon::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, asked) = std::sync::mpsc::channel();
    // It ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let given = head.iter().find_map(|line| line.strip_prefix("Authorization: ")).unwrap_or("none");
            let _ = seen.send(given.to_owned());
            let _ = (&stream)
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let folder = context(&daemon, "repository", &format!("FROM busybox\nADD http://{address}/r.git /r\n"));
    let own = format!("id=GIT_AUTH_TOKEN.{address},env=TOKEN");
    for (secrets, expected) in [
        (&[][..], "none"),
        (&["--secret", "id=GIT_AUTH_HEADER,env=HEADER"], "bearer x"),
        (
            &["--secret", "id=GIT_AUTH_HEADER,env=HEADER", "--secret", &own],
            "basic eC1hY2Nlc3MtdG9rZW46aHVzaA==",
        ),
    ] {
        let mut command = daemon.client(Client::Berth, &[&["build"], secrets].concat());
        command.env("TOKEN", "hush").env("HEADER", "bearer x").arg(&folder);
        let output = run(&mut command);
        let output = output.fails(1, "git fetch");
        assert!(!output.stderr.contains("hush"), "{output:?}");
        let all: Vec<String> = asked.try_iter().collect();
        assert!(!all.is_empty() && all.iter().all(|given| given == expected), "{all:?}");
    }
}
