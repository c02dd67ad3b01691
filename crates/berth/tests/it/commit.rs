//! `commit`: images of what containers have changed.

use std::process::Command;

use serde_json::{Value, json};

use crate::awkward;
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};
use crate::prune::api;

/// Makes a container's root hard to keep.
const SCRIPT: &str = "cd /awkward; rm -r opaque; mkdir opaque; echo new > opaque/new; rm twice; mkdir -p a/b; \
    echo linked > a/one; ln a/one a/two; ln -s one a/three; mknod a/null c 1 3; mknod a/fifo p; chown 3000000:5 a/one; \
    chmod 4751 a/one; touch \"$(printf 'not \\377 utf-8')\"; dd if=/dev/zero of=hole bs=1 count=1 seek=5000000 2>/dev/null; \
    chmod 700 /root; rm /etc/group; echo hidden > /data/hidden; rm one; echo changed >> three; mkdir late/more; \
    touch -d @1500000000 a/b late; echo up; sleep 1000";

fn awkward_container(daemon: &Daemon) -> String {
    let archive = files::write(daemon.root.path(), "a.tar", &awkward::image().docker_archive("awkward:v1"));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
    let id = daemon.background(&["-v", "/data", "--cap-add", "MKNOD", "awkward:v1", "sh", "-c", SCRIPT]);
    eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
    id
}

/// Names of an event's kind, newest last.
fn events(daemon: &Daemon, filter: &str, format: &str) -> String {
    daemon.berth(&["events", "--since", "1h", "--until", "0s", "--filter", filter, "--format", format]).ok()
}

with_both_clients! {
    fn an_image_of_a_container_has_its_files(daemon: &Daemon, client: Client) {
        let id = awkward_container(daemon);
        let expected = daemon.berth(&["exec", &id, "sh", "-c", awkward::LISTING]).ok();
        let image = daemon.with(client, &["commit", &id, "made:v1"]).ok();
        assert!(image.starts_with("sha256:") && image.len() == 71, "{image}");
        assert_eq!(daemon.inspect("made:v1", "{{.Id}}"), image);
        assert_eq!(daemon.inspect(&id, "{{.State.Status}}"), "running", "it goes on");
        let listing = |name: &str| daemon.berth(&["run", "--rm", name, "sh", "-c", awkward::LISTING]).ok();
        assert_eq!(listing("made:v1"), expected);
        let other = "stat -c %a /root; ls /data /etc/group /.dockerenv 2>&1; cat /etc/hosts | wc -l";
        let text = daemon.berth(&["run", "--rm", "made:v1", "sh", "-c", other]).ok();
        assert!(text.starts_with("700\n") && text.contains("/etc/group: No such file") && !text.contains("hidden"), "{text}");
        // What others read of it.
        let layers = daemon.inspect("made:v1", "{{json .RootFS.Layers}}");
        let path = daemon.root.path().join("saved.tar");
        daemon.with(client, &["save", "-o", path.to_str().unwrap(), "made:v1"]).ok();
        daemon.berth(&["rm", "-f", &id]).ok();
        daemon.berth(&["rmi", "made:v1", "awkward:v1"]).ok();
        daemon.with(client, &["load", "-q", "-i", path.to_str().unwrap()]).ok();
        assert_eq!(listing("made:v1"), expected, "after save and load");
        let layout = daemon.root.path().join("layout");
        run(Command::new("skopeo").args(["copy", "-q"])
            .arg(format!("docker-archive:{}:made:v1", path.display())).arg(format!("oci:{}:v1", layout.display()))).ok();
        let packed = daemon.root.path().join("layout.tar");
        run(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&packed).arg(".")).ok();
        daemon.berth(&["rmi", "made:v1"]).ok();
        let text = daemon.berth(&["load", "-i", packed.to_str().unwrap()]).ok();
        // It writes the configuration anew.
        let copy = text.rsplit(' ').next().unwrap();
        assert_eq!(daemon.inspect(copy, "{{json .RootFS.Layers}}"), layers);
        assert_eq!(listing(copy), expected, "after skopeo");
    }

    fn the_configuration_is_the_containers_with_changes(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["-e", "A=own", "-l", "from=container", "--stop-signal", "INT", "busybox", "sleep", "1000"]);
        let arguments = [
            "commit", "-m", "a message", "-a", "An Author <a@b>", "-c", "ENV A=new B=\"x $A\"", "-c", "EXPOSE 80",
            "-c", "LABEL made=yes", "-c", "USER 1000", "-c", "WORKDIR /tmp", "-c", "VOLUME /v", "-c", "ENTRYPOINT [\"echo\"]",
            "-c", "CMD [\"hello\"]", "-c", "HEALTHCHECK --interval=7s CMD true", "-c", "ONBUILD RUN x", &id, "made",
        ];
        let image = daemon.with(client, &arguments).ok();
        let found: Value = serde_json::from_str(&daemon.berth(&["image", "inspect", "--format", "{{json .}}", "made"]).ok()).unwrap();
        let config = &found["Config"];
        assert_eq!(config["Env"], json!(["A=new", "PATH=/bin:/usr/bin", "B=x own"]));
        assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(config["Labels"], json!({"from": "container", "made": "yes"}));
        assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("1000"), &json!("/tmp")));
        assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["echo"]), &json!(["hello"])));
        assert_eq!((&config["StopSignal"], &config["OnBuild"]), (&json!("INT"), &json!(["RUN x"])));
        assert_eq!(config["Healthcheck"], json!({"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000_u64}));
        assert_eq!((&found["Author"], &found["Comment"]), (&json!("An Author <a@b>"), &json!("a message")));
        assert_eq!(found["RepoTags"], json!(["made:latest"]));
        assert_eq!(daemon.with(client, &["run", "--rm", "made"]).ok(), "hello");
        let history = daemon.with(client, &["history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Comment}}", "made"]).ok();
        assert_eq!(history.lines().next().unwrap(), format!("{image} sleep 1000 a message"));
        let told = events(daemon, "event=commit", "{{.Actor.ID}} {{.Actor.Attributes.imageID}} {{.Actor.Attributes.imageRef}} {{.Actor.Attributes.comment}}");
        assert_eq!(told, format!("{id} {image} made:latest a message"));
    }

    fn nothing_changed_adds_no_layer(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["-v", "/volume", "busybox", "sleep", "1000"]);
        let image = daemon.with(client, &["container", "commit", &id]).ok();
        let layers = |name: &str| daemon.inspect(name, "{{json .RootFS.Layers}}");
        assert_eq!(layers(&image), layers("busybox"));
        assert!(daemon.with(client, &["images", "-q", "--no-trunc", "--filter", "dangling=true"]).ok().contains(&image));
        assert_eq!(daemon.with(client, &["run", "--rm", &image, "echo", "runs"]).ok(), "runs");
    }

    fn it_pauses_unless_told_not_to(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["busybox", "sleep", "1000"]);
        daemon.with(client, &["commit", "--pause=false", &id]).ok();
        assert_eq!(events(daemon, "event=pause", "{{.Actor.ID}}"), "");
        daemon.with(client, &["commit", &id]).ok();
        assert_eq!(events(daemon, "event=pause", "{{.Actor.ID}}"), id);
        assert_eq!(events(daemon, "event=unpause", "{{.Actor.ID}}"), id);
        daemon.berth(&["pause", &id]).ok();
        daemon.with(client, &["commit", &id, "paused"]).ok();
        assert_eq!(daemon.inspect(&id, "{{.State.Status}}"), "paused", "it was so before");
        daemon.berth(&["rm", "-f", &id]).ok();
        let id = daemon.with(client, &["create", "busybox"]).ok();
        daemon.with(client, &["commit", &id, "created"]).ok();
    }

    fn what_makes_no_sense_is_refused(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["busybox", "sleep", "1000"]);
        let images = daemon.berth(&["images", "-aq"]).ok();
        daemon.with(client, &["commit", "absent"]).fails(1, "No such container: absent");
        daemon.with(client, &["commit", "-c", "RUN x", &id]).fails(1, "RUN is not a valid change command");
        daemon.with(client, &["commit", "-c", "EXPOSE x", &id]).fails(1, "invalid containerPort");
        daemon.with(client, &["commit", "-c", "STOPSIGNAL no", &id]).fails(1, "no");
        daemon.with(client, &["commit", &id, "Upper"]).fails(1, "must be lowercase");
        assert_eq!(daemon.berth(&["images", "-aq"]).ok(), images);
        assert_eq!(daemon.inspect(&id, "{{.State.Status}}"), "running");
    }
}

#[test]
fn a_container_frozen_for_a_commit_is_let_go_on_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    let id = daemon.background(&[
        "busybox",
        "sh",
        "-c",
        "head -c 300000000 /dev/zero > /big; echo up; sleep 1000",
    ]);
    eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
    let mut client = daemon.client(Client::Berth, &["commit", &id, "made"]).spawn().unwrap();
    eventually("it is paused", || (daemon.inspect(&id, "{{.State.Status}}") == "paused").then_some(()));
    daemon.kill();
    client.wait().unwrap();
    daemon.launch();
    assert_eq!(daemon.inspect(&id, "{{.State.Status}}"), "running");
    daemon.berth(&["exec", &id, "true"]).ok();
    assert_eq!(daemon.berth(&["images", "-aq"]).ok().lines().count(), 1, "no image was made");
    eventually("nothing is left", || {
        let staged = std::fs::read_dir(daemon.data_root().join("staging")).unwrap().flatten();
        (staged.filter(|entry| entry.file_name() != "trash" && entry.file_name() != "partial").count() == 0)
            .then_some(())
    });
    // A user's own pause outlives a daemon all the same.
    daemon.berth(&["pause", &id]).ok();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.inspect(&id, "{{.State.Status}}"), "paused");
}

#[test]
fn umoci_reads_the_layer_as_it_was_meant() {
    let daemon = Daemon::start();
    let script = "truncate -s 5000000 /hole; echo end >> /hole; rm -r /home; mkdir /home; echo new > /home/new; rm /etc/group; echo up; sleep 1000";
    let id = daemon.background(&["busybox", "sh", "-c", script]);
    eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
    daemon.berth(&["commit", &id, "made:v1"]).ok();
    let path = |name: &str| daemon.root.path().join(name).display().to_string();
    daemon.berth(&["save", "-o", &path("saved.tar"), "made:v1"]).ok();
    let (from, to) =
        (format!("docker-archive:{}:made:v1", path("saved.tar")), format!("oci:{}:v1", path("layout")));
    run(Command::new("skopeo").args(["copy", "-q", &from, &to])).ok();
    run(Command::new("umoci").args([
        "unpack",
        "--image",
        &format!("{}:v1", path("layout")),
        &path("bundle"),
    ]))
    .ok();
    let root = daemon.root.path().join("bundle/rootfs");
    let hole = std::fs::read(root.join("hole")).unwrap();
    assert!(hole.len() == 5_000_004 && hole.ends_with(b"end\n"));
    assert!(
        root.join("home/new").exists()
            && !root.join("home/user").exists()
            && !root.join("etc/group").exists()
    );
}

#[test]
fn removal_meanwhile_leaves_a_whole_image_or_none() {
    let daemon = Daemon::start();
    for _ in 0..5 {
        let script = "for n in $(seq 400); do mkdir -p /d$n; echo $n > /d$n/f; done; echo up; sleep 1000";
        let id = daemon.background(&["busybox", "sh", "-c", script]);
        eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
        let client = daemon
            .client(Client::Berth, &["commit", &id])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let removed = daemon.berth(&["rm", "-f", &id]);
        let output = client.wait_with_output().unwrap();
        removed.ok();
        if output.status.success() {
            let image = String::from_utf8(output.stdout).unwrap();
            let count = daemon.berth(&["run", "--rm", image.trim(), "sh", "-c", "cat /d*/f | wc -l"]).ok();
            assert_eq!(count, "400");
        } else {
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("which is being removed") || text.contains("No such container"), "{text}");
        }
    }
}

#[test]
fn the_answer_is_dockers() {
    let daemon = Daemon::start();
    let id = daemon.berth(&["create", "busybox"]).ok();
    let (status, body) = api(&daemon, "POST", &format!("/v1.55/commit?container={id}&repo=made&tag=v1"));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body), (201, &json!({"Id": daemon.inspect("made:v1", "{{.Id}}")})));
    let post = |query: &str| api(&daemon, "POST", &format!("/v1.55/commit?{query}"));
    assert_eq!(post("container=absent"), (404, r#"{"message":"No such container: absent"}"#.to_owned()));
    let digest = "0".repeat(64);
    let (status, text) = post(&format!("container={id}&repo=made@sha256:{digest}"));
    assert_eq!((status, text.as_str()), (400, r#"{"message":"cannot import digest reference"}"#));
    assert_eq!(post(&format!("container={id}&changes=FROM+x")).0, 400);
}
