//! Runtimes by name: Berth's own, other names of runc, and programs that Berth does not run.

use rustix::process::{Pid, Signal, kill_process};

use crate::api::ask;
use crate::daemon::Daemon;
use crate::files;
use crate::output::eventually;

#[test]
fn registered_runtimes_are_runc_or_start_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.json");
    let configure = |text: &str| std::fs::write(&file, text).unwrap();
    configure(
        r#"{"runtimes": {"oci": {"path": "runc"}, "vm": {"path": "/no/such/vm-manager", "runtimeArgs": ["--debug"]},
            "kata": {"runtimeType": "io.containerd.kata.v2"}}}"#,
    );
    let flags = ["--config-file", file.to_str().unwrap(), "--add-runtime", "also=/usr/sbin/runc"];
    let daemon = Daemon::empty(&flags);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    let run = |runtime: &str| daemon.berth(&["run", "--rm", "--runtime", runtime, "busybox", "echo", "up"]);
    for name in ["runc", "oci", "also"] {
        assert_eq!(run(name).ok(), "up", "{name}");
    }
    daemon.berth(&["create", "--runtime", "oci", "--name", "kept", "busybox", "true"]).ok();
    assert_eq!(daemon.inspect("kept", "{{.HostConfig.Runtime}}"), "oci");
    run("vm").fails(127, "/no/such/vm-manager: no such file or directory");
    run("kata").fails(125, "binary not installed \"containerd-shim-kata-v2\": file does not exist");
    run("nonsense").fails(125, "unknown or invalid runtime name: nonsense");
    let (_, info) = ask(&daemon, "/info", None);
    assert_eq!(info["Runtimes"]["vm"]["path"], "/no/such/vm-manager");
    assert_eq!(info["Runtimes"]["vm"]["runtimeArgs"][0], "--debug");
    assert_eq!(info["Runtimes"]["kata"]["runtimeType"], "io.containerd.kata.v2");

    let reload = || kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    configure(r#"{"runtimes": {}}"#);
    reload();
    eventually("it is forgotten", || {
        let words = "unknown or invalid runtime name: oci";
        daemon.berth(&["start", "kept"]).stderr.contains(words).then_some(())
    });
    assert_eq!(run("also").ok(), "up", "that of the flag stays");
    configure(r#"{"runtimes": {"runc": {"path": "my-runc"}}}"#);
    reload();
    eventually("it is refused", || daemon.log().contains("runtime name 'runc' is reserved").then_some(()));
    configure(r#"{"default-runtime": "vm", "runtimes": {"vm": {"path": "/no/such/vm-manager"}}}"#);
    reload();
    eventually("it is the default", || {
        let (_, info) = ask(&daemon, "/info", None);
        (info["DefaultRuntime"] == "vm").then_some(())
    });
    let text = "/no/such/vm-manager: no such file or directory";
    daemon.berth(&["run", "--rm", "busybox", "true"]).fails(127, text);
    assert_eq!(run("runc").ok(), "up");
}

#[test]
fn shims_of_containerd_are_runcs_or_start_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("containerd-shim-runc-v2"), "").unwrap();
    std::fs::write(path("containerd-shim-kata-v2"), "").unwrap();
    std::os::unix::fs::symlink(path("containerd-shim-runc-v2"), path("containerd-shim-fake-v42")).unwrap();
    let search = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let daemon = Daemon::start_with("PATH", &search);
    let run = |runtime: &str| daemon.berth(&["run", "--rm", "--runtime", runtime, "busybox", "echo", "up"]);
    assert_eq!(run("io.containerd.fake.v42").ok(), "up");
    run("io.containerd.kata.v2").fails(125, "containerd-shim-kata-v2)");
    run("io.containerd.absent.v1")
        .fails(125, "binary not installed \"containerd-shim-absent-v1\": file does not exist");
    run("nonsense").fails(125, "unknown or invalid runtime name: nonsense");
    run(path("containerd-shim-fake-v42").to_str().unwrap()).fails(125, "unknown or invalid runtime name");
}
