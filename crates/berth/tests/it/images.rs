//! Images: archives, registries, names, removal, and what arrives on disk.

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::registry::{ADDRESS, Registry};

/// What the layered image must look like from inside.
const LAYERED: &str = "\
ls /data | tr '\\n' ' '; echo; cat replaced one two three opaque/*; \
stat -c '%a' replaced one setuid sticky | tr '\\n' ' '; echo; \
test \"$(stat -c %i one)\" = \"$(stat -c %i two)\" && echo linked";
const LAYERED_TEXT: &str = "\
attribute one opaque replaced setuid sticky three two \nnew\nlinked\nlinked\nlinked\nvisible\n600 640 4755 2755 \nlinked";

with_both_clients! {
    fn a_docker_archive_loads_and_runs(daemon: &Daemon, client: Client) {
        let archive = files::write(daemon.root.path(), "a.tar", &files::layered().docker_archive("layered:v1"));
        let text = daemon.with(client, &["load", "-i", &archive]).ok();
        assert!(text.contains("Loaded image: layered:v1"), "{text}");
        assert_eq!(daemon.with(client, &["run", "--rm", "layered:v1", "sh", "-c", LAYERED]).ok(), LAYERED_TEXT);
    }

    fn an_oci_archive_loads_compressed_or_not(daemon: &Daemon, client: Client) {
        let archive = files::layered().oci_archive("layered:oci");
        let plain = files::write(daemon.root.path(), "a.tar", &archive);
        let packed = files::write(daemon.root.path(), "a.tar.gz", &files::gzip(&archive));
        for path in [plain, packed] {
            let text = daemon.with(client, &["load", "-i", &path]).ok();
            assert!(text.contains("layered:oci"), "{text}");
            assert_eq!(daemon.with(client, &["run", "--rm", "layered:oci", "sh", "-c", LAYERED]).ok(), LAYERED_TEXT);
            daemon.with(client, &["rmi", "layered:oci"]).ok();
        }
    }

    fn a_registry_serves_it_and_the_second_pull_is_up_to_date(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        let archive = files::write(daemon.root.path(), "a.tar", &files::layered().docker_archive("layered:v1"));
        registry.push("docker-archive", &archive, "team/layered:v1");
        let name = format!("{ADDRESS}/team/layered:v1");
        let text = daemon.with(client, &["pull", &name]).ok();
        assert!(text.contains(&format!("Status: Downloaded newer image for {name}")), "{text}");
        assert_eq!(daemon.with(client, &["run", "--rm", &name, "sh", "-c", LAYERED]).ok(), LAYERED_TEXT);
        let text = daemon.with(client, &["pull", &name]).ok();
        assert!(text.contains(&format!("Status: Image is up to date for {name}")), "{text}");
    }

    fn all_tags_of_a_repository_come_at_once(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        let name = format!("{ADDRESS}/team/many");
        let tags: Vec<String> = (0..7).map(|number| format!("v{number}")).collect();
        for (number, tag) in tags.iter().enumerate() {
            let image = Image::new(vec![Layer::new().file("number", 0o644, number.to_string())]);
            let archive = files::write(daemon.root.path(), "many.tar", &image.docker_archive("many:v1"));
            registry.push("docker-archive", &archive, &format!("team/many:{tag}"));
        }
        let text = daemon.with(client, &["pull", "-a", &name]).ok();
        for tag in &tags {
            assert!(text.contains(&format!("{tag}: Pulling from team/many")), "{text}");
        }
        assert!(text.contains(&format!("Status: Downloaded newer image for {name}\n")), "{text}");
        assert!(text.ends_with(&name), "{text}");
        let listed = || {
            let text = daemon.with(client, &["images", "--format", "{{.Tag}}", &name]).ok();
            let mut listed: Vec<String> = text.lines().map(str::to_owned).collect();
            listed.sort();
            listed
        };
        assert_eq!(listed(), tags);
        daemon.with(client, &["rmi", &format!("{name}:v3")]).ok();
        assert_eq!(daemon.with(client, &["pull", "-q", "--all-tags", &name]).ok(), name);
        assert_eq!(listed(), tags);
        let text = daemon.with(client, &["pull", "-a", &name]).ok();
        assert!(text.contains(&format!("Status: Image is up to date for {name}\n")), "{text}");
        daemon.with(client, &["pull", "-a", &format!("{name}:v1")]).fails(1, "tag can't be used with --all-tags/-a");
        daemon.with(client, &["pull", "-a", &format!("{ADDRESS}/team/none")]).fails(1, "not found");
    }

    fn run_pulls_what_is_missing(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        registry.push("docker-archive", files::busybox_archive().to_str().unwrap(), "bb");
        let name = format!("{ADDRESS}/bb:latest");
        let output = daemon.with(client, &["run", "--rm", &name, "echo", "here"]);
        assert_eq!((output.code, output.stdout.as_str()), (0, "here\n"), "{output:?}");
        assert!(output.stderr.contains(&format!("Unable to find image '{name}' locally")), "{output:?}");
    }

    fn listing_and_removal(daemon: &Daemon, client: Client) {
        let listing = daemon.with(client, &["images"]).ok();
        assert!(listing.contains("busybox") && listing.contains("latest"), "{listing}");
        let id = daemon.with(client, &["images", "-q", "--no-trunc"]).ok();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        daemon.with(client, &["tag", "busybox", "other:name"]).ok();
        daemon.with(client, &["rmi", &id]).fails(1, "image is referenced in multiple repositories");
        assert_eq!(daemon.with(client, &["rmi", "other:name"]).ok(), "Untagged: other:name");
        daemon.with(client, &["create", "--name", "cc", "busybox"]).ok();
        daemon.with(client, &["rmi", "busybox"]).fails(1, "is using its referenced image");
        daemon.with(client, &["rm", "cc"]).ok();
        let text = daemon.with(client, &["rmi", "busybox"]).ok();
        assert!(text.contains("Untagged: busybox:latest") && text.contains(&format!("Deleted: {id}")), "{text}");
        assert_eq!(daemon.with(client, &["images", "-aq"]).ok(), "");
    }

    fn force_removes_what_has_several_names(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["images", "-q", "--no-trunc"]).ok();
        daemon.with(client, &["tag", "busybox", "other:name"]).ok();
        daemon.with(client, &["rmi", "-f", &id]).ok();
        assert_eq!(daemon.with(client, &["images", "-aq"]).ok(), "");
        daemon.with(client, &["rmi", "-f", "absent"]);
        daemon.with(client, &["rmi", "absent"]).fails(1, "No such image: absent");
    }
}

#[test]
fn extended_attributes_and_owners_arrive_on_disk() {
    let daemon = Daemon::start();
    let archive = files::write(daemon.root.path(), "a.tar", &files::layered().docker_archive("layered:v1"));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
    let value = find(&daemon.data_root().join("layers"), "attribute").map(|path| {
        let mut value = [0u8; 16];
        let length = rustix::fs::getxattr(&path, "user.berth", &mut value).unwrap();
        value[..length].to_vec()
    });
    assert_eq!(value.as_deref(), Some(b"value".as_slice()));
}

fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        if entry.file_name() == name {
            return Some(entry.path());
        }
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(found) = find(&entry.path(), name)
        {
            return Some(found);
        }
    }
    None
}

#[test]
fn removed_layers_leave_the_disk() {
    let daemon = Daemon::start();
    daemon.berth(&["rmi", "busybox"]).ok();
    crate::output::eventually("the layers are gone", || {
        let layers = std::fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
        // What lies below an image without layers stays.
        let left = layers.filter(|layer| layer.file_name() != "empty").count();
        (left == 0).then_some(())
    });
}

#[test]
fn layers_are_shared_between_images() {
    let daemon = Daemon::start();
    let count = || std::fs::read_dir(daemon.data_root().join("layers")).unwrap().count();
    let before = count();
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("extra", 0o644, "x").bytes());
    let image = Image { layers, config: files::busybox().config };
    let archive = files::write(daemon.root.path(), "b.tar", &image.docker_archive("bigger:latest"));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
    assert_eq!(count(), before + 1);
    daemon.berth(&["rmi", "bigger"]).ok();
    daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn until_leaves_out_what_was_made_at_that_very_moment() {
    let daemon = Daemon::start();
    daemon.berth(&["create", "--name", "made", "busybox", "true"]).ok();
    for tag in ["one", "two"] {
        daemon.berth(&["commit", "made", &format!("stamped:{tag}")]).ok();
    }
    let created = daemon.berth(&["image", "inspect", "-f", "{{.Created}}", "stamped:two"]).ok();
    let filter = format!("until={created}");
    let found = daemon.berth(&["images", "-f", &filter, "--format", "{{.Tag}}", "stamped"]).ok();
    assert_eq!(found, "one", "{created}");
}
