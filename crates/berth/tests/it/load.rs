//! `load`: layers are unpacked while the archive is read, before anything says whose they are.

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer, digest, gzip};

/// Two images, of which one has a layer twice and the other has the same on another base; the documents come last.
fn shared() -> (Vec<u8>, Image, Image) {
    let base = files::busybox().layers.remove(0);
    let twice = Layer::new()
        .file("data/shared", 0o640, vec![7; 300_000])
        .hardlink("data/link", "data/shared")
        .bytes();
    let over = Layer::new().file("data/shared", 0o600, "over").bytes();
    let of = |layers: &[&Vec<u8>]| Image {
        layers: layers.iter().map(|&l| l.clone()).collect(),
        config: json!({}),
    };
    let one = of(&[&base, &twice, &over, &twice]);
    let two = of(&[&base, &over, &twice]);
    let mut archive = Layer::new().file("base.tar", 0o644, &base);
    archive = archive.file("twice.tar", 0o644, gzip(&twice)).file("over.tar", 0o644, &over);
    // A file that begins as a layer does, and is none; nothing asks for it.
    archive = archive.file("odd.tar", 0o644, &base[..1000]);
    let entry = |name: &str, image: &Image, layers: Value| json!({"Config": format!("{name}.json"), "RepoTags": [format!("{name}:v1")], "Layers": layers, "Id": digest(&image.config_bytes())});
    let manifest = json!([
        entry("one", &one, json!(["base.tar", "twice.tar", "over.tar", "twice.tar"])),
        entry("two", &two, json!(["base.tar", "over.tar", "twice.tar"])),
    ]);
    archive = archive.file("one.json", 0o644, one.config_bytes()).file("two.json", 0o644, two.config_bytes());
    (archive.file("manifest.json", 0o644, manifest.to_string()).bytes(), one, two)
}

with_both_clients! {
    fn a_layer_that_several_images_have_is_whole_in_each(daemon: &Daemon, client: Client) {
        let (archive, one, two) = shared();
        let path = files::write(daemon.root.path(), "shared.tar", &archive);
        let text = daemon.with(client, &["load", "-i", &path]).ok();
        assert!(text.contains("Loaded image: one:v1") && text.contains("Loaded image: two:v1"), "{text}");
        for (name, image) in [("one:v1", &one), ("two:v1", &two)] {
            let listing = daemon.berth(&["run", "--rm", name, "sh", "-c", "stat -c '%a %h %s' data/*"]).ok();
            assert_eq!(listing, "640 2 300000\n640 2 300000", "{name}");
            let saved = daemon.root.path().join("saved.tar");
            daemon.with(client, &["save", "-o", saved.to_str().unwrap(), name]).ok();
            let mut archive = tar::Archive::new(std::fs::File::open(&saved).unwrap());
            let names: Vec<String> =
                archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
            for layer in &image.layers {
                assert!(names.contains(&format!("blobs/sha256/{}", &digest(layer)[7..])), "{names:?}");
            }
        }
    }

    fn artifacts_beside_images_are_passed_over(daemon: &Daemon, client: Client) {
        let image = Image::new(vec![Layer::new().file("a", 0o644, "content")]);
        let chart = b"a chart".to_vec();
        let config = b"{}".to_vec();
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let artifact = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.cncf.helm.config.v1+json", &config),
            "layers": [describe("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart)],
        });
        let artifact = artifact.to_string().into_bytes();
        let of_artifact = describe("application/vnd.oci.image.manifest.v1+json", &artifact);
        let blobs = image.oci_blobs();
        let mut of_image = describe("application/vnd.oci.image.manifest.v1+json", blobs.last().unwrap());
        of_image["annotations"] = json!({"io.containerd.image.name": "beside:v1"});
        let mut inner = of_image.clone();
        inner.as_object_mut().unwrap().remove("annotations");
        let nested = json!({"schemaVersion": 2, "manifests": [of_artifact, inner]}).to_string().into_bytes();
        let mut of_nested = describe("application/vnd.oci.image.index.v1+json", &nested);
        of_nested["annotations"] = json!({"io.containerd.image.name": "nested:v1"});
        let layout = |entries: Value| {
            let mut archive = Layer::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#);
            for blob in blobs.iter().chain([&chart, &config, &artifact, &nested]) {
                archive = archive.file(&format!("blobs/sha256/{}", &digest(blob)[7..]), 0o644, blob);
            }
            let index = json!({"schemaVersion": 2, "manifests": entries});
            files::write(daemon.root.path(), "mixed.tar", &archive.file("index.json", 0o644, index.to_string()).bytes())
        };
        let mixed = layout(json!([of_artifact, of_image, of_nested]));
        let told = daemon.with(client, &["load", "-i", &mixed]).ok();
        assert!(told.contains("Loaded image: beside:v1") && told.contains("Loaded image: nested:v1"), "{told}");
        assert_eq!(daemon.inspect("beside:v1", "{{.Id}}"), digest(&image.config_bytes()));
        let none = layout(json!([of_artifact]));
        daemon.with(client, &["load", "-i", &none]).fails(1, "the archive holds no image, but other artifacts");
    }

    fn names_of_an_archive_are_bounded(daemon: &Daemon, client: Client) {
        let mut archive = Layer::new();
        for number in 0..3000 {
            archive = archive.file(&format!("{number}/{}", "x".repeat(3000)), 0o644, "");
        }
        let path = files::write(daemon.root.path(), "names.tar", &archive.bytes());
        daemon.with(client, &["load", "-i", &path]).fails(1, "the length of all names");
    }

    fn an_image_that_loses_its_name_is_told_of(daemon: &Daemon, client: Client) {
        let image = |content: &str| Image::new(vec![Layer::new().file("a", 0o644, content)]);
        let load = |image: &Image| {
            let path = files::write(daemon.root.path(), "named.tar", &image.docker_archive("named:v1"));
            daemon.with(client, &["load", "-i", &path]).ok()
        };
        let (first, second) = (image("first"), image("second"));
        let id = digest(&first.config_bytes());
        assert_eq!(load(&first).lines().last(), Some("Loaded image: named:v1"));
        assert!(!load(&first).contains("already exists"), "it keeps its name");
        let text = load(&second);
        let told = format!("The image named:v1 already exists, renaming the old one with ID {id} to empty string\n");
        assert!(text.contains(&told), "{text}");
        let shown = daemon.with(client, &["inspect", "-f", "{{.RepoTags}}", &id]).ok();
        assert_eq!(shown, "[]");
    }

    fn what_is_damaged_on_the_way_leaves_nothing(daemon: &Daemon, client: Client) {
        let image = Image::new(vec![Layer::new().file("a", 0o644, vec![1; 50_000])]);
        let layers = || std::fs::read_dir(daemon.data_root().join("layers")).unwrap().count();
        let before = layers();
        let whole = image.docker_archive("damaged:v1");
        let flipped = {
            let mut flipped = whole.clone();
            let at = flipped.windows(100).position(|part| part == [1; 100]).unwrap();
            flipped[at] = 2;
            flipped
        };
        let oci = {
            let mut blobs = image.oci_archive("damaged:v1");
            let at = blobs.windows(4).position(|part| part == [0x1f, 0x8b, 8, 0]).unwrap();
            blobs[at + 60] ^= 1;
            blobs
        };
        let other = image.docker_archive_of("damaged:v1", &[Layer::new().file("b", 0o644, "b").bytes()]);
        for (name, archive, said) in [
            ("flipped", &flipped, "unpacks to"),
            ("oci", &oci, "has digest"),
            ("other", &other, "unpacks to"),
            ("cut", &whole[..20_000].to_vec(), "the data of"),
        ] {
            let path = files::write(daemon.root.path(), "damaged.tar", archive);
            let output = daemon.with(client, &["load", "-i", &path]);
            assert!(output.stderr.contains(said), "{name}: {output:?}");
            output.fails(1, said);
            daemon.berth(&["image", "inspect", "damaged:v1"]).fails(1, "no such image");
        }
        crate::output::eventually("what was unpacked is gone", || {
            let staged = |folder: &str| std::fs::read_dir(daemon.data_root().join(folder)).unwrap().count();
            // The folders of partial downloads and of what is being removed stay.
            (layers() == before && staged("staging") == 2 && staged("staging/trash") == 0).then_some(())
        });
    }
}
