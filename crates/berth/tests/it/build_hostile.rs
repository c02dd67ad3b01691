//! Contexts as archives that mean harm, sent as no client would send them.

use std::fs;
use std::io::{Read as _, Write};
use std::path::Path;
use std::time::Duration;

use tar::EntryType::{self, Block, Char, Directory, Fifo, Link, Regular, Symlink};

use crate::daemon::Daemon;
use crate::files::{self, Layer};
use crate::output::eventually;
use crate::raw;

/// Posts a context, and gives the whole answer.
fn post(daemon: &Daemon, tar: &[u8]) -> String {
    let head = "Content-Type: application/x-tar\r\n";
    let mut stream = raw::connect(daemon);
    // Some of them are much work on a slow machine.
    let patience = Some(Duration::from_secs(300));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    // Who refuses something does not read for ever, and may end the connection after the answer.
    let _ = stream.write_all(&raw::request("POST", "/v1.41/build?t=made", head, tar));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether an archive was refused as one.
fn is_refused(answer: &str) -> bool {
    raw::status(answer) == 400 && answer.contains("Error processing tar file")
}

fn dockerfile(text: &str) -> Layer {
    Layer::new().file("Dockerfile", 0o644, text)
}

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What is left of contexts that are over.
#[track_caller]
fn nothing_is_left(daemon: &Daemon) {
    eventually("no context is left", || {
        let staging = names(&daemon.data_root().join("staging"));
        staging.iter().all(|name| matches!(name.as_str(), "partial" | "trash")).then_some(())
    });
}

/// The files of a step that copies all of a context.
fn copied(daemon: &Daemon, answer: &str) -> String {
    assert!(answer.contains("Successfully built"), "{answer}");
    daemon.berth(&["run", "--rm", "made", "find", "/all"]).ok()
}

#[test]
fn no_entry_leaves_the_context() {
    let daemon = Daemon::start();
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host\n").unwrap();
    let place = outside.to_str().unwrap();
    let below = |name: &str| format!("{place}/{name}");
    let up = format!("{}{}", "../".repeat(12), below("up").trim_start_matches('/'));
    let all = "FROM busybox\nCOPY . /all/\n";
    let hostile: [(&str, Layer); 6] = [
        ("a path that leads up", dockerfile(all).raw(Regular, up.as_bytes(), b"", b"x")),
        ("an absolute path", dockerfile(all).raw(Regular, below("absolute").as_bytes(), b"", b"x")),
        (
            "a file through a link",
            dockerfile(all).raw(Symlink, b"out", place.as_bytes(), b"").raw(
                Regular,
                b"out/through",
                b"",
                b"x",
            ),
        ),
        (
            "a directory that a link stands for",
            dockerfile(all).raw(Symlink, b"out", place.as_bytes(), b"").raw(
                Directory,
                b"out/made/",
                b"",
                b"",
            ),
        ),
        (
            "a second name of a host's file",
            dockerfile(all).raw(Link, b"stolen", below("secret").as_bytes(), b""),
        ),
        (
            "a second name through a link",
            dockerfile(all).raw(Symlink, b"out", place.as_bytes(), b"").raw(
                Link,
                b"stolen",
                b"out/secret",
                b"",
            ),
        ),
    ];
    for (what, archive) in hostile {
        let answer = post(&daemon, &archive.bytes());
        // It is refused, or stays inside.
        if raw::status(&answer) == 200 && answer.contains("Successfully built") {
            let script = "grep -r 'of the host' /all";
            daemon.berth(&["run", "--rm", "made", "sh", "-c", script]).fails(1, "");
        }
        assert_eq!(names(&outside), ["secret"], "{what}: {answer}");
        assert_eq!(fs::metadata(outside.join("secret")).map(|about| nlink(&about)).unwrap(), 1, "{what}");
        nothing_is_left(&daemon);
    }
}

fn nlink(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(about)
}

/// Nothing of what is no file is opened: a read of it would never end.
#[test]
fn what_is_no_file_is_not_read() {
    let daemon = Daemon::start();
    let archive = dockerfile("FROM busybox\nCOPY . /all/\nADD fifo /\n")
        .raw(Fifo, b"fifo", b"", b"")
        .raw(Char, b"endless", b"", b"")
        .raw(Block, b"disk", b"", b"")
        .file("file", 0o644, "x");
    // It is copied, or refused: in any case there is an answer.
    raw::status(&post(&daemon, &archive.bytes()));
    // One that is the Dockerfile, or says what is left out.
    for name in ["Dockerfile", ".dockerignore"] {
        let archive = match name {
            "Dockerfile" => Layer::new(),
            _ => dockerfile("FROM busybox\n"),
        };
        let answer = post(&daemon, &archive.raw(Fifo, name.as_bytes(), b"", b"").bytes());
        assert!(!answer.contains("Successfully built"), "{answer}");
    }
    nothing_is_left(&daemon);
}

#[test]
fn an_archive_that_ends_early_is_none() {
    let daemon = Daemon::start();
    let whole = dockerfile("FROM busybox\nCOPY . /all/\n").file("file", 0o644, vec![b'x'; 4000]).bytes();
    // In a header, and in a file.
    for length in [512 + 512 + 100, 512 + 512 + 512 + 1000] {
        let answer = post(&daemon, &whole[..length]);
        assert!(is_refused(&answer), "{answer}");
        nothing_is_left(&daemon);
    }
    let packed = files::gzip(&whole);
    let answer = post(&daemon, &packed[..packed.len() / 2]);
    assert!(is_refused(&answer), "{answer}");
    // What lacks nothing but the end is whole: Docker's client leaves that out.
    for tar in [&whole[..512 + 512 + 512 + 4096], &whole] {
        let listed = copied(&daemon, &post(&daemon, tar));
        assert!(listed.contains("/all/file"), "{listed}");
    }
}

/// A tar with a long header of a kind before a file.
fn with_header(kind: EntryType, size: u64, content: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let whole = dockerfile("FROM busybox\nCOPY . /all/\n").bytes();
    packed.write_all(&whole[..whole.len() - 1024]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("header").unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    packed.write_all(header.as_bytes()).unwrap();
    content(&mut packed);
    packed.finish().unwrap()
}

/// The most memory that the daemon has had, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Headers take no more memory than a name or a few attributes need.
#[test]
fn headers_without_end_are_refused() {
    let daemon = Daemon::start();
    const SIZE: u64 = 256 << 20;
    let before = peak(&daemon);
    for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNULongName, EntryType::GNULongLink]
    {
        let tar = with_header(kind, SIZE, |out| {
            let piece = vec![b'1'; 1 << 20];
            (0..SIZE >> 20).for_each(|_| out.write_all(&piece).unwrap());
        });
        let answer = post(&daemon, &tar);
        assert!(is_refused(&answer), "{kind:?} {answer}");
        nothing_is_left(&daemon);
    }
    let grown = peak(&daemon) - before;
    assert!(grown < 64 << 10, "{grown} KiB for headers of {} KiB", SIZE >> 10);
}

#[test]
fn names_too_long_are_refused_and_deep_ones_are_no_trouble() {
    let daemon = Daemon::start();
    let named = |name: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in [("Dockerfile", "FROM busybox\nCOPY . /all/\n"), (name, "x")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    };
    // One part of a path is at most 255 bytes long.
    let answer = post(&daemon, &named(&"n".repeat(5000)));
    assert!(is_refused(&answer), "{answer}");
    nothing_is_left(&daemon);
    // What a context may be is for the file system to say: it is copied, or refused in words.
    let answer = post(&daemon, &named("d/".repeat(2500).trim_end_matches('/')));
    assert!(
        is_refused(&answer) || answer.contains("Successfully built") || answer.contains("errorDetail"),
        "{answer}"
    );
    nothing_is_left(&daemon);
}

/// Many entries take no memory: what they are is on the disk.
#[test]
fn many_entries_take_no_memory() {
    let daemon = Daemon::start();
    const ENTRIES: u64 = 200_000;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let whole = dockerfile("FROM busybox\nCOPY file /\n").bytes();
    packed.write_all(&whole[..whole.len() - 1024]).unwrap();
    // The same name again and again: each replaces the last.
    let one = Layer::new().file("file", 0o644, "").bytes();
    for _ in 0..ENTRIES {
        packed.write_all(&one[..512]).unwrap();
    }
    packed.write_all(&[0; 1024]).unwrap();
    let tar = packed.finish().unwrap();
    let before = peak(&daemon);
    let answer = post(&daemon, &tar);
    assert!(answer.contains("Successfully built"), "{answer}");
    let grown = peak(&daemon) - before;
    assert!(grown < 64 << 10, "{grown} KiB for {ENTRIES} entries");
    nothing_is_left(&daemon);
}
