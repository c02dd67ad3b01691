//! A virtual machine with Debian's kernel 6.1 and nothing but cgroup v2: what most users have, and this host has not.
//! It is also the kernel without `lowerdir+`, whose fallback is used there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::daemon::binary;
use crate::files;

/// Modules that the engine's work needs, beside those that the kernel loads itself when asked.
pub const MODULES: &str =
    "overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat nft_ct loop quota_v2 virtio_pci virtio_blk";

/// The first program: mounts, loads modules, and leaves the initial RAM file system, from which nothing can pivot.
const INIT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t securityfs securityfs /sys/kernel/security
for module in $MODULES; do modprobe $module || echo \"no module $module\"; done
mount -t tmpfs -o size=900m tmpfs /new
for top in /*; do
    case $top in /proc|/sys|/dev|/new|/init|/root) ;; *) cp -a $top /new/ ;; esac
done
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/var/lib
mount --move /proc /new/proc; mount --move /sys /new/sys; mount --move /dev /new/dev
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
exec switch_root /new /bin/sh /test
";

/// What a script inside printed between its markers, one text for each `step`.
pub struct Steps(String);

/// What a machine has beside what every one has.
#[derive(Default)]
pub struct Extras<'a> {
    /// Arguments of the kernel.
    pub append: &'a str,
    /// Files of the host and their paths in the machine.
    pub files: Vec<(PathBuf, String)>,
    /// The image of a disk, `/dev/vda`, which stays as the machine leaves it.
    pub disk: Option<&'a Path>,
    /// Number of CPUs; none is one.
    pub cpus: u8,
}

impl Steps {
    /// The steps in what a machine printed.
    pub fn of(text: String) -> Steps {
        Steps(text)
    }

    /// Everything that was printed.
    pub fn whole(&self) -> &str {
        &self.0
    }

    /// The output of the step, with `code N` as its last line.
    #[track_caller]
    pub fn step(&self, name: &str) -> &str {
        let begin = format!("<<<{name}\n");
        let Some(at) = self.0.find(&begin) else { panic!("step {name} did not run:\n{}", self.0) };
        let text = &self.0[at + begin.len()..];
        text.split("\n>>>").next().unwrap().trim()
    }
}

/// Debian's kernel: `vmlinuz` and `lib/modules` in a folder.
pub fn kernel() -> PathBuf {
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vm/kernel");
    let output = Command::new(kernel).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Debian's packages of these names, unpacked together in a folder.
pub fn packages(names: &[&str]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vm/packages");
    let output = Command::new(script).args(names).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A program of such a folder and the libraries that it needs, with their places in a machine.
pub fn program(folder: &Path, name: &str) -> Vec<(PathBuf, String)> {
    let program = folder.join(name);
    let own = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| folder.join(path));
    let path = format!("{}:{}", own[0].display(), own[1].display());
    let libraries = Command::new("ldd").arg(&program).env("LD_LIBRARY_PATH", path).output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let place = |path: &str| path.strip_prefix(folder.to_str().unwrap()).unwrap_or(path).to_owned();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = libraries.map(|path| (PathBuf::from(path), place(path)));
    std::iter::once((program.clone(), format!("/{name}"))).chain(libraries).collect()
}

/// Boots a machine that runs `script` with a running daemon, and returns what its steps printed.
pub fn boot(script: &str, extras: &Extras<'_>) -> Steps {
    let kernel = kernel();
    let work = tempfile::tempdir().unwrap();
    let image = initramfs(&work, &kernel, script, extras);
    let text = run_with(&kernel, &image, extras);
    assert!(text.contains("<<<end"), "the machine did not come to its end:\n{text}");
    Steps(text)
}

/// Runs a machine until it switches itself off, and returns what it printed.
pub fn run(kernel: &Path, image: &Path, append: &str) -> String {
    run_with(kernel, image, &Extras { append, ..Extras::default() })
}

fn run_with(kernel: &Path, image: &Path, extras: &Extras<'_>) -> String {
    let append = format!("console=ttyS0 loglevel=1 panic=-1 {}", extras.append);
    // What the host has in memory is on the machine's disk: only the machine's own memory is lost.
    let disk = |path: &Path| format!("file={},format=raw,if=virtio,cache=writeback", path.display());
    let disk = extras.disk.map(|path| ["-drive".to_owned(), disk(path)]);
    let machine = Command::new("timeout")
        .args(["600", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1800"])
        .args(["-smp", &extras.cpus.max(1).to_string()])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-append", &append])
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(image)
        .args(disk.iter().flatten())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&machine.stdout).replace('\r', "");
    // Shown when an assertion fails.
    eprintln!("{text}");
    text
}

fn initramfs(work: &TempDir, kernel: &Path, script: &str, extras: &Extras<'_>) -> PathBuf {
    let root = work.path().join("root");
    for directory in ["bin", "sbin", "etc", "lib", "proc", "sys", "dev", "new", "usr/bin"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    symlink("../bin/busybox", root.join("sbin/modprobe")).unwrap();
    fs::copy(binary(), root.join("usr/bin/berth")).unwrap();
    fs::copy(files::busybox_archive(), root.join("busybox.tar")).unwrap();
    for (from, to) in &extras.files {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    copy_modules(&kernel.join("lib/modules"), &root.join("lib/modules"));
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("init"), INIT.replace("$MODULES", MODULES)).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let prologue = "export PATH=/bin:/sbin:/usr/bin HOME=/root\n\
        step() { name=$1; shift; echo \"<<<$name\"; \"$@\" 2>&1; echo \"code $?\"; echo \">>>\"; }\n\
        berth load -q -i /busybox.tar\n";
    let epilogue = "\necho '<<<end'\npoweroff -f\n";
    fs::write(root.join("test"), format!("{prologue}{script}{epilogue}")).unwrap();
    let image = work.path().join("initramfs");
    pack(&root, &image);
    image
}

/// Makes an initial RAM file system of a folder.
pub fn pack(root: &Path, image: &Path) {
    let pack = format!("find . | cpio --quiet -o -H newc > {}", image.display());
    let status = Command::new("sh").arg("-c").arg(pack).current_dir(root).status().unwrap();
    assert!(status.success());
}

/// Copies the modules of networks and file systems, and the lists by which they are found.
pub fn copy_modules(from: &Path, to: &Path) {
    let pack = format!(
        "cd {} && mkdir -p {to} && tar -cf - */modules.* */kernel/net */kernel/block */kernel/fs/overlayfs */kernel/fs/quota */kernel/fs/xfs \
         */kernel/drivers/net/veth.ko */kernel/drivers/net/dummy.ko */kernel/drivers/net/macvlan.ko \
         */kernel/drivers/net/ipvlan */kernel/drivers/block/loop.ko */kernel/drivers/block/virtio_blk.ko */kernel/drivers/virtio */kernel/lib | tar -xf - -C {to}",
        from.display(),
        to = to.display()
    );
    assert!(Command::new("sh").arg("-c").arg(pack).status().unwrap().success());
}

#[test]
fn containers_run_on_cgroup_v2() {
    let steps = boot(
        "step info sh -c 'berth info | grep -i cgroup'
         step run berth run --rm busybox cat /proc/self/cgroup /proc/mounts
         step limits berth run --rm --memory 32m --pids-limit 50 --cpus 0.5 busybox sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max'
         step oom berth run --name oom --memory 16m busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=40'
         step oomkilled berth inspect --format '{{.State.OOMKilled}}' oom
         step device berth run --rm --cap-add SYS_ADMIN busybox sh -c 'mknod /tmp/kmsg c 1 11; cat /tmp/kmsg'
         step background berth run -d --name cc busybox sleep 1000
         step pause berth pause cc
         step frozen berth ps --format '{{.Status}}'
         step unpause berth unpause cc
         step exec berth exec cc cat /proc/self/cgroup
         step update berth update -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 9 cc
         step updated berth exec cc sh -c 'cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max'
         step figures berth stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' cc
         step top berth top cc
         step network berth exec cc ping -c 1 -W 5 172.17.0.1
         step stop berth stop -t 1 cc
         step state berth inspect --format '{{.State.Status}} {{.State.ExitCode}}' cc
         step remove berth rm cc
         step left sh -c 'find /sys/fs/cgroup -name \"*[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*\" -type d | wc -l'",
        &Extras::default(),
    );
    assert!(steps.step("info").contains("Cgroup Version: 2"), "{}", steps.step("info"));
    let run = steps.step("run");
    assert!(run.starts_with("0::/\n") && run.ends_with("code 0"), "{run}");
    assert!(run.contains("cgroup /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec"), "{run}");
    assert!(run.contains("overlay / overlay"), "{run}");
    assert_eq!(steps.step("limits"), "33554432\n50\n50000 100000\ncode 0");
    assert!(!steps.step("oom").ends_with("code 0"), "{}", steps.step("oom"));
    assert_eq!(steps.step("oomkilled"), "true\ncode 0");
    assert!(steps.step("device").contains("Operation not permitted"), "{}", steps.step("device"));
    assert_eq!(steps.step("pause"), "cc\ncode 0");
    assert!(steps.step("frozen").contains("(Paused)"), "{}", steps.step("frozen"));
    assert_eq!(steps.step("unpause"), "cc\ncode 0");
    assert_eq!(steps.step("exec"), "0::/\ncode 0");
    assert_eq!(steps.step("update"), "cc\ncode 0");
    assert_eq!(steps.step("updated"), "67108864\n0\n9\n50000 100000\ncode 0");
    let figures = steps.step("figures");
    assert!(figures.starts_with("cc 1 ") && figures.ends_with("iB / 64MiB\ncode 0"), "{figures}");
    assert!(steps.step("top").contains("sleep 1000"), "{}", steps.step("top"));
    assert_eq!(steps.step("stop"), "cc\ncode 0");
    assert_eq!(steps.step("state"), "exited 137\ncode 0");
    assert_eq!(steps.step("remove"), "cc\ncode 0");
    assert_eq!(steps.step("left"), "0\ncode 0");
}
