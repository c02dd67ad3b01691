//! Log drivers: what is chosen, where it is kept, and what `logs` makes of it.

use std::fs;
use std::path::PathBuf;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};

fn log_path(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.inspect(name, "{{.LogPath}}").into()
}

fn lines(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

with_both_clients! {
    fn json_file_is_docker_s_file_on_disk(daemon: &Daemon, client: Client) {
        let options = ["--log-driver", "json-file", "--log-opt", "labels=foo", "--log-opt", "tag={{.Name}}"];
        let mut arguments = vec!["run", "--name", "cc", "--label", "foo=bar"];
        arguments.extend(options);
        arguments.extend(["busybox", "sh", "-c", "echo out; echo 'a<b' >&2; printf end"]);
        daemon.with(client, &arguments).ok();
        let path = log_path(daemon, "cc");
        let id = daemon.inspect("cc", "{{.Id}}");
        assert_eq!(path, daemon.data_root().join(format!("containers/{id}/{id}-json.log")));
        let file = fs::read_to_string(&path).unwrap();
        let attributes = "\"attrs\":{\"foo\":\"bar\",\"tag\":\"cc\"},\"time\":\"";
        assert!(file.contains(&format!("{{\"log\":\"out\\n\",\"stream\":\"stdout\",{attributes}")), "{file}");
        assert!(file.contains(&format!("{{\"log\":\"a\\u003cb\\n\",\"stream\":\"stderr\",{attributes}")), "{file}");
        assert!(file.contains("{\"log\":\"end\",\"stream\":\"stdout\""), "{file}");
        let logs = daemon.with(client, &["logs", "cc"]);
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\nend", "a<b\n"));
        let config = daemon.with(client, &["inspect", "-f", "{{.HostConfig.LogConfig.Type}}", "cc"]).ok();
        assert_eq!(config, "json-file");
    }

    fn rotated_files_are_read_in_order(daemon: &Daemon, client: Client) {
        for (name, compress) in [("plain", "compress=false"), ("packed", "compress=true")] {
            let arguments = ["run", "--name", name, "--log-driver=json-file", "--log-opt", "max-size=20k", "--log-opt",
                "max-file=4", "--log-opt", compress, "busybox", "seq", "1", "5000"];
            daemon.with(client, &arguments).ok();
            let path = log_path(daemon, name);
            let suffix = if name == "packed" { ".gz" } else { "" };
            for number in 1..4 {
                let rotated = PathBuf::from(format!("{}.{number}{suffix}", path.display()));
                assert!(rotated.metadata().unwrap().len() <= 20_000, "{rotated:?}");
            }
            let kept = daemon.with(client, &["logs", name]).ok();
            let kept: Vec<_> = kept.lines().collect();
            assert!(kept.len() > 800 && lines(1..=5000).ends_with(&kept.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()));
            assert_eq!(daemon.with(client, &["logs", "--tail", "600", name]).ok(), lines(4401..=5000).join("\n"));
        }
    }

    fn details_and_timestamps_stand_before_the_line(daemon: &Daemon, client: Client) {
        for driver in ["json-file", "local"] {
            daemon.with(client, &["run", "--name", driver, "--log-driver", driver, "--label", "foo=bar", "-e", "baz=q x",
                "--log-opt", "labels=foo", "--log-opt", "env=baz", "busybox", "echo", "hello"]).ok();
            let line = daemon.with(client, &["logs", "--details", "--timestamps", driver]).ok();
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[1..], ["baz=q+x,foo=bar", "hello"], "{driver}");
            assert_eq!(words[0].len(), 30, "{line}");
        }
    }

    fn none_keeps_nothing_and_says_so(daemon: &Daemon, client: Client) {
        let output = daemon.with(client, &["run", "--name", "cc", "--log-driver", "none", "busybox", "echo", "seen"]);
        assert_eq!(output.ok(), "seen");
        daemon.with(client, &["logs", "cc"]).fails(1, "configured logging driver does not support reading");
    }

    fn unknown_drivers_and_options_are_refused(daemon: &Daemon, client: Client) {
        for (arguments, message) in [
            (["--log-driver", "dove"], "error looking up logging plugin dove: plugin \"dove\" not found"),
            (["--log-opt", "invalid=true"], "unknown log opt 'invalid' for log driver local"),
            (["--log-opt", "mode=sometimes"], "logger: logging mode not supported: sometimes"),
        ] {
            let arguments = [&["create", "--name", "cc"][..], &arguments, &["busybox"]].concat();
            daemon.with(client, &arguments).fails(1, message);
            daemon.with(client, &["inspect", "cc"]).fails(1, "o such");
        }
        daemon.with(client, &["create", "--log-driver=json-file", "--log-opt=x=y", "busybox"])
            .fails(1, "unknown log opt 'x' for json-file log driver");
    }

    fn long_lines_come_back_whole_from_json(daemon: &Daemon, client: Client) {
        let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
        daemon.with(client, &["run", "-d", "--log-driver=json-file", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        daemon.wait("cc");
        let logs = daemon.with(client, &["logs", "cc"]).ok();
        assert_eq!((logs.len(), logs.ends_with("x\nend")), (100_004, true));
        assert_eq!(daemon.with(client, &["logs", "--tail", "2", "cc"]).ok().len(), 100_004);
    }
}

#[test]
fn the_daemon_s_defaults_are_filled_in_and_shown() {
    let daemon = Daemon::empty(&["--log-driver=json-file", "--log-opt=max-size=1k"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    assert_eq!(daemon.berth(&["info", "-f", "{{.LoggingDriver}}"]).ok(), "json-file");
    daemon.berth(&["create", "--name", "own", "--log-opt", "max-file=5", "busybox"]).ok();
    let shown = |name: &str| daemon.inspect(name, "{{json .HostConfig.LogConfig}}");
    assert_eq!(shown("own"), r#"{"Config":{"max-file":"5","max-size":"1k"},"Type":"json-file"}"#);
    daemon.berth(&["create", "--name", "other", "--log-driver=local", "busybox"]).ok();
    assert_eq!(shown("other"), r#"{"Config":{},"Type":"local"}"#);
}

#[test]
fn a_daemon_with_an_unknown_driver_does_not_start() {
    let daemon = Daemon::start();
    let mut command = daemon.command();
    command.arg("--log-driver=dove");
    run(&mut command).fails(1, "error looking up logging plugin dove");
}

/// Rotation under the eyes of two followers, one of whom comes when the daemon is another.
#[test]
fn following_json_files_survives_rotation_and_a_daemon_that_dies() {
    let mut daemon = Daemon::start();
    let script =
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.02; done";
    let id = daemon.background(&[
        "--log-driver=json-file",
        "--log-opt=max-size=10k",
        "--log-opt=max-file=100",
        "--log-opt=compress=true",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let before = daemon
        .client(Client::Berth, &["logs", "-f", &id])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it wrote", || (daemon.berth(&["logs", &id]).stdout.lines().count() > 200).then_some(()));
    daemon.kill();
    daemon.launch();
    let after = run(&mut daemon.client(Client::Berth, &["logs", "-f", &id])).ok();
    assert_eq!(after.lines().collect::<Vec<_>>(), lines(1..=3000));
    let before = before.wait_with_output().unwrap();
    let seen = String::from_utf8(before.stdout).unwrap();
    let whole = seen.rfind('\n').map_or("", |end| &seen[..end]);
    assert!(lines(1..=3000).starts_with(&whole.lines().map(str::to_owned).collect::<Vec<_>>()));
}
