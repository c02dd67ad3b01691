//! Random stacks of layers: a container sees what their tars say, and `save` gives back every byte.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tar::EntryType;

use crate::beside_docker::Docker;
use crate::daemon::Daemon;
use crate::files::{self, Image, busybox, digest};
use crate::output::run;

/// Stacks per driver; `BERTH_FIDELITY_CASES` makes it more.
const CASES: u64 = 12;
/// Seeds that found something once.
const FOUND: [u64; 2] = [1_795_273_802_209_078_719, 1_795_274_899_810_744_249];
const LAYERS_MOST: u64 = 6;
const ENTRIES_MOST: u64 = 25;
/// A file's capabilities, as the kernel keeps them.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Numbers that look like chance, the same for one seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(EntryType, u32, u32),
}

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    time: i64,
    attributes: BTreeMap<String, Vec<u8>>,
}

type Tree = BTreeMap<Vec<u8>, Node>;

/// Layers, and what they come to.
struct Stack {
    chance: Chance,
    tree: Tree,
    layers: Vec<Vec<u8>>,
    tar: tar::Builder<Vec<u8>>,
    /// Names of the layer in the making.
    own: Vec<Vec<u8>>,
}

fn below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

impl Stack {
    fn make(seed: u64) -> Stack {
        let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let tar = tar::Builder::new(Vec::new());
        let mut stack = Stack { chance, tree: Tree::new(), layers: Vec::new(), tar, own: Vec::new() };
        stack.directory(b"t".to_vec());
        for _ in 0..=stack.chance.below(LAYERS_MOST) {
            for _ in 0..=stack.chance.below(ENTRIES_MOST) {
                stack.step();
            }
            let tar = std::mem::replace(&mut stack.tar, tar::Builder::new(Vec::new()));
            stack.layers.push(tar.into_inner().unwrap());
            stack.own.clear();
        }
        stack
    }

    fn step(&mut self) {
        let path = self.some_path();
        match self.chance.below(12) {
            0..=3 => self.file(path),
            4 | 5 => self.directory(path),
            6 => self.symlink(path),
            7 => self.device(path),
            8 | 9 => self.hard_link(path),
            10 => self.whiteout(),
            _ => self.opaque(),
        }
    }

    /// A name in a directory that is there, taken or not.
    fn some_path(&mut self) -> Vec<u8> {
        let is_directory = |(path, node): (&Vec<u8>, &Node)| {
            (node.kind == Kind::Directory && path.len() < 700).then(|| path.clone())
        };
        let directories: Vec<Vec<u8>> = self.tree.iter().filter_map(is_directory).collect();
        let mut path = self.chance.of(&directories).clone();
        let long = "l".repeat(120).into_bytes();
        let longest = "m".repeat(255).into_bytes();
        let names: [&[u8]; 8] =
            [b"a", b"b", b"c", b".d", b"\xff\xfe e", "\u{e9}'".as_bytes(), &long, &longest];
        path.push(b'/');
        path.extend_from_slice(names[self.chance.below(8) as usize]);
        path
    }

    fn node(&mut self, kind: Kind) -> Node {
        let modes = [0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0];
        let mode = *self.chance.of(&modes);
        // Links have no modes of their own.
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { mode };
        let owner = (self.chance.below(3) as u32 * 70_000, self.chance.below(3) as u32 * 50);
        let time = 1_000_000_000 + self.chance.below(500_000_000) as i64;
        let mut attributes = BTreeMap::new();
        if matches!(kind, Kind::File(_)) && self.chance.below(3) == 0 {
            attributes.insert("user.a".to_owned(), vec![self.chance.below(256) as u8, 0, b'\n', b'=']);
            attributes.insert("trusted.b".to_owned(), b"t".to_vec());
            attributes.insert("security.capability".to_owned(), CAPABILITY.to_vec());
        }
        Node { kind, mode, owner, time, attributes }
    }

    /// Writes an entry, with its name where it fits or in one of two ways where it does not.
    fn write(&mut self, path: &[u8], node: &Node, link: Option<&[u8]>) {
        let mut header = tar::Header::new_gnu();
        let (kind, data) = match &node.kind {
            _ if link.is_some() => (EntryType::Link, &b""[..]),
            Kind::Directory => (EntryType::Directory, &b""[..]),
            Kind::File(data) => (EntryType::Regular, data.as_slice()),
            Kind::Symlink(_) => (EntryType::Symlink, &b""[..]),
            Kind::Device(kind, major, minor) => {
                header.set_device_major(*major).unwrap();
                header.set_device_minor(*minor).unwrap();
                (*kind, &b""[..])
            }
        };
        header.set_entry_type(kind);
        header.set_mode(node.mode);
        header.set_uid(node.owner.0.into());
        header.set_gid(node.owner.1.into());
        header.set_mtime(node.time as u64);
        header.set_size(data.len() as u64);
        let mut name = path.to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        let mut records: Vec<(String, Vec<u8>)> = node
            .attributes
            .iter()
            .map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.clone()))
            .collect();
        let by_record = self.chance.below(2) == 0;
        if by_record {
            records.push(("path".to_owned(), name.clone()));
        }
        if link.is_none() {
            self.tar.append_pax_extensions(records.iter().map(|(k, v)| (k.as_str(), v.as_slice()))).unwrap();
        }
        let target = match (&node.kind, link) {
            (_, Some(link)) => Some(link.to_vec()),
            (Kind::Symlink(target), None) => Some(target.clone()),
            _ => None,
        };
        let path = Path::new(OsStr::from_bytes(&name));
        match target {
            Some(target) => {
                self.tar.append_link(&mut header, path, Path::new(OsStr::from_bytes(&target))).unwrap();
            }
            None if by_record => {
                header.as_mut_bytes()[..5].copy_from_slice(b"short");
                header.set_cksum();
                self.tar.append(&header, data).unwrap();
            }
            None => self.tar.append_data(&mut header, path, data).unwrap(),
        }
    }

    /// Puts a node into the tree, and away what it replaces.
    fn put(&mut self, path: Vec<u8>, node: Node) {
        if node.kind != Kind::Directory {
            self.tree.retain(|other, _| !below(other, &path));
            self.own.retain(|other| !below(other, &path));
        }
        self.own.push(path.clone());
        self.tree.insert(path, node);
    }

    fn file(&mut self, path: Vec<u8>) {
        let data = (0..self.chance.below(2000)).map(|_| self.chance.below(4) as u8 * 80).collect();
        let node = self.node(Kind::File(data));
        self.write(&path, &node, None);
        self.put(path, node);
    }

    fn directory(&mut self, path: Vec<u8>) {
        let node = self.node(Kind::Directory);
        self.write(&path, &node, None);
        self.put(path, node);
    }

    fn symlink(&mut self, path: Vec<u8>) {
        let target = self.chance.of(&[&b"a"[..], b"/t/a", b"../../../../etc/passwd", b"\xff"]).to_vec();
        let node = self.node(Kind::Symlink(target));
        self.write(&path, &node, None);
        self.put(path, node);
    }

    fn device(&mut self, path: Vec<u8>) {
        let (kind, major, minor) =
            *self.chance.of(&[(EntryType::Char, 1, 3), (EntryType::Block, 7, 300), (EntryType::Fifo, 0, 0)]);
        let node = self.node(Kind::Device(kind, major, minor));
        self.write(&path, &node, None);
        self.put(path, node);
    }

    /// A link to any file, of this layer or of one below.
    fn hard_link(&mut self, path: Vec<u8>) {
        let is_file = |(_, node): &(&Vec<u8>, &Node)| matches!(node.kind, Kind::File(_));
        let files: Vec<Vec<u8>> = self.tree.iter().filter(is_file).map(|(path, _)| path.clone()).collect();
        let of_one = |target: &&Vec<u8>| **target != path && !below(target, &path);
        let files: Vec<&Vec<u8>> = files.iter().filter(of_one).collect();
        if files.is_empty() {
            return;
        }
        let target = (*self.chance.of(&files)).clone();
        let node = self.tree[&target].clone();
        self.write(&path, &node, Some(&target));
        self.put(path, node);
    }

    fn mark(&mut self, path: &[u8]) {
        let node = Node { attributes: BTreeMap::new(), ..self.node(Kind::File(Vec::new())) };
        self.write(path, &node, None);
    }

    /// Removes what only lower layers have.
    fn whiteout(&mut self) {
        let is_lower = |path: &&Vec<u8>| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            // The mark's own name must fit.
            **path != b"t" && name.len() < 250 && !self.own.iter().any(|own| own == *path || below(own, path))
        };
        let lower: Vec<Vec<u8>> = self.tree.keys().filter(is_lower).cloned().collect();
        if lower.is_empty() {
            return;
        }
        let path = self.chance.of(&lower).clone();
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap();
        self.mark(&[&path[..=slash], b".wh.", &path[slash + 1..]].concat());
        self.tree.retain(|other, _| *other != path && !below(other, &path));
    }

    /// Removes all that lower layers have in a directory.
    fn opaque(&mut self) {
        let is_lower = |(path, node): &(&Vec<u8>, &Node)| {
            node.kind == Kind::Directory && **path != b"t" && !self.own.iter().any(|own| below(own, path))
        };
        let lower: Vec<Vec<u8>> = self.tree.iter().filter(is_lower).map(|(path, _)| path.clone()).collect();
        if lower.is_empty() {
            return;
        }
        let path = self.chance.of(&lower).clone();
        self.directory(path.clone());
        self.mark(&[&path[..], b"/.wh..wh..opq"].concat());
        self.tree.retain(|other, _| !below(other, &path));
    }
}

/// What is found on the disk, in the model's terms.
fn tree_of(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.join("t")];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = match metadata.mode() & libc_kind::MASK {
            libc_kind::DIRECTORY => {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Kind::Directory
            }
            libc_kind::FILE => Kind::File(fs::read(&path).unwrap()),
            libc_kind::LINK => Kind::Symlink(fs::read_link(&path).unwrap().into_os_string().into_vec()),
            other => {
                let kind = match other {
                    libc_kind::CHARACTER => EntryType::Char,
                    libc_kind::BLOCK => EntryType::Block,
                    _ => EntryType::Fifo,
                };
                let device = metadata.rdev();
                Kind::Device(kind, rustix::fs::major(device), rustix::fs::minor(device))
            }
        };
        let node = Node {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            time: metadata.mtime(),
            attributes: attributes(&path),
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        found.insert(name, short(&node));
    }
    found
}

/// Kinds of files in a mode (inode(7)).
mod libc_kind {
    pub const MASK: u32 = 0o170_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const FILE: u32 = 0o100_000;
    pub const LINK: u32 = 0o120_000;
    pub const CHARACTER: u32 = 0o020_000;
    pub const BLOCK: u32 = 0o060_000;
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = [0; 4096];
        let length = rustix::fs::lgetxattr(path, &*name, &mut value[..]).unwrap();
        (name, value[..length].to_vec())
    };
    names.map(read).filter(|(name, _)| name != "security.selinux").collect()
}

/// A node as it is compared and shown: contents by their digest.
fn short(node: &Node) -> String {
    let kind = match &node.kind {
        Kind::File(data) => format!("file {} {}", data.len(), digest(data)),
        other => format!("{other:?}"),
    };
    format!("{kind} {:o} {:?} {} {:?}", node.mode, node.owner, node.time, node.attributes)
}

/// How what was found differs from what the layers say.
fn difference(wanted: &Tree, found: &BTreeMap<Vec<u8>, String>) -> Vec<String> {
    let wanted: BTreeMap<Vec<u8>, String> =
        wanted.iter().map(|(path, node)| (path.clone(), short(node))).collect();
    let names: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let differing = names.into_iter().filter(|name| wanted.get(*name) != found.get(*name));
    differing
        .map(|name| {
            let (wanted, found) = (wanted.get(name), found.get(name));
            format!("{}\n  wanted {wanted:?}\n  found  {found:?}", String::from_utf8_lossy(name))
        })
        .collect()
}

fn check(daemon: &Daemon, seed: u64) {
    let stack = Stack::make(seed);
    let image = image(&stack);
    let name = format!("random:{seed}");
    let path = files::write(daemon.root.path(), "random.tar", &image.docker_archive(&name));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    let id = daemon.background(&[&name, "sleep", "1000"]);
    let root = format!("/proc/{}/root", daemon.init_pid(&id));
    let wrong = difference(&stack.tree, &tree_of(Path::new(&root)));
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    let saved = daemon.root.path().join("saved.tar");
    daemon.berth(&["save", "-o", saved.to_str().unwrap(), &name]).ok();
    let mut digests = Vec::new();
    for entry in tar::Archive::new(fs::File::open(&saved).unwrap()).entries().unwrap() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry.unwrap(), &mut bytes).unwrap();
        digests.push(digest(&bytes));
    }
    for layer in &image.layers {
        assert!(digests.contains(&digest(layer)), "seed {seed}: a layer is not what it was");
    }
    daemon.berth(&["rm", "-f", &id]).ok();
    daemon.berth(&["rmi", &name]).ok();
}

fn check_all(driver: &str) {
    let daemon = Daemon::empty(&["--storage-driver", driver]);
    let cases = std::env::var("BERTH_FIDELITY_CASES").ok().and_then(|text| text.parse().ok());
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // Most are the same every time; the last is a new one.
    for seed in (1..cases.unwrap_or(CASES)).chain(FOUND).chain([time.as_nanos() as u64]) {
        check(&daemon, seed);
    }
}

/// The image of a seed.
fn image(stack: &Stack) -> Image {
    let mut layers = busybox().layers;
    layers.extend(stack.layers.iter().cloned());
    Image { layers, config: busybox().config }
}

#[test]
fn umoci_makes_the_same_of_random_layers() {
    for seed in (1..6).chain(FOUND) {
        let stack = Stack::make(seed);
        let work = tempfile::tempdir().unwrap();
        let archive = files::write(work.path(), "random.tar", &image(&stack).docker_archive("random:1"));
        let layout = format!("oci:{}:random", work.path().join("layout").display());
        let from = format!("docker-archive:{archive}");
        run(Command::new("skopeo").args(["copy", "-q", &from, &layout])).ok();
        let bundle = work.path().join("bundle");
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image", &layout["oci:".len()..]]).arg(&bundle);
        run(&mut umoci).ok();
        let wrong = difference(&stack.tree, &tree_of(&bundle.join("rootfs")));
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    }
}

/// The digests of the configuration and of the layers to which an archive's `manifest.json` leads.
fn described(archive: &Path) -> (String, Vec<String>) {
    let mut contents = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        contents.insert(name, bytes);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&contents["manifest.json"]).unwrap();
    let of = |name: &serde_json::Value| digest(&contents[name.as_str().unwrap()]);
    (of(&manifest[0]["Config"]), manifest[0]["Layers"].as_array().unwrap().iter().map(of).collect())
}

#[test]
fn docker_saves_the_same_of_random_layers() {
    let daemon = Daemon::start();
    let docker = Docker::start(&daemon);
    // Docker refuses layers that name a path twice, as most random ones do.
    let random = [7, 8].map(|seed| image(&Stack::make(seed)));
    for (number, image) in std::iter::once(files::layered()).chain(random).enumerate() {
        let name = format!("same:{number}");
        let path = files::write(daemon.root.path(), "given.tar", &image.docker_archive(&name));
        let expected =
            (digest(&image.config_bytes()), image.layers.iter().map(|layer| digest(layer)).collect());
        let [ours, theirs] = ["ours.tar", "theirs.tar"].map(|name| daemon.root.path().join(name));
        let [our_path, their_path] = [&ours, &theirs].map(|path| path.to_str().unwrap());
        daemon.berth(&["load", "-q", "-i", &path]).ok();
        daemon.berth(&["save", "-o", our_path, &name]).ok();
        assert_eq!(described(&ours), expected, "{name}");
        docker.client(&["load", "-q", "-i", &path]).ok();
        docker.client(&["save", "-o", their_path, &name]).ok();
        assert_eq!(described(&theirs), expected, "{name} of Docker");
        // And each takes what the other has saved.
        daemon.berth(&["rmi", &name]).ok();
        daemon.berth(&["load", "-q", "-i", their_path]).ok();
        docker.client(&["rmi", &name]).ok();
        docker.client(&["load", "-q", "-i", our_path]).ok();
        let id = ["image", "inspect", "-f", "{{json .RootFS.Layers}}", &name];
        assert_eq!(daemon.berth(&id).ok(), docker.client(&id).ok(), "{name}");
        daemon.berth(&["rmi", &name]).ok();
        docker.client(&["rmi", &name]).ok();
    }
}

#[test]
fn random_layers_are_seen_and_saved_as_they_came() {
    check_all("overlay2");
}

#[test]
fn random_layers_are_seen_and_saved_as_they_came_by_copies() {
    check_all("vfs");
}
