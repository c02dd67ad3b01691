//! File systems for data roots, for as long as a test needs them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_sys::process::{flags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use crate::output::run;

/// What a data root can be on.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A file system of the kernel, in a file of so many MiB.
    Formatted(&'static str, u64),
    /// An overlay, which has no idmapped mounts and takes no overlays on top.
    Overlay,
}

/// A fresh file system, mounted where the test's own processes see it until it is dropped.
pub struct Disk {
    places: Vec<PathBuf>,
}

impl Disk {
    /// Makes one at `place`. What it needs is put into `folder`. From now on, mounts of the calling thread are its own.
    pub fn new(kind: Kind, folder: &Path, place: &Path) -> Disk {
        unshare(flags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        fs::create_dir_all(place).unwrap();
        let below = folder.join("disk");
        match kind {
            Kind::Formatted(name, megabytes) => {
                File::create(&below).unwrap().set_len(megabytes << 20).unwrap();
                run(Command::new(format!("mkfs.{name}")).arg("-q").arg(&below)).ok();
                run(Command::new("mount").args(["-t", name, "-o", "loop"]).arg(&below).arg(place)).ok();
                Disk { places: vec![place.to_owned()] }
            }
            Kind::Overlay => {
                fs::create_dir(&below).unwrap();
                // The folder's own file system may be one that no overlay can write to.
                mount("tmpfs", &below, "tmpfs", MountFlags::empty(), None).unwrap();
                let mut options = "index=off".to_owned();
                for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
                    fs::create_dir(below.join(name)).unwrap();
                    options.push_str(&format!(",{key}={}", below.join(name).display()));
                }
                let options = std::ffi::CString::new(options).unwrap();
                mount("overlay", place, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
                Disk { places: vec![place.to_owned(), below] }
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for place in &self.places {
            if let Err(error) = unmount(place, UnmountFlags::DETACH) {
                eprintln!("{} stays mounted: {error}", place.display());
            }
        }
    }
}
