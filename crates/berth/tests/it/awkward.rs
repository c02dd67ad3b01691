//! An image of what archives can hold that is hard to keep.

use std::os::unix::ffi::OsStrExt;

use tar::EntryType;

use crate::files::{Image, busybox};

/// What a container of the image tells of it: names, kinds, modes, owners, links, times, contents. How many links a directory has
/// is overlayfs's doing: one that is seen through has one.
pub const LISTING: &str = "cd /awkward && find . | sort | while read -r f; do \
                           links=%h; test -d \"$f\" && ! test -L \"$f\" && links=; \
                           stat -c \"%n %F %a %u:%g $links %s %Y %t:%T\" \"$f\"; done; \
                           find . -type f | sort | tr '\\n' '\\0' | xargs -0 md5sum";

fn header(kind: EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_uid(1234);
    header.set_gid(5678);
    header.set_mtime(1_600_000_001);
    header.set_size(size);
    header
}

type Builder = tar::Builder<Vec<u8>>;

fn add(tar: &mut Builder, kind: EntryType, name: &[u8], data: &[u8]) {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name));
    tar.append_data(&mut header(kind, data.len() as u64), path, data).unwrap();
}

fn link(tar: &mut Builder, kind: EntryType, name: &str, target: &str) {
    tar.append_link(&mut header(kind, 0), name, target).unwrap();
}

fn device(tar: &mut Builder, kind: EntryType, name: &str, major: u32, minor: u32) {
    let mut header = header(kind, 0);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    tar.append_data(&mut header, name, std::io::empty()).unwrap();
}

/// A sparse file in GNU's old form: two pieces of data in 1 MiB.
fn sparse(tar: &mut Builder, name: &str) {
    let mut header = header(EntryType::GNUSparse, 1024);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    let gnu = header.as_gnu_mut().unwrap();
    for (index, offset) in [4096u64, 512 << 10].into_iter().enumerate() {
        octal(&mut gnu.sparse[index].offset, offset);
        octal(&mut gnu.sparse[index].numbytes, 512);
    }
    octal(&mut gnu.sparse[2].offset, 1 << 20);
    octal(&mut gnu.sparse[2].numbytes, 0);
    octal(&mut gnu.realsize, 1 << 20);
    header.set_cksum();
    tar.append(&header, [[b'a'; 512], [b'b'; 512]].concat().as_slice()).unwrap();
}

fn octal(field: &mut [u8; 12], value: u64) {
    field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
}

fn base() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, EntryType::Directory, b"awkward/", b"");
    add(&mut tar, EntryType::Directory, b"awkward/opaque/", b"");
    add(&mut tar, EntryType::Regular, b"awkward/opaque/hidden", b"hidden");
    add(&mut tar, EntryType::Regular, b"awkward/removed", b"removed");
    add(&mut tar, EntryType::Regular, b"awkward/one", b"linked");
    link(&mut tar, EntryType::Link, "awkward/two", "awkward/one");
    link(&mut tar, EntryType::Symlink, "awkward/symbolic", "one");
    device(&mut tar, EntryType::Char, "awkward/null", 1, 3);
    device(&mut tar, EntryType::Block, "awkward/loop", 7, 0);
    device(&mut tar, EntryType::Fifo, "awkward/fifo", 0, 0);
    add(&mut tar, EntryType::Regular, b"awkward/not utf-8 \xff\xfe", b"bytes");
    add(&mut tar, EntryType::Regular, format!("awkward/{}", "l".repeat(200)).as_bytes(), b"long");
    add(&mut tar, EntryType::Regular, b"awkward/twice", b"the first, which is replaced");
    add(&mut tar, EntryType::Regular, b"awkward/twice", b"the second");
    tar.append_pax_extensions([
        ("mtime", &b"1600000002.25"[..]),
        ("SCHILY.xattr.user.berth", b"value"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("comment", b"which nobody reads"),
    ])
    .unwrap();
    add(&mut tar, EntryType::Regular, b"awkward/extended", b"with records");
    sparse(&mut tar, "awkward/sparse");
    add(&mut tar, EntryType::Regular, b"awkward/empty", b"");
    // Names that begin with a dot, and a directory that comes after what it holds.
    add(&mut tar, EntryType::Regular, b"awkward/late/inside", b"early");
    add(&mut tar, EntryType::Directory, b"awkward/late/", b"");
    tar.into_inner().unwrap()
}

fn top() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, EntryType::Directory, b"awkward/", b"");
    add(&mut tar, EntryType::Regular, b"awkward/.wh.removed", b"");
    add(&mut tar, EntryType::Directory, b"awkward/opaque/", b"");
    add(&mut tar, EntryType::Regular, b"awkward/opaque/.wh..wh..opq", b"");
    add(&mut tar, EntryType::Regular, b"awkward/opaque/visible", b"visible");
    link(&mut tar, EntryType::Link, "awkward/three", "awkward/one");
    add(&mut tar, EntryType::Regular, b"awkward/twice", b"the third");
    let mut bytes = tar.into_inner().unwrap();
    // Trailing blocks, as tar writes with a record of 10 KiB.
    bytes.resize(bytes.len().next_multiple_of(10_240), 0);
    bytes
}

/// The image: busybox below two layers.
pub fn image() -> Image {
    let mut layers = busybox().layers;
    layers.extend([base(), top()]);
    Image { layers, config: busybox().config }
}
