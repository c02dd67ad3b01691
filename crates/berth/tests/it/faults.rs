//! Processes that die at the wrong moment, disks that are full, registries that lie.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::daemon::{Client, Daemon, kill_and_see_it_gone};
use crate::files::{self, Image, Layer};
use crate::output::{eventually, run};
use crate::terminal::Terminal;

#[test]
fn the_next_daemon_knows_every_state_and_exit_code() {
    let mut daemon = Daemon::start();
    let running = daemon.background(&[
        "--name",
        "running",
        "busybox",
        "sh",
        "-c",
        "echo before; trap 'exit 4' TERM; while :; do sleep 0.05; done",
    ]);
    let paused = daemon.background(&["--name", "paused", "busybox", "sleep", "1000"]);
    daemon.berth(&["pause", "paused"]).ok();
    daemon.background(&["--name", "ended", "busybox", "sh", "-c", "exit 9"]);
    daemon.wait("ended");
    let script = "while [ ! -e /go ]; do sleep 0.02; done; echo last words; exit 33";
    let dying = daemon.background(&["--name", "dying", "busybox", "sh", "-c", script]);
    daemon.background(&["--rm", "--name", "gone", "busybox", "sh", "-c", script]);
    daemon.berth(&["create", "--name", "created", "busybox"]).ok();
    let (pid, dying_pid, gone_pid) =
        (daemon.init_pid(&running), daemon.init_pid(&dying), daemon.init_pid("gone"));

    daemon.kill();
    // Two of them end while no daemon is there.
    for pid in [dying_pid, gone_pid] {
        fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        eventually("it ended", || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    }
    daemon.launch();

    assert_eq!(daemon.inspect("running", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    assert_eq!(daemon.inspect("paused", "{{.State.Status}}"), "paused");
    assert_eq!(daemon.inspect("ended", "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
    assert_eq!(daemon.inspect("created", "{{.State.Status}}"), "created");
    eventually("its exit is known", || {
        (daemon.inspect("dying", "{{.State.Status}} {{.State.ExitCode}}") == "exited 33").then_some(())
    });
    assert_eq!(daemon.berth(&["logs", "dying"]).ok(), "last words");
    eventually("--rm holds", || (daemon.berth(&["inspect", "gone"]).code == 1).then_some(()));
    assert_eq!(daemon.berth(&["logs", "running"]).ok(), "before");
    daemon.berth(&["unpause", &paused]).ok();
    daemon.berth(&["exec", &paused, "true"]).ok();
    daemon.berth(&["stop", &running]).ok();
    assert_eq!(daemon.inspect("running", "{{.State.ExitCode}}"), "4");
}

#[test]
fn an_interactive_container_outlives_the_daemon_and_takes_a_new_terminal() {
    let mut daemon = Daemon::start();
    let mut first =
        Terminal::run(daemon.client(Client::Berth, &["run", "-it", "--name", "cc", "busybox", "sh"]));
    first.expect("# ");
    first.send("VALUE=kept\n");
    first.expect("# ");
    daemon.kill();
    // The attached stream goes between shim and client: it works with no daemon at all.
    first.send("echo $VALUE-without\n");
    first.expect("kept-without");
    daemon.launch();
    let mut second = Terminal::run(daemon.client(Client::Berth, &["attach", "cc"]));
    second.send("echo $VALUE-with\n");
    second.expect("kept-with");
    second.send("exit 5\n");
    assert_eq!(second.end(), 5);
    assert_eq!(daemon.inspect("cc", "{{.State.ExitCode}}"), "5");
}

#[test]
fn a_killed_daemon_loses_no_log_line() {
    let mut daemon = Daemon::start();
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 1000";
    let id = daemon.background(&["busybox", "sh", "-c", script]);
    daemon.kill();
    daemon.launch();
    let logs = eventually("all lines", || {
        let logs = daemon.berth(&["logs", &id]).ok();
        logs.ends_with("line 3000").then_some(logs)
    });
    let expected: Vec<String> = (1..=3000).map(|n| format!("line {n}")).collect();
    assert_eq!(logs.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_daemon_killed_again_and_again_during_starts_loses_no_name_and_leaks_nothing() {
    let mut daemon = Daemon::start();
    for round in 0..8 {
        let mut command = daemon.client(
            Client::Berth,
            &["run", "-d", "--name", &format!("c{round}"), "busybox", "sleep", "1000"],
        );
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        // A different moment each round.
        std::thread::sleep(std::time::Duration::from_millis(round * 3));
        daemon.kill();
        child.wait().unwrap();
        daemon.launch();
    }
    let ids = daemon.berth(&["ps", "-aq", "--no-trunc"]).ok();
    for id in ids.lines() {
        let state = daemon.inspect(id, "{{.State.Status}}");
        assert!(["created", "running", "exited"].contains(&state.as_str()), "{state}");
        daemon.berth(&["rm", "-f", id]).ok();
    }
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
    let left = fs::read_dir(daemon.exec_root().join("containers")).map_or(0, |d| d.count());
    assert_eq!(left, 0, "nothing is left of containers that are gone");
}

#[test]
fn a_killed_spawner_is_replaced_and_containers_go_on() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let pid = daemon.init_pid(&id);
    kill_and_see_it_gone(daemon.process_with("__spawner"));
    assert_eq!(daemon.berth(&["run", "--rm", "busybox", "echo", "next"]).ok(), "next");
    assert_eq!(daemon.init_pid(&id), pid);
    daemon.berth(&["exec", &id, "true"]).ok();
}

#[test]
fn a_killed_shim_takes_its_container_along_and_no_other() {
    let daemon = Daemon::start();
    let one = daemon.background(&["--name", "one", "busybox", "sleep", "1000"]);
    let two = daemon.background(&["--name", "two", "busybox", "sleep", "1000"]);
    let (init, shim) = (daemon.init_pid(&one), daemon.shim_pid(&one));
    kill_and_see_it_gone(shim);
    eventually("its container ends", || (!fs::exists(format!("/proc/{init}")).unwrap()).then_some(()));
    eventually("it is recorded", || {
        (daemon.inspect("one", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137").then_some(())
    });
    daemon.berth(&["exec", &two, "true"]).ok();
    daemon.berth(&["start", "one"]).ok();
    daemon.berth(&["exec", "one", "true"]).ok();
}

#[test]
fn a_shim_killed_while_no_daemon_runs_is_recorded_too() {
    let mut daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let shim = daemon.shim_pid(&id);
    daemon.kill();
    kill_and_see_it_gone(shim);
    daemon.launch();
    assert_eq!(daemon.inspect(&id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

#[test]
fn a_killed_net_process_is_replaced_and_its_ports_are_kept() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "-p", "127.0.0.1:8080:80", "busybox", "sleep", "1000"]);
    TcpListener::bind("127.0.0.1:8080").expect_err("the port is reserved");
    kill_and_see_it_gone(daemon.process_with("__net"));
    daemon.berth(&["exec", "cc", "true"]).ok();
    daemon.background(&["--name", "dd", "-p", "127.0.0.1:8081:80", "busybox", "sleep", "1000"]);
    eventually("the first port is reserved again", || {
        TcpListener::bind("127.0.0.1:8080").is_err().then_some(())
    });
}

#[test]
fn archives_that_are_cut_or_flipped_are_refused_whole() {
    let daemon = Daemon::empty(&[]);
    for archive in [files::layered().docker_archive("x:y"), files::gzip(&files::layered().oci_archive("x:y"))]
    {
        for part in [1, 3, 7, 9] {
            let cut = files::write(daemon.root.path(), "cut.tar", &archive[..archive.len() * part / 10]);
            let output = daemon.berth(&["load", "-i", &cut]);
            assert_eq!(output.code, 1, "cut at {part}/10: {output:?}");
        }
        for part in [2, 5, 8] {
            let mut flipped = archive.clone();
            let at = archive.len() * part / 10;
            flipped[at] ^= 0x10;
            let path = files::write(daemon.root.path(), "flipped.tar", &flipped);
            let output = daemon.berth(&["load", "-i", &path]);
            assert_eq!(output.code, 1, "flipped at {part}/10: {output:?}");
        }
        assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "");
        let whole = files::write(daemon.root.path(), "whole.tar", &archive);
        daemon.berth(&["load", "-i", &whole]).ok();
        daemon.berth(&["rmi", "x:y"]).ok();
    }
}

#[test]
fn a_manifest_of_an_unknown_kind_is_named() {
    let daemon = Daemon::empty(&[]);
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.example.unknown+json","config":{}}"#;
    let server = serve_once_and_again(manifest, "application/vnd.example.unknown+json");
    let output = daemon.berth(&["pull", &format!("{server}/x:y")]);
    assert!(output.code == 1 && output.stderr.contains("application/vnd.example.unknown+json"), "{output:?}");
    assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "");
}

/// A server that answers every request with one body; it ends with the test.
fn serve_once_and_again(body: &str, kind: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answer = format!("{head}{body}");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    address
}

/// Runs the daemon with its data root on a file system of `megabytes`, in a mount namespace of its own.
fn on_a_small_disk(megabytes: u32, script: &str) -> crate::output::Output {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let disk = daemon.root.path().join("disk");
    fs::write(&disk, "").unwrap();
    run(Command::new("truncate").args(["-s", &format!("{megabytes}M")]).arg(&disk)).ok();
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk)).ok();
    let prelude = r#"
        set -u
        mkdir -p "$DATA"; mount -o loop "$DISK" "$DATA" || exit 99
        coproc READY { cat; }
        "$BERTH" daemon --data-root "$DATA" --exec-root "$EXEC" -H "$HOST" --ready-fd 9 9>"$FOLDER/ready" 2>"$FOLDER/small.log" &
        until [ -s "$FOLDER/ready" ]; do sleep 0.01; done
        b() { "$BERTH" -H "$HOST" "$@"; }
    "#;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "bash",
        "-c",
        &format!("{prelude}\n{script}\nkill %1 %2 2>/dev/null; true"),
    ]);
    command
        .env("BERTH", crate::daemon::binary())
        .env("DATA", daemon.data_root())
        .env("EXEC", daemon.exec_root());
    command.env("HOST", daemon.host()).env("FOLDER", daemon.root.path()).env("DISK", &disk);
    command.env("ARCHIVE", files::busybox_archive());
    let output = run(&mut command);
    drop(daemon);
    output
}

#[test]
fn a_full_disk_during_unpack_is_said_and_leaves_nothing_and_the_next_attempt_works() {
    let folder = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..60_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = Image::new(vec![Layer::new().file("big", 0o644, big)]).docker_archive("big:latest");
    let path = files::write(folder.path(), "big.tar", &image);
    let script = format!(
        "b load -i {path}; echo first=$?; b images -aq; b load -q -i $ARCHIVE; echo second=$?; b run --rm --network none busybox echo works; \
         for try in $(seq 300); do left=$(find $DATA/staging -mindepth 2 | wc -l); [ $left = 0 ] && break; sleep 0.05; done; echo $left"
    );
    // What was removed with the container goes in the background.
    let output = on_a_small_disk(64, &script);
    assert!(
        output.stdout.contains("first=1\nLoaded image: busybox:latest\nsecond=0\nworks\n0"),
        "{output:?}"
    );
    let said = output.stderr.to_lowercase();
    assert!(said.contains("space"), "{output:?}");
}

/// A gzip stream of a tar whose only file is a gigabyte of one byte.
fn bomb(byte: u8) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("bomb").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(header.as_bytes()).unwrap();
    let part = vec![byte; 1 << 20];
    for _ in 0..1 << 10 {
        encoder.write_all(&part).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

/// Loads a layer that is far larger unpacked than the disk, then a good image; gives what was said of the first.
fn load_bomb(byte: u8) -> String {
    let folder = tempfile::tempdir().unwrap();
    let bomb = bomb(byte);
    assert!(bomb.len() < 2 << 20, "it is small: {}", bomb.len());
    let image = Image::new(vec![Layer::new()]).docker_archive_of("bomb:latest", &[bomb]);
    let path = files::write(folder.path(), "bomb.tar", &image);
    let script = format!(
        "b load -i {path}; echo first=$?; b images -aq; b load -q -i $ARCHIVE; echo second=$?; \
         find $DATA/staging -mindepth 2 | wc -l; ls $DATA/layers | wc -l; \
         awk '/VmHWM/ {{ print ($2 < 200000) ? \"little memory\" : $0 }}' /proc/$!/status"
    );
    let output = on_a_small_disk(64, &script);
    let expected = "first=1\nLoaded image: busybox:latest\nsecond=0\n0\n2\nlittle memory\n";
    assert!(output.stdout.contains(expected), "{output:?}");
    output.stderr.to_lowercase()
}

#[test]
fn a_gigabyte_from_a_small_layer_stops_at_the_disks_limit() {
    let said = load_bomb(b'x');
    assert!(said.contains("space"), "{said}");
}

#[test]
fn a_gigabyte_of_zeros_takes_no_disk_at_all() {
    // Holes are made of them; what stops this one is that it is not the announced content.
    let said = load_bomb(0);
    assert!(said.contains("unpacks to sha256:"), "{said}");
}

#[test]
fn a_full_disk_under_a_log_loses_bounded_output_and_says_so_and_the_container_goes_on() {
    let script = r#"
        b load -q -i $ARCHIVE
        id=$(b run -d --network none --tmpfs /tmp busybox sh -c 'while [ ! -e /tmp/go ]; do sleep 0.02; done; echo before; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "lost $i"; done; touch /tmp/wrote; while [ ! -e /tmp/again ]; do sleep 0.02; done; echo after; exit 6')
        dd if=/dev/zero of=$DATA/filler bs=4096 2>/dev/null
        b exec $id true; echo exec=$?
        b exec $id touch /tmp/go; echo go=$?
        until b exec $id test -e /tmp/wrote; do sleep 0.05; done
        rm $DATA/filler
        b exec $id touch /tmp/again
        b wait $id
        b logs $id 2>&1 | grep -c '^lost ' | awk '{ print ($1 < 3000) ? "some lost" : "all kept" }'
        b logs $id 2>&1 | grep -o 'could not be written' | head -1
        b logs $id 2>&1 | tail -1
    "#;
    let output = on_a_small_disk(40, script);
    assert!(output.stdout.contains("exec=0\ngo=0\n"), "{output:?}");
    assert!(output.stdout.ends_with("6\nsome lost\ncould not be written\nafter\n"), "{output:?}");
}
