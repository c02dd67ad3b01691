//! `COPY` and `ADD` with the flags that Docker's classic builder lacks, and Git repositories, through both clients.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::building::{BOTH, command, context};
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{Output, run};

#[track_caller]
fn build(daemon: &Daemon, client: Client, context: &str, arguments: &[&str]) -> Output {
    run(&mut command(daemon, client, context, &[&["-t", "made"], arguments].concat()))
}

fn shell(daemon: &Daemon, script: &str) -> String {
    daemon.berth(&["run", "--rm", "--entrypoint", "sh", "made", "-c", script]).ok()
}

/// Serves the files of a directory for as long as the test runs.
fn serve(root: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let root = root.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let mut rest = String::new();
                while reader.read_line(&mut rest).unwrap() > 2 {
                    rest.clear();
                }
                let path =
                    line.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap().trim_start_matches('/');
                let (status, body) = match fs::read(root.join(path)) {
                    Ok(body) => ("200 OK", body),
                    Err(_) => ("404 Not Found", Vec::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n\
                    Connection: close\r\n\r\n",
                    body.len()
                );
                let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
            });
        }
    });
    format!("http://{address}")
}

fn git(directory: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
    run(Command::new("git").current_dir(directory).args(identity).args(arguments)).ok();
}

#[test]
fn patterns_parents_and_permissions() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\n\
        COPY --exclude=*.txt --exclude=deep/* --exclude=!deep/kept src /some/\n\
        COPY --exclude=b.* src/*.txt /wild/\n\
        COPY --parents src/a.txt src/./deep/kept src/deep /parents/\n\
        COPY --parents src/**/kept ./src/./**/b.txt /wide/\n\
        COPY --chmod=u=rwX,go=rX src /modes/\n\
        COPY --chmod=go-rwx src/a.txt /modes/private\n\
        ADD --chmod=a+x --exclude=deep src /added/\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("src/a.txt", "a\n"),
        ("src/b.txt", "b\n"),
        ("src/tool", "t\n"),
        ("src/deep/kept", "k\n"),
        ("src/deep/gone", "g\n"),
    ];
    let root = context(&daemon, "flags", &files);
    let permit = |path: &str, mode: u32| {
        fs::set_permissions(root.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    permit("src/deep", 0o711);
    permit("src/tool", 0o700);
    permit("src/a.txt", 0o666);
    let list = "for i in some wild parents wide added; do cd /$i; echo $i: $(find . -type f | sort); done; cd /; \
        stat -c '%n %a' parents/deep parents/src/deep modes/deep modes/tool modes/a.txt modes/private added/b.txt";
    let expected = "some: ./deep/kept ./tool\nwild: ./a.txt\n\
        parents: ./deep/kept ./src/a.txt ./src/deep/gone ./src/deep/kept\nwide: ./b.txt ./src/deep/kept\n\
        added: ./a.txt ./b.txt ./tool\n\
        parents/deep 711\nparents/src/deep 711\nmodes/deep 755\nmodes/tool 755\nmodes/a.txt 644\nmodes/private 600\n\
        added/b.txt 755";
    for client in BOTH {
        build(&daemon, client, root.to_str().unwrap(), &["--no-cache"]).ok();
        assert_eq!(shell(&daemon, list), expected);
    }
    // What stays out is nothing that a step depends on.
    fs::write(root.join("Dockerfile"), "FROM busybox\nCOPY --exclude=*.txt src /\n").unwrap();
    build(&daemon, Client::Berth, root.to_str().unwrap(), &[]).ok();
    fs::write(root.join("src/b.txt"), "other").unwrap();
    assert!(build(&daemon, Client::Berth, root.to_str().unwrap(), &[]).ok().contains("Using cache"));
    fs::write(root.join("src/tool"), "other").unwrap();
    assert!(!build(&daemon, Client::Berth, root.to_str().unwrap(), &[]).ok().contains("Using cache"));
    fs::write(root.join("Dockerfile"), "FROM busybox\nCOPY --chmod=u=q src /\n").unwrap();
    build(&daemon, Client::Docker, root.to_str().unwrap(), &[]).fails(1, "invalid chmod parameter: 'u=q'");
}

/// Files with the same content are others if they have another name.
#[test]
fn names_of_files_are_part_of_what_is_copied() {
    let daemon = Daemon::start();
    let files = [("a", "same\n"), ("b", "same\n"), ("p/x.txt", "same\n"), ("q/x.txt", "same\n")];
    let root = context(&daemon, "names", &files);
    let seen = |client, text: &str| {
        fs::write(root.join("Dockerfile"), format!("FROM busybox\n{text}\n")).unwrap();
        build(&daemon, client, root.to_str().unwrap(), &[]).ok();
        shell(&daemon, "cd /d && find . -type f | sort")
    };
    for (number, (client, lines)) in (1..).zip([
        (Client::Berth, ["COPY a /d/", "COPY b /d/"]),
        (Client::Docker, ["ADD a /d/", "ADD b /d/"]),
        (Client::Berth, ["COPY --link a /d/", "COPY --link b /d/"]),
        (Client::Docker, ["COPY [a] /d/", "COPY [b] /d/"]),
        (Client::Berth, ["COPY <<a /d/\nsame\na", "COPY <<b /d/\nsame\nb"]),
        (Client::Berth, ["COPY --parents p/*.txt /d/", "COPY --parents q/*.txt /d/"]),
        (Client::Docker, ["COPY --chmod=600 a b /d/", "COPY --chmod=600 b p/x.txt /d/"]),
    ]) {
        // Each pair has a cache of its own.
        let [one, other] = lines.map(|line| format!("ENV CASE={number}\n{line}"));
        let first = seen(client, &one);
        let second = seen(client, &other);
        assert!(first != second, "{one}, {other}: {first:?}, {second:?}");
        assert_eq!((seen(client, &one), seen(client, &other)), (first, second), "{one}");
    }
    // Of two layers that depend on nothing below them, neither takes the other's place.
    let both =
        seen(Client::Berth, "COPY --link p/x.txt /d/one/\nCOPY --link a /d/one/\nCOPY --link b /d/one/");
    assert_eq!(both, "./one/a\n./one/b\n./one/x.txt");
    // A file that was renamed under a pattern.
    assert_eq!(seen(Client::Berth, "COPY [ab]* /d/"), "./a\n./b");
    fs::rename(root.join("b"), root.join("bb")).unwrap();
    assert_eq!(seen(Client::Berth, "COPY [ab]* /d/"), "./a\n./bb");
}

#[test]
fn a_linked_layer_stands_for_itself() {
    let daemon = Daemon::start();
    let text = |below: &str, link: &str| {
        format!(
            "FROM busybox\nRUN mkdir /real; ln -s /real /there; echo {below} > /below\n\
            COPY {link} --chown=daemon file /there/\n"
        )
    };
    let root = context(&daemon, "linked", &[("file", "f\n")]);
    let layers = |below: &str, link: &str| {
        fs::write(root.join("Dockerfile"), text(below, link)).unwrap();
        build(&daemon, Client::Docker, root.to_str().unwrap(), &[]).ok();
        let text = daemon.inspect("made", "{{json .RootFS.Layers}}");
        serde_json::from_str::<Vec<String>>(&text).unwrap()
    };
    let plain = layers("one", "");
    assert_eq!(shell(&daemon, "readlink /there; ls /real"), "/real\nfile");
    let one = layers("one", "--link");
    assert_eq!(
        shell(&daemon, "ls -d /there/*; ls /real; stat -c %U /there/file; cat /there/file"),
        "/there/file\ndaemon\nf"
    );
    let two = layers("two", "--link");
    assert_eq!(shell(&daemon, "cat /below /there/file; ls /real"), "two\nf");
    let last = |layers: &[String]| layers.last().cloned();
    assert_ne!(one[one.len() - 2], two[two.len() - 2], "what lies below is another");
    assert_eq!(last(&one), last(&two), "the layer is the same");
    assert_ne!(last(&plain), last(&one));
    fs::write(root.join("file"), "other\n").unwrap();
    assert_ne!(last(&layers("two", "--link")), last(&two));
}

#[test]
fn git_repositories_are_contexts_and_sources() {
    let daemon = Daemon::start();
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY . /context\n"),
        ("sub/Dockerfile", "FROM busybox\nCOPY . /sub\n"),
        ("sub/file", "one\n"),
    ];
    let work = context(&daemon, "work", &files);
    std::os::unix::fs::symlink("/", work.join("out")).unwrap();
    std::os::unix::fs::symlink("../../../../../..", work.join("up")).unwrap();
    git(&work, &["init", "--quiet"]);
    git(&work, &["checkout", "--quiet", "-b", "main"]);
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "one"]);
    git(&work, &["tag", "first"]);
    fs::write(work.join("sub/file"), "two\n").unwrap();
    git(&work, &["commit", "--quiet", "-am", "two"]);
    let served = daemon.root.path().join("served");
    git(daemon.root.path(), &["clone", "--quiet", "--bare", "work", "served/r.git"]);
    git(&served.join("r.git"), &["update-server-info"]);
    let address = format!("{}/r.git", serve(&served));
    // The daemon fetches: no client is asked to.
    let fetch = |fragment: &str| {
        let path = format!("/v1.41/build?t=made&remote={}", url(&format!("{address}{fragment}")));
        crate::raw::exchange(&daemon, &crate::raw::request("POST", &path, "", b""))
    };
    let answer = fetch("");
    assert!(answer.contains("Successfully built"), "{answer}");
    assert_eq!(
        shell(&daemon, "cat /context/sub/file; ls -d /context/.git 2>&1 | grep -c 'No such'"),
        "two\n1"
    );
    assert!(fetch("#first:sub").contains("Successfully built"));
    assert_eq!(shell(&daemon, "cat /sub/file"), "one");
    // R18: a subdirectory is one of the repository.
    for (fragment, words) in [
        ("#main:../..", "invalid subdirectory"),
        ("#main:out/etc", "the subdirectory of the Git address"),
        ("#main:up/etc", "the subdirectory of the Git address"),
        ("#--upload-pack=touch", "invalid reference"),
        ("#none", "git "),
    ] {
        let answer = fetch(fragment);
        assert!(!answer.contains("Successfully") && answer.contains(words), "{fragment}: {answer}");
    }
    let dockerfile =
        format!("FROM busybox\nADD {address}#first:sub /at/\nADD --keep-git-dir=true {address} /all\n");
    let root = context(&daemon, "adds", &[("Dockerfile", &dockerfile)]);
    for client in BOTH {
        build(&daemon, client, root.to_str().unwrap(), &["--no-cache"]).ok();
        assert_eq!(shell(&daemon, "cat /at/file /all/sub/file; ls -d /all/.git"), "one\ntwo\n/all/.git");
    }
    let commit = |name: &str| run(Command::new("git").args(["rev-parse", name]).current_dir(&work)).ok();
    let (first, second) = (commit("first"), commit("main"));
    let add = |flags: &str, query: &str, client| {
        let text = format!("FROM busybox\nADD {flags} {address}{query} /at/\n");
        fs::write(root.join("Dockerfile"), text).unwrap();
        build(&daemon, client, root.to_str().unwrap(), &[])
    };
    let checksum = |sum: &str| format!("--checksum={sum}");
    for client in BOTH {
        add("", "?tag=first&subdir=sub", client).ok();
        assert_eq!(shell(&daemon, "cat /at/file"), "one");
        add(&checksum(&second), "?branch=main&keep-git-dir=true", client).ok();
        assert_eq!(shell(&daemon, "cat /at/sub/file; ls -d /at/.git"), "two\n/at/.git");
        add(&checksum(&first[..12]), "#first:sub", client).ok();
        add(&checksum(&first), "#main:sub", client).fails(1, "expected checksum to match");
        add(&checksum(&first), &format!("?checksum={second}"), client).fails(1, "checksum mismatch");
        add(&checksum("sha256:1"), "#main", client).fails(1, "invalid checksum sha256:1 for Git URL");
        add("", "?colour=red", client).fails(1, "invalid query \"colour\"");
    }
}

fn url(text: &str) -> String {
    text.replace('#', "%23").replace(':', "%3A").replace('/', "%2F")
}

#[test]
fn what_an_address_gives_has_its_checksum() {
    let daemon = Daemon::start();
    let served = context(&daemon, "served", &[("file.txt", "served\n")]);
    let address = serve(&served);
    let told = run(Command::new("sha256sum").arg(served.join("file.txt"))).ok();
    let digest = told.split(' ').next().unwrap();
    let text = |digest: &str| format!("FROM busybox\nADD --checksum=sha256:{digest} {address}/file.txt /\n");
    let root = context(&daemon, "sums", &[("Dockerfile", &text(digest))]);
    for client in BOTH {
        fs::write(root.join("Dockerfile"), text(digest)).unwrap();
        build(&daemon, client, root.to_str().unwrap(), &["--no-cache"]).ok();
        assert_eq!(shell(&daemon, "cat /file.txt"), "served");
        fs::write(root.join("Dockerfile"), text(&"0".repeat(64))).unwrap();
        build(&daemon, client, root.to_str().unwrap(), &[]).fails(1, "digest mismatch sha256:");
        for (sources, words) in [
            ("Dockerfile", "checksum requires HTTP(S) or Git sources"),
            ("Dockerfile Dockerfile", "checksum can't be specified for multiple sources"),
        ] {
            let text = format!("FROM busybox\nADD --checksum=sha256:{digest} {sources} /to/\n");
            fs::write(root.join("Dockerfile"), text).unwrap();
            build(&daemon, client, root.to_str().unwrap(), &[]).fails(1, words);
        }
    }
}

/// However slow a server is, a build that nobody wants any more ends.
#[test]
fn a_server_that_is_silent_holds_up_no_end() {
    let daemon = Daemon::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!("FROM busybox\nADD http://{address}/file /\n");
    let root = context(&daemon, "silent", &[("Dockerfile", &text)]);
    for client in BOTH {
        let mut command = command(&daemon, client, root.to_str().unwrap(), &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let asked =
            BufReader::new(&server).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
        assert!(asked > 0);
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").unwrap();
        // More than sockets hold: it is being read.
        server.write_all(&vec![0; 50_000_000]).unwrap();
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).unwrap();
        child.wait().unwrap();
        // The connection ends with the build, half a minute before the server's silence would be too long.
        server.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let ended = server.read_to_end(&mut Vec::new());
        assert!(ended.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true));
    }
}

#[test]
fn archives_are_unpacked_as_it_is_asked_for() {
    let daemon = Daemon::start();
    let packed = files::gzip(&files::Layer::new().file("in/file", 0o644, "packed\n").bytes());
    let served = context(&daemon, "served", &[]);
    fs::create_dir_all(&served).unwrap();
    fs::write(served.join("p.tgz"), &packed).unwrap();
    let address = serve(&served);
    let text = format!(
        "FROM busybox\nADD p.tgz /own/\nADD --unpack=false p.tgz /own-kept/\nADD --unpack=true p.tgz plain /own-both/\n\
        ADD {address}/p.tgz /far/\nADD --unpack {address}/p.tgz /far-unpacked/\nADD --unpack=false {address}/p.tgz /far-kept\n"
    );
    let root = context(&daemon, "unpacked", &[("Dockerfile", &text), ("plain", "plain\n")]);
    fs::write(root.join("p.tgz"), &packed).unwrap();
    let expected = "/far-kept\n/far-unpacked/in/file\n/far/p.tgz\n/own-both/in/file\n/own-both/plain\n\
        /own-kept/p.tgz\n/own/in/file";
    for client in BOTH {
        build(&daemon, client, root.to_str().unwrap(), &["--no-cache"]).ok();
        assert_eq!(shell(&daemon, "find /far* /own* -type f | sort"), expected);
        assert_eq!(shell(&daemon, "cat /own/in/file /far-unpacked/in/file"), "packed\npacked");
    }
    let address = address + "/p.tgz";
    for (keyword, flag, source, words) in [
        ("COPY", "--unpack=true", "p.tgz", "unknown flag: --unpack"),
        ("ADD", "--unpack=perhaps", "p.tgz", "unpack"),
        ("ADD", "--unpack=perhaps", &address, "unpack"),
    ] {
        fs::write(root.join("Dockerfile"), format!("FROM busybox\n{keyword} {flag} {source} /x/\n")).unwrap();
        build(&daemon, Client::Berth, root.to_str().unwrap(), &[]).fails(1, words);
    }
}
