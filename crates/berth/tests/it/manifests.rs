//! `manifest`: lists of images made by either client, which both read, and what registries get of them.

use std::process::Command;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::run;
use crate::platforms::{Multi, multi, pushed};
use crate::registry::{ADDRESS, Registry};

/// Puts one platform of an image into the registry as an image of its own.
fn publish(daemon: &Daemon, image: &Multi, architecture: &str, name: &str) {
    let archive = files::write(daemon.root.path(), "one.tar", &image.layout(name, &[architecture]));
    let mut command = Command::new("skopeo");
    command.args([
        "copy",
        "--quiet",
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--override-arch",
        architecture,
    ]);
    run(command.arg(format!("oci-archive:{archive}")).arg(format!("docker://{ADDRESS}/{name}"))).ok();
    assert_eq!(pushed(&format!("{ADDRESS}/{name}")), image.manifest(architecture));
}

fn other(client: Client) -> Client {
    match client {
        Client::Berth => Client::Docker,
        Client::Docker => Client::Berth,
    }
}

with_both_clients! {
    fn a_list_is_made_annotated_and_pushed(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = multi(&["amd64", "arm64"]);
        publish(daemon, &image, "amd64", "a/amd:1");
        publish(daemon, &image, "arm64", "b/list:arm");
        let (list, amd, arm) =
            (format!("{ADDRESS}/b/list:1"), format!("{ADDRESS}/a/amd:1"), format!("{ADDRESS}/b/list:arm"));
        let manifest = |client, arguments: &[&str]| {
            daemon.with(client, &[&["manifest"], arguments].concat())
        };
        let own = |arguments: &[&str]| manifest(client, arguments);
        own(&["push", "--insecure", &list]).fails(1, &format!("No such manifest: {list}"));
        let said = own(&["create", "--insecure", &list, &amd]).ok();
        assert_eq!(said, format!("Created manifest list {list}"));
        own(&["create", "--insecure", &list, &arm]).fails(1, "refusing to amend an existing manifest list with no --amend flag");
        own(&["create", "--insecure", "--amend", &list, &arm]).ok();
        own(&["annotate", &list, &arm, "--variant", "v8", "--os-features", "one,two"]).ok();
        own(&["annotate", &list, &arm, "--os", "beos"]).fails(1, "unsupported os/arch combination: beos/");
        own(&["annotate", &list, &format!("{ADDRESS}/none:1"), "--arch", "arm"]).fails(1, "does not exist in");
        // Both clients read what one of them wrote, and show the same.
        for arguments in [
            &["inspect", &list][..],
            &["inspect", "-v", &list],
            &["inspect", &list, &arm],
            &["inspect", "--verbose", &list, &arm],
        ] {
            assert_eq!(own(arguments).ok(), manifest(other(client), arguments).ok(), "{arguments:?}");
        }
        let shown: Value = serde_json::from_str(&own(&["inspect", &list]).ok()).unwrap();
        assert_eq!(shown["manifests"][1]["platform"]["variant"], "v8");
        let said = own(&["push", "--insecure", &list]).ok();
        let lines: Vec<&str> = said.lines().collect();
        let digest = image.manifest("amd64");
        assert_eq!(lines[0], format!("Pushed ref {ADDRESS}/b/list@{digest} with digest: {digest}"));
        assert_eq!(lines[1..], [pushed(&list)]);
        // The other client makes the same list of it, byte for byte.
        let again = manifest(other(client), &["push", "--insecure", &list]).ok();
        assert_eq!(again.lines().last(), lines.last().copied());
        own(&["push", "--purge", "--insecure", &list]).ok();
        own(&["rm", &list]).fails(1, &format!("No such manifest: {list}"));
        // Now the registry's is shown, alike by both.
        for arguments in [
            &["inspect", "--insecure", &list][..],
            &["inspect", "--insecure", "-v", &list],
            &["inspect", "--insecure", &amd],
            &["inspect", "--insecure", "-v", &amd],
        ] {
            assert_eq!(own(arguments).ok(), manifest(other(client), arguments).ok(), "{arguments:?}");
        }
        own(&["inspect", "--insecure", &format!("{ADDRESS}/none:1")]).fails(1, "no such manifest");
        for (platform, text) in [("linux/amd64", "amd64"), ("linux/arm64/v8", "arm64")] {
            daemon.with(client, &["pull", "-q", "--platform", platform, &list]).ok();
            let said = daemon.with(client, &["run", "--rm", "--network", "none", "--platform", platform, &list]).ok();
            assert_eq!(said, text);
        }
    }

    fn what_cannot_be_in_one_list_is_refused(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = multi(&["amd64", "arm64"]);
        image.publish(daemon, "whole:1");
        publish(daemon, &image, "amd64", "a/amd:1");
        let manifest = |arguments: &[&str]| daemon.with(client, &[&["manifest"], arguments].concat());
        let (amd, whole) = (format!("{ADDRESS}/a/amd:1"), format!("{ADDRESS}/whole:1"));
        manifest(&["create", "--insecure", "r.example/l:1", &whole]).fails(1, "is a manifest list");
        manifest(&["create", "r.example/l:1"]).fails(1, "requires at least 2 arguments");
        manifest(&["create", "--insecure", "r.example/l:1", &amd]).ok();
        manifest(&["push", "r.example/l:1"])
            .fails(1, &format!("cannot use source images from a different registry than the target image: {ADDRESS} != r.example"));
        manifest(&["rm", "r.example/l:1", "r.example/none:1"]).fails(1, "No such manifest: r.example/none:1");
        manifest(&["annotate", "r.example/l:1", &amd]).fails(1, "does not exist");
    }
}
