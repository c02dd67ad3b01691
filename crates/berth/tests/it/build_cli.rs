//! What `build` sends, and what it makes of the answer: our client against the stock one, in front of a daemon that keeps
//! what it is sent and answers as it is told.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use serde_json::{Value, json};

use crate::build_recorder::{BUILT, Entry, Recorder, Request};
use crate::daemon::{Client, binary};
use crate::files;
use crate::output::feed;

/// A context with all kinds of files.
fn furnish(recorder: &Recorder) {
    for (name, content) in [
        ("Dockerfile", "FROM x\n"),
        ("other.Dockerfile", "FROM other\n"),
        ("src/main.c", "int main;"),
        ("src/main.o", "object"),
        ("src/deep/er/file.o", "object"),
        ("src/deep/er/keep.o", "object"),
        ("logs/a.log", "log"),
        ("empty", ""),
    ] {
        recorder.write(&format!("context/{name}"), content);
    }
    let at = |name: &str| recorder.path("context").join(name);
    recorder.write(&format!("context/{}", "long/".repeat(30) + "name"), &"x".repeat(100_000));
    fs::write(at("tool"), "#!/bin/sh\n").unwrap();
    chown(at("tool"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(at("tool"), at("tool.again")).unwrap();
    fs::create_dir(at("private")).unwrap();
    fs::set_permissions(at("private"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("/etc/passwd", at("outside")).unwrap();
    symlink("src", at("a-link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    // A file's capability travels (cap_net_raw, as `setcap` writes it); other attributes do not.
    let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("src/main.o"), c"security.capability", &value, flags).unwrap();
    let _ = rustix::fs::setxattr(at("src/main.o"), c"user.note", b"x", flags);
}

#[test]
fn both_clients_send_the_same_files() {
    let recorder = Recorder::start();
    furnish(&recorder);
    let whole = recorder.same(&["context"], b"");
    assert!(
        whole.names().contains(&"src/deep/er/file.o".to_owned())
            && whole.names().contains(&"outside".to_owned())
    );
    assert!(
        whole.entries().iter().any(|(_, about)| about.contains("SCHILY.xattr.security.capability")),
        "{whole:?}"
    );
    for (patterns, out, kept) in [
        ("*.o\nlogs\n", "logs/a.log", "src/main.o"),
        ("**/*.o\n!src/deep/er/keep.o\n", "src/main.o", "src/deep/er/keep.o"),
        ("*\n!src\n", "empty", "src/main.o"),
        ("*\n", "src/", "Dockerfile"),
        ("Dockerfile\n.dockerignore\n# a comment\n/empty\n", "empty", ".dockerignore"),
        ("src/deep/../deep/er/\n!src/deep/er/keep.o\n\\!x\n", "src/deep/er/file.o", "src/deep/er/keep.o"),
        ("?rc\nlon[a-m]\nd*g\n", "dangling", "logs/"),
        ("**\n!logs/a.log\n", "logs/", "logs/a.log"),
        ("src\n!src/deep\nsrc/deep/er/file.o\n", "src/main.c", "src/deep/er/keep.o"),
    ] {
        recorder.write("context/.dockerignore", patterns);
        let names = recorder.same(&["context"], b"").names();
        assert!(names.iter().any(|name| name == kept), "{patterns:?}: {kept} in {names:?}");
        assert!(!names.iter().any(|name| name == out), "{patterns:?}: {out} in {names:?}");
    }
    recorder.write("context/.dockerignore", "a[\n");
    for client in [Client::Docker, Client::Berth] {
        recorder
            .build(client, &["context"], b"")
            .0
            .fails(1, "error checking context: syntax error in pattern");
    }
}

#[test]
fn both_clients_find_the_same_dockerfile() {
    let recorder = Recorder::start();
    furnish(&recorder);
    symlink("context", recorder.path("link")).unwrap();
    for (arguments, expected) in [
        (&["context"][..], "Dockerfile"),
        (&["link"], "Dockerfile"),
        (&["-f", "context/other.Dockerfile", "context"], "other.Dockerfile"),
        (&["-f", "context/src/../src/main.c", "./context/"], "src/main.c"),
        (&["--file=link/other.Dockerfile", "link"], "other.Dockerfile"),
    ] {
        assert_eq!(recorder.same(arguments, b"").get("dockerfile"), Some(expected), "{arguments:?}");
    }
    fs::rename(recorder.path("context/Dockerfile"), recorder.path("context/dockerfile")).unwrap();
    assert_eq!(recorder.same(&["context"], b"").get("dockerfile"), Some("dockerfile"));
    let mut told = Vec::new();
    for client in [Client::Docker, Client::Berth] {
        for (arguments, code) in [
            (&["nowhere"][..], 1),
            (&["-f", "nowhere", "context"], 1),
            (&["context/empty"], 1),
            (&["-f", "x", "-"], 1),
            (&["-f", "-", "-"], 1),
        ] {
            let (output, request) = recorder.build(client, arguments, b"FROM x");
            assert_eq!(output.code, code, "{client:?} {arguments:?}: {output:?}");
            assert!(request.is_none(), "{request:?}");
            told.push(output.stderr.trim().lines().last().unwrap_or_default().to_owned());
        }
    }
    let (docker, berth) = told.split_at(told.len() / 2);
    assert_eq!(docker, berth);
}

#[test]
fn a_dockerfile_from_elsewhere_is_put_aside() {
    let recorder = Recorder::start();
    furnish(&recorder);
    recorder.write("elsewhere/file", "FROM elsewhere\n");
    for (patterns, arguments, input, content) in [
        (None, &["-f", "-", "context"], &b"FROM input\n"[..], "FROM input\n"),
        (None, &["-f", "elsewhere/file", "context"], b"", "FROM elsewhere\n"),
        (Some("logs\n.dockerignore"), &["-f", "-", "context"], b"FROM input\n", "FROM input\n"),
    ] {
        let _ = patterns.map(|text| recorder.write("context/.dockerignore", text));
        let sent = recorder.both(arguments, input).map(|request| {
            let name = request.get("dockerfile").unwrap().to_owned();
            assert!(name.starts_with(".dockerfile.") && name.len() == 32, "{name}");
            assert_eq!(request.file(&name), content);
            let ignored = request.file(".dockerignore").replace(&name, "NAME");
            // Its time is now, and its name is nobody's.
            let others = |(other, _): &Entry| *other != name && other != ".dockerignore";
            (ignored, request.entries().into_iter().filter(others).collect::<Vec<_>>())
        });
        assert_eq!(sent[0], sent[1], "{arguments:?}");
    }
}

#[test]
fn a_dockerfile_may_have_patterns_of_its_own() {
    let recorder = Recorder::start();
    furnish(&recorder);
    recorder.write("context/.dockerignore", "src\n");
    recorder.write("context/other.Dockerfile.dockerignore", "*\n!logs\n");
    let sent = |arguments: &[&str]| {
        let (output, request) = recorder.build(Client::Berth, arguments, b"");
        output.ok();
        request.unwrap().names()
    };
    let names = sent(&["-f", "context/other.Dockerfile", "context"]);
    assert_eq!(names, [".dockerignore", "logs/", "logs/a.log", "other.Dockerfile"]);
    assert!(sent(&["context"]).contains(&"empty".to_owned()));
}

#[test]
fn both_clients_send_the_same_flags() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    let auth = json!({"auths": {"r.example": {"auth": "bWU6c2VjcmV0"}},
        "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "a,b"}}});
    for (config, line) in [
        (json!({}), "context"),
        (json!({}), "-t a:b -t host:5000/c/d --no-cache --pull --rm=false --force-rm --squash -q context"),
        (
            json!({}),
            "--build-arg A=b=c --build-arg FROM_OUTSIDE --build-arg ABSENT_EVERYWHERE --build-arg E= context",
        ),
        (
            json!({}),
            "--label a=b --label c --label d= --target stage --network host --isolation hyperv context",
        ),
        (json!({}), "--network default --isolation default --disable-content-trust context"),
        (
            json!({}),
            "-m 64m --memory-swap -1 -c 5 --cpu-period 7 --cpu-quota 8 --cpuset-cpus 0-1 --cpuset-mems 0 context",
        ),
        (json!({}), "--shm-size 1g --cgroup-parent /x --ulimit nofile=1:2 --add-host h=1.2.3.4 context"),
        (json!({}), "--add-host six:[::1] --add-host g:host-gateway --add-host v6:::2 context"),
        (json!({}), "--cache-from a,b --cache-from c --security-opt x=y --security-opt label=a,b context"),
        (json!({}), "--platform linux/ARM64 context"),
        (auth, "--build-arg HTTP_PROXY=mine context"),
    ] {
        recorder.write("home/config.json", &config.to_string());
        let arguments: Vec<&str> = line.split(' ').collect();
        let request = recorder.same(&arguments, b"");
        assert_eq!(request.get("version"), Some("1"), "{line}");
    }
}

#[test]
fn input_is_a_tar_as_it_is_or_a_dockerfile() {
    let recorder = Recorder::start();
    let tar =
        files::Layer::new().file("Dockerfile", 0o644, "FROM x").file("y", 0o600, vec![7; 300_000]).bytes();
    for input in [tar.clone(), files::gzip(&tar)] {
        for arguments in [&["-"][..], &["-f", "sub/file", "-"]] {
            let [docker, berth] = recorder.both(arguments, &input);
            assert_eq!(docker.query, berth.query);
            assert!(docker.body == input && berth.body == input, "{arguments:?}");
        }
    }
    let [docker, berth] = recorder.both(&["-"], b"FROM input\n");
    for request in [&docker, &berth] {
        assert_eq!(
            (request.names(), request.get("dockerfile")),
            (vec!["Dockerfile".to_owned()], Some("Dockerfile"))
        );
        assert_eq!(request.file("Dockerfile"), "FROM input\n");
    }
}

#[test]
fn what_is_compressed_is_the_same_tar() {
    let recorder = Recorder::start();
    furnish(&recorder);
    let plain = recorder.same(&["context"], b"");
    for request in recorder.both(&["--compress", "context"], b"") {
        let mut body = Vec::new();
        flate2::read::MultiGzDecoder::new(request.body.as_slice()).read_to_end(&mut body).unwrap();
        assert!(body.len() > request.body.len());
        assert_eq!(Request { body, ..Request::default() }.entries(), plain.entries());
    }
}

#[test]
fn the_daemon_fetches_what_is_far() {
    let recorder = Recorder::start();
    for address in [
        "https://example.invalid/x.tar.gz",
        "https://example.invalid/x.git#main:sub",
        "git://example.invalid/x",
    ] {
        let (output, request) = recorder.build(Client::Berth, &["-f", "sub/Dockerfile", address], b"");
        let text = output.ok();
        assert!(!text.contains("Sending build context"), "{text}");
        let request = request.unwrap();
        assert_eq!(
            (request.get("remote"), request.get("dockerfile")),
            (Some(address), Some("sub/Dockerfile"))
        );
        assert!(request.body.is_empty());
    }
}

#[test]
fn both_clients_show_the_same() {
    let recorder = Recorder::start();
    furnish(&recorder);
    let id_file = recorder.path("id");
    let id_argument = format!("--iidfile={}", id_file.display());
    let failed = concat!(
        "{\"stream\":\"Step 1/2 : FROM x\\n\"}\r\n",
        "{\"errorDetail\":{\"code\":42,\"message\":\"The command '/bin/sh -c x' returned a non-zero code: 42\"},",
        "\"error\":\"The command '/bin/sh -c x' returned a non-zero code: 42\"}\r\n"
    );
    let plain = "{\"errorDetail\":{\"message\":\"no such stage\"},\"error\":\"no such stage\"}\r\n";
    for (status, answer, arguments) in [
        (200, BUILT, &["context"][..]),
        (200, BUILT, &[&id_argument, "context"]),
        (200, "{\"stream\":\"sha256:0123\\n\"}\r\n", &["-q", "context"]),
        (200, failed, &["context"]),
        (200, failed, &[&id_argument, "context"]),
        (200, failed, &["-q", "context"]),
        (200, plain, &["context"]),
        (200, "{\"stream\":\"no ID\\n\"}\r\n", &[&id_argument, "context"]),
        (400, "{\"message\":\"dockerfile parse error line 1: unknown instruction: FORM\"}", &["context"]),
        (500, "{\"message\":\"it is full\"}", &["-q", "context"]),
    ] {
        recorder.answers(status, answer);
        let [docker, berth] = [Client::Docker, Client::Berth].map(|client| {
            fs::write(&id_file, "old").unwrap();
            let (output, _) = recorder.build(client, arguments, b"");
            let stderr = output.stderr.split("legacy builder is deprecated").last().unwrap_or_default();
            // The stock client says that it is old.
            let stderr = stderr.split("environment-variable.").last().unwrap_or_default();
            let stderr = without_sizes(stderr).trim().to_owned();
            (output.code, without_sizes(&output.stdout), stderr, fs::read_to_string(&id_file).ok())
        });
        assert_eq!(docker, berth, "{arguments:?} {answer}");
    }
}

/// The size of a context is each client's own: headers say the same in different ways.
fn without_sizes(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("Sending build context to Docker daemon ") {
            Some(rest) => {
                assert!(rest.trim_end().ends_with("kB") && rest.ends_with("\r\r\n"), "{line:?}");
                out.push_str("Sending\n");
            }
            None => out.push_str(line),
        }
    }
    out
}

#[test]
fn messages_can_be_had_as_they_are() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    let (output, _) = recorder.build(Client::Berth, &["--progress=rawjson", "context"], b"");
    let messages: Vec<Value> = output.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages[5], json!({"aux": {"ID": "sha256:0123"}}));
    let (output, _) = recorder.build(Client::Berth, &["--progress=plain", "context"], b"");
    assert!(output.ok().contains("\npartial\n"));
}

#[test]
fn the_environment_says_how_a_build_is_shown() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    let red = "{\"stream\":\"\\u001b[91mred\\u001b[0m\\n\"}\r\n{\"aux\":{\"ID\":\"sha256:0123\"}}\r\n";
    recorder.answers(200, red);
    let shown = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = recorder.command(Client::Berth, &[&["build"], arguments, &["context"]].concat());
        feed(command.envs(variables.iter().copied()), b"")
    };
    assert!(shown(&[], &[]).ok().contains("\u{1b}[91mred\u{1b}[0m"));
    let plain = shown(&[("NO_COLOR", "1")], &[]).ok();
    assert!(plain.contains("\nred") && !plain.contains('\u{1b}'), "{plain:?}");
    let raw = [("BUILDKIT_PROGRESS", "rawjson")];
    assert!(shown(&raw, &[]).ok().starts_with("{\"stream\""));
    assert!(shown(&raw, &["--progress", "plain"]).ok().starts_with("Sending"));
    assert!(!shown(&[("BUILDKIT_PROGRESS", "quiet")], &[]).ok().contains("Sending"));
    shown(&[("BUILDKIT_PROGRESS", "fancy")], &[]).fails(1, "invalid progress mode \"fancy\"");
    shown(&[], &["--progress", "tty"]).fails(1, "--progress=tty needs a terminal");
}

#[test]
fn a_file_that_cannot_be_read_ends_the_build() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    recorder.write("context/secret", "x");
    fs::set_permissions(recorder.path("context/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(recorder.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(recorder.path("daemon.sock"), fs::Permissions::from_mode(0o666)).unwrap();
    // Without any rights over files of others, although it is root's.
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    command.arg(binary()).args(["-H", &format!("unix://{}", recorder.path("daemon.sock").display())]);
    command
        .args(["build", "context"])
        .current_dir(recorder.folder.path())
        .env("DOCKER_CONFIG", "/nonexistent");
    let output = feed(&mut command, b"").fails(1, "unable to send the build context");
    assert!(output.stderr.contains("secret") && output.stderr.contains("permission denied"), "{output:?}");
    assert!(
        !recorder.requests.lock().unwrap().iter().any(|request| request.line == "POST /build"),
        "it was whole"
    );
}

#[test]
fn the_cache_is_pruned_as_the_stock_client_asks() {
    let recorder = Recorder::start();
    recorder.answers(200, "{\"CachesDeleted\":[\"a\",\"b\"],\"SpaceReclaimed\":1234567}");
    let asked = |client: Client, arguments: &[&str], input: &[u8]| {
        recorder.requests.lock().unwrap().clear();
        let output = feed(&mut recorder.command(client, &[&["builder", "prune"], arguments].concat()), input);
        let requests = recorder.requests.lock().unwrap();
        let request = requests.iter().find(|request| request.line == "POST /build/prune");
        (output, request.map(|request| request.query.clone()))
    };
    for (arguments, input) in [
        (&["-f"][..], &b""[..]),
        (&["-af", "--filter", "until=2h", "--filter", "type=x"], b""),
        (&["-a"], b"y\n"),
        (&[], b"n\n"),
    ] {
        let [docker, berth] = [Client::Docker, Client::Berth].map(|client| {
            let (output, query) = asked(client, arguments, input);
            let query =
                query.map(|all| all.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>());
            let end = output.stdout.find("Deleted").map(|at| output.stdout[at..].to_owned());
            (output.code, query, end)
        });
        assert_eq!(docker, berth, "{arguments:?}");
    }
    let (output, query) = asked(Client::Berth, &["-f", "--keep-storage=5m", "--max-used-space", "6m"], b"");
    assert!(output.ok().ends_with("Total reclaimed space: 1.235MB"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(query.unwrap(), [pair("reserved-space", "5242880"), pair("max-used-space", "6291456")]);
}

#[test]
fn memory_does_not_grow_with_the_context() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    fs::File::create(recorder.path("context/large")).unwrap().set_len(200 << 20).unwrap();
    let mut command = Command::new("/bin/sh");
    // Less address space than the context has bytes.
    command.args(["-c", "ulimit -v 131072; exec \"$0\" -H \"$1\" build context"]).arg(binary());
    command.arg(format!("unix://{}", recorder.path("daemon.sock").display()));
    let output = feed(command.current_dir(recorder.folder.path()).env("DOCKER_CONFIG", "/nonexistent"), b"");
    assert!(output.ok().contains("Sending build context to Docker daemon  209.7MB\r\r\n"));
}
