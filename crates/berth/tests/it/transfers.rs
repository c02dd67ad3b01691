//! What is shown on a terminal while images are on their way.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::run;
use crate::pulls::{self, Fault};
use crate::registry::{ADDRESS, Registry};
use crate::terminal::Terminal;

/// A pipe with a name, in the test's folder.
fn pipe(daemon: &Daemon) -> String {
    let path = daemon.root.path().join("p").display().to_string();
    run(Command::new("mkfifo").arg(&path)).ok();
    path
}

#[test]
fn a_pull_shows_a_bar_for_each_layer() {
    let daemon = Daemon::empty(&[]);
    let registry = pulls::Registry::serve(&pulls::image(), |_| {});
    registry.fail(registry.layers.last().unwrap(), Fault::Late);
    let mut terminal = Terminal::run(daemon.client(Client::Berth, &["pull", &registry.name()]));
    let bar = format!("{}: Downloading [", &registry.layers.last().unwrap()[7..19]);
    terminal.expect(&bar);
    terminal.expect("] ");
    terminal.expect("kB/");
    registry.release();
    terminal.expect("Pull complete");
    terminal.expect("Downloaded newer image");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_load_shows_a_bar_for_each_layer() {
    let daemon = Daemon::empty(&[]);
    let archive = pulls::image().docker_archive("shown:1");
    let path = files::write(daemon.root.path(), "shown.tar", &archive);
    let mut terminal = Terminal::run(daemon.client(Client::Berth, &["load", "-i", &path]));
    terminal.expect("Loading layer [");
    terminal.expect("Loaded image: shown:1");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_push_shows_its_layers() {
    let daemon = Daemon::start();
    let _registry = Registry::start(daemon.root.path());
    let name = format!("{ADDRESS}/shown:1");
    daemon.berth(&["tag", "busybox", &name]).ok();
    let mut terminal = Terminal::run(daemon.client(Client::Berth, &["push", &name]));
    terminal.expect(": Pushed");
    terminal.expect("digest: sha256:");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn an_import_from_an_address_shows_a_bar() {
    let daemon = Daemon::empty(&[]);
    let archive = files::busybox().layers[0].clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/root.tar", listener.local_addr().unwrap());
    let (shown, wait) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", archive.len());
        let (first, rest) = archive.split_at(archive.len() / 2);
        stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
        // The rest comes when the first half was shown.
        wait.recv().unwrap();
        stream.write_all(rest).unwrap();
    });
    let mut terminal = Terminal::run(daemon.client(Client::Berth, &["import", &url, "shown:1"]));
    terminal.expect("Importing [");
    shown.send(()).unwrap();
    terminal.expect("sha256:");
    assert_eq!(terminal.end(), 0);
    server.join().unwrap();
}

#[test]
fn save_and_export_count_what_they_write() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "exported", "--network", "none", "busybox", "sleep", "1000"]);
    let path = pipe(&daemon);
    for arguments in [["save", "-o", &path, "busybox"], ["export", "-o", &path, "exported"]] {
        let (go_on, wait) = mpsc::channel::<()>();
        let source = path.clone();
        let reading = std::thread::spawn(move || {
            let mut pipe = File::open(source).unwrap();
            pipe.read_exact(&mut [0; 100_000]).unwrap();
            wait.recv().unwrap();
            let mut rest = Vec::new();
            pipe.read_to_end(&mut rest).unwrap();
            assert!(rest.len() > 500_000, "{}", rest.len());
        });
        let mut terminal = Terminal::run(daemon.client(Client::Berth, &arguments));
        terminal.expect(&format!("Writing {path}  "));
        terminal.expect("kB");
        go_on.send(()).unwrap();
        terminal.expect("MB");
        assert_eq!(terminal.end(), 0);
        reading.join().unwrap();
    }
    // What goes into a file or program has no count in it.
    let file = daemon.root.path().join("file.tar").display().to_string();
    let output = daemon.berth(&["save", "-o", &file, "busybox"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}
