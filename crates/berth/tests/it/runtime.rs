//! `berth runtime` as an OCI command line: what Docker, Podman and containerd do with one in place of runc.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::binary;
use crate::files;
use crate::output::{Output, eventually, run};

/// A bundle with busybox, and a state directory. Dropping it deletes the containers.
struct Bundle {
    directory: TempDir,
    spec: Value,
}

impl Bundle {
    /// A bundle that runs `args`, with the default configuration of `berth runtime spec`.
    fn new(args: &[&str]) -> Bundle {
        let directory = tempfile::Builder::new().prefix("berth-bundle-").tempdir().unwrap();
        files::unpack_busybox(&directory.path().join("rootfs"));
        let output = run(Command::new(binary()).args(["runtime", "spec", "--bundle"]).arg(directory.path()));
        output.ok();
        let text = fs::read_to_string(directory.path().join("config.json")).unwrap();
        let mut bundle = Bundle { directory, spec: serde_json::from_str(&text).unwrap() };
        bundle.spec["process"]["args"] = json!(args);
        bundle.spec["process"]["terminal"] = json!(false);
        bundle.spec["root"]["readonly"] = json!(false);
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id()));
        bundle.write();
        bundle
    }

    fn write(&self) {
        fs::write(self.directory.path().join("config.json"), self.spec.to_string()).unwrap();
    }

    fn with(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.spec);
        self.write();
        self
    }

    fn id(&self) -> String {
        self.directory.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("runtime").arg("--root").arg(self.path("state")).args(arguments);
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// `berth runtime run` in this bundle.
    fn run(&self) -> Output {
        self.call(&["run", "--bundle", self.directory.path().to_str().unwrap(), &self.id()])
    }

    /// `berth runtime create`, whose container keeps the standard descriptors: they are files here.
    fn create(&self) -> Output {
        let file = |name| fs::File::create(self.path(name)).unwrap();
        let mut command =
            self.command(&["create", "--bundle", self.directory.path().to_str().unwrap(), &self.id()]);
        let error = self.path("create.err");
        let status = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(fs::File::create(&error).unwrap())
            .status()
            .unwrap();
        Output::without_stdout(status.code().unwrap(), fs::read_to_string(error).unwrap())
    }

    fn state(&self) -> Value {
        let output = self.call(&["state", &self.id()]);
        serde_json::from_str(&output.ok()).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.id()]);
    }
}

#[test]
fn run_gives_output_and_exit_code() {
    let bundle = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = bundle.run();
    assert_eq!((output.code, output.stdout.trim(), output.stderr.trim()), (7, "out", "err"));
    assert_ne!(bundle.call(&["state", &bundle.id()]).code, 0, "run deletes what it made");
}

#[test]
fn create_start_kill_delete_go_through_the_states() {
    let bundle = Bundle::new(&["sh", "-c", "echo started; exec sleep 1000"]);
    bundle.create().ok();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id());
    assert!(state["pid"].as_i64().unwrap() > 1);
    assert_eq!(state["bundle"], bundle.directory.path().to_str().unwrap());
    assert_eq!(fs::read_to_string(bundle.path("stdout")).unwrap(), "");
    let again = bundle.create();
    assert!(again.stderr.contains("already exists"), "{again:?}");
    bundle.call(&["start", &bundle.id()]).ok();
    eventually("the program writes", || {
        (fs::read_to_string(bundle.path("stdout")).unwrap() == "started\n").then_some(())
    });
    assert_eq!(bundle.state()["status"], "running");
    assert_ne!(bundle.call(&["start", &bundle.id()]).code, 0, "it has started");
    assert_ne!(bundle.call(&["delete", &bundle.id()]).code, 0, "it runs");
    let list = bundle.call(&["list", "--format", "json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()[0]["id"], bundle.id());
    bundle.call(&["kill", &bundle.id(), "KILL"]).ok();
    eventually("the container stops", || (bundle.state()["status"] == "stopped").then_some(()));
    bundle.call(&["delete", &bundle.id()]).ok();
    assert_ne!(bundle.call(&["state", &bundle.id()]).code, 0);
    assert!(!PathBuf::from(format!("/sys/fs/cgroup/pids/{}", bundle.id())).exists());
}

#[test]
fn exec_joins_the_container() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.create().ok();
    bundle.call(&["start", &bundle.id()]).ok();
    let output = bundle.call(&[
        "exec",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        &bundle.id(),
        "sh",
        "-c",
        "echo $A $PWD; exit 3",
    ]);
    assert_eq!((output.code, output.stdout.trim()), (3, "b /tmp"), "{output:?}");
    let output = bundle.call(&["exec", "--user", "1000:1000", &bundle.id(), "id", "-u"]);
    assert_eq!(output.ok(), "1000");
    let output = bundle.call(&["exec", &bundle.id(), "nope"]);
    assert!(output.stderr.contains("executable file not found in $PATH"), "{output:?}");
    assert_ne!(output.code, 0);
    let ps = bundle.call(&["ps", "--format", "json", &bundle.id()]).ok();
    assert_eq!(serde_json::from_str::<Vec<i64>>(&ps).unwrap().len(), 1);
}

#[test]
fn a_missing_program_is_an_error_of_create() {
    let bundle = Bundle::new(&["nope"]);
    let output = bundle.create();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("exec: \"nope\": executable file not found in $PATH"), "{output:?}");
    assert_ne!(bundle.call(&["state", &bundle.id()]).code, 0, "nothing is left");
}

#[test]
fn pause_update_and_events_reach_the_cgroup() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.create().ok();
    bundle.call(&["start", &bundle.id()]).ok();
    bundle.call(&["pause", &bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.call(&["resume", &bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "running");
    bundle.call(&["update", "--pids-limit", "77", &bundle.id()]).ok();
    let events = bundle.call(&["events", "--stats", &bundle.id()]).ok();
    let events: Value = serde_json::from_str(&events).unwrap();
    assert_eq!(events["data"]["pids"]["limit"], 77);
    assert_eq!(events["data"]["pids"]["current"], 1);
}

#[test]
fn a_created_container_can_be_paused() {
    let bundle = Bundle::new(&["true"]);
    bundle.create().ok();
    bundle.call(&["pause", &bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    assert_ne!(bundle.call(&["start", &bundle.id()]).code, 0, "it cannot start now");
    bundle.call(&["resume", &bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "created");
    bundle.call(&["start", &bundle.id()]).ok();
}

/// Deleting one container would kill the other.
#[test]
fn two_containers_cannot_share_a_cgroup() {
    let first = Bundle::new(&["sleep", "1000"]);
    first.create().ok();
    let path = first.spec["linux"]["cgroupsPath"].clone();
    let second = Bundle::new(&["true"]).with(|spec| spec["linux"]["cgroupsPath"] = path);
    let output = second.run();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("is not empty"), "{output:?}");
    assert_eq!(first.state()["status"], "created");
}

#[test]
fn descriptors_are_preserved_if_they_are_open() {
    let bundle = Bundle::new(&["sh", "-c", "cat <&3"]);
    fs::write(bundle.path("text"), "handed down\n").unwrap();
    let berth = format!("{} runtime --root {}", binary().display(), bundle.path("state").display());
    let run_with = |redirection: &str| {
        let directory = bundle.directory.path().display();
        let script =
            format!("{berth} run --preserve-fds 1 --bundle {directory} {} {redirection}", bundle.id());
        run(Command::new("/bin/sh").args(["-c", &script]))
    };
    let output = run_with(&format!("3<{}", bundle.path("text").display()));
    assert_eq!(output.ok(), "handed down");
    let output = run_with("3<&-");
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("descriptor 3"), "{output:?}");
}

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let bundle = Bundle::new(&["true"]);
    let log = bundle.path("hooks");
    let hook = |name: &str| {
        let script = format!("cat > {0}.{name}; echo {name} >> {0}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    let hooks = json!({
        "prestart": hook("prestart"),
        "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"),
        "poststart": hook("poststart"),
        "poststop": hook("poststop"),
    });
    let bundle = bundle.with(|spec| spec["hooks"] = hooks);
    bundle.run().ok();
    let order = fs::read_to_string(&log).unwrap();
    assert_eq!(
        order.split_whitespace().collect::<Vec<_>>(),
        ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    );
    let state: Value =
        serde_json::from_str(&fs::read_to_string(format!("{}.createRuntime", log.display())).unwrap())
            .unwrap();
    assert_eq!(state["id"], bundle.id());
    assert!(state["pid"].as_i64().unwrap() > 1);
}

#[test]
fn start_container_hooks_wait_for_start() {
    let bundle = Bundle::new(&["cat", "/hook"]).with(|spec| {
        let args = ["sh", "-c", "echo from inside > /hook"];
        spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": args }] });
    });
    bundle.create().ok();
    assert!(!bundle.path("rootfs/hook").exists(), "it has not started");
    bundle.call(&["start", &bundle.id()]).ok();
    eventually("the program reads what the hook wrote", || {
        (fs::read_to_string(bundle.path("stdout")).unwrap() == "from inside\n").then_some(())
    });
}

#[test]
fn what_hooks_made_is_taken_back_after_a_failed_create() {
    let bundle = Bundle::new(&["nope"]);
    let log = bundle.path("hooks");
    let hook = |name: &str| {
        let script = format!("echo {name} >> {}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    let hooks = json!({ "createRuntime": hook("createRuntime"), "poststop": hook("poststop") });
    let bundle = bundle.with(|spec| spec["hooks"] = hooks);
    assert_ne!(bundle.create().code, 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "createRuntime\npoststop\n");
}

#[test]
fn a_failing_hook_fails_the_container() {
    let bundle = Bundle::new(&["true"]).with(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    });
    let output = bundle.run();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("hook"), "{output:?}");
    assert_ne!(bundle.call(&["state", &bundle.id()]).code, 0, "nothing is left");
}

#[test]
fn bad_configurations_are_refused() {
    let cases: [(&str, Value, &str); 4] = [
        ("/process/args", json!([]), "process.args must not be empty"),
        ("/process/cwd", json!("relative"), "absolute path"),
        ("/linux/namespaces", json!([{ "type": "user" }, { "type": "mount" }]), "user namespaces"),
        (
            "/mounts",
            json!([{ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" }]),
            "inside /proc",
        ),
    ];
    for (pointer, value, expected) in cases {
        let bundle = Bundle::new(&["true"]).with(|spec| *spec.pointer_mut(pointer).unwrap() = value);
        let output = bundle.run();
        assert_ne!(output.code, 0, "{pointer}");
        assert!(output.stderr.contains(expected), "{pointer}: {output:?}");
    }
    let bundle = Bundle::new(&["true"]);
    fs::write(bundle.path("config.json"), "{\"ociVersion\": ").unwrap();
    assert!(bundle.run().stderr.contains("config.json"));
}

#[test]
fn a_container_has_users_of_its_own() {
    let script = "id -u; cat /proc/self/uid_map; stat -c %u:%g /mine /dev/null /m; touch /mine/x /m/x; \
                  awk '$5 == \"/\"' /proc/self/mountinfo | wc -l";
    let bundle = Bundle::new(&["sh", "-c", script]);
    let mine = bundle.path("rootfs/mine");
    let mapped = bundle.path("mapped");
    fs::create_dir(&mine).unwrap();
    fs::create_dir(&mapped).unwrap();
    std::os::unix::fs::chown(&mine, Some(70_000), Some(80_000)).unwrap();
    let source = mapped.to_str().unwrap().to_owned();
    let bundle = bundle.with(|spec| {
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": 70_000, "size": 1000 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": 80_000, "size": 1000 }]);
        linux["sysctl"] = json!({});
        let mount =
            json!({ "destination": "/m", "type": "bind", "source": source, "options": ["bind", "idmap"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
        // Files of the root belong to whom they do outside: this one is made by who may.
        spec["process"]["cwd"] = json!("/mine");
    });
    fs::create_dir_all(bundle.path("rootfs/m")).unwrap();
    let output = bundle.run();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "70000", "1000"]);
    assert_eq!(lines[2..5], ["0:0", "0:0", "0:0"], "{output:?}");
    assert_eq!(lines[5], "1", "nothing of the host stays: {output:?}");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(mine.join("x")).unwrap().uid(), 70_000);
    assert_eq!(fs::metadata(mapped.join("x")).unwrap().uid(), 0);
}

#[test]
fn ids_cannot_leave_the_state_directory() {
    let bundle = Bundle::new(&["true"]);
    for id in ["..", "a/b", "", "."] {
        let output = bundle.call(&["create", "--bundle", bundle.directory.path().to_str().unwrap(), id]);
        assert_ne!(output.code, 0, "{id:?}");
    }
}

#[test]
fn errors_go_to_the_log_in_json() {
    let bundle = Bundle::new(&["nope"]);
    let log = bundle.path("log.json");
    let output = run(Command::new(binary())
        .arg("runtime")
        .arg("--root")
        .arg(bundle.path("state"))
        .arg("--log")
        .arg(&log)
        .args(["--log-format", "json", "run", "--bundle"])
        .arg(bundle.directory.path())
        .arg(bundle.id()));
    assert_ne!(output.code, 0);
    let text = fs::read_to_string(log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().unwrap().contains("executable file not found"));
}

#[test]
fn features_name_what_is_there() {
    let output = run(Command::new(binary()).args(["runtime", "features"]));
    let features: Value = serde_json::from_str(&output.ok()).unwrap();
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("mount")));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

/// Debian's podman and docker.io take the binary in place of runc.
#[test]
fn podman_runs_a_container_with_it() {
    let work = tempfile::tempdir().unwrap();
    let wrapper = work.path().join("berth-runtime");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {} runtime \"$@\"\n", binary().display())).unwrap();
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut podman = Command::new("podman");
    podman
        .arg("--root")
        .arg(work.path().join("root"))
        .arg("--runroot")
        .arg(work.path().join("run"))
        .args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--runtime"])
        .arg(&wrapper);
    let rootfs = work.path().join("rootfs");
    files::unpack_busybox(&rootfs);
    podman
        .args([
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--rootfs",
        ])
        .arg(&rootfs)
        .args(["sh", "-c", "echo hello from podman; exit 5"]);
    let output = run(&mut podman);
    assert_eq!((output.code, output.stdout.trim()), (5, "hello from podman"), "{output:?}");
}
