//! What images cost: `system df` against `du`, what prune frees, `images --disk`, `image layers`, `--keep-storage`.

use std::process::Command;

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::{eventually, run};
use crate::prune::api;
use crate::pulls::{self, Registry};

/// Room for directories, the database, documents and the rest of blocks.
const TOLERANCE: i64 = 3_000_000;

fn get(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = api(daemon, "GET", path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Bytes of the data root on the disk, once what was removed is gone.
fn du(daemon: &Daemon) -> i64 {
    eventually("the trash is empty", || {
        let left = std::fs::read_dir(daemon.data_root().join("staging/trash")).unwrap();
        (left.count() == 0).then_some(())
    });
    let text = run(Command::new("du").args(["-s", "--block-size=1"]).arg(daemon.data_root())).ok();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The sum of what `system df` says.
fn df(daemon: &Daemon) -> i64 {
    let usage = get(daemon, "/v1.55/system/df?verbose=1");
    let kinds = ["ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"];
    kinds.iter().map(|kind| usage[kind]["TotalSize"].as_i64().unwrap_or_default()).sum()
}

#[track_caller]
fn agree(daemon: &Daemon, when: &str) {
    let (df, du) = (df(daemon), du(daemon));
    assert!((df - du).abs() < TOLERANCE, "{when}: df {df}, du {du}");
}

/// Bytes that do not compress, of a size.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut random = crate::model::Random::new(seed);
    std::iter::repeat_with(|| u8::try_from(random.below(256)).unwrap()).take(size).collect()
}

/// Loads an image of one layer of its own on a base of 4 MB.
fn load(daemon: &Daemon, name: &str, size: usize) -> String {
    let base = Layer::new().file("base", 0o644, noise(4_000_000, 1));
    let own = Layer::new().file(
        "own",
        0o644,
        noise(size, name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte))),
    );
    let path = files::write(daemon.root.path(), "i.tar", &Image::new(vec![base, own]).docker_archive(name));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    daemon.inspect(name, "{{.Id}}")
}

#[test]
fn df_agrees_with_du_through_an_image_store_s_life() {
    let daemon = Daemon::start();
    agree(&daemon, "at the start");
    load(&daemon, "one:v1", 6_000_000);
    load(&daemon, "two:v1", 7_000_000);
    agree(&daemon, "after loads");
    let registry = Registry::serve(&pulls::image(), |_| {});
    daemon.berth(&["pull", "-q", &registry.name()]).ok();
    let cache = get(&daemon, "/v1.55/system/df?type=build-cache&verbose=1");
    assert!(cache["BuildCacheUsage"]["TotalSize"].as_i64().unwrap() > 800_000, "{cache}");
    agree(&daemon, "after a pull");
    let script = "head -c 9000000 /dev/zero | tr '\\0' x > /f; head -c 5000000 /dev/zero | tr '\\0' y";
    let container = daemon.background(&["busybox", "sh", "-c", script]);
    daemon.wait(&container);
    agree(&daemon, "with a container that wrote and logged");
    daemon.berth(&["commit", &container, "made"]).ok();
    agree(&daemon, "after a commit");
    let text = daemon.berth(&["container", "prune", "-f"]).ok();
    assert!(text.contains("reclaimed space: 1") && text.ends_with("MB"), "{text}");
    agree(&daemon, "after container prune");
    daemon.berth(&["rmi", "one:v1"]).ok();
    agree(&daemon, "after rmi");
    daemon.berth(&["image", "prune", "-af"]).ok();
    agree(&daemon, "after prune");
    assert!(df(&daemon) > 800_000, "compressed layers stay");
    let text = daemon.berth(&["system", "prune", "-af"]).ok();
    assert!(text.contains("Deleted build cache objects"), "{text}");
    assert_eq!(df(&daemon), 0);
    agree(&daemon, "after system prune");
}

with_both_clients! {
    fn prune_frees_what_it_reports(daemon: &Daemon, client: Client) {
        load(daemon, "one:v1", 6_000_000);
        load(daemon, "two:v1", 7_000_000);
        let (before, used) = (du(daemon), df(daemon));
        let text = daemon.with(client, &["image", "prune", "-af", "--filter", "label!=x"]).ok();
        let events = ["events", "--since", "1h", "--until", "0s", "-f", "event=prune", "-f", "type=image", "--format", "{{.Actor.Attributes.reclaimed}}"];
        let reported: i64 = daemon.berth(&events).ok().lines().last().unwrap().parse().unwrap();
        assert_eq!(reported, used, "everything went: {text}");
        let freed = before - du(daemon);
        assert!((freed - reported).abs() < 300_000, "reported {reported}, freed {freed}");
    }

    fn each_image_s_own_share_is_shown(daemon: &Daemon, client: Client) {
        load(daemon, "one:v1", 6_000_000);
        load(daemon, "two:v1", 7_000_000);
        let text = daemon.with(client, &["system", "df", "-v"]).ok();
        let row = text.lines().find(|line| line.starts_with("one ")).unwrap();
        assert!(row.contains(" 10MB ") && row.contains(" 4MB ") && row.contains(" 6MB "), "{text}");
    }
}

#[test]
fn the_disk_view_tells_shares_apart() {
    let daemon = Daemon::start();
    load(&daemon, "one:v1", 6_000_000);
    load(&daemon, "two:v1", 7_000_000);
    let text = daemon.berth(&["images", "--disk"]).ok();
    let headings: Vec<&str> =
        text.lines().next().unwrap().split("  ").filter(|word| !word.is_empty()).map(str::trim).collect();
    let expected =
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "UNIQUE SIZE", "SHARED SIZE", "CONTAINERS"];
    assert_eq!(headings, expected);
    let format = "{{.Repository}} {{.Size}} {{.SharedSize}} {{.UniqueSize}}";
    let text = daemon.berth(&["image", "ls", "--disk", "--format", format]).ok();
    assert!(text.lines().any(|line| line == "two 11MB 4MB 7MB"), "{text}");
    let plain = daemon.berth(&["images", "--format", format]).ok();
    assert!(plain.contains("two 11MB 4MB 7MB"), "what a template shows is asked for: {plain}");
}

#[test]
fn layers_tell_what_they_add_change_and_waste() {
    let daemon = Daemon::start();
    let base = Layer::new().file("kept", 0o644, [1; 100]).file("changed", 0o644, [1; 2000]);
    let base = base.dir("dir", 0o755).file("dir/gone", 0o644, [1; 30_000]);
    let top = Layer::new().file("changed", 0o644, [2; 2500]).file("dir/.wh.gone", 0o644, "");
    let image = Image::new(vec![base, top]);
    let path = files::write(daemon.root.path(), "i.tar", &image.docker_archive("waste:v1"));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    let found: Value =
        serde_json::from_str(&daemon.berth(&["image", "layers", "--format", "json", "waste:v1"]).ok())
            .unwrap();
    assert_eq!((&found["Size"], &found["Wasted"]), (&json!(34_600), &json!(32_000)));
    let layers = &found["Layers"];
    assert_eq!(layers[0]["Added"], json!({"Entries": 4, "Bytes": 32_100}));
    assert_eq!((&layers[0]["Wasted"], &layers[0]["Images"]), (&json!(32_000), &json!(1)));
    assert_eq!(layers[1]["Changed"], json!({"Entries": 1, "Bytes": 2500}));
    assert_eq!(layers[1]["Removed"], json!({"Entries": 1, "Bytes": 30_000}));
    assert_eq!(
        found["Largest"],
        json!([{"Path": "/dir/gone", "Size": 30_000, "Layer": 1, "HiddenBy": 2}, {"Path": "/changed", "Size": 2000, "Layer": 1, "HiddenBy": 2}])
    );
    let table = daemon.berth(&["image", "layers", "waste:v1"]).ok();
    assert!(table.starts_with("LAYER ") && table.contains("Wasted: 32kB of 34.6kB (92%)"), "{table}");
    let custom = daemon.berth(&["image", "layers", "--format", "{{.Number}} {{.Wasted}}", "waste:v1"]).ok();
    assert_eq!(custom, "1 32kB\n2 0B");
    daemon.berth(&["image", "layers", "absent"]).fails(1, "No such image: absent");
    // A daemon that has nothing like it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = std::io::Read::read(&mut connection, &mut head);
            let body = r#"{"message":"page not found"}"#;
            let answer = format!(
                "HTTP/1.1 404 Not Found\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = std::io::Write::write_all(&mut connection, answer.as_bytes());
        }
    });
    let mut foreign = Command::new(crate::daemon::binary());
    foreign.args(["-H", &host, "image", "layers", "x"]).env("DOCKER_CONFIG", daemon.root.path());
    run(&mut foreign).fails(1, "the daemon cannot tell what layers cost: it is not Berth's, or an older one");
}

#[test]
fn a_store_is_kept_under_a_size() {
    let daemon = Daemon::start();
    let busybox = daemon.inspect("busybox", "{{.Id}}");
    for name in ["one:v1", "two:v1", "used:v1", "last:v1"] {
        load(&daemon, name, 3_000_000 + name.len());
    }
    // The oldest use is not the oldest image: `one` is loaded again.
    daemon.berth(&["create", "--name", "user", "used:v1", "x"]).ok();
    load(&daemon, "one:v1", 3_000_006);
    let names = || {
        let mut names: Vec<String> = daemon
            .berth(&["images", "--format", "{{.Repository}}"])
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        names.sort();
        names.join(" ")
    };
    let prune = |size: &str| daemon.berth(&["image", "prune", "-f", "--keep-storage", size]).ok();
    assert_eq!(prune("1g"), "Total reclaimed space: 0B");
    let busybox_size: i64 = daemon.inspect(&busybox, "{{.Size}}").parse().unwrap();
    // The base and four layers of 3 MB may stay; busybox, which is the oldest, must go, and then `two`.
    let text = prune("16m");
    assert!(text.contains(&format!("deleted: {busybox}")), "{text}");
    assert_eq!(names(), "last one two used", "{text} {busybox_size}");
    let text = prune("13m");
    assert!(text.contains("untagged: two:v1") && text.ends_with("reclaimed space: 3MB"), "{text}");
    assert_eq!(names(), "last one used");
    let text = prune("0");
    assert_eq!(names(), "used", "what is used stays: {text}");
    assert_eq!(prune("0"), "Total reclaimed space: 0B");
    daemon.berth(&["rm", "user"]).ok();
    daemon.berth(&["image", "prune", "-f", "--keep-storage", "0", "--filter", "label=none"]).ok();
    assert_eq!(names(), "used", "filters hold too");
    prune("0");
    assert_eq!(df(&daemon), 0);
    daemon.berth(&["image", "prune", "-f", "--keep-storage", "x"]).fails(125, "invalid size");
    let (status, body) =
        api(&daemon, "POST", "/v1.55/images/prune?filters=%7B%22keep-storage%22:%5B%22x%22%5D%7D");
    assert_eq!((status, body.contains("invalid filter 'keep-storage=x'")), (400, true), "{body}");
}

#[test]
fn the_cache_of_compressed_layers_gives_way_first() {
    let daemon = Daemon::start();
    let registry = Registry::serve(&pulls::image(), |_| {});
    daemon.berth(&["pull", "-q", &registry.name()]).ok();
    let cached = || get(&daemon, "/v1.55/system/df?type=build-cache&verbose=1")["BuildCacheUsage"].clone();
    assert_eq!(cached()["TotalCount"], 2, "one layer was there");
    let (all, cache) = (df(&daemon), cached()["TotalSize"].as_i64().unwrap());
    let keep = all - cache + 100_000;
    daemon.berth(&["image", "prune", "-f", "--keep-storage", &keep.to_string()]).ok();
    assert_eq!(daemon.berth(&["images", "-q"]).ok().lines().count(), 2, "no image went");
    assert!(cached()["TotalSize"].as_i64().unwrap_or(0) <= 100_000, "{}", cached());
    // The other client's way to empty it.
    daemon.berth(&["rmi", &registry.name()]).ok();
    daemon.berth(&["pull", "-q", &registry.name()]).ok();
    let bytes = cached()["TotalSize"].as_i64().unwrap();
    let (status, body) = api(&daemon, "POST", "/v1.41/build/prune?all=1");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["SpaceReclaimed"].as_i64()), (200, Some(bytes)), "{body}");
    assert_eq!(cached(), json!({}));
    // Nothing depends on it.
    let text =
        daemon.berth(&["run", "--rm", "--network", "none", &registry.name(), "wc", "-c", "/more"]).ok();
    assert_eq!(text, "400000 /more");
}
