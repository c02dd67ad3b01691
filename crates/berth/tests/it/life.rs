//! From `create` to `rm`: every state that a container passes through.

use crate::daemon::{Client, Daemon};
use crate::output::eventually;

with_both_clients! {
    fn create_start_stop_start_remove(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["create", "--name", "cc", "busybox", "sleep", "1000"]).ok();
        assert_eq!(daemon.inspect("cc", "{{.State.Status}}"), "created");
        assert_eq!(daemon.with(client, &["start", "cc"]).ok(), "cc");
        assert_eq!(daemon.inspect("cc", "{{.State.Status}} {{.State.Running}}"), "running true");
        assert_eq!(daemon.with(client, &["stop", "-t", "0", "cc"]).ok(), "cc");
        assert_eq!(daemon.inspect("cc", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
        daemon.with(client, &["start", "cc"]).ok();
        assert_eq!(daemon.inspect("cc", "{{.State.Status}} {{.State.ExitCode}}"), "running 0");
        daemon.with(client, &["rm", "cc"]).fails(1, "container is running");
        assert_eq!(daemon.with(client, &["rm", "-f", &id[..12]]).ok(), &id[..12]);
        daemon.with(client, &["inspect", "cc"]).fails(1, "No such");
    }

    fn files_survive_a_restart(daemon: &Daemon, client: Client) {
        let script = "test -e /mark && echo again || echo first; touch /mark; sleep 1000";
        let id = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", script]).ok();
        eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("first").then_some(()));
        let first = daemon.init_pid(&id);
        daemon.with(client, &["restart", "-t", "0", &id]).ok();
        eventually("it saw its file", || daemon.berth(&["logs", &id]).stdout.contains("again").then_some(()));
        assert_ne!(daemon.init_pid(&id), first);
    }

    fn kill_sends_any_signal(daemon: &Daemon, client: Client) {
        let script = "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done";
        let id = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", script]).ok();
        eventually("the trap is set", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
        daemon.with(client, &["kill", "-s", "HUP", &id]).ok();
        eventually("the signal came", || daemon.berth(&["logs", &id]).stdout.contains("hup").then_some(()));
        daemon.with(client, &["kill", "-s", "SIGNONSENSE", &id]).fails(1, "Invalid signal: SIGNONSENSE");
        daemon.with(client, &["kill", &id]).ok();
        assert_eq!(daemon.wait(&id), 137);
        daemon.with(client, &["kill", &id]).fails(1, "is not running");
    }

    fn pause_freezes_and_unpause_thaws(daemon: &Daemon, client: Client) {
        let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
        let id = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", script]).ok();
        daemon.with(client, &["pause", &id]).ok();
        assert_eq!(daemon.inspect(&id, "{{.State.Status}} {{.State.Paused}}"), "paused true");
        assert!(daemon.with(client, &["ps"]).ok().contains("(Paused)"));
        let before = daemon.berth(&["logs", &id]).ok().lines().count();
        daemon.with(client, &["pause", &id]).fails(1, "already paused");
        daemon.with(client, &["exec", &id, "true"]).fails(1, "is paused");
        assert_eq!(daemon.berth(&["logs", &id]).ok().lines().count(), before, "nothing runs while paused");
        daemon.with(client, &["unpause", &id]).ok();
        eventually("it goes on", || (daemon.berth(&["logs", &id]).ok().lines().count() > before).then_some(()));
        daemon.with(client, &["unpause", &id]).fails(1, "is not paused");
    }

    fn a_paused_container_can_be_removed_by_force(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["pause", &id]).ok();
        daemon.with(client, &["rm", "-f", &id]).ok();
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
    }

    fn wait_gives_the_exit_code_of_each(daemon: &Daemon, client: Client) {
        let one = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", "sleep 0.2; exit 3"]).ok();
        let two = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", "exit 4"]).ok();
        assert_eq!(daemon.with(client, &["wait", &one, &two]).ok(), "3\n4");
    }

    fn top_lists_the_processes_as_the_host_sees_them(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "busybox", "sh", "-c", "sleep 1234 & sleep 4321"]).ok();
        let listing = eventually("both run", || {
            let text = daemon.with(client, &["top", &id]).ok();
            (text.contains("sleep 1234") && text.contains("sleep 4321")).then_some(text)
        });
        let heading: Vec<_> = listing.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(heading, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert!(listing.contains(&daemon.init_pid(&id).to_string()), "{listing}");
    }

    fn ps_shows_all_only_when_asked(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "done", "busybox", "false"]);
        daemon.with(client, &["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
        let running = daemon.with(client, &["ps"]).ok();
        assert!(running.contains("up") && !running.contains("done"), "{running}");
        let all = daemon.with(client, &["ps", "-a"]).ok();
        assert!(all.contains("Exited (1)"), "{all}");
        assert_eq!(daemon.with(client, &["ps", "-aq"]).ok().lines().count(), 2);
    }

    fn inspect_tells_what_was_asked_for(daemon: &Daemon, client: Client) {
        daemon.with(client, &["create", "--name", "cc", "--hostname", "h", "-e", "A=b", "--memory", "32m", "busybox", "echo", "x"]).ok();
        let format = "{{.Name}} {{.Config.Hostname}} {{.Config.Cmd}} {{.HostConfig.Memory}} {{.Path}} {{.Args}} {{.Config.Image}}";
        let text = daemon.with(client, &["inspect", "-f", format, "cc"]).ok();
        assert_eq!(text, "/cc h [echo x] 33554432 echo [x] busybox");
        let whole: serde_json::Value = serde_json::from_str(&daemon.with(client, &["inspect", "cc"]).ok()).unwrap();
        assert!(whole[0]["Config"]["Env"].as_array().unwrap().iter().any(|e| e == "A=b"), "{whole}");
    }

    fn version_and_info_answer(daemon: &Daemon, client: Client) {
        let version = daemon.with(client, &["version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}"]).ok();
        assert_eq!(version, "1.55 1.24 linux");
        let info = daemon.with(client, &["info", "--format", "{{.Driver}} {{.OSType}} {{.Images}}"]).ok();
        assert_eq!(info, "overlay2 linux 1");
    }
}

#[test]
fn a_removed_container_leaves_no_files_and_no_cgroup() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let cgroups = || {
        let folders =
            std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|h| h.path().join("berth").join(&id));
        folders.filter(|f| f.exists()).count()
    };
    assert!(cgroups() > 0);
    daemon.berth(&["rm", "-f", &id]).ok();
    assert_eq!(cgroups(), 0);
    assert!(!daemon.data_root().join("containers").join(&id).exists());
    assert!(!daemon.exec_root().join("containers").join(&id).exists());
}
