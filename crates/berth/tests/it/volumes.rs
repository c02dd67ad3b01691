//! Volumes as objects: made, listed, shown, removed, pruned, by both clients and without one.

use std::fs;

use serde_json::{Value, json};

use crate::api::{ask, refused, request};
use crate::daemon::{Client, Daemon};
use crate::output::{feed, run};

/// What has happened to volumes, oldest first.
fn told(daemon: &Daemon) -> Vec<Value> {
    let until = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1).to_string();
    let arguments =
        ["events", "--since", "1", "--until", &until, "--filter", "type=volume", "--format", "json"];
    let text = daemon.with(Client::Berth, &arguments).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn actions(daemon: &Daemon) -> Vec<String> {
    let name = |event: &Value| {
        format!("{} {}", event["Action"].as_str().unwrap(), event["Actor"]["ID"].as_str().unwrap())
    };
    told(daemon).iter().map(name).collect()
}

/// Names of the volumes that a list shows.
fn names(daemon: &Daemon, client: Client, filters: &[&str]) -> Vec<String> {
    let mut arguments = vec!["volume", "ls", "-q"];
    filters.iter().for_each(|filter| arguments.extend(["--filter", filter]));
    daemon.with(client, &arguments).ok().lines().map(str::to_owned).collect()
}

with_both_clients! {
    fn a_volume_is_made_shown_and_removed(daemon: &Daemon, client: Client) {
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        assert_eq!(with(&["volume", "create", "--label", "tier=front", "--label", "x", "data"]).ok(), "data");
        // As in Docker, the one that is there is given, whatever else is said.
        assert_eq!(with(&["volume", "create", "--label", "tier=back", "data"]).ok(), "data");
        let anonymous = with(&["volume", "create"]).ok();
        assert_eq!(anonymous.len(), 64);
        let shown: Value = serde_json::from_str(&with(&["volume", "inspect", "data"]).ok()).unwrap();
        let place = daemon.data_root().join("volumes/data/_data");
        assert!(place.is_dir());
        let mut shown = shown[0].clone();
        let created = shown["CreatedAt"].take();
        assert!(created.as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')), "{created}");
        assert_eq!(shown, json!({
            "CreatedAt": null, "Driver": "local", "Labels": {"tier": "front", "x": ""}, "Mountpoint": place, "Name": "data",
            "Options": null, "Scope": "local",
        }));
        let format = "{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Size}} {{.Links}}";
        let line = with(&["volume", "ls", "--filter", "name=data", "--format", format]).ok();
        assert_eq!(line, format!("data local local {} N/A N/A", place.display()));
        let table = with(&["volume", "ls"]).ok();
        assert!(table.starts_with("DRIVER    VOLUME NAME\n") && table.contains("\nlocal     data"), "{table}");
        assert_eq!(with(&["inspect", "-f", "{{.Name}}", "data"]).ok(), "data", "without a kind");
        assert_eq!(with(&["volume", "rm", "data", &anonymous]).ok(), format!("data\n{anonymous}"));
        assert!(!place.exists());
        let missing = "get data: no such volume";
        with(&["volume", "rm", "data"]).fails(1, missing);
        with(&["volume", "inspect", "data"]).fails(1, missing);
        assert_eq!(with(&["volume", "rm", "-f", "data"]).ok(), "data");
        let expected = ["create data".to_owned(), format!("create {anonymous}"), "destroy data".to_owned(), format!("destroy {anonymous}")];
        assert_eq!(actions(daemon), expected);
    }

    fn lists_are_filtered(daemon: &Daemon, client: Client) {
        for arguments in [&["--label", "a=1", "one"][..], &["--label", "a=2", "two"], &["three"]] {
            daemon.with(client, &[&["volume", "create"], arguments].concat()).ok();
        }
        daemon.with(client, &["create", "--name", "user", "-v", "two:/v", "busybox"]).ok();
        for (filters, expected) in [
            (&[][..], &["one", "three", "two"][..]),
            (&["label=a"], &["one", "two"]),
            (&["label=a=2"], &["two"]),
            (&["name=o"], &["one", "two"]),
            (&["name=^t"], &["three", "two"]),
            (&["driver=local", "name=one"], &["one"]),
            (&["driver=other"], &[]),
            (&["dangling=true"], &["one", "three"]),
            (&["dangling=false"], &["two"]),
        ] {
            assert_eq!(names(daemon, client, filters), expected, "{filters:?}");
        }
        daemon.with(client, &["volume", "ls", "--filter", "size=1"]).fails(1, "invalid filter 'size'");
        daemon.with(client, &["volume", "ls", "--filter", "dangling=maybe"]).fails(1, "invalid filter 'dangling=maybe'");
    }

    fn what_a_container_has_stays(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["create", "-v", "data:/data", "-v", "/more", "busybox"]).ok();
        let why = format!("remove data: volume is in use - [{id}]");
        daemon.with(client, &["volume", "rm", "data"]).fails(1, &why);
        daemon.with(client, &["volume", "rm", "-f", "data"]).fails(1, &why);
        assert_eq!(refused(daemon, "DELETE", "/volumes/data"), (409, why));
        daemon.with(client, &["volume", "prune", "-f", "-a"]).ok();
        assert_eq!(names(daemon, client, &[]).len(), 2);
        daemon.with(client, &["rm", "-v", &id]).ok();
        assert_eq!(names(daemon, client, &[]), ["data"], "what has a name stays");
        daemon.with(client, &["volume", "rm", "data"]).ok();
    }

    fn pruning_spares_names_unless_told(daemon: &Daemon, client: Client) {
        daemon.with(client, &["volume", "create", "named"]).ok();
        daemon.with(client, &["volume", "create", "--label", "keep", "kept"]).ok();
        let anonymous = daemon.with(client, &["volume", "create"]).ok();
        fs::write(daemon.data_root().join("volumes").join(&anonymous).join("_data/file"), [0; 5000]).unwrap();
        let text = daemon.with(client, &["volume", "prune", "-f"]).ok();
        assert_eq!(text, format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 5kB"));
        let text = daemon.with(client, &["volume", "prune", "-f", "-a", "--filter", "label!=keep"]).ok();
        assert_eq!(text, "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B");
        assert_eq!(daemon.with(client, &["volume", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
        assert_eq!(names(daemon, client, &[]), ["kept"]);
        daemon.with(client, &["volume", "prune", "-f", "-a"]).ok();
        let pruned = told(daemon).into_iter().find(|event| event["Action"] == "prune").unwrap();
        assert_eq!(pruned["Actor"]["Attributes"], json!({"reclaimed": "5000"}));
        daemon.with(client, &["volume", "prune", "-f", "--filter", "until=1h"]).fails(1, "invalid filter 'until'");
        daemon.with(client, &["volume", "prune", "-f", "-a", "--filter", "all=1"]).fails(1, "cannot specify both --all and --filter all=1");
    }

    fn bad_requests_get_dockers_words(daemon: &Daemon, client: Client) {
        for (arguments, message) in [
            (&["a b"][..], "create a b: \"a b\" includes invalid characters for a local volume name"),
            (&["../up"], "includes invalid characters"),
            (&["x"], "volume name is too short, names should be at least two alphanumeric characters"),
            (&["-d", "nosuch", "data"], "create data: error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
            (&["-o", "colour=red", "data"], "create data: invalid option: \"colour\""),
            (&["-o", "type=tmpfs", "data"], "create data: missing required option: \"device\""),
            (&["-o", "size=1m", "data"], "create data: quota size requested but no quota support"),
        ] {
            daemon.with(client, &[&["volume", "create"], arguments].concat()).fails(1, message);
        }
        assert!(names(daemon, client, &[]).is_empty());
        daemon.with(client, &["volume", "create", "data"]).ok();
        daemon.with(client, &["volume", "create", "-d", "nosuch", "data"]).fails(1, "plugin \"nosuch\" not found");
        daemon.with(client, &["volume", "update", "data"]).fails(1, "can only update cluster volumes");
    }

    fn usage_knows_sizes_and_users(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", "head -c 70000 /dev/zero > /data/file"]).ok();
        daemon.with(client, &["create", "--name", "two", "--volumes-from", "one", "busybox"]).ok();
        daemon.with(client, &["volume", "create", "empty"]).ok();
        let text = daemon.with(client, &["system", "df", "-v"]).ok();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["data", "2", "70kB"]) && lines.contains(&vec!["empty", "0", "0B"]), "{text}");
    }

    fn events_tell_who_has_a_volume(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["create", "--rm", "-v", "data:/data:ro", "-v", "/more", "busybox"]).ok();
        daemon.with(client, &["start", "-a", &id]).ok();
        crate::output::eventually("its removal", || (names(daemon, client, &[]) == ["data"]).then_some(()));
        let all = told(daemon);
        let more = all.iter().map(|event| event["Actor"]["ID"].as_str().unwrap()).find(|name| *name != "data").unwrap();
        let expected = ["create data", "create M", "mount data", "mount M", "unmount data", "unmount M", "destroy M"];
        assert_eq!(actions(daemon), expected.map(|action| action.replace('M', more)));
        let mounted = all.iter().find(|event| event["Action"] == "mount").unwrap();
        assert_eq!(mounted["Actor"]["Attributes"], json!({
            "container": id, "destination": "/data", "driver": "local", "propagation": "", "read/write": "false",
        }));
    }
}

#[test]
fn older_versions_prune_all_and_swarm_is_never_there() {
    let daemon = Daemon::start();
    let (code, made) = ask(&daemon, "/volumes/create", Some(&json!({ "Name": "named", "Labels": {} })));
    assert_eq!((code, &made["Labels"], &made["Options"]), (201, &json!({}), &Value::Null));
    let (code, made) = ask(&daemon, "/volumes/create", Some(&json!({})));
    assert_eq!((code, &made["Labels"]), (201, &json!({"com.docker.volume.anonymous": ""})));
    let (code, report) = request(&daemon, "POST", "/v1.41/volumes/prune", None);
    assert_eq!((code, report["VolumesDeleted"].as_array().unwrap().len()), (200, 2));
    let (code, report) = request(&daemon, "POST", "/volumes/prune", None);
    assert_eq!((code, report), (200, json!({"VolumesDeleted": [], "SpaceReclaimed": 0})));
    assert_eq!(ask(&daemon, "/volumes", None), (200, json!({"Volumes": [], "Warnings": null})));
    let words = "volume update only valid for cluster volumes, but swarm is unavailable";
    assert_eq!(refused(&daemon, "PUT", "/volumes/x?version=1"), (503, words.to_owned()));
    let (code, _) = ask(&daemon, "/volumes/create", Some(&json!({ "Name": "c", "ClusterVolumeSpec": {} })));
    assert_eq!(code, 503);
    assert_eq!(request(&daemon, "DELETE", "/volumes/none?force=1", None).0, 204);
    assert_eq!(refused(&daemon, "DELETE", "/volumes/none"), (404, "get none: no such volume".to_owned()));
}

#[test]
fn content_goes_out_and_in_and_names_change() {
    let daemon = Daemon::start();
    let script = "echo one > /data/file; ln /data/file /data/same; ln -s file /data/link; mkdir -m 700 /data/dir; chown 5:6 /data/dir";
    daemon.berth(&["run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", script]).ok();
    let archive = daemon.root.path().join("data.tar");
    daemon.berth(&["volume", "export", "-o", archive.to_str().unwrap(), "data"]).ok();
    daemon.berth(&["volume", "create", "copy"]).ok();
    daemon.berth(&["volume", "import", "copy", archive.to_str().unwrap()]).ok();
    let look = "cd /v && stat -c '%n %a %u %g %h' dir file same link && cat file && readlink link";
    let seen = |volume: &str| {
        daemon.berth(&["run", "--rm", "-v", &format!("{volume}:/v"), "busybox", "sh", "-c", look]).ok()
    };
    assert_eq!(seen("copy"), seen("data"));
    assert!(seen("copy").contains("dir 700 5 6"));
    // Compressed, from standard input.
    let packed = run(std::process::Command::new("gzip").arg("-k").arg(&archive));
    packed.ok();
    daemon.berth(&["volume", "create", "third"]).ok();
    let bytes = fs::read(daemon.root.path().join("data.tar.gz")).unwrap();
    feed(&mut daemon.client(Client::Berth, &["volume", "import", "third"]), &bytes).ok();
    assert_eq!(seen("third"), seen("data"));
    daemon.berth(&["volume", "rename", "copy", "renamed"]).ok();
    assert_eq!(seen("renamed"), seen("data"));
    daemon.berth(&["volume", "rename", "copy", "other"]).fails(1, "no such volume");
    daemon.berth(&["volume", "rename", "renamed", "data"]).fails(1, "already in use");
    daemon.berth(&["create", "--name", "user", "-v", "data:/v", "busybox"]).ok();
    daemon.berth(&["volume", "rename", "data", "moved"]).fails(1, "volume is in use");
    daemon.berth(&["volume", "rename", "third", "a b"]).fails(1, "invalid characters");
    daemon.berth(&["volume", "import", "absent", archive.to_str().unwrap()]).fails(1, "no such volume");
}

/// An archive of one file.
fn archived(daemon: &Daemon, content: &str) -> String {
    crate::files::write(
        daemon.root.path(),
        "one.tar",
        &crate::files::Layer::new().file("f", 0o644, content).bytes(),
    )
}

#[test]
fn content_of_volumes_that_are_mounts_goes_out_and_in() {
    let daemon = Daemon::start();
    let host = daemon.root.path().join("host");
    fs::create_dir(&host).unwrap();
    let device = format!("device={}", host.display());
    daemon.berth(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]).ok();
    daemon
        .berth(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "mem"])
        .ok();
    let archive = archived(&daemon, "text");
    daemon.berth(&["volume", "import", "bound", &archive]).ok();
    assert_eq!(fs::read_to_string(host.join("f")).unwrap(), "text");
    assert!(daemon.berth(&["volume", "export", "bound"]).ok().contains("text"));
    // Nobody had it: what was imported is gone with its memory.
    daemon.berth(&["volume", "import", "mem", &archive]).ok();
    assert!(!daemon.berth(&["volume", "export", "mem"]).ok().contains("text"));
    // A container that runs sees what is imported, and what it writes is exported.
    for volume in ["bound", "mem", "plain"] {
        let id = daemon.background(&["-v", &format!("{volume}:/v"), "busybox", "sleep", "1000"]);
        daemon.berth(&["volume", "import", volume, &archive]).ok();
        assert_eq!(daemon.berth(&["exec", &id, "cat", "/v/f"]).ok(), "text");
        daemon.berth(&["exec", &id, "sh", "-c", "echo mine > /v/g"]).ok();
        let exported = daemon.berth(&["volume", "export", volume]).ok();
        assert!(exported.contains("text") && exported.contains("mine"), "{volume}");
        daemon.berth(&["rm", "-f", &id]).ok();
    }
    // What does not fit is told, and nothing of it stays. The server reads what is left of a request, if that is not much.
    let large = crate::files::Layer::new()
        .file("small", 0o644, "s")
        .file("large", 0o644, vec![1; (1 << 20) + (100 << 10)])
        .bytes();
    let large = crate::files::write(daemon.root.path(), "large.tar", &large);
    let id = daemon.background(&["-v", "mem:/v", "busybox", "sleep", "1000"]);
    daemon.berth(&["volume", "import", "mem", &large]).fails(1, "o space left on device");
    assert_eq!(daemon.berth(&["exec", &id, "ls", "-A", "/v"]).ok(), "small");
    daemon.berth(&["rm", "-f", &id]).ok();
    daemon.berth(&["volume", "rm", "bound", "mem"]).ok();
    assert!(host.join("f").exists());
}

#[test]
fn a_broken_archive_leaves_what_was_there() {
    let daemon = Daemon::start();
    daemon.berth(&["volume", "create", "data"]).ok();
    daemon.berth(&["volume", "import", "data", &archived(&daemon, "before")]).ok();
    let content = daemon.data_root().join("volumes/data/_data");
    let whole =
        crate::files::Layer::new().file("f", 0o600, vec![b'n'; 100_000]).file("g", 0o600, "g").bytes();
    let import = |bytes: &[u8]| feed(&mut daemon.client(Client::Berth, &["volume", "import", "data"]), bytes);
    let packed = crate::files::gzip(&whole);
    let up = crate::files::Layer::new().raw(tar::EntryType::Regular, b"../up", b"", b"x").bytes();
    for (what, bytes) in [
        ("cut", &whole[..60_000]),
        ("cut and compressed", &packed[..packed.len() / 2]),
        ("no archive", &[b'x'; 4096][..]),
        ("leads out", &up),
    ] {
        let refused = import(bytes);
        assert_eq!(refused.code, 1, "{what}: {}", refused.stdout);
        assert!(!refused.stderr.is_empty(), "{what}");
        assert_eq!(fs::read_to_string(content.join("f")).unwrap(), "before", "{what}");
        assert_eq!(fs::read_dir(&content).unwrap().count(), 1, "{what}");
    }
    assert!(!content.join("../up").exists());
    // It can be used, and removed, at once.
    import(&whole).ok();
    assert_eq!(fs::metadata(content.join("f")).unwrap().len(), 100_000);
    daemon.berth(&["volume", "rm", "data"]).ok();
}
