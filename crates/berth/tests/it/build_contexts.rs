//! `build --build-context`.

use std::fs;
use std::path::Path;

use crate::building::{command, context};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

#[track_caller]
fn build(daemon: &Daemon, root: &Path, arguments: &[&str]) -> Output {
    run(command(daemon, Client::Berth, root.to_str().unwrap(), arguments).current_dir(daemon.root.path()))
}

fn shell(daemon: &Daemon, image: &str, script: &str) -> String {
    daemon.berth(&["run", "--rm", "--entrypoint", "sh", image, "-c", script]).ok()
}

#[test]
fn directories_are_sources_bases_and_mounts() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\n\
        COPY --from=lib a /a\n\
        COPY --from=more/lib:1 deep /deep\n\
        RUN --mount=type=bind,from=lib,target=/mnt cat /mnt/a > /mounted && ! test -e /mnt/b\n\
        FROM lib\n\
        COPY --from=0 /mounted /mounted\n\
        COPY own /own\n";
    let root = context(&daemon, "context", &[("Dockerfile", dockerfile), ("own", "own\n")]);
    context(&daemon, "lib", &[("a", "first\n"), ("b", "left out\n"), (".dockerignore", "b\n")]);
    context(&daemon, "more", &[("deep/er/x", "x\n"), ("other", "")]);
    let contexts = ["--build-context", "lib=lib", "--build-context", "more/lib:1=./more"];
    build(&daemon, &root, &[&contexts[..], &["-o", "out"]].concat()).ok();
    let read = |name: &str| fs::read_to_string(daemon.root.path().join("out").join(name)).unwrap();
    assert_eq!(
        (read("a"), read("mounted"), read("own")),
        ("first\n".into(), "first\n".into(), "own\n".into())
    );
    assert!(!daemon.root.path().join("out/b").exists());

    let again = build(&daemon, &root, &[&contexts[..], &["-t", "again"]].concat()).ok();
    assert!(!again.contains("Running in"), "{again}");
    fs::write(daemon.root.path().join("lib/a"), "second\n").unwrap();
    build(&daemon, &root, &[&contexts[..], &["-o", "out"]].concat()).ok();
    assert_eq!((read("a"), read("mounted")), ("second\n".into(), "second\n".into()));
}

#[test]
fn images_take_the_place_of_others_and_of_stages() {
    let daemon = Daemon::start();
    let dockerfile = "FROM absent.example/base:3 AS made\n\
        RUN echo made > /file\n\
        FROM busybox AS broken\n\
        RUN exit 9\n\
        FROM made\n\
        COPY --from=broken /x /x\n";
    let root = context(&daemon, "context", &[("Dockerfile", dockerfile)]);
    context(&daemon, "stage", &[("x", "instead\n")]);
    let contexts = [
        "--build-context",
        "absent.example/base:3=docker-image://busybox",
        "--build-context",
        "broken=stage",
    ];
    build(&daemon, &root, &[&contexts[..], &["-t", "made"]].concat()).ok();
    assert_eq!(shell(&daemon, "made", "cat /file /x"), "made\ninstead");
}

#[test]
fn layouts_are_images() {
    let daemon = Daemon::start();
    let root = context(&daemon, "first", &[("Dockerfile", "FROM busybox\nRUN echo layout > /from\n")]);
    build(&daemon, &root, &["-t", "layout:one", "-o", "type=oci,dest=layout,tar=false"]).ok();
    let dockerfile = "FROM base\nCOPY --from=base /from /again\n";
    let root = context(&daemon, "second", &[("Dockerfile", dockerfile)]);
    let other = daemon.beside();
    let path = daemon.root.path().join("layout");
    for which in ["", ":one"] {
        let base = format!("base=oci-layout://{}{which}", path.display());
        build(&other, &root, &["--build-context", &base, "-t", "second"]).ok();
        assert_eq!(shell(&other, "second", "cat /again"), "layout");
    }
    let images = other.berth(&["images", "--format", "{{.Repository}}"]).ok();
    assert!(!images.contains("layout"), "an image of a layout gets no name: {images}");
    let absent = format!("base=oci-layout://{}:two", path.display());
    build(&other, &root, &["--build-context", &absent]).fails(1, "has no image");
    // A layout that lies.
    for blob in fs::read_dir(path.join("blobs/sha256")).unwrap().flatten() {
        fs::write(blob.path(), "damaged").unwrap();
    }
    let fresh = daemon.beside();
    let base = format!("base=oci-layout://{}", path.display());
    build(&fresh, &root, &["--build-context", &base]).fails(1, "has the digest sha256:");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let daemon = Daemon::start();
    let root =
        context(&daemon, "context", &[("Dockerfile", "FROM busybox\nCOPY --from=127.0.0.1:1/far:1 a /\n")]);
    for (arguments, words) in [
        (&["--build-context", "lib"][..], "expected key=value"),
        (&["--build-context", "lib=/nonexistent"], "failed to get build context lib: stat /nonexistent"),
        (&["--build-context", "lib=context/Dockerfile"], "is no directory"),
        (&["--build-context", "l=context", "--build-context", "l=context"], "duplicate context name l"),
        (&["--build-context", "l=oci-layout://context"], "context/index.json"),
        (&["--build-context", "other=context"], "invalid from flag value 127.0.0.1:1/far:1"),
        (&["--build-context", "127.0.0.1:1/far:1=context"], "COPY failed"),
    ] {
        let output = build(&daemon, &root, arguments);
        assert!(output.code != 0 && output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
}
