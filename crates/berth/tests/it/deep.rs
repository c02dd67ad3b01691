//! Images of many layers, and commits upon commits.

use std::fs;
use std::process::Command;

use crate::daemon::Daemon;
use crate::files::{self, Image, Layer, busybox, digest};
use crate::output::run;

/// An image of so many layers, each with a file of its own and one that all of them have.
fn image(layers: usize) -> Image {
    let mut all = busybox().layers;
    for number in 1..layers {
        let own = format!("deep/{number}");
        let mut layer = Layer::new().dir("deep", 0o755).file(&own, 0o644, "x");
        layer = layer.file("deep/all", 0o644, number.to_string());
        if number > 1 {
            layer = layer.file(&format!("deep/.wh.{}", number - 1), 0o644, "");
        }
        all.push(layer.bytes());
    }
    Image { layers: all, config: busybox().config }
}

fn load(daemon: &Daemon, layers: usize) -> Image {
    let image = image(layers);
    let path = files::write(daemon.root.path(), "deep.tar", &image.docker_archive(&format!("deep:{layers}")));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    image
}

const LOOK: [&str; 3] = ["sh", "-c", "ls /deep | tr '\\n' ' '; cat /deep/all"];

fn looked(layers: usize) -> String {
    format!("{} all {}", layers - 1, layers - 1)
}

fn layers_of(daemon: &Daemon, image: &str) -> String {
    daemon.berth(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", image]).ok()
}

#[test]
fn images_of_many_layers_run_and_are_saved_as_they_came() {
    let daemon = Daemon::empty(&[]);
    for layers in [127, 200, 500] {
        let image = load(&daemon, layers);
        let name = format!("deep:{layers}");
        let seen = daemon.berth(&[&["run", "--rm", &name], &LOOK[..]].concat()).ok();
        assert_eq!(seen, looked(layers));
        let saved = daemon.root.path().join("saved.tar");
        daemon.berth(&["save", "-o", saved.to_str().unwrap(), &name]).ok();
        let names = run(Command::new("tar").arg("-tf").arg(&saved)).ok();
        for layer in &image.layers {
            assert!(names.contains(&digest(layer)[7..]), "a layer of {layers} is missing");
        }
    }
    // One more cannot be mounted, and is refused while the container is still there.
    daemon.berth(&["run", "--name", "top", "deep:500", "sh", "-c", "echo more > /deep/more"]).ok();
    let refused = daemon.berth(&["commit", "top", "deep:501"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("layers"), "{}", refused.stderr);
    assert_ne!(daemon.berth(&["image", "inspect", "deep:501"]).code, 0);
    assert!(daemon.berth(&["diff", "top"]).ok().contains("A /deep/more"));
}

#[test]
fn commit_upon_commit_passes_dockers_bound_of_125_layers() {
    let daemon = Daemon::empty(&[]);
    load(&daemon, 121);
    daemon.berth(&["tag", "deep:121", "grown"]).ok();
    for number in 122..132 {
        // The image's last file is called one less than it has layers.
        let last = if number == 122 { 120 } else { number - 1 };
        let script = format!("echo {number} > /deep/all; touch /deep/{number}; rm /deep/{last}");
        daemon.berth(&["run", "--name", "step", "grown", "sh", "-c", &script]).ok();
        daemon.berth(&["commit", "step", "grown"]).ok();
        daemon.berth(&["rm", "step"]).ok();
        assert_eq!(layers_of(&daemon, "grown"), number.to_string());
    }
    let seen = daemon.berth(&[&["run", "--rm", "grown"], &LOOK[..]].concat()).ok();
    assert_eq!(seen, "131 all 131");
}

#[test]
fn copies_are_made_of_500_layers() {
    let daemon = Daemon::empty(&["--storage-driver", "vfs"]);
    load(&daemon, 500);
    assert_eq!(daemon.berth(&[&["run", "--rm", "deep:500"], &LOOK[..]].concat()).ok(), looked(500));
    assert!(fs::read_dir(daemon.data_root().join("vfs/containers")).unwrap().next().is_none());
}
