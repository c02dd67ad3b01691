//! Directories of a context that are copied where nothing is yet: their files are written once, and belong to nobody else for it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::building::{BOTH, build, context};
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};

/// Larger than anything else in a data root, so that it is found.
const BIG: &str = "0123456789abcdef";

fn sources(daemon: &Daemon, name: &str, dockerfile: &str) -> PathBuf {
    let big = BIG.repeat(40_000);
    let files = [
        ("Dockerfile", dockerfile),
        ("src/big", big.as_str()),
        ("src/tool", "#!/bin/sh\n"),
        ("src/sub/deep/file", "deep\n"),
        ("src/left.out", "x\n"),
    ];
    let root = context(daemon, name, &files);
    fs::set_permissions(root.join("src/tool"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("src/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::hard_link(root.join("src/tool"), root.join("src/twin")).unwrap();
    symlink("sub/deep", root.join("src/link")).unwrap();
    root
}

fn shell(daemon: &Daemon, image: &str, script: &str) -> String {
    daemon.berth(&["run", "--rm", "--network", "none", image, "sh", "-c", script]).ok()
}

/// Files below a directory that have the size of the large one: each inode with how many names it has.
fn copies(root: &Path) -> Vec<(u64, u64)> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        // Some of it goes meanwhile.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                left.push(entry.path());
            } else if about.is_file() && about.len() >= 40_000 * BIG.len() as u64 && about.len() < 700_000 {
                found.push((about.ino(), about.nlink()));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

const LISTING: &str =
    "cd /app; find . | sort | xargs stat -c '%n %A %u:%g'; cat sub/deep/file; readlink link; sha256sum big";

#[test]
fn what_is_copied_is_what_was_sent_whichever_way_it_takes() {
    let daemon = Daemon::start();
    let apart = "FROM busybox\nRUN mkdir /app && touch /app/here\nCOPY src /app/\nRUN rm /app/here\n";
    let places = ["FROM busybox\nCOPY src /app\n", "FROM busybox\nWORKDIR /app\nCOPY src .\n", apart];
    for client in BOTH {
        let mut listings = Vec::new();
        for (number, dockerfile) in places.iter().enumerate() {
            let root = sources(&daemon, &format!("{client:?}{number}"), dockerfile);
            fs::write(root.join(".dockerignore"), "**/left.out\n").unwrap();
            build(&daemon, client, &root, &["-t", "made"]).ok();
            // What the directory itself is depends on who made it.
            let listing = shell(&daemon, "made", LISTING);
            listings.push(listing.lines().skip(1).map(str::to_owned).collect::<Vec<_>>());
        }
        let text = listings[0].join("\n");
        for line in ["./tool -rwxr-x--x 0:0", "./sub drwx------ 0:0", "deep", "sub/deep"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("left.out"), "{text}");
        assert_eq!(listings[0], listings[1], "{client:?}");
        assert_eq!(listings[0], listings[2], "{client:?}");
    }
}

#[test]
fn a_file_is_written_once_and_nobody_changes_anothers() {
    for driver in ["overlay2", "vfs"] {
        let daemon = Daemon::empty(&["--storage-driver", driver]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        let root = sources(&daemon, "context", "FROM busybox\nCOPY src /app\n");
        build(&daemon, Client::Berth, &root, &["-t", "first"]).ok();
        // What is thrown away has a name, too, until it is gone.
        eventually("one file, of the context and the layer", || {
            matches!(copies(&daemon.data_root()).as_slice(), [(_, 2)]).then_some(())
        });

        // The context is changed, a container changes its files, and steps do: the first image stays what it is.
        fs::write(root.join("src/big"), format!("{}!", BIG.repeat(40_000))).unwrap();
        let second = "FROM busybox\nCOPY src /app\nRUN echo more >> /app/big && chmod 600 /app/tool && chown 7:7 /app/tool\n";
        fs::write(root.join("Dockerfile"), second).unwrap();
        build(&daemon, Client::Berth, &root, &["-t", "second"]).ok();
        shell(&daemon, "first", "echo x >> /app/big; rm /app/tool; chmod 0 /app/sub/deep/file");
        let script = "stat -c '%s %a' /app/big /app/tool /app/sub/deep/file; stat -c %u /app/tool";
        assert_eq!(shell(&daemon, "first", script), "640000 644\n10 751\n5 644\n0", "{driver}");
        assert_eq!(shell(&daemon, "second", script), "640006 644\n10 600\n5 644\n7", "{driver}");

        // Who asks for another owner, other permissions or other times gets files of his own.
        for (name, dockerfile, argument, expected) in [
            ("owned", "COPY --chown=5:6 src /app", "A=1", "5:6 644 big"),
            ("modes", "COPY --chmod=640 src /app", "A=1", "0:0 640 big"),
            ("times", "COPY src /app", "SOURCE_DATE_EPOCH=86400", "0:0 644 big"),
        ] {
            fs::write(root.join("Dockerfile"), format!("FROM busybox\n{dockerfile}\n")).unwrap();
            let arguments = ["-t", name, "--no-cache", "--build-arg", argument];
            build(&daemon, Client::Berth, &root, &arguments).ok();
            let seen = shell(&daemon, name, "cd /app; stat -c '%u:%g %a %n' big; stat -c %Y big tool");
            let mut lines = seen.lines();
            assert_eq!(lines.next(), Some(expected), "{driver} {name}");
            let is_clamped = lines.all(|time| time == "86400");
            assert_eq!(is_clamped, name == "times", "{driver} {name}: {seen}");
        }
        fs::write(root.join("Dockerfile"), "FROM busybox\nCOPY src /again\n").unwrap();
        build(&daemon, Client::Berth, &root, &["-t", "again"]).ok();
        let about =
            "stat -c '%u:%g %a' /again/big /again/tool; test $(stat -c %Y /again/big) -gt 86400 && echo now";
        assert_eq!(shell(&daemon, "again", about), "0:0 644\n0:0 751\nnow", "{driver}");
    }
}

#[test]
fn what_lower_layers_had_does_not_come_back() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\n\
        RUN mkdir -p /gone/sub/deep /data && touch /gone/old /gone/sub/old /gone/sub/deep/old && ln -s /data /way\n\
        RUN rm -r /gone && mkdir /gone\n\
        COPY src /gone\n\
        COPY src /way\n\
        COPY src/sub /new/far/away/\n";
    for client in BOTH {
        let root = sources(&daemon, &format!("{client:?}"), dockerfile);
        build(&daemon, client, &root, &["-t", "made"]).ok();
        let script = "find /gone /new -name old; test -L /way && ls /data; cd /new; find . -type f; stat -c %a /new /new/far/away";
        let expected = "big\nleft.out\nlink\nsub\ntool\ntwin\n./far/away/deep/file\n755\n700";
        assert_eq!(shell(&daemon, "made", script), expected, "{client:?}");
    }
}

#[test]
fn layers_that_share_files_with_contexts_are_saved_and_removed() {
    let daemon = Daemon::start();
    let root = sources(&daemon, "context", "FROM busybox\nCOPY src /app\nCOPY src /app2\n");
    build(&daemon, Client::Berth, &root, &["-t", "made"]).ok();
    let archive = daemon.root.path().join("made.tar");
    let archive = archive.to_str().unwrap();
    daemon.berth(&["save", "-o", archive, "made"]).ok();
    let before = shell(&daemon, "made", LISTING);
    // Nobody takes the one for the other.
    let numbers = shell(&daemon, "made", "stat -c %i /app/big /app2/big /app/tool /app/twin");
    let numbers: Vec<&str> = numbers.lines().collect();
    assert!(numbers[0] != numbers[1] && numbers[2] == numbers[3], "{numbers:?}");
    let id = daemon.inspect("made", "{{.Id}}");
    daemon.berth(&["builder", "prune", "-af"]).ok();
    assert_eq!(shell(&daemon, "made", LISTING), before, "without its context");
    daemon.berth(&["rmi", "-f", "made"]).ok();
    daemon.berth(&["load", "-q", "-i", archive]).ok();
    assert_eq!((daemon.inspect("made", "{{.Id}}"), shell(&daemon, "made", LISTING)), (id, before));
    run(&mut daemon.client(Client::Docker, &["rmi", "made"])).ok();
}
