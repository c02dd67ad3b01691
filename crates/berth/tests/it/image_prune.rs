//! `image prune`, filters of `images`, and the details of `rmi`.

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::{eventually, feed};
use crate::prune::api;

/// Loads an image with a layer of its own on top of busybox, of `size` bytes.
fn load(daemon: &Daemon, name: &str, size: usize, created: &str, label: &str) -> String {
    let mut layers = files::busybox().layers;
    layers.push(
        Layer::new().file(&format!("of-{}", name.replace([':', '/'], "-")), 0o644, vec![b'x'; size]).bytes(),
    );
    let mut image = Image { layers, ..files::busybox() };
    image.config["Labels"] = json!({ "own": label, "created": created });
    let path = files::write(daemon.root.path(), "made.tar", &image.docker_archive(name));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    daemon.inspect(name, "{{.Id}}")
}

/// Replaces a name, so that `id` has none.
fn untag(daemon: &Daemon, name: &str) {
    daemon.berth(&["tag", "busybox", name]).ok();
    daemon.berth(&["rmi", name]).ok();
}

/// Bytes of all layers, each counted once.
fn used(daemon: &Daemon) -> i64 {
    let (_, body) = api(daemon, "GET", "/v1.50/system/df?type=image");
    serde_json::from_str::<Value>(&body).unwrap()["LayersSize"].as_i64().unwrap_or_else(|| panic!("{body}"))
}

with_both_clients! {
    fn dangling_images_go_and_what_is_used_stays(daemon: &Daemon, client: Client) {
        let gone = load(daemon, "gone:v1", 123_456, "2020-01-01T00:00:00Z", "a");
        let used_id = load(daemon, "used:v1", 1000, "2020-01-02T00:00:00Z", "b");
        let named = load(daemon, "named:v1", 500, "2020-01-03T00:00:00Z", "c");
        daemon.berth(&["create", "used:v1"]).ok();
        untag(daemon, "gone:v1");
        untag(daemon, "used:v1");
        let before = used(daemon);
        let text = daemon.with(client, &["image", "prune", "-f"]).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1]), ("Deleted Images:", format!("deleted: {gone}").as_str()), "{text}");
        assert!(lines[2].starts_with("deleted: sha256:"), "{text}");
        assert_eq!(&lines[3..], ["", "Total reclaimed space: 123.5kB"], "{text}");
        assert_eq!(before - used(daemon), 123_456, "what is reported is freed");
        for id in [&used_id, &named] {
            daemon.inspect(id, "{{.Id}}");
        }
        assert_eq!(daemon.with(client, &["image", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
        let text = daemon.with(client, &["image", "prune", "-af"]).ok();
        assert!(text.contains("untagged: named:v1\n") && text.contains(&format!("deleted: {named}\n")), "{text}");
        assert!(!text.contains(&used_id), "{text}");
        assert_eq!(daemon.berth(&["images", "-aq", "--no-trunc"]).ok(), used_id);
        let events = ["events", "--since", "1h", "--until", "0s", "--filter", "type=image", "--filter", "event=prune", "--format", "{{.Actor.Attributes.reclaimed}}"];
        assert_eq!(daemon.berth(&events).ok().lines().next(), Some("123456"));
    }

    fn it_asks_first(daemon: &Daemon, client: Client) {
        for (flag, warning) in [
            ("--all=false", "WARNING! This will remove all dangling images."),
            ("-a", "WARNING! This will remove all images without at least one container associated to them."),
        ] {
            let output = feed(&mut daemon.client(client, &["image", "prune", flag]), b"n\n").ok();
            assert_eq!(output, format!("{warning}\nAre you sure you want to continue? [y/N] "));
        }
        daemon.inspect("busybox", "{{.Id}}");
        let output = feed(&mut daemon.client(client, &["image", "prune", "-a"]), b"y\n").ok();
        assert!(output.contains("untagged: busybox:latest"), "{output}");
    }

    fn prune_filters_select(daemon: &Daemon, client: Client) {
        let old = load(daemon, "old:v1", 10, "2020-01-01T00:00:00Z", "a");
        let new = load(daemon, "new:v1", 20, "2024-01-01T00:00:00Z", "b");
        untag(daemon, "old:v1");
        untag(daemon, "new:v1");
        let prune = |filter: &str| daemon.with(client, &["image", "prune", "-f", "--filter", filter]);
        assert_eq!(prune("label=own=c").ok(), "Total reclaimed space: 0B");
        assert_eq!(prune("label!=own").ok(), "Total reclaimed space: 0B");
        let text = prune("until=2022-01-01T00:00:00Z").ok();
        assert!(text.contains(&old) && !text.contains(&new), "{text}");
        assert!(prune("label=own=b").ok().contains(&new));
        prune("colour=red").fails(1, "invalid filter 'colour'");
        prune("until=soon").fails(1, "soon");
    }

    fn list_filters_select(daemon: &Daemon, client: Client) {
        load(daemon, "team/one:v1", 10, "2020-01-01T00:00:00Z", "a");
        load(daemon, "two:v1", 20, "2021-01-01T00:00:00Z", "b");
        let none = load(daemon, "three:v1", 30, "2022-01-01T00:00:00Z", "c");
        untag(daemon, "three:v1");
        daemon.berth(&["tag", "two:v1", "two:v2"]).ok();
        daemon.berth(&["rmi", "busybox"]).ok();
        let list = |filters: &[&str]| {
            let mut arguments = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
            for filter in filters {
                arguments.extend(["--filter", filter]);
            }
            let text = daemon.with(client, &arguments).ok();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines.join(" ")
        };
        let (one, two, three) = ("team/one:v1", "two:v1 two:v2", "<none>:<none>");
        for (filters, expected) in [
            (&["dangling=true"][..], three.to_owned()),
            (&["dangling=false"], format!("{one} {two}")),
            (&["label=own=a"], one.to_owned()),
            (&["label!=own=a"], format!("{three} {two}")),
            (&["before=two:v1"], one.to_owned()),
            (&["since=two:v1"], three.to_owned()),
            (&["since=team/one:v1", "before=three"], String::new()),
            (&["until=2021-06-01T00:00:00Z"], format!("{one} {two}")),
            (&["reference=two:*2"], "two:v2".to_owned()),
            (&["reference=*/*"], one.to_owned()),
            (&["reference=two", "label=own"], two.to_owned()),
        ] {
            if filters.contains(&"before=three") {
                let arguments = ["images", "--filter", "before=three"];
                daemon.with(client, &arguments).fails(1, "No such image: three");
                continue;
            }
            assert_eq!(list(filters), expected, "{filters:?}");
        }
        daemon.with(client, &["images", "--filter", "dangling=perhaps"]).fails(1, "invalid filter 'dangling=perhaps'");
        daemon.with(client, &["images", "--filter", "colour=red"]).fails(1, "invalid filter 'colour'");
        let text = daemon.with(client, &["images", "--digests", "--no-trunc", "-f", "dangling=true"]).ok();
        assert!(text.contains("DIGEST") && text.contains(&none), "{text}");
    }

    fn rmi_says_what_is_in_the_way(daemon: &Daemon, client: Client) {
        let id = daemon.inspect("busybox", "{{.Id}}");
        let short = &id[7..19];
        let rmi = |arguments: &[&str]| daemon.with(client, &[&["rmi"], arguments].concat());
        let running = daemon.background(&["busybox", "sleep", "1000"]);
        let container = &running[..12];
        rmi(&["busybox"]).fails(1, &format!("conflict: unable to remove repository reference \"busybox\" (must force) - container {container} is using its referenced image {short}"));
        rmi(&[short]).fails(1, &format!("conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"));
        rmi(&["-f", short]).fails(1, &format!("conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"));
        // One of two names goes without force.
        daemon.berth(&["tag", "busybox", "other:v1"]).ok();
        assert_eq!(rmi(&["busybox"]).ok(), "Untagged: busybox:latest");
        rmi(&["absent", "other:v1"]).fails(1, "No such image: absent");
        assert_eq!(daemon.berth(&["images", "-q", "--no-trunc"]).ok(), id);
        // A forced removal of the last name leaves the image to its container.
        assert_eq!(rmi(&["-f", "other:v1"]).ok(), "Untagged: other:v1");
        assert_eq!(daemon.berth(&["images", "-q", "--no-trunc"]).ok(), id);
        daemon.berth(&["kill", &running]).ok();
        daemon.wait(&running);
        rmi(&[short]).fails(1, &format!("conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"));
        let text = rmi(&["-f", &id[7..11]]).ok();
        assert!(text.contains(&format!("Deleted: {id}")), "{text}");
        assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "");
        // The container still has its files.
        daemon.berth(&["start", &running]).ok();
        daemon.with(client, &["commit", &running]).fails(1, "No such image");
        daemon.berth(&["rm", "-f", &running]).ok();
        eventually("its layer is gone", || {
            let left = std::fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
            (left.filter(|layer| layer.file_name() != "empty").count() == 0).then_some(())
        });
    }

    fn several_images_go_and_failures_are_all_told(daemon: &Daemon, client: Client) {
        let one = load(daemon, "one:v1", 10, "2020-01-01T00:00:00Z", "a");
        load(daemon, "two:v1", 20, "2021-01-01T00:00:00Z", "b");
        let output = daemon.with(client, &["rmi", "--no-prune", "one:v1", "absent:v1", "two:v1", "gone:v2"]);
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("No such image: absent:v1") && output.stderr.contains("No such image: gone:v2"), "{output:?}");
        assert!(output.stdout.contains(&format!("Deleted: {one}")), "{output:?}");
        assert_eq!(daemon.berth(&["images", "--format", "{{.Repository}}"]).ok(), "busybox");
        assert_eq!(daemon.with(client, &["rmi", "-f", "absent"]).code, 0, "what is to be gone is gone");
    }
}

#[test]
fn the_answer_is_dockers() {
    let daemon = Daemon::start();
    let none = r#"{"ImagesDeleted":null,"SpaceReclaimed":0}"#;
    assert_eq!(api(&daemon, "POST", "/v1.55/images/prune"), (200, none.to_owned()));
    let id = load(&daemon, "gone:v1", 77, "2020-01-01T00:00:00Z", "a");
    let (status, body) = api(
        &daemon,
        "POST",
        "/v1.55/images/prune?filters=%7B%22dangling%22:%5B%22false%22%5D,%22label%22:%5B%22own%22%5D%7D",
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["SpaceReclaimed"]), (200, &json!(77)), "{body}");
    assert_eq!(
        &body["ImagesDeleted"].as_array().unwrap()[..2],
        [json!({"Untagged": "gone:v1"}), json!({"Deleted": id})]
    );
    assert_eq!(api(&daemon, "POST", "/v1.55/images/prune?filters=%7B%22x%22:%5B%22y%22%5D%7D").0, 400);
}
