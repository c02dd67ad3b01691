//! The Debian package and the units for systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Client, Daemon, binary};
use crate::output::run;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Makes the package in a folder.
pub fn build(folder: &Path) -> PathBuf {
    run(Command::new(repository().join("contrib/deb/build")).arg(binary()).arg(folder)).ok().into()
}

#[test]
fn the_debian_package_holds_what_an_installation_needs() {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path());
    let name = package.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(concat!("berth_", env!("CARGO_PKG_VERSION"), "_")), "{name}");
    let list = run(Command::new("dpkg-deb").arg("-c").arg(&package)).ok();
    assert!(list.lines().all(|line| line.contains(" root/root ")), "{list}");
    let modes = [
        ("-rwxr-xr-x", "./usr/bin/berth"),
        ("-rw-r--r--", "./usr/lib/systemd/system/berth.service"),
        ("-rw-r--r--", "./usr/lib/systemd/system/berth.socket"),
        ("-rw-r--r--", "./usr/share/man/man1/berth.1.gz"),
        ("-rw-r--r--", "./usr/share/man/man1/berth-container.1.gz"),
        ("-rw-r--r--", "./usr/share/man/man8/berth-daemon.8.gz"),
        ("-rw-r--r--", "./usr/share/doc/berth/copyright"),
        ("-rw-r--r--", "./usr/share/bash-completion/completions/berth"),
        ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_berth"),
        ("-rw-r--r--", "./usr/share/fish/vendor_completions.d/berth.fish"),
        ("drwxr-xr-x", "./etc/berth/"),
    ];
    for (mode, path) in modes {
        let line = list.lines().find(|line| line.ends_with(&format!(" {path}")));
        assert!(line.is_some_and(|line| line.starts_with(mode)), "{path}: {line:?}");
    }

    let root = folder.path().join("root");
    run(Command::new("dpkg-deb").arg("-R").arg(&package).arg(&root)).ok();
    let version = run(Command::new(root.join("usr/bin/berth")).args(["daemon", "--version"])).ok();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    for script in ["postinst", "prerm", "postrm"] {
        let path = root.join("DEBIAN").join(script);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        run(Command::new("sh").arg("-n").arg(&path)).ok();
    }
    let sums = run(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(&root));
    assert_eq!(sums.ok(), "");
}

#[test]
fn the_same_inputs_make_the_same_package() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = folders.each_ref().map(|folder| fs::read(build(folder.path())).unwrap());
    assert!(one == two);
}

#[test]
fn systemd_understands_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for unit in ["berth.service", "berth.socket"] {
        let text = fs::read_to_string(repository().join("contrib/systemd").join(unit)).unwrap();
        // What the unit starts has to be there.
        let text = text.replace("/usr/bin/berth", binary().to_str().unwrap());
        let path = folder.path().join(unit);
        fs::write(&path, text).unwrap();
        command.arg(path);
    }
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        // Where systemd is not installed, nobody can say.
        return;
    }
    let output = run(&mut command);
    let complaints: Vec<&str> = output.stderr.lines().filter(|line| line.contains("berth.")).collect();
    assert!(output.code == 0 && complaints.is_empty(), "{output:?}");
}

#[test]
fn the_program_knows_its_commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(repository()).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let daemon = Daemon::empty(&[]);
    let shown = |format: &str| daemon.berth(&["version", "--format", format]).ok();
    let server = shown("{{.Server.GitCommit}} {{.Server.BuildTime}}");
    assert_eq!(shown("{{.Client.GitCommit}} {{.Client.BuildTime}}"), server);
    assert_eq!(
        daemon
            .with(Client::Docker, &["version", "--format", "{{.Server.GitCommit}} {{.Server.BuildTime}}"])
            .ok(),
        server
    );
    let (commit, time) = server.split_once(' ').unwrap();
    let whole = daemon.berth(&["version"]).ok();
    assert_eq!(whole.matches(" Git commit: ").count(), 2, "{whole}");
    let version = run(Command::new(binary()).args(["daemon", "--version"])).ok();
    assert_eq!(version, format!("Berth version {}, build {commit}", env!("CARGO_PKG_VERSION")));
    // A program that was made of something else than this checkout may know more, or nothing.
    let is_told = ["BERTH_COMMIT", "BERTH_BUILD_TIME", "SOURCE_DATE_EPOCH"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let is_own = git(&["rev-parse", "--show-toplevel"])
        .is_some_and(|top| fs::canonicalize(top).unwrap() == fs::canonicalize(repository()).unwrap());
    if is_own && !is_told {
        assert!(commit.len() == 40 && git(&["cat-file", "-e", commit]).is_some(), "{commit}");
        let seconds = git(&["-c", "log.showSignature=false", "show", "-s", "--format=%ct", commit]).unwrap();
        let date =
            run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{seconds}")]));
        assert_eq!(time, date.ok());
    }
}
