//! Images made by the tests: archives as `docker save` writes them, and OCI layouts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One layer as an uncompressed tar.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, mode: u32, link: Option<&str>, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        match link {
            Some(link) => self.0.append_link(&mut header, path, link).unwrap(),
            None => self.0.append_data(&mut header, path, data).unwrap(),
        }
        self
    }

    pub fn file(self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.entry(tar::EntryType::Regular, path, mode, None, data.as_ref())
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, mode, None, &[])
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, 0o777, Some(target), &[])
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, 0o644, Some(target), &[])
    }

    /// An entry whose name is written as it is, past the checks of the tar crate.
    pub fn raw(mut self, kind: tar::EntryType, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    /// A file with an extended attribute, as PAX writes it.
    pub fn with_xattr(mut self, path: &str, mode: u32, name: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self.file(path, mode, "with an attribute\n")
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// `sha256:…` of some bytes.
pub fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// The bytes compressed by gzip.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An image: layers and the `config` part of its configuration.
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Image {
        let layers = layers.into_iter().map(Layer::bytes).collect();
        Image { layers, config: json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}) }
    }

    pub fn configured(mut self, config: Value) -> Image {
        self.config = config;
        self
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config_value()).unwrap()
    }

    /// The image's configuration as a whole.
    pub fn config_value(&self) -> Value {
        let diff_ids: Vec<String> = self.layers.iter().map(|l| digest(l)).collect();
        let history: Vec<Value> = diff_ids.iter().map(|_| json!({"created_by": "test"})).collect();
        // A label says if it is to be older.
        let created = self.config["Labels"]["created"].as_str().unwrap_or("2026-01-02T03:04:05Z");
        json!({
            "architecture": "amd64", "os": "linux", "created": created,
            "config": self.config, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        })
    }

    /// A `docker save` archive of this image under a name.
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        self.docker_archive_of(name, &self.layers)
    }

    /// As [`Image::docker_archive`], with another configuration.
    pub fn docker_archive_with(&self, name: &str, config: &Value) -> Vec<u8> {
        archive(name, &serde_json::to_vec(config).unwrap(), &self.layers)
    }

    /// As [`Image::docker_archive`], with other bytes in place of the layers.
    pub fn docker_archive_of(&self, name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
        archive(name, &self.config_bytes(), layers)
    }

    /// Blobs of this image with layers compressed by gzip; the manifest comes last.
    pub fn oci_blobs(&self) -> Vec<Vec<u8>> {
        let compressed: Vec<Vec<u8>> = self.layers.iter().map(|l| gzip(l)).collect();
        let config = self.config_bytes();
        let describe = |kind: &str, data: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(data), "size": data.len()});
        let layers: Vec<Value> = compressed.iter().map(|l| describe("layer.v1.tar+gzip", l)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config), "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        compressed.into_iter().chain([config, manifest]).collect()
    }

    /// An OCI layout as a tar.
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let blobs = self.oci_blobs();
        let manifest = blobs.last().unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
        }]});
        let mut archive = Layer::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in &blobs {
            archive = archive.file(&format!("blobs/sha256/{}", &digest(blob)[7..]), 0o644, blob);
        }
        archive.file("index.json", 0o644, index.to_string()).bytes()
    }
}

/// A `docker save` archive of one image.
fn archive(name: &str, config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let config_name = format!("{}.json", &digest(config)[7..]);
    let names: Vec<String> = (0..layers.len()).map(|i| format!("layer{i}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    let mut archive = Layer::new().file(&config_name, 0o644, config);
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, 0o644, layer);
    }
    archive.file("manifest.json", 0o644, manifest.to_string()).bytes()
}

/// The busybox image: every applet as a link, users, and a few directories.
pub fn busybox() -> Image {
    let program = fs::read("/bin/busybox").expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    let mut layer = Layer::new().dir("bin", 0o755).file("bin/busybox", 0o755, program);
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|a| *a != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let passwd =
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home/user:/bin/sh\n";
    let group = "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nextra:x:1234:user\n";
    let layer = layer.dir("etc", 0o755).file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, group);
    let layer = layer.dir("tmp", 0o1777).dir("root", 0o700).dir("home", 0o755).dir("home/user", 0o755);
    let layer = layer
        .dir("dev", 0o755)
        .dir("proc", 0o755)
        .dir("sys", 0o755)
        .dir("usr", 0o755)
        .symlink("usr/bin", "../bin");
    Image::new(vec![layer]).configured(json!({"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]}))
}

/// The busybox image's files as a root directory.
pub fn unpack_busybox(root: &Path) {
    tar::Archive::new(busybox().layers[0].as_slice()).unpack(root).unwrap();
}

/// An image of three layers with everything that overlayfs must get right.
pub fn layered() -> Image {
    let mut layers = busybox().layers;
    let base = Layer::new()
        .dir("data", 0o755)
        .file("data/removed", 0o644, "removed by the next layer\n")
        .file("data/replaced", 0o644, "old\n")
        .dir("data/opaque", 0o755)
        .file("data/opaque/hidden", 0o644, "hidden\n")
        .file("data/one", 0o640, "linked\n")
        .hardlink("data/two", "data/one")
        .file("data/setuid", 0o4755, "setuid\n")
        .file("data/sticky", 0o2755, "setgid\n")
        .with_xattr("data/attribute", 0o644, "user.berth", b"value");
    let top = Layer::new()
        .file("data/.wh.removed", 0o644, "")
        .file("data/replaced", 0o600, "new\n")
        .dir("data/opaque", 0o755)
        .file("data/opaque/.wh..wh..opq", 0o644, "")
        .file("data/opaque/visible", 0o644, "visible\n")
        .hardlink("data/three", "data/one");
    layers.push(base.bytes());
    layers.push(top.bytes());
    Image { layers, config: json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/data"}) }
}

/// A folder for what is made once for all tests of a build.
fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("berth-fixtures");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes a file once, however many tests ask for it at the same time.
pub fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let path = cache().join(name);
    let lock = File::create(cache().join(format!("{name}.lock"))).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !path.exists() {
        let partial = cache().join(format!("{name}.partial"));
        make(&partial);
        fs::rename(partial, &path).unwrap();
    }
    path
}

/// The busybox image as an archive named `busybox:latest`.
pub fn busybox_archive() -> PathBuf {
    once("busybox.tar", |path| fs::write(path, busybox().docker_archive("busybox:latest")).unwrap())
}

/// A real Debian, made by `mmdebstrap`, as a `docker save` archive named `debian:latest`.
pub fn debian_archive() -> PathBuf {
    once("debian.tar", |path| {
        let layer = path.with_extension("layer");
        // An interrupted attempt's; mmdebstrap would refuse it.
        let _ = fs::remove_file(&layer);
        debian(&layer, &[]);
        let image = Image {
            layers: vec![fs::read(&layer).unwrap()],
            config: json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"]}),
        };
        fs::write(path, image.docker_archive("debian:latest")).unwrap();
        fs::remove_file(layer).unwrap();
    })
}

/// Debian with systemd, for a virtual machine, as a tar file.
pub fn systemd_root() -> PathBuf {
    once("systemd.tar", |path| {
        let made = path.with_extension("made");
        let _ = fs::remove_file(&made);
        debian(&made, &["--include=systemd-sysv,kmod,busybox-static"]);
        fs::rename(made, path).unwrap();
    })
}

/// Has `mmdebstrap` make a Debian as a tar file.
pub fn debian(path: &Path, more: &[&str]) {
    let mut sources: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    sources.extend(fs::read_dir("/etc/apt/sources.list.d").unwrap().flatten().map(|e| e.path()));
    // Others would need keys that only this machine has.
    sources.retain(|path| {
        let named = path.extension().is_some_and(|e| e == "list" || e == "sources");
        named && fs::read_to_string(path).is_ok_and(|text| text.contains("/debian"))
    });
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase", "--mode=root", "--format=tar"])
        .args(more)
        .arg("bookworm")
        .arg(path)
        .args(&sources);
    // It may take minutes.
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:#?}");
}

/// Writes bytes to a file below a test's folder and returns its path as text.
pub fn write(folder: &Path, name: &str, data: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, data).unwrap();
    path.to_str().unwrap().into()
}
