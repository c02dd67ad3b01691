//! Several platforms of one name: pulled, chosen, shown, saved, loaded, pushed, and removed one by one.

use std::fs::File;
use std::io::Read;

use serde_json::{Value, json};

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::files::{self, Layer, digest};
use crate::output::run;
use crate::registry::{ADDRESS, Registry};

const SECOND: &str = "127.0.0.1:5001";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image for several platforms. Its files say what they are for; its program is always this machine's.
pub struct Multi {
    architectures: Vec<&'static str>,
    /// Blobs of each platform, its manifest last.
    blobs: Vec<Vec<Vec<u8>>>,
    pub index: Vec<u8>,
}

pub fn multi(architectures: &[&'static str]) -> Multi {
    let blobs: Vec<Vec<Vec<u8>>> = architectures.iter().map(|name| variant(name)).collect();
    let entries: Vec<Value> = architectures
        .iter()
        .zip(&blobs)
        .map(|(architecture, blobs)| {
            let manifest = blobs.last().unwrap();
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(manifest), "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index = serde_json::to_vec_pretty(&index).unwrap();
    Multi { architectures: architectures.to_vec(), blobs, index }
}

/// The same as `docker buildx build` makes it: an attestation for each image follows all of them.
pub fn attested(architectures: &[&'static str]) -> Multi {
    let mut image = multi(architectures);
    let mut index: Value = serde_json::from_slice(&image.index).unwrap();
    for architecture in architectures {
        let about = image.manifest(architecture);
        let statement =
            json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": &about[7..]}]});
        let statement = serde_json::to_vec(&statement).unwrap();
        let config = json!({
            "architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&statement)]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": [{
                "mediaType": "application/vnd.in-toto+json", "digest": digest(&statement), "size": statement.len(),
                "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
            }],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        index["manifests"].as_array_mut().unwrap().push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest), "size": manifest.len(),
            "annotations": {"vnd.docker.reference.digest": about, "vnd.docker.reference.type": "attestation-manifest"},
            "platform": {"os": "unknown", "architecture": "unknown"},
        }));
        image.architectures.push("unknown");
        image.blobs.push(vec![statement, config, manifest]);
    }
    image.index = serde_json::to_vec_pretty(&index).unwrap();
    image
}

fn variant(architecture: &str) -> Vec<Vec<u8>> {
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("arch", 0o644, architecture).bytes());
    let diffs: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["cat", "/arch"]},
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"created_by": "base"}, {"created_by": format!("for {architecture}")}],
    });
    let config = serde_json::to_vec(&config).unwrap();
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| files::gzip(layer)).collect();
    let describe = |kind: &str, data: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(data), "size": data.len()});
    let listed: Vec<Value> = layers.iter().map(|layer| describe("layer.v1.tar+gzip", layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", &config), "layers": listed,
    });
    layers.into_iter().chain([config, serde_json::to_vec(&manifest).unwrap()]).collect()
}

impl Multi {
    pub fn manifest(&self, architecture: &str) -> String {
        let place = self.architectures.iter().position(|name| *name == architecture).unwrap();
        digest(self.blobs[place].last().unwrap())
    }

    /// An OCI layout with the platforms `kept` of it.
    pub fn layout(&self, name: &str, kept: &[&str]) -> Vec<u8> {
        let top = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": INDEX, "digest": digest(&self.index), "size": self.index.len(),
            "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
        }]});
        let mut archive = Layer::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#);
        let place = |data: &[u8]| format!("blobs/sha256/{}", &digest(data)[7..]);
        archive = archive.file(&place(&self.index), 0o644, &self.index);
        let kept = self.architectures.iter().zip(&self.blobs).filter(|(name, _)| kept.contains(name));
        for blob in kept.flat_map(|(_, blobs)| blobs) {
            archive = archive.file(&place(blob), 0o644, blob);
        }
        archive.file("index.json", 0o644, top.to_string()).bytes()
    }

    /// Puts all of it into the registry.
    pub fn publish(&self, daemon: &Daemon, name: &str) {
        let archive = self.layout(name, &self.architectures);
        let archive = files::write(daemon.root.path(), "published.tar", &archive);
        let mut command = std::process::Command::new("skopeo");
        command.args(["copy", "--all", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        run(command.arg(format!("oci-archive:{archive}")).arg(format!("docker://{ADDRESS}/{name}"))).ok();
        assert_eq!(pushed(&format!("{ADDRESS}/{name}")), digest(&self.index));
    }
}

/// Digest of what a registry has under a name.
#[track_caller]
pub fn pushed(name: &str) -> String {
    let mut command = std::process::Command::new("skopeo");
    command.args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("docker://{name}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    digest(&output.stdout)
}

fn file_of(archive: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some(name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            return Some(content);
        }
    }
    None
}

#[track_caller]
fn says(daemon: &Daemon, client: Client, platform: &[&str], name: &str) -> String {
    let run = [&["run", "--rm", "--network", "none", "--pull", "never"], platform, &[name]].concat();
    daemon.with(client, &run).ok()
}

with_both_clients! {
    fn a_second_platform_is_kept_under_the_same_name(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = multi(&["arm64", "amd64", "s390x"]);
        image.publish(daemon, "two:1");
        let name = format!("{ADDRESS}/two:1");
        let arm = ["--platform", "linux/arm64"];
        // First another machine's: with nothing else there, it is what the name means.
        daemon.with(client, &["pull", "-q", "--platform", "linux/arm64", &name]).ok();
        assert_eq!(says(daemon, client, &[], &name), "arm64");
        let first = daemon.inspect(&name, "{{.Id}}");
        let told = daemon.with(client, &["pull", &name]).ok();
        assert!(told.contains(&format!("Digest: {}", digest(&image.index))), "{told}");
        assert_eq!(says(daemon, client, &[], &name), "amd64");
        assert_eq!(says(daemon, client, &arm, &name), "arm64");
        // The other platform again changes nothing of this.
        let told = daemon.with(client, &["pull", "--platform", "linux/arm64", &name]).ok();
        assert!(told.contains("Image is up to date"), "{told}");
        assert_eq!(says(daemon, client, &[], &name), "amd64");
        // They are one image.
        let listed = daemon.with(client, &["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
        assert_eq!(listed.lines().collect::<Vec<_>>(), [name.as_str(), "busybox:latest"]);
        let inspect = |platform| {
            let format = "{{.Architecture}} {{.RepoTags}} {{.Id}}";
            daemon.with(client, &["image", "inspect", "--platform", platform, "-f", format, &name])
        };
        assert_eq!(inspect("linux/arm64").ok(), format!("arm64 [{name}] {first}"));
        assert!(inspect("linux/amd64").ok().starts_with(&format!("amd64 [{name}]")));
        inspect("linux/s390x").fails(1, "does not provide the specified platform (linux/s390x)");
        let history = |arguments: &[&str]| {
            daemon.with(client, &[&["history", "--format", "{{.CreatedBy}}"], arguments, &[&name]].concat()).ok()
        };
        assert_eq!(history(&arm), "for arm64\nbase");
        assert_eq!(history(&[]), "for amd64\nbase");
        // A container tells of its platform's manifest.
        daemon.with(client, &["create", "--name", "one", "--platform", "linux/arm64", "--network", "none", &name]).ok();
        let (_, container) = api::ask(daemon, "/v1.48/containers/one/json", None);
        assert_eq!(container["ImageManifestDescriptor"]["digest"], image.manifest("arm64"));
        assert_eq!(container["ImageManifestDescriptor"]["platform"]["architecture"], "arm64");
        daemon.with(client, &["create", "--pull", "never", "--platform", "linux/s390x", &name])
            .fails(1, "does not provide the specified platform");
    }

    fn platforms_are_removed_one_by_one(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = multi(&["amd64", "arm64", "s390x"]);
        image.publish(daemon, "less:1");
        let name = format!("{ADDRESS}/less:1");
        for platform in ["linux/amd64", "linux/arm64", "linux/s390x"] {
            daemon.with(client, &["pull", "-q", "--platform", platform, &name]).ok();
        }
        let remove = |arguments: &[&str]| daemon.with(client, &[&["rmi"], arguments, &[&name]].concat());
        remove(&["--platform", "linux/arm64"]).fails(1, "Content will be removed from all images referencing this variant");
        let removed = remove(&["-f", "--platform", "linux/arm64"]).ok();
        assert_eq!(removed, format!("Deleted: {}", image.manifest("arm64")));
        remove(&["-f", "--platform", "linux/arm64"]);
        daemon.with(client, &["run", "--rm", "--pull", "never", "--platform", "linux/arm64", &name])
            .fails(125, "does not provide the specified platform");
        // One that runs stays; of this machine's the name goes on with another.
        daemon.with(client, &["run", "-d", "--name", "busy", "--network", "none", &name, "sleep", "1000"]).ok();
        remove(&["-f", "--platform", "linux/amd64"]).fails(1, "image is being used by running container");
        daemon.with(client, &["rm", "-f", "busy"]).ok();
        remove(&["-f", "--platform", "linux/amd64"]).ok();
        assert_eq!(says(daemon, client, &[], &name), "s390x");
        // With the last one the names go.
        let removed = remove(&["-f", "--platform", "linux/s390x"]).ok();
        for line in [format!("Untagged: {name}"), format!("Deleted: {}", image.manifest("s390x"))] {
            assert!(removed.lines().any(|found| found == line), "{line} in {removed}");
        }
        assert_eq!(daemon.with(client, &["images", "-aq"]).ok().lines().count(), 1);
        // And a name goes with all its platforms, but not while one of them is used.
        for platform in ["linux/amd64", "linux/arm64"] {
            daemon.with(client, &["pull", "-q", "--platform", platform, &name]).ok();
        }
        let other = "other:1";
        daemon.with(client, &["tag", &name, other]).ok();
        assert_eq!(says(daemon, client, &["--platform", "linux/arm64"], other), "arm64", "a tag passes all on");
        assert_eq!(remove(&[]).ok().lines().filter(|line| line.starts_with("Deleted")).count(), 0);
        daemon.with(client, &["create", "--name", "one", "--network", "none", "--platform", "linux/arm64", other]).ok();
        daemon.with(client, &["rmi", other]).fails(1, "is using its referenced image");
        daemon.with(client, &["rm", "one"]).ok();
        let removed = daemon.with(client, &["rmi", other]).ok();
        // Two images, and the two layers that only one of them has each.
        assert_eq!(removed.lines().filter(|line| line.starts_with("Deleted")).count(), 4, "{removed}");
        assert_eq!(daemon.with(client, &["images", "-aq"]).ok().lines().count(), 1);
    }

    fn prune_takes_platforms_with_their_image_only(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        multi(&["amd64", "arm64"]).publish(daemon, "p:1");
        let name = format!("{ADDRESS}/p:1");
        for platform in ["linux/amd64", "linux/arm64"] {
            daemon.with(client, &["pull", "-q", "--platform", platform, &name]).ok();
        }
        daemon.with(client, &["image", "prune", "-f"]).ok();
        assert_eq!(says(daemon, client, &["--platform", "linux/arm64"], &name), "arm64");
        daemon.with(client, &["create", "--name", "one", "--network", "none", "--platform", "linux/arm64", &name]).ok();
        daemon.with(client, &["image", "prune", "-af"]).ok();
        assert_eq!(says(daemon, client, &[], &name), "amd64", "another platform is used");
        daemon.with(client, &["rm", "one"]).ok();
        daemon.with(client, &["image", "prune", "-af"]).ok();
        assert_eq!(daemon.with(client, &["images", "-aq"]).ok(), "");
    }

    fn a_layout_is_loaded_and_saved_with_all_platforms(daemon: &Daemon, client: Client) {
        let image = multi(&["arm64", "amd64", "s390x"]);
        let name = "layout.example/three:1";
        let archive = files::write(daemon.root.path(), "three.tar", &image.layout(name, &["arm64", "amd64"]));
        let said = daemon.with(client, &["load", "-i", &archive]).ok();
        assert_eq!(said.lines().filter(|line| *line == format!("Loaded image: {name}")).count(), 1, "{said}");
        assert_eq!(says(daemon, client, &[], name), "amd64");
        assert_eq!(says(daemon, client, &["--platform", "linux/arm64"], name), "arm64");
        // A loaded layer is kept unpacked only: the archive has an index of its own.
        let saved = daemon.root.path().join("saved.tar");
        let save = |arguments: &[&str]| {
            let first = ["save", "-o", saved.to_str().unwrap()];
            daemon.with(client, &[&first, arguments, &[name]].concat())
        };
        save(&[]).ok();
        let top: Value = serde_json::from_slice(&file_of(&saved, "index.json").unwrap()).unwrap();
        assert_eq!(top["manifests"][0]["mediaType"], INDEX);
        let manifest: Value = serde_json::from_slice(&file_of(&saved, "manifest.json").unwrap()).unwrap();
        assert_eq!(manifest.as_array().unwrap().len(), 1);
        assert_eq!(manifest[0]["RepoTags"][0], name);
        let id = daemon.inspect(name, "{{.Id}}");
        assert!(manifest[0]["Config"].as_str().unwrap().ends_with(&id[7..]), "this machine's comes first");
        // The other way round.
        daemon.with(client, &["rmi", name]).ok();
        daemon.with(client, &["load", "-q", "-i", saved.to_str().unwrap()]).ok();
        assert_eq!(daemon.inspect(name, "{{.Id}}"), id);
        assert_eq!(says(daemon, client, &["--platform", "linux/arm64"], name), "arm64");
        // One platform is an image of its own.
        save(&["--platform", "linux/s390x"]).fails(1, "no suitable export target found for platform linux/s390x");
        save(&["--platform", "linux/arm64"]).ok();
        daemon.with(client, &["rmi", name]).ok();
        daemon.with(client, &["load", "-q", "-i", saved.to_str().unwrap()]).ok();
        assert_eq!(says(daemon, client, &[], name), "arm64");
        daemon.with(client, &["rmi", name]).ok();
        // And of an archive one can be taken.
        let load = |platform| daemon.with(client, &["load", "-q", "--platform", platform, "-i", &archive]);
        load("linux/s390x").fails(1, "requested platform(s) ([linux/s390x]) not found");
        load("linux/arm64").ok();
        assert_eq!(says(daemon, client, &[], name), "arm64");
        daemon.with(client, &["run", "--rm", "--pull", "never", "--platform", "linux/amd64", name])
            .fails(125, "does not provide the specified platform");
    }

    fn an_index_is_pushed_whole_where_that_is_possible(daemon: &Daemon, client: Client) {
        let _first = Registry::start(daemon.root.path());
        let _second = Registry::start_at(daemon.root.path(), SECOND, "");
        let image = multi(&["amd64", "arm64"]);
        let index = digest(&image.index);
        image.publish(daemon, "a/whole:1");
        let (name, target) = (format!("{ADDRESS}/a/whole:1"), format!("{SECOND}/b/whole:2"));
        daemon.with(client, &["pull", "-q", &name]).ok();
        daemon.with(client, &["tag", &name, &target]).ok();
        // Half of it is not here, and not there.
        let output = daemon.with(client, &["push", &target]);
        // Some clients tell it aside, and break its lines.
        let notes = output.stderr.clone();
        let said = format!("{} {notes}", output.ok()).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(&format!("2: digest: {}", image.manifest("amd64"))), "{said}");
        assert!(said.contains("only the available single-platform image was pushed"), "{said}");
        assert!(said.contains(&index) && said.contains(&image.manifest("amd64")), "{said}");
        assert_eq!(pushed(&target), image.manifest("amd64"));
        // Where it came from has all of it.
        let back = format!("{ADDRESS}/a/whole:back");
        daemon.with(client, &["tag", &name, &back]).ok();
        let said = daemon.with(client, &["push", &back]).ok();
        assert!(said.contains(&format!("back: digest: {index} size: {}", image.index.len())), "{said}");
        assert!(!said.contains("single-platform"), "{said}");
        assert_eq!(pushed(&back), index);
        // With the other half it goes as it came.
        daemon.with(client, &["pull", "-q", "--platform", "linux/arm64", &name]).ok();
        let said = daemon.with(client, &["push", &target]).ok();
        assert!(said.contains(&format!("2: digest: {index} size: {}", image.index.len())), "{said}");
        assert_eq!(pushed(&target), index);
        assert!(daemon.inspect(&target, "{{.RepoDigests}}").contains(&format!("{SECOND}/b/whole@{index}")));
        // One platform on request.
        let one = format!("{SECOND}/b/one:3");
        daemon.with(client, &["tag", &name, &one]).ok();
        daemon.with(client, &["push", "-q", "--platform", "linux/arm64", &one]).ok();
        assert_eq!(pushed(&one), image.manifest("arm64"));
        daemon.with(client, &["push", "-q", "--platform", "linux/s390x", &one])
            .fails(1, "does not provide the specified platform");
        // All of it comes back.
        daemon.with(client, &["rmi", "-f", &name, &target, &back, &one]).ok();
        daemon.with(client, &["pull", "-q", "--platform", "linux/arm64", &target]).ok();
        assert_eq!(says(daemon, client, &[], &target), "arm64");
    }

    fn images_are_shown_with_their_platforms(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = multi(&["amd64", "arm64", "s390x"]);
        image.publish(daemon, "tree:1");
        let name = format!("{ADDRESS}/tree:1");
        for platform in ["linux/amd64", "linux/arm64"] {
            daemon.with(client, &["pull", "-q", "--platform", platform, &name]).ok();
        }
        daemon.with(client, &["run", "-d", "--name", "used", "--network", "none", "--platform", "linux/arm64", &name, "sleep", "1000"]).ok();
        let tree = daemon.with(client, &["images", "--tree", &name]).ok();
        let lines: Vec<&str> = tree.lines().filter(|line| line.contains("linux/")).collect();
        for (line, (branch, architecture)) in lines.iter().zip([("├─", "amd64"), ("├─", "arm64"), ("└─", "s390x")]) {
            assert!(line.starts_with(&format!("{branch} linux/{architecture} ")), "{tree}");
            assert!(line.contains(&image.manifest(architecture)[7..19]), "{tree}");
        }
        assert_eq!(lines.len(), 3, "{tree}");
        daemon.with(client, &["images", "--tree", "-q"]).fails(1, "--quiet is not yet supported with --tree");
        // What the tree is made of.
        let (_, listed) = api::ask(daemon, "/v1.51/images/json?manifests=1", None);
        let found = listed.as_array().unwrap().iter().find(|image| image["RepoTags"][0] == name.as_str()).unwrap();
        assert_eq!(found["Containers"], 0, "of its main platform");
        assert_eq!(found["Descriptor"]["digest"], digest(&image.index));
        let manifests = found["Manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 3);
        let [amd, arm, other] = &manifests[..] else { unreachable!() };
        assert_eq!((&amd["Kind"], &amd["Available"]), (&json!("image"), &json!(true)));
        assert_eq!(other["Available"], false);
        assert_eq!(other["Size"], json!({"Content": 0, "Total": 0}));
        assert_eq!(arm["ID"], image.manifest("arm64"));
        assert_eq!(arm["ImageData"]["Platform"]["architecture"], "arm64");
        let used = daemon.inspect("used", "{{.Id}}");
        assert_eq!(arm["ImageData"]["Containers"], json!([used]));
        let number = |value: &Value| value.as_i64().unwrap();
        let unpacked = number(&arm["ImageData"]["Size"]["Unpacked"]);
        assert!(number(&arm["Size"]["Content"]) > 0 && unpacked > 0);
        assert_eq!(number(&arm["Size"]["Total"]), number(&arm["Size"]["Content"]) + unpacked);
        // Older versions, and those who do not ask, see none of it.
        let (_, listed) = api::ask(daemon, "/v1.46/images/json?manifests=1", None);
        assert!(listed[0].get("Manifests").is_none() && listed[0].get("Descriptor").is_none());
        let (_, inspected) = api::ask(daemon, &format!("/v1.48/images/{name}/json?manifests=1"), None);
        assert_eq!(inspected["Manifests"].as_array().map(Vec::len), Some(3));
        let platform = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
        let both = format!("/v1.49/images/{name}/json?manifests=1&platform={platform}");
        assert_eq!(api::refused(daemon, "GET", &both).0, 400);
        daemon.with(client, &["rm", "-f", "used"]).ok();
    }
}

#[test]
fn several_platforms_are_saved_and_loaded_at_once() {
    // Without the image that other tests begin with, whose layer would not be in the cache.
    let daemon = Daemon::empty(&[]);
    let _registry = Registry::start(daemon.root.path());
    let image = multi(&["amd64", "arm64", "s390x"]);
    image.publish(&daemon, "some:1");
    let name = format!("{ADDRESS}/some:1");
    for platform in ["linux/amd64", "linux/arm64", "linux/s390x"] {
        daemon.berth(&["pull", "-q", "--platform", platform, &name]).ok();
    }
    let saved = daemon.root.path().join("saved.tar");
    let path = saved.to_str().unwrap();
    daemon.berth(&["save", "-o", path, "--platform", "linux/amd64,linux/s390x", &name]).ok();
    // The index is the one that came; of the platform that was left out there is nothing.
    let top: Value = serde_json::from_slice(&file_of(&saved, "index.json").unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["digest"], digest(&image.index));
    let place = |digest: &str| format!("blobs/sha256/{}", &digest[7..]);
    assert_eq!(file_of(&saved, &place(&digest(&image.index))).unwrap(), image.index);
    assert!(file_of(&saved, &place(&image.manifest("s390x"))).is_some());
    assert!(file_of(&saved, &place(&image.manifest("arm64"))).is_none());
    daemon.berth(&["rmi", &name]).ok();
    daemon.berth(&["load", "-q", "-i", path, "--platform", "linux/amd64", "--platform", "linux/s390x"]).ok();
    assert_eq!(says(&daemon, Client::Berth, &["--platform", "linux/s390x"], &name), "s390x");
    assert_eq!(says(&daemon, Client::Berth, &[], &name), "amd64");
    // Before 1.52 there is one at most.
    let one = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
    let (code, message) = api::refused(
        &daemon,
        "GET",
        &format!("/v1.51/images/get?names={name}&platform={one}&platform={one}"),
    );
    assert_eq!(code, 400, "{message}");
}

#[test]
fn a_killed_daemon_still_has_all_platforms() {
    let mut daemon = Daemon::start();
    let _registry = Registry::start(daemon.root.path());
    multi(&["amd64", "arm64"]).publish(&daemon, "kept:1");
    let name = format!("{ADDRESS}/kept:1");
    for platform in ["linux/amd64", "linux/arm64"] {
        daemon.berth(&["pull", "-q", "--platform", platform, &name]).ok();
    }
    daemon.kill();
    daemon.launch();
    assert_eq!(says(&daemon, Client::Berth, &["--platform", "linux/arm64"], &name), "arm64");
    assert_eq!(says(&daemon, Client::Berth, &[], &name), "amd64");
}
