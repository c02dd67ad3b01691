//! `build --output`, `--load`, `--push` and `--metadata-file`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::building::{command, context};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};
use crate::registry::{ADDRESS, Registry};

const DOCKERFILE: &str = "FROM busybox AS base\n\
    RUN mkdir /only && echo made > /only/file && ln -s /etc/passwd /only/link && chmod 750 /only\n\
    FROM scratch\n\
    COPY --from=base /only /only\n\
    COPY large /\n";

fn furnish(daemon: &Daemon) -> PathBuf {
    let large = "large\n".repeat(500_000);
    context(daemon, "context", &[("Dockerfile", DOCKERFILE), ("large", &large)])
}

#[track_caller]
fn build(daemon: &Daemon, root: &Path, arguments: &[&str]) -> Output {
    run(command(daemon, Client::Berth, root.to_str().unwrap(), arguments).current_dir(daemon.root.path()))
}

fn images(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let named = listed.lines().filter(|name| !name.contains("<none>"));
    let mut names: Vec<String> = named.map(str::to_owned).collect();
    names.sort();
    names
}

/// Names in an archive.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries.map(|entry| String::from_utf8_lossy(&entry.path_bytes()).into_owned()).collect()
}

#[test]
fn files_come_to_a_directory_and_into_a_tar() {
    let daemon = Daemon::start();
    let (root, here) = (furnish(&daemon), daemon.root.path());
    fs::create_dir(here.join("old")).unwrap();
    fs::write(here.join("old/kept"), "kept").unwrap();
    std::os::unix::fs::symlink("/etc", here.join("old/only")).unwrap();
    build(&daemon, &root, &["-t", "unnamed", "-o", "old", "-o", "type=local,dest=deep/new"]).ok();
    for place in ["old", "deep/new"] {
        let place = here.join(place);
        assert_eq!(fs::read_to_string(place.join("only/file")).unwrap(), "made\n");
        assert_eq!(fs::read_link(place.join("only/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::metadata(place.join("large")).unwrap().len(), 3_000_000);
    }
    assert_eq!(fs::read_to_string(here.join("old/kept")).unwrap(), "kept");
    assert!(
        fs::symlink_metadata(here.join("old/only")).unwrap().is_dir(),
        "a link is replaced and not followed"
    );
    assert_eq!(images(&daemon), ["busybox:latest"], "what is sent has no name here");

    build(&daemon, &root, &["-o", "type=tar,dest=files.tar"]).ok();
    let listed = names(&fs::read(here.join("files.tar")).unwrap());
    assert!(listed.iter().any(|name| name == "only/file"), "{listed:?}");
    let mut command = command(&daemon, Client::Berth, root.to_str().unwrap(), &["-o", "-"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&output.stdout), listed);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Step 1/5"), "what is told goes elsewhere");
}

#[test]
fn images_come_as_layouts_and_archives() {
    let daemon = Daemon::start();
    let (root, here) = (furnish(&daemon), daemon.root.path());
    build(&daemon, &root, &["-t", "some:1", "-o", "type=oci,dest=layout.tar"]).ok();
    build(&daemon, &root, &["-t", "some:1", "-o", "type=oci,dest=layout,tar=false"]).ok();
    build(&daemon, &root, &["-o", "type=docker,dest=archive.tar,name=other:2"]).ok();
    assert_eq!(images(&daemon), ["busybox:latest"]);
    let listed = names(&fs::read(here.join("layout.tar")).unwrap());
    assert!(listed.iter().any(|name| name == "index.json"), "{listed:?}");
    assert!(!listed.iter().any(|name| name == "manifest.json"), "{listed:?}");
    let index: Value = serde_json::from_slice(&fs::read(here.join("layout/index.json")).unwrap()).unwrap();
    let name = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    assert_eq!(name, "docker.io/library/some:1");
    for place in ["oci-archive:layout.tar", "oci:layout:1", "docker-archive:archive.tar"] {
        let mut command = Command::new("skopeo");
        command.current_dir(here).args(["inspect", "--config", place]);
        let config: Value = serde_json::from_str(&run(&mut command).ok()).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2, "{place}");
    }
    daemon.berth(&["load", "-i", here.join("archive.tar").to_str().unwrap()]).ok();
    assert_eq!(images(&daemon), ["busybox:latest", "other:2"]);
}

#[test]
fn images_stay_are_pushed_and_are_told_of() {
    let daemon = Daemon::start();
    let _registry = Registry::start(daemon.root.path());
    let (root, here) = (furnish(&daemon), daemon.root.path());
    let name = format!("{ADDRESS}/pushed:1");
    fs::write(here.join("about"), "old").unwrap();
    build(&daemon, &root, &["--metadata-file", "about", "--load", "-o", "type=tar,dest=t", "-t", "kept:1"])
        .ok();
    let about = |name: &str| -> Value {
        let about = fs::read(here.join("about")).unwrap();
        serde_json::from_slice::<Value>(&about).unwrap()[name].clone()
    };
    assert_eq!(about("containerimage.config.digest"), daemon.inspect("kept:1", "{{.Id}}").as_str());
    assert_eq!((about("image.name"), about("containerimage.digest")), ("kept:1".into(), Value::Null));
    assert!(here.join("t").exists());

    build(&daemon, &root, &["--push", "-t", &name, "--metadata-file", "about"]).ok();
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--tls-verify=false", "-f", "{{.Digest}}", &format!("docker://{name}")]);
    assert_eq!(about("containerimage.digest"), run(&mut command).ok().as_str());
    assert_eq!(about("image.name"), name.as_str());
    let both = format!("type=image,\"name={ADDRESS}/a:1,{ADDRESS}/b:1\",push=true");
    build(&daemon, &root, &["-o", &both]).ok();
    for name in ["a:1", "b:1"] {
        daemon.berth(&["pull", "-q", &format!("{ADDRESS}/{name}")]).ok();
    }

    build(&daemon, &root, &["-t", "nothing", "-o", "type=cacheonly"]).ok();
    assert!(!images(&daemon).contains(&"nothing:latest".to_owned()));
    fs::write(root.join("Dockerfile"), "FROM busybox\nRUN false\n").unwrap();
    build(&daemon, &root, &["--metadata-file", "about", "-o", "failed"]).fails(1, "non-zero code: 1");
    assert!(!here.join("about").exists() && !here.join("failed").exists());
}

#[test]
fn what_cannot_be_written_is_told() {
    let daemon = Daemon::start();
    let (root, here) = (furnish(&daemon), daemon.root.path());
    fs::write(here.join("file"), "").unwrap();
    for (arguments, words) in [
        (&["-o", "type=zip"][..], "unknown output type \"zip\""),
        (&["-o", "type=local"], "dest is required for local output"),
        (&["-o", "type=tar,dest"], "invalid value dest"),
        (&["-o", "type=tar,dest=x,level=9"], "unexpected key 'level'"),
        (&["-o", "file"], "file is no directory"),
        (&["-o", "type=tar,dest=context"], "is a directory"),
        (&["-o", "same", "-o", "type=tar,dest=same"], "same destination"),
        (&["-o", "-", "-o", "type=oci"], "only one output"),
        (&["--push"], "tag is needed when pushing to registry"),
        (&["-o", "type=tar,dest=absent/x"], "absent/x: No such file or directory"),
        (&["-o", "file/below"], "file/below"),
    ] {
        let output = build(&daemon, &root, arguments);
        assert!(output.code != 0 && output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
}
