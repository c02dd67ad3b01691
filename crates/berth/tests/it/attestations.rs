//! Images that come with attestations, as `docker buildx build` makes them.

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::files::digest;
use crate::platforms::{attested, pushed};
use crate::registry::{ADDRESS, Registry};

const SECOND: &str = "127.0.0.1:5001";

with_both_clients! {
    fn an_attestation_is_no_platform(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = attested(&["amd64"]);
        image.publish(daemon, "noted:1");
        let name = format!("{ADDRESS}/noted:1");
        let told = daemon.with(client, &["pull", &name]).ok();
        assert!(told.contains(&format!("Digest: {}", digest(&image.index))), "{told}");
        let said = daemon.with(client, &["run", "--rm", "--network", "none", "--pull", "never", &name]).ok();
        assert_eq!(said, "amd64");
        assert_eq!(daemon.inspect(&name, "{{.Os}}/{{.Architecture}}"), "linux/amd64");
        let tree = daemon.with(client, &["images", "--tree", &name]).ok();
        assert!(tree.contains("linux/amd64") && !tree.contains("unknown"), "{tree}");
        daemon.with(client, &["pull", "--platform", "unknown/unknown", &name]).fails(1, "");
        // Programs are told that there is one, and of which image.
        let (_, shown) = api::ask(daemon, &format!("/v1.48/images/{name}/json?manifests=1"), None);
        let manifests = shown["Manifests"].as_array().unwrap();
        let kinds: Vec<_> = manifests.iter().map(|manifest| manifest["Kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["image", "attestation"]);
        assert_eq!(manifests[1]["AttestationData"]["For"], image.manifest("amd64"));
    }

    fn attestations_go_with_what_they_are_about(daemon: &Daemon, client: Client) {
        let _first = Registry::start(daemon.root.path());
        let _second = Registry::start_at(daemon.root.path(), SECOND, "");
        let image = attested(&["amd64", "arm64"]);
        let index = digest(&image.index);
        image.publish(daemon, "noted:1");
        let name = format!("{ADDRESS}/noted:1");
        daemon.with(client, &["pull", "-q", &name]).ok();
        // Its own repository has all of it; another has not the other platform.
        let (back, other) = (format!("{ADDRESS}/noted:2"), format!("{SECOND}/a/b:1"));
        for target in [&back, &other] {
            daemon.with(client, &["tag", &name, target]).ok();
            daemon.with(client, &["push", "-q", target]).ok();
        }
        assert_eq!(pushed(&back), index);
        assert_eq!(pushed(&other), image.manifest("amd64"));
        // With both platforms it goes as it came, also to where nothing of it was.
        daemon.with(client, &["pull", "-q", "--platform", "linux/arm64", &name]).ok();
        let third = format!("{SECOND}/c/d:1");
        daemon.with(client, &["tag", &name, &third]).ok();
        let said = daemon.with(client, &["push", &third]).ok();
        assert!(said.contains(&format!("1: digest: {index} size: {}", image.index.len())), "{said}");
        assert_eq!(pushed(&third), index);
        // And comes back as that.
        daemon.with(client, &["rmi", "-f", &name, &back, &other, &third]).ok();
        let told = daemon.with(client, &["pull", &third]).ok();
        assert!(told.contains(&format!("Digest: {index}")), "{told}");
    }
}
