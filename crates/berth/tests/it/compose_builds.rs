//! `build:` sections of Compose. Without the plugin buildx, its version 2 builds by the classic endpoint where
//! `DOCKER_BUILDKIT` is 0; version 1 always does.

use std::fs;

use crate::compose_versions::{Compose, Stack};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

const FILES: [(&str, &str); 8] = [
    ("compose.yaml", include_str!("compose/builds.yaml")),
    (
        "app/Dockerfile",
        "FROM busybox AS base\nARG WORD\nARG FROM_HOST\nRUN echo $WORD $FROM_HOST > /word\nCOPY --chown=user src /src\n\
        FROM base AS wanted\nRUN ls /sys/class/net > /links\n\
        CMD [\"sleep\", \"1000\"]\nFROM base AS unwanted\nRUN false\n",
    ),
    ("app/src/file", "first\n"),
    ("app/src/ignored.o", "object\n"),
    ("app/.dockerignore", "**/*.o\n"),
    ("other/named.Dockerfile", "FROM stack-app\nUSER user\nCMD [\"cat\", \"/word\", \"/src/file\"]\n"),
    ("broken/Dockerfile", "FROM busybox\nRUN exit 7\n"),
    (".env", "WORD=given\n"),
];

fn builds_work(version: Compose, client: Client) {
    let plugin = version.fetch();
    let daemon = Daemon::start();
    for folder in ["app/src", "other", "broken"] {
        fs::create_dir_all(daemon.root.path().join("stack").join(folder)).unwrap();
    }
    let stack = Stack::new(&daemon, client, version, plugin.as_deref(), &FILES);
    let compose = |arguments: &[&str]| -> Output {
        let mut command = stack.command(arguments);
        // Version 1 would have the `docker` client build, which it does not tell all that the file says.
        command.env("DOCKER_BUILDKIT", "0").env("COMPOSE_DOCKER_CLI_BUILD", "0").env("FROM_HOST", "host");
        run(&mut command)
    };
    compose(&["build", "app"]).ok();
    assert_eq!(
        daemon.inspect("stack-app", "{{.Config.Labels.colour}} {{.RepoTags}}"),
        "blue [stack-app:latest]"
    );
    compose(&["up", "-d", "app"]).ok();
    let show = |script: &str| stack.exec("app", &["sh", "-c", script]);
    assert_eq!(show("cat /word /links /src/*; stat -c %U /src/file"), "given host\nlo\nfirst\nuser");
    // Another service builds on it, from a Dockerfile of another name, and is built when it is first needed.
    let told = compose(&["run", "--rm", "-T", "other"]).ok();
    assert!(told.ends_with("given host\nfirst"), "{told}");

    // What has not changed is not built again; what has is, and its container is made anew.
    let (image, container) = (daemon.inspect("stack-app", "{{.Id}}"), stack.container("app"));
    compose(&["up", "-d", "--build", "app"]).ok();
    assert_eq!((daemon.inspect("stack-app", "{{.Id}}"), stack.container("app")), (image, container.clone()));
    fs::write(daemon.root.path().join("stack/app/src/file"), "second\n").unwrap();
    compose(&["up", "-d", "--build", "app"]).ok();
    assert_ne!(stack.container("app"), container);
    assert_eq!(show("cat /src/file"), "second");

    // A step that fails fails the command; version 2 ends with its code.
    let code = if version.is_one() { 1 } else { 7 };
    compose(&["build", "broken"]).fails(code, "returned a non-zero code: 7");
    compose(&["down", "--rmi", "all", "-t", "0"]).ok();
    daemon.berth(&["image", "inspect", "stack-app"]).fails(1, "no such image");
}

#[test]
fn builds_work_with_version_1() {
    builds_work(Compose::One, Client::Docker);
}

#[test]
fn builds_work_with_version_2() {
    builds_work(Compose::Two, Client::Berth);
}

#[test]
fn builds_work_with_the_newest_version() {
    builds_work(Compose::Newest, Client::Docker);
}
