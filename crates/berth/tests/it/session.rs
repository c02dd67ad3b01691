//! Builds whose context, secrets and agents come by a session.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::daemon::{Client, Daemon, binary};
use crate::output::{Output, eventually, run};
use crate::raw::{self, connect, request};

/// A way to a daemon on which bytes are counted.
struct Wire {
    path: PathBuf,
    sent: Arc<AtomicU64>,
}

impl Wire {
    fn new(daemon: &Daemon) -> Wire {
        let path = daemon.root.path().join("wire.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let (to, counted) = (daemon.socket(), Arc::clone(&sent));
        // It ends with the test.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let daemon = UnixStream::connect(&to).unwrap();
                let (back_from, back_to) = (daemon.try_clone().unwrap(), client.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || carry(client, daemon, Some(&counted)));
                std::thread::spawn(move || carry(back_from, back_to, None));
            }
        });
        Wire { path, sent }
    }

    /// Bytes that clients sent since the last call.
    fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::SeqCst)
    }

    /// A build by a client in a network namespace of its own: as from another host, everything comes by the wire.
    fn build(&self, daemon: &Daemon, context: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(binary());
        self.build_by(command, daemon, context, arguments)
    }

    fn build_by(&self, mut command: Command, daemon: &Daemon, context: &Path, arguments: &[&str]) -> Output {
        command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").env("DOCKER_CONFIG", daemon.root.path());
        command.args(["-H", &format!("unix://{}", self.path.display()), "build"]).args(arguments);
        run(command.arg(context))
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, counted: Option<&AtomicU64>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        counted.map(|counted| counted.fetch_add(length as u64, Ordering::SeqCst));
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn build(daemon: &Daemon, context: &Path, arguments: &[&str]) -> Output {
    daemon.berth(&[&["build"], arguments, &[context.to_str().unwrap()]].concat())
}

/// What is kept of contexts: names and sizes.
fn kept(daemon: &Daemon) -> Vec<(String, u64)> {
    let answer = raw::exchange(daemon, &request("GET", "/system/df?type=build-cache&verbose=1", "", b""));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let usage: Value = serde_json::from_str(body.trim()).unwrap_or_else(|_| panic!("{answer}"));
    let items = usage["BuildCacheUsage"]["Items"].as_array().cloned().unwrap_or_default();
    let contexts = items.iter().filter(|item| item["Type"] == "source.local");
    contexts.map(|item| (item["ID"].as_str().unwrap().to_owned(), item["Size"].as_u64().unwrap())).collect()
}

#[test]
fn a_change_to_one_file_sends_one_file() {
    let daemon = Daemon::start();
    let wire = Wire::new(&daemon);
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY . /all\n");
    let body = "x".repeat(16384);
    for number in 0..2000 {
        write(&context, &format!("d{}/file-{number}", number % 20), format!("{number} {body}"));
    }
    wire.build(&daemon, &context, &["-t", "first"]).ok();
    let first = wire.sent();
    assert!(first > 2000 * 16384, "{first}");

    wire.build(&daemon, &context, &["-t", "same"]).ok();
    let nothing = wire.sent();
    assert_eq!(daemon.inspect("same", "{{.Id}}"), daemon.inspect("first", "{{.Id}}"));

    write(&context, "d7/file-1027", "changed");
    wire.build(&daemon, &context, &["-t", "second"]).ok();
    let one = wire.sent();
    // What is told of 2,000 files takes less than 100 bytes for each; the content of one more file would show, and what
    // HTTP/2 has to say for itself comes as it likes.
    assert!(nothing < 200_000 && one < nothing + 12_000, "{first}, {nothing}, {one}");
    let cat =
        |image: &str| daemon.berth(&["run", "--rm", image, "head", "-c", "9", "/all/d7/file-1027"]).ok();
    assert_eq!((cat("first"), cat("second")), ("1027 xxxx".into(), "changed".into()));
    let count = daemon.berth(&["run", "--rm", "second", "sh", "-c", "find /all -type f | wc -l"]).ok();
    assert_eq!(count, "2001");

    // Content of the same size and time is not looked at, as with BuildKit; another time is another file.
    fs::remove_dir_all(context.join("d3")).unwrap();
    wire.build(&daemon, &context, &["-t", "third"]).ok();
    let count = daemon.berth(&["run", "--rm", "third", "sh", "-c", "find /all -type f | wc -l"]).ok();
    assert_eq!(count, "1901");
}

#[test]
fn on_one_host_files_are_handed_over_and_do_not_travel() {
    let daemon = Daemon::start();
    let wire = Wire::new(&daemon);
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY . /all\n");
    write(&context, ".dockerignore", "left\n");
    for number in 0..300 {
        write(&context, &format!("d{}/file-{number}", number % 3), number.to_string().repeat(3000));
    }
    write(&context, "large", vec![7; 70 << 20]);
    write(&context, "left", "out");
    // A Dockerfile from elsewhere is content without a file.
    let outside = daemon.root.path().join("Outside");
    fs::write(&outside, "FROM busybox\nCOPY . /all\n").unwrap();
    let arguments = |name| ["-t", name, "-f", outside.to_str().unwrap()];
    let here = |name| wire.build_by(Command::new(binary()), &daemon, &context, &arguments(name)).ok();
    here("here");
    let told = wire.sent();
    assert!(told < 200_000, "{told}");
    let list = "cd /all; find * .d* -exec stat -c '%n %F %a %u:%g %s %Y' {} + | sort; find . -type f -exec md5sum {} + | sort";
    let listed = |image: &str| daemon.berth(&["run", "--rm", image, "sh", "-c", list]).ok();
    let first = listed("here");
    assert!(
        first.contains("large regular") && !first.contains("left") && first.lines().count() > 600,
        "{first}"
    );

    // From elsewhere it is the same; one change, one file.
    daemon.berth(&["builder", "prune", "-af"]).ok();
    wire.build(&daemon, &context, &arguments("elsewhere")).ok();
    assert!(wire.sent() > 70 << 20);
    assert_eq!(listed("elsewhere"), first);
    write(&context, "d1/file-1", "changed");
    here("changed");
    assert!(wire.sent() < 200_000);
    let changed = daemon.berth(&["run", "--rm", "changed", "cat", "/all/d1/file-1"]).ok();
    assert_eq!(changed, "changed");
    daemon.berth(&["builder", "prune", "-af"]).ok();
    here("again");
    assert_eq!(listed("again"), listed("changed"));
}

#[test]
fn both_ways_build_the_same() {
    let daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY . /all\n");
    write(&context, ".dockerignore", "Dockerfile\n*.log\nout\n!out/keep\n");
    for name in ["tool", "deep/er/file", "a.log", "out/lost", "out/keep", "naïve – name", "empty"] {
        write(&context, name, if name == "empty" { "" } else { name });
    }
    fs::set_permissions(context.join("tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(context.join("tool"), context.join("tool.again")).unwrap();
    symlink("/etc/passwd", context.join("outside")).unwrap();
    symlink("nowhere", context.join("dangling")).unwrap();
    fs::create_dir(context.join("private")).unwrap();
    fs::set_permissions(context.join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(context.join(OsStr::from_bytes(b"raw\xff\xfe")), "not in UTF-8").unwrap();
    let list = "cd /all; find . -exec stat -c '%n %F %a %u:%g %Y' {} + | sort; find . -type f -exec md5sum {} + | sort; \
                readlink outside; readlink dangling";
    let listed = |image: &str| daemon.berth(&["run", "--rm", image, "sh", "-c", list]).ok();
    build(&daemon, &context, &["-t", "session"]).ok();
    build(&daemon, &context, &["-t", "again"]).ok();
    build(&daemon, &context, &["-t", "tar", "--compress"]).ok();
    let mut stock = daemon.client(Client::Docker, &["build", "-t", "stock"]);
    run(stock.env("DOCKER_BUILDKIT", "0").arg(&context)).ok();
    let text = listed("session");
    assert!(text.contains("./tool.again regular file 4711 0:0") && text.contains("./out/keep"), "{text}");
    assert!(!text.contains("a.log") && !text.contains("lost") && !text.contains("Dockerfile"), "{text}");
    // Tars have neither the root nor the directory of a file that an exception brought back; the rest is alike.
    let without = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with("./out dir") && !line.starts_with(". dir"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for image in ["again", "tar", "stock"] {
        assert_eq!(without(listed(image)), without(listed("session")), "{image}");
    }
}

#[test]
fn dockerfiles_from_elsewhere_come_by_the_session_too() {
    let daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "file", "content");
    write(&context, ".dockerignore", "nothing\n");
    let outside = daemon.root.path().join("Outside");
    for word in ["one", "two"] {
        // Both have the same length: nothing but the content tells them apart.
        fs::write(&outside, format!("FROM busybox\nCOPY . /all\nENV W={word}\n")).unwrap();
        build(&daemon, &context, &["-t", word, "-f", outside.to_str().unwrap()]).ok();
        let found =
            daemon.berth(&["run", "--rm", word, "sh", "-c", "echo $W; ls -A /all; cat /all/file"]).ok();
        assert_eq!(found, format!("{word}\n.dockerignore\nfile\ncontent"));
    }
    let mut command = daemon.client(Client::Berth, &["build", "-q", "-t", "input", "-f", "-"]);
    command.arg(&context);
    crate::output::feed(&mut command, b"FROM busybox\nCOPY file /\n").ok();
    build(&daemon, &context, &["-f", "absent"]).fails(1, "unable to evaluate symlinks in Dockerfile path");
    build(&daemon, &context, &[]).fails(1, "unable to evaluate symlinks in Dockerfile path");
}

#[test]
fn contexts_are_kept_bounded_and_pruned() {
    let mut daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY big /\n");
    write(&context, "big", vec![1; 300_000]);
    assert!(kept(&daemon).is_empty());
    build(&daemon, &context, &[]).ok();
    let (id, size) = kept(&daemon).pop().unwrap();
    assert!((300_000..310_000).contains(&size), "{size}");
    // A build that fails keeps what was sent; another directory is another one; a new daemon finds both.
    let other = daemon.root.path().join("other");
    write(&other, "Dockerfile", "FROM busybox\nRUN false\n");
    build(&daemon, &other, &[]).fails(1, "non-zero code");
    assert_eq!(kept(&daemon).len(), 2);
    daemon.stop();
    daemon.launch();
    assert_eq!(kept(&daemon).len(), 2);
    let pruned = raw::exchange(
        &daemon,
        &request("POST", &format!("/build/prune?filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D"), "", b""),
    );
    assert!(pruned.contains(&id) && pruned.contains("\"SpaceReclaimed\":30"), "{pruned}");
    assert_eq!(kept(&daemon).len(), 1);
    daemon.berth(&["builder", "prune", "-f"]).ok();
    assert!(kept(&daemon).is_empty());
    let left = || fs::read_dir(daemon.data_root().join("contexts")).unwrap().count();
    assert_eq!(left(), 0);
    // Whatever was removed is sent again.
    build(&daemon, &context, &["-t", "again"]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "again", "stat", "-c", "%s", "/big"]).ok(), "300000");
}

#[test]
fn a_killed_daemon_keeps_nothing_half_done() {
    let mut daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY file /\nRUN sleep 1000\n");
    write(&context, "file", "content");
    let path = context.to_str().unwrap();
    let mut command = daemon.client(Client::Berth, &["build", path]);
    let mut client =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("a step that runs", || {
        daemon.berth(&["ps", "--no-trunc"]).ok().contains("sleep 1000").then_some(())
    });
    daemon.kill();
    assert!(!client.wait().unwrap().success());
    daemon.launch();
    assert!(kept(&daemon).is_empty());
    eventually("an empty staging directory", || {
        let names = fs::read_dir(daemon.data_root().join("staging")).unwrap().flatten();
        names.map(|entry| entry.file_name()).all(|name| name == "trash" || name == "partial").then_some(())
    });
    write(&context, "Dockerfile", "FROM busybox\nCOPY file /\n");
    build(&daemon, &context, &["-t", "x"]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "x", "cat", "/file"]).ok(), "content");
}

#[test]
fn builds_of_one_directory_at_the_same_time() {
    let daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nARG N\nCOPY . /all\nRUN ls /all | wc -l\n");
    for number in 0..200 {
        write(&context, &format!("file-{number}"), number.to_string());
    }
    let path = context.to_str().unwrap();
    let start = |number: usize| {
        let argument = format!("N={number}");
        let mut command = daemon.client(Client::Berth, &["build", "-q", "--build-arg", &argument, path]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let builds: Vec<_> = (0..6).map(start).collect();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(kept(&daemon).len(), 1);
}

#[test]
fn sessions_are_opened_as_mobys_clients_do() {
    let daemon = Daemon::empty(&[]);
    let status = |lines: &str| raw::exchange(&daemon, &request("POST", "/session", lines, b""));
    let answer = status("");
    assert!(raw::status(&answer) == 400 && answer.contains("no upgrade"), "{answer}");
    let answer = status("Upgrade: foo\r\n");
    assert!(raw::status(&answer) == 400 && answer.contains("protocol foo not supported"), "{answer}");

    let open = |id: &str| {
        let mut stream = connect(&daemon);
        let head = format!(
            "POST /session HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: {id}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        (stream, String::from_utf8(answer).unwrap())
    };
    let (mut stream, answer) = open("one");
    assert_eq!(raw::status(&answer), 101);
    assert!(answer.to_lowercase().contains("upgrade: h2c"), "{answer}");
    // The daemon speaks first: it is the client of this connection.
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let again = open("one").1;
    assert!(raw::status(&again) == 400, "{again}");
    // A name is free when its connection is over, also if nonsense ended it.
    drop(stream);
    let (mut nonsense, _) =
        eventually("a free name", || Some(open("one")).filter(|(_, answer)| raw::status(answer) == 101));
    nonsense.write_all(&[0xff; 4096]).unwrap();
    let mut rest = Vec::new();
    let _ = nonsense.read_to_end(&mut rest);
    eventually("a free name", || Some(open("one")).filter(|(_, answer)| raw::status(answer) == 101));

    let absent =
        raw::exchange(&daemon, &request("POST", "/build?session=none&remote=client-session", "", b""));
    assert!(absent.contains("no active session for none"), "{absent}");
}

#[test]
fn keys_are_refused_where_no_daemon_takes_them() {
    let recorder = crate::build_recorder::Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    recorder.write("secret", "s");
    let secret = format!("id=s,src={}", recorder.path("secret").display());
    let context = recorder.path("context");
    let context = context.to_str().unwrap();
    let (output, request) = recorder.build(Client::Berth, &["--secret", &secret, context], b"");
    output.fails(1, "the daemon's builder takes neither secrets nor ssh agents");
    assert!(request.is_none());
    let (output, request) = recorder.build(Client::Berth, &[context], b"");
    output.ok();
    // A daemon without sessions gets a tar, as ever.
    assert_eq!(request.unwrap().names(), ["Dockerfile"]);
}

#[test]
fn times_and_modes_are_those_of_the_client() {
    let daemon = Daemon::start();
    let context = daemon.root.path().join("context");
    write(&context, "Dockerfile", "FROM busybox\nCOPY sub /sub\n");
    write(&context, "sub/file", "content");
    let file = context.join("sub/file");
    let mut touch = Command::new("touch");
    assert!(touch.args(["-d", "@1234567890"]).arg(&file).status().unwrap().success());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    build(&daemon, &context, &["-t", "times"]).ok();
    let stat =
        |image: &str| daemon.berth(&["run", "--rm", image, "stat", "-c", "%a %u:%g %Y", "/sub/file"]).ok();
    assert_eq!(stat("times"), "751 0:0 1234567890");
    // Only the mode is another one.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mtime(), 1_234_567_890);
    build(&daemon, &context, &["-t", "mode"]).ok();
    assert_eq!(stat("mode"), "640 0:0 1234567890");
}
