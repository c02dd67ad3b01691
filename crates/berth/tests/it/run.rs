//! `run`: the path from the command line to a process, and its flags.

use std::fs;
use std::process::Stdio;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, feed};
use crate::registry::{ADDRESS, Registry};
use crate::{files, output};

with_both_clients! {
    fn prints_both_streams_and_passes_the_exit_code_on(daemon: &Daemon, client: Client) {
        let output = daemon.with(client, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (42, "out\n", "err\n"));
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "", "--rm leaves nothing");
    }

    fn reports_death_by_a_signal_as_128_plus_its_number(daemon: &Daemon, client: Client) {
        assert_eq!(daemon.with(client, &["run", "--rm", "--pid", "host", "busybox", "sh", "-c", "kill -9 $$"]).code, 137);
        assert_eq!(daemon.with(client, &["run", "--rm", "busybox", "sh", "-c", "trap 'exit 7' TERM; kill $$; sleep 5"]).code, 7);
    }

    fn what_follows_the_image_is_no_flag_of_the_client(daemon: &Daemon, client: Client) {
        let output = daemon.with(client, &["run", "--rm", "--entrypoint", "sh", "busybox", "-c", "echo $0", "--rm"]);
        assert_eq!((output.code, output.stdout.as_str()), (0, "--rm\n"));
        daemon.with(client, &["run", "-d", "--name", "cc", "--entrypoint", "sleep", "busybox", "--", "1000"]).ok();
        assert_eq!(daemon.inspect("cc", "{{json .Config.Cmd}}"), r#"["--","1000"]"#);
        daemon.with(client, &["rm", "-f", "cc"]).ok();
    }

    fn passes_standard_input_through(daemon: &Daemon, client: Client) {
        let input: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let sum = feed(&mut daemon.client(client, &["run", "-i", "--rm", "busybox", "sha256sum"]), &input).ok();
        assert_eq!(sum.split(' ').next().unwrap(), &files::digest(&input)[7..]);
    }

    fn large_output_arrives_whole(daemon: &Daemon, client: Client) {
        let output = daemon.with(client, &["run", "--rm", "busybox", "seq", "1", "200000"]).ok();
        assert_eq!(output.lines().count(), 200_000);
        assert!(output.ends_with("\n200000"));
    }

    fn output_waits_for_a_reader_that_comes_late(daemon: &Daemon, client: Client) {
        let mut command = daemon.client(client, &["run", "--name", "much", "busybox", "seq", "1", "1000000"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let logged = || daemon.berth(&["logs", "much"]).stdout;
        // All sockets and pipes on the way are full, so that some of it waits in Berth when the container ends.
        let mut before = 0;
        eventually("a writer that is blocked", || {
            let now = logged().len();
            (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
        });
        daemon.berth(&["kill", "much"]).ok();
        assert_eq!(daemon.wait("much"), 137);
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(output, logged());
    }

    fn runs_in_the_background_under_a_name(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
        assert_eq!(id.len(), 64, "{id}");
        assert_eq!(daemon.with(client, &["ps", "-q", "--no-trunc"]).ok(), id);
        let listing = daemon.with(client, &["ps"]).ok();
        assert!(listing.contains("web") && listing.contains("Up ") && listing.contains("\"sleep 1000\""), "{listing}");
        daemon.with(client, &["rm", "-f", "web"]).ok();
    }

    fn environment_working_directory_and_user(daemon: &Daemon, client: Client) {
        let file = files::write(daemon.root.path(), "env", b"# a comment\nFILED=from the file\nINHERITED\n");
        let mut command = daemon.client(client, &[
            "run", "--rm", "-e", "SET=a=b c", "--env-file", &file, "-w", "/made/for it", "-u", "user", "busybox",
            "sh", "-c", "echo \"$SET|$FILED|$INHERITED|$HOME|$(pwd)|$(id -u):$(id -g):$(id -G)\"",
        ]);
        let line = output::run(command.env("INHERITED", "from outside")).ok();
        assert_eq!(line, "a=b c|from the file|from outside|/home/user|/made/for it|1000:1000:1000 1234");
    }

    fn volumes_of_other_containers_are_shared_and_outlive_them(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "one", "-v", "/data", "busybox", "sh", "-c", "echo kept > /data/file"]).ok();
        daemon.with(client, &["create", "--name", "two", "--volumes-from", "one:ro", "busybox", "sh", "-c", "cat /data/file; touch /data/x"]).ok();
        daemon.with(client, &["rm", "-v", "one"]).ok();
        let output = daemon.with(client, &["start", "-a", "two"]).fails(1, "Read-only file system");
        assert_eq!(output.stdout, "kept\n");
        let volumes = || std::fs::read_dir(daemon.data_root().join("volumes")).unwrap().count();
        assert_eq!(volumes(), 1);
        daemon.with(client, &["rm", "-v", "two"]).ok();
        assert_eq!(volumes(), 0);
    }

    fn numeric_users_need_no_entry(daemon: &Daemon, client: Client) {
        let line = daemon.with(client, &["run", "--rm", "-u", "4242:77", "busybox", "sh", "-c", "echo $(id -u):$(id -g) $HOME"]).ok();
        assert_eq!(line, "4242:77 /");
    }

    fn binds_show_the_hosts_files(daemon: &Daemon, client: Client) {
        let folder = daemon.root.path().join("bound");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("given"), "from the host\n").unwrap();
        let bind = format!("{}:/mnt/in", folder.display());
        let script = "cat /mnt/in/given; echo written > /mnt/in/back";
        assert_eq!(daemon.with(client, &["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script]).ok(), "from the host");
        assert_eq!(fs::read_to_string(folder.join("back")).unwrap(), "written\n");
        let read_only = daemon.with(client, &["run", "--rm", "-v", &format!("{bind}:ro"), "busybox", "touch", "/mnt/in/x"]);
        read_only.fails(1, "Read-only file system");
        let host_mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!host_mounts.contains("/mnt/in") && !host_mounts.contains("berth-it-"), "{host_mounts}");
    }

    fn a_missing_bind_source_becomes_a_directory(daemon: &Daemon, client: Client) {
        let missing = daemon.root.path().join("missing/deep");
        let bind = format!("{}:/mnt", missing.display());
        daemon.with(client, &["run", "--rm", "-v", &bind, "busybox", "touch", "/mnt/x"]).ok();
        assert!(missing.join("x").exists());
    }

    fn entrypoint_and_hostname(daemon: &Daemon, client: Client) {
        let arguments = ["run", "--rm", "--entrypoint", "echo", "--hostname", "ship", "busybox", "one", "two"];
        assert_eq!(daemon.with(client, &arguments).ok(), "one two");
        let arguments = ["run", "--rm", "--hostname", "ship", "busybox", "sh", "-c", "hostname; cat /etc/hostname"];
        assert_eq!(daemon.with(client, &arguments).ok(), "ship\nship");
    }

    fn limits_reach_the_kernel(daemon: &Daemon, client: Client) {
        let name = "limited";
        let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "33"];
        let arguments = [&["run", "-d", "--name", name], &limits[..], &["busybox", "sleep", "1000"]].concat();
        let id = daemon.with(client, &arguments).ok();
        let read = |v1: &str, v2: &str| {
            let one = fs::read_to_string(format!("/sys/fs/cgroup/{}/berth/{id}/{v1}", v1.split('.').next().unwrap()));
            one.or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/berth/{id}/{v2}"))).unwrap().trim().to_string()
        };
        assert_eq!(read("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
        assert_eq!(read("pids.max", "pids.max"), "33");
        let quota = read("cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("50000"), "{quota}");
        daemon.with(client, &["rm", "-f", name]).ok();
    }

    fn a_container_over_its_memory_is_killed_and_says_so(daemon: &Daemon, client: Client) {
        let script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
        let output = daemon.with(client, &["run", "--name", "greedy", "--memory", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script]);
        assert_eq!(output.code, 137, "{output:?}");
        assert_eq!(daemon.inspect("greedy", "{{.State.OOMKilled}}"), "true");
    }

    fn a_read_only_root_refuses_writes(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--rm", "--read-only", "busybox", "touch", "/x"]).fails(1, "Read-only file system");
    }

    fn stop_signal_is_what_stop_sends(daemon: &Daemon, client: Client) {
        let script = "trap 'exit 11' USR1; trap 'exit 12' TERM; echo up; while :; do sleep 0.05; done";
        let id = daemon.with(client, &["run", "-d", "--stop-signal", "USR1", "busybox", "sh", "-c", script]).ok();
        eventually("the trap is set", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
        daemon.with(client, &["stop", &id]).ok();
        assert_eq!(daemon.inspect(&id, "{{.State.ExitCode}}"), "11");
    }

    fn init_reaps_orphans_and_passes_signals_on(daemon: &Daemon, client: Client) {
        let script = "(sleep 0.01 &) ; sleep 0.2; ps -o pid,ppid,stat,comm";
        let listing = daemon.with(client, &["run", "--rm", "--init", "busybox", "sh", "-c", script]).ok();
        assert!(!listing.contains('Z'), "{listing}");
        let first = listing.lines().nth(1).unwrap();
        assert!(first.trim().starts_with("1 ") && first.contains("docker-init"), "{listing}");
        assert_eq!(daemon.with(client, &["run", "--rm", "--init", "busybox", "sh", "-c", "exit 5"]).code, 5);
        assert_eq!(daemon.with(client, &["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).code, 137);
    }

    fn command_line_after_the_image_is_the_containers(daemon: &Daemon, client: Client) {
        assert_eq!(daemon.with(client, &["run", "--rm", "busybox", "echo", "--rm", "-it", "x"]).ok(), "--rm -it x");
    }
}

#[test]
fn hello_needs_no_image_no_network_and_no_registry() {
    let daemon = Daemon::empty(&[]);
    let text = daemon.berth(&["run", "--rm", "hello"]).ok();
    assert!(text.to_lowercase().contains("hello"), "{text}");
    let text = daemon.with(Client::Docker, &["run", "--rm", "--network", "none", "hello"]).ok();
    assert!(text.to_lowercase().contains("hello"), "{text}");
}

#[test]
fn a_full_debian_runs() {
    // Before the daemon: its namespace has no network to fetch packages from.
    let archive = files::debian_archive();
    let daemon = Daemon::empty(&[]);
    let loaded = daemon.berth(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert!(loaded.contains("Loaded image: debian:latest"), "{loaded}");
    for client in [Client::Berth, Client::Docker] {
        let script =
            "source /etc/os-release; echo $ID; dpkg -l | grep -c '^ii'; su -s /bin/bash nobody -c id";
        let text = daemon.with(client, &["run", "--rm", "debian", "bash", "-c", script]).ok();
        assert!(text.starts_with("debian\n") && text.contains("uid=65534(nobody)"), "{text}");
    }
    // The same from a registry: compressed, and verified on its way.
    daemon.berth(&["rmi", "debian"]).ok();
    let registry = Registry::start(daemon.root.path());
    registry.push("docker-archive", archive.to_str().unwrap(), "debian");
    let name = format!("{ADDRESS}/debian:latest");
    daemon.berth(&["pull", "-q", &name]).ok();
    let count = daemon
        .berth(&["run", "--rm", "--network", "none", &name, "bash", "-c", "dpkg -l | grep -c '^ii'"])
        .ok();
    assert!(count.parse::<u32>().unwrap() > 50, "{count}");
}

#[test]
fn concurrent_runs_do_not_wait_for_each_other() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|n| {
                let mut command =
                    daemon.client(Client::Berth, &["run", "--rm", "busybox", "echo", &n.to_string()]);
                scope.spawn(move || output::run(&mut command).ok())
            })
            .collect();
        for (n, run) in runs.into_iter().enumerate() {
            assert_eq!(run.join().unwrap(), n.to_string());
        }
    });
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
}
