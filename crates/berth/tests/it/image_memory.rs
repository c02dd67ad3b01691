//! The daemon's memory while large images pass through it.

use std::fs;

use crate::daemon::Daemon;
use crate::files::{self, Image, Layer};
use crate::model::Random;
use crate::registry::{ADDRESS, Registry};

/// What the daemon may have above what it has when idle, in KiB.
const MOST: u64 = 64 << 10;
const LAYERS: u64 = 4;
const LAYER: usize = 32 << 20;

/// Layers of noise, which is as large when it is compressed.
fn large() -> Image {
    let mut layers = files::busybox().layers;
    for number in 0..LAYERS {
        let mut random = Random::new(number + 1);
        let words = std::iter::repeat_with(|| random.below(u64::MAX));
        let noise: Vec<u8> = words.take(LAYER / 8).flat_map(u64::to_le_bytes).collect();
        layers.push(Layer::new().file(&format!("noise-{number}"), 0o644, noise).bytes());
    }
    Image { layers, config: files::busybox().config }
}

fn figure(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a command of the client, and checks what the daemon had at most.
#[track_caller]
fn measured(daemon: &Daemon, arguments: &[&str]) {
    // The highest figure so far is forgotten.
    fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
    let before = figure(daemon, "VmRSS:");
    daemon.berth(arguments).ok();
    let after = figure(daemon, "VmHWM:");
    assert!(after < before + MOST, "{arguments:?}: {before} kB before, {after} kB at most");
}

#[test]
fn a_pulled_image_passes_with_bounded_memory() {
    let daemon = Daemon::empty(&[]);
    let registry = Registry::start(daemon.root.path());
    let archive = files::write(daemon.root.path(), "large.tar", &large().docker_archive("large:v1"));
    registry.push("docker-archive", &archive, "large:v1");
    let (source, copy) = (format!("{ADDRESS}/large:v1"), format!("{ADDRESS}/copy:v1"));
    measured(&daemon, &["pull", &source]);
    daemon.berth(&["tag", &source, &copy]).ok();
    measured(&daemon, &["push", &copy]);
}

#[test]
fn a_loaded_image_passes_with_bounded_memory() {
    let daemon = Daemon::empty(&[]);
    let _registry = Registry::start(daemon.root.path());
    let archive = files::write(daemon.root.path(), "large.tar", &large().docker_archive("large:v1"));
    let name = format!("{ADDRESS}/large:v1");
    measured(&daemon, &["load", "-q", "-i", &archive]);
    daemon.berth(&["tag", "large:v1", &name]).ok();
    // It is compressed for this.
    measured(&daemon, &["push", &name]);
}
