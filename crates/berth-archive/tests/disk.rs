//! Layers that are larger than the disk, or than they say. Needs root: the small disk is a detached tmpfs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use berth_archive::extract::{Extractor, Options};
use berth_archive::{Error, decompress};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const MIB: u64 = 1 << 20;

/// A file system of eight mebibytes that is mounted nowhere and ends with its descriptor.
fn small_disk() -> OwnedFd {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "size", "8m").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    // What fsmount returns is opened with O_PATH.
    File::open(format!("/proc/self/fd/{}/.", mount.as_raw_fd())).unwrap().into()
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_path("file").unwrap();
    header.set_cksum();
    header
}

/// A tar of one file that repeats `byte`, with gzip.
fn bomb(byte: u8, size: u64) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    out.write_all(header(size).as_bytes()).unwrap();
    io::copy(&mut io::repeat(byte).take(size), &mut out).unwrap();
    out.write_all(&[0; 1024]).unwrap();
    out.finish().unwrap()
}

fn unpack(disk: &OwnedFd, data: &[u8], keep_free_bytes: u64) -> Result<(), Error> {
    let options = Options { keep_free_bytes, ..Options::default() };
    let disk = disk.try_clone().unwrap();
    Extractor::new(disk, options).layer(decompress::reader(data)?).map(drop)
}

fn free(disk: &OwnedFd) -> u64 {
    let stat = rustix::fs::fstatvfs(disk).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[test]
fn a_bomb_stops_before_the_reserve_is_used() {
    let disk = small_disk();
    let error = unpack(&disk, &bomb(7, 64 * MIB), 4 * MIB).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }) && error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("must stay free"), "{error}");
    assert!(free(&disk) > 2 * MIB, "{} bytes are left", free(&disk));
}

#[test]
fn a_full_disk_is_said_to_be_full_and_what_was_written_can_be_removed() {
    let disk = small_disk();
    let before = free(&disk);
    let error = unpack(&disk, &bomb(7, 64 * MIB), 0).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert!(error.to_string().contains("file"), "{error}");
    rustix::fs::unlinkat(&disk, "file", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(free(&disk), before);
}

#[test]
fn a_gigabyte_of_zeros_takes_no_place() {
    let disk = small_disk();
    unpack(&disk, &bomb(0, 1024 * MIB), 4 * MIB).unwrap();
    let made = fs::metadata(format!("/proc/self/fd/{}/file", disk.as_raw_fd())).unwrap();
    assert_eq!(made.len(), 1024 * MIB);
    assert!(made.blocks() * 512 < MIB, "{} blocks", made.blocks());
}

#[test]
fn a_size_that_does_not_come_is_an_error_and_takes_no_place() {
    let disk = small_disk();
    let mut data = header(1 << 40).as_bytes().to_vec();
    data.extend([7; 5000]);
    let error = unpack(&disk, &data, 0).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    assert!(error.to_string().contains("file"), "{error}");
    assert!(free(&disk) > 7 * MIB);
}

#[test]
fn a_compressed_layer_with_flipped_bits_never_passes_as_another() {
    let whole = bomb(7, MIB);
    for at in (10..whole.len()).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 0x20;
        let disk = small_disk();
        if unpack(&disk, &bad, 0).is_ok() {
            let content = fs::read(format!("/proc/self/fd/{}/file", disk.as_raw_fd())).unwrap();
            assert!(content.iter().all(|&byte| byte == 7) && content.len() as u64 == MIB, "flip at {at}");
        }
    }
}
