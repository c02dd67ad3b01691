//! `RUN` with mounts, a network and privileges of its own, through both clients.

use std::fs;

use crate::building::{BOTH, build, context};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

/// Builds a Dockerfile alone, without what is remembered.
#[track_caller]
fn build_text(daemon: &Daemon, client: Client, text: &str) -> Output {
    let context = context(daemon, "text", &[("Dockerfile", text)]);
    build(daemon, client, &context, &["--no-cache", "-t", "made"])
}

fn shell(daemon: &Daemon, image: &str, script: &str) -> String {
    daemon.berth(&["run", "--rm", "--entrypoint", "sh", image, "-c", script]).ok()
}

#[test]
fn files_of_context_and_stages_are_bound() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox AS first\nRUN mkdir -p /out/deep && echo one > /out/deep/file && ln -s /out/deep /link\n\
        FROM busybox\nWORKDIR /work\n\
        RUN --mount=target=. cat sub/file > /seen && ! touch new\n\
        RUN --mount=type=bind,from=first,source=/link,target=/a/b/c cat /a/b/c/file >> /seen; ! touch /a/b/c/x\n\
        RUN --mount=from=first,source=out/deep/file,target=/alone cat /alone >> /seen\n\
        RUN --mount=target=/rw,rw --mount=from=first,target=/from,rw echo gone > /rw/gone && echo gone > /from/gone && \
        cat /rw/sub/file /rw/gone /from/gone >> /seen\n\
        RUN --mount=target=/rw,rw --mount=from=first,target=/from,rw ! ls /rw/gone /from/gone\n";
    let root = context(&daemon, "bound", &[("Dockerfile", dockerfile), ("sub/file", "context\n")]);
    for client in BOTH {
        build(&daemon, client, &root, &["--no-cache", "-t", "bound"]).ok();
        let seen =
            shell(&daemon, "bound", "cat /seen; ls -d /a /alone /rw /from /work/* 2>&1 | grep -c 'No such'");
        assert_eq!(seen, "context\none\none\ncontext\ngone\ngone\n5");
    }
    // A file that a step does not see changes nothing; one that it sees does.
    let dockerfile = "FROM busybox\nRUN --mount=source=sub,target=/s cat /s/file > /seen\n";
    fs::write(root.join("Dockerfile"), dockerfile).unwrap();
    build(&daemon, Client::Berth, &root, &["-t", "bound"]).ok();
    fs::write(root.join("beside"), "x").unwrap();
    let again = build(&daemon, Client::Docker, &root, &["-t", "bound"]).ok();
    assert_eq!(again.matches("Using cache").count(), 1, "{again}");
    fs::write(root.join("sub/file"), "other\n").unwrap();
    let other = build(&daemon, Client::Docker, &root, &["-t", "bound"]).ok();
    assert!(!other.contains("Using cache"), "{other}");
    assert_eq!(shell(&daemon, "bound", "cat /seen"), "other");
}

/// R17, R26: links of a context lead nowhere else.
#[test]
fn bound_files_stay_inside_their_tree() {
    let daemon = Daemon::start();
    let root = context(&daemon, "hostile", &[("etc/secret", "of the context\n")]);
    let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, root.join(path)).unwrap();
    link("/etc/secret", "passwd");
    link("../../../../../../etc", "up");
    link("/proc/self/root/etc", "magic");
    run(std::process::Command::new("mkfifo").arg(root.join("fifo"))).ok();
    for (source, expected) in [
        ("passwd", Ok("of the context")),
        ("up/secret", Ok("of the context")),
        ("/../../etc/secret", Ok("of the context")),
        ("magic", Err("not found")),
        ("fifo", Err("no file or directory")),
    ] {
        let text = format!("FROM busybox\nRUN --mount=source={source},target=/t cat /t > /seen\n");
        fs::write(root.join("Dockerfile"), text).unwrap();
        for client in BOTH {
            let output = build(&daemon, client, &root, &["-t", "hostile"]);
            match expected {
                Ok(seen) => {
                    output.ok();
                    assert_eq!(shell(&daemon, "hostile", "cat /seen"), seen);
                }
                Err(words) => drop(output.fails(1, words)),
            }
        }
    }
    // The image cannot have its mount points made, or removed, elsewhere.
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let path = outside.display();
    let text = format!(
        "FROM busybox\nRUN ln -s {path} /there; ln -s /proc/self/root{path} /here\n\
        RUN --mount=type=tmpfs,target=/there/x/y touch /there/x/y/z && rm -rf /there && ln -s / /there; true\n"
    );
    build_text(&daemon, Client::Berth, &text).ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn caches_outlive_builds_until_they_are_pruned() {
    let daemon = Daemon::start();
    let count = |sharing: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,id=k,sharing={sharing},mode=0750,uid=3,gid=4 \
            echo x >> /c/count && wc -l < /c/count && stat -c '%a %u:%g' /c\n"
        )
    };
    for (number, sharing) in ["shared", "locked", "private"].into_iter().enumerate() {
        let told = build_text(&daemon, BOTH[number % 2], &count(sharing)).ok();
        assert!(told.contains(&format!("\n{}\n750 3:4\n", number + 1)), "{told}");
        assert_eq!(shell(&daemon, "made", "ls -d /c 2>&1 | grep -c 'No such'"), "1");
    }
    // Another target is another cache; a stage can be its beginning.
    let text = "FROM busybox AS first\nRUN mkdir /b; echo begun > /b/file\nFROM busybox\n\
        RUN --mount=type=cache,target=/other,from=first,source=b cat /other/file && echo more >> /other/file\n\
        RUN --mount=type=cache,target=/c ! test -e /c/count\n";
    assert!(build_text(&daemon, Client::Berth, text).ok().contains("begun"));
    let usage = daemon.with(Client::Docker, &["system", "df", "-v"]).ok();
    assert!(usage.contains("exec.cachemount"), "{usage}");
    let told = daemon.with(Client::Docker, &["builder", "prune", "-af"]).ok();
    assert!(told.contains("Total reclaimed space:"), "{told}");
    let left = fs::read_dir(daemon.data_root().join("build-cache")).unwrap().count();
    assert_eq!(left, 0);
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c,id=k test ! -e /c/count\n";
    let told = build_text(&daemon, Client::Docker, text).ok();
    assert!(!told.contains("Using cache"), "{told}");
}

#[test]
fn steps_are_forgotten_by_a_prune() {
    let daemon = Daemon::start();
    let root = context(&daemon, "steps", &[("Dockerfile", "FROM busybox\nRUN echo made\n")]);
    build(&daemon, Client::Berth, &root, &["-t", "steps"]).ok();
    assert!(build(&daemon, Client::Berth, &root, &[]).ok().contains("Using cache"));
    daemon.berth(&["builder", "prune", "-af"]).ok();
    assert!(!build(&daemon, Client::Berth, &root, &[]).ok().contains("Using cache"));
}

/// Images of steps go with the cache when nothing else is left of them; what a build ended with stays.
#[test]
fn a_prune_frees_what_only_the_cache_has() {
    let daemon = Daemon::start();
    let layers = || fs::read_dir(daemon.data_root().join("layers")).unwrap().count();
    let before = layers();
    let text = "FROM busybox AS first\nRUN head -c 3000000 /dev/urandom > /big\nRUN echo small > /small\n\
        FROM busybox\nCOPY --from=first /small /\n";
    let root = context(&daemon, "freed", &[("Dockerfile", text)]);
    let id = build(&daemon, Client::Berth, &root, &["-q"]).ok();
    assert_eq!(layers(), before + 3);
    let used = daemon.berth(&["builder", "du", "--filter", "type=regular", "--format", "{{.Size}}"]).ok();
    assert!(used.lines().any(|size| size.starts_with('3') && size.ends_with("MB")), "{used}");
    let told = daemon.with(Client::Docker, &["builder", "prune", "-af"]).ok();
    let freed = told.lines().last().unwrap_or_default();
    assert!(freed.contains("space: 3") && freed.ends_with("MB"), "{told}");
    assert_eq!(layers(), before + 1);
    assert_eq!(daemon.berth(&["run", "--rm", &id, "cat", "/small"]).ok(), "small");
    assert_eq!(daemon.berth(&["builder", "du", "--filter", "type=regular", "-v"]).ok().lines().count(), 2);
    // It goes as any other image without a name.
    daemon.berth(&["image", "prune", "-f"]).ok();
    assert_eq!(layers(), before);
}

#[test]
fn a_prune_keeps_what_it_is_told_to() {
    let daemon = Daemon::start();
    for (number, megabytes) in [("1", 4), ("2", 2)] {
        let text = format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,id={number} head -c {megabytes}000000 /dev/urandom > /c/file\n"
        );
        build_text(&daemon, Client::Berth, &text).ok();
    }
    let mounts = || {
        let told = daemon
            .berth(&["builder", "du", "--filter", "type=exec.cachemount", "--format", "{{.Size}}"])
            .ok();
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = mounts();
    assert_eq!(whole.len(), 2, "{whole:?}");
    let prune =
        |client, flags: &[&str]| daemon.with(client, &[&["builder", "prune", "-af"], flags].concat()).ok();
    prune(Client::Berth, &["--max-used-space", "100m"]);
    // More is free than this.
    prune(Client::Berth, &["--min-free-space", "1"]);
    prune(Client::Docker, &["--keep-storage", "100mb"]);
    assert_eq!(mounts(), whole);
    // The older one goes.
    prune(Client::Berth, &["--max-used-space", "3m"]);
    let left = mounts();
    assert!(left.len() == 1 && left[0].starts_with('2'), "{left:?}");
    prune(Client::Berth, &["--min-free-space", "100000g", "--reserved-space", "100m"]);
    assert_eq!(mounts(), left);
    prune(Client::Berth, &["--min-free-space", "100000g"]);
    assert!(mounts().is_empty());
}

#[test]
fn a_locked_cache_has_one_user_at_a_time() {
    let daemon = Daemon::start();
    let children: Vec<_> = (0..3)
        .map(|number| {
            let text = format!(
                "FROM busybox\nRUN --mount=type=cache,target=/c,id=lock,sharing=locked \
                mkdir /c/lock && echo {number} && usleep 300000 && rmdir /c/lock\n"
            );
            let root = context(&daemon, &format!("locked{number}"), &[("Dockerfile", &text)]);
            let mut command = daemon.client(Client::Berth, &["build", "-q", root.to_str().unwrap()]);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_script_may_say_what_reads_it() {
    let daemon = Daemon::start();
    let text = "FROM busybox\nRUN <<EOF\n#!/bin/cat\nread as it is $HOME\nEOF\n\
        RUN <<-'S' > /dev/null || true\n\t#!/bin/sh\n\tS\n\
        RUN <<\"two\"\n#!/usr/bin/awk -f\nBEGIN { print \"by awk\" > \"/made\" }\ntwo\n";
    for client in BOTH {
        let told = build_text(&daemon, client, text).ok();
        assert!(told.contains("#!/bin/cat\nread as it is $HOME\n"), "{told}");
        assert_eq!(
            shell(&daemon, "made", "cat /made; ls -d /dev/pipes 2>&1 | grep -c 'No such'"),
            "by awk\n1"
        );
        daemon.berth(&["builder", "prune", "-af"]).ok();
    }
}

#[test]
fn memory_networks_and_keys() {
    let daemon = Daemon::start();
    let text = "FROM busybox\n\
        RUN --mount=type=tmpfs,target=/t,size=1m touch /t/file && df -k /t | grep -c 1024\n\
        RUN --network=none ls /sys/class/net | tr '\\n' ' ' > /net\n\
        RUN --mount=type=secret,id=absent --mount=type=ssh ls /run/secrets 2>&1 | grep 'No such'; echo [$SSH_AUTH_SOCK]\n";
    for client in BOTH {
        let told = build_text(&daemon, client, text).ok();
        assert!(told.contains("\n1\n") && told.contains("\n[]\n"), "{told}");
        assert_eq!(shell(&daemon, "made", "cat /net; ls -d /t 2>&1 | grep -c 'No such'"), "lo 1");
        for (mount, words) in [
            ("type=secret,id=key,required", "Dockerfile line 3: secret key: not found"),
            ("type=ssh,id=agent,required=true", "Dockerfile line 3: unset ssh forward key agent"),
            ("type=cache", "Dockerfile line 3: a mount of type cache has no target"),
            ("type=tmpfs,target=/", "Dockerfile line 3: invalid mount target \"/\""),
            ("source=absent,target=/x", "Dockerfile line 3: the source of the mount: \"absent\": not found"),
        ] {
            build_text(&daemon, client, &format!("FROM busybox\n\nRUN --mount={mount} true\n"))
                .fails(1, words);
        }
        let words = "Dockerfile line 2: security.insecure is not allowed";
        build_text(&daemon, client, "FROM busybox\nRUN --security=insecure true\n").fails(1, words);
        let words = "Dockerfile line 2: network.host is not allowed";
        build_text(&daemon, client, "FROM busybox\nRUN --network=host true\n").fails(1, words);
    }
    let text = "FROM busybox\nRUN --security=insecure --network=host grep CapEff /proc/self/status; ls /sys/class/net\n";
    let root = context(&daemon, "allowed", &[("Dockerfile", text)]);
    let allow = ["--allow", "security.insecure", "--allow", "network.host"];
    let told = build(&daemon, Client::Berth, &root, &allow).ok();
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let own = all.lines().find(|line| line.starts_with("CapBnd")).unwrap().split_whitespace().last().unwrap();
    assert!(told.contains(own), "{told}");
}
