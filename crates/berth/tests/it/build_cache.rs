//! `build --cache-to` and `--cache-from`: what one machine built is not built again on another.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::building::{BOTH, command, context};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};
use crate::registry::{ADDRESS, Registry};

const DOCKERFILE: &str = "FROM busybox AS tool\n\
    RUN --mount=type=cache,id=kept,target=/kept echo content > /kept/file; head -c 9 /dev/urandom > /tool\n\
    FROM busybox\n\
    ENV A=b\n\
    COPY --from=tool /tool /tool\n\
    COPY own /own\n\
    RUN echo done > /done\n\
    CMD [\"cat\", \"/own\"]\n";

#[track_caller]
fn build(daemon: &Daemon, root: &Path, arguments: &[&str]) -> Output {
    run(command(daemon, Client::Berth, root.to_str().unwrap(), arguments).current_dir(root))
}

fn furnish(daemon: &Daemon) -> PathBuf {
    context(daemon, "context", &[("Dockerfile", DOCKERFILE), ("own", "own\n"), (".dockerignore", "c*\n")])
}

/// How many steps were run in a build.
fn runs(text: &str) -> usize {
    text.matches(" ---> Running in ").count()
}

#[track_caller]
fn same(one: &Daemon, other: &Daemon) {
    assert_eq!(one.inspect("made", "{{.Id}}"), other.inspect("made", "{{.Id}}"));
    assert_eq!(other.berth(&["run", "--rm", "made"]).ok(), "own");
}

#[test]
fn a_registry_brings_every_step_to_another_machine() {
    let first = Daemon::start();
    let _registry = Registry::start(first.root.path());
    let root = furnish(&first);
    let (whole, least) = (format!("{ADDRESS}/cache:max"), format!("{ADDRESS}/cache:min"));
    let (whole_to, least_to) =
        (format!("type=registry,ref={whole},mode=max"), format!("type=registry,ref={least}"));
    build(&first, &root, &["-t", "made", "--cache-to", &whole_to, "--cache-to", &least_to]).ok();

    let second = first.beside();
    let from = format!("type=registry,ref={whole}");
    let told = build(&second, &root, &["-t", "made", "--cache-from", &from]).ok();
    assert_eq!(runs(&told), 0, "{told}");
    assert_eq!(told.matches("Using cache").count(), 6, "{told}");
    same(&first, &second);
    let images = second.berth(&["images", "--format", "{{.Repository}}"]).ok();
    assert!(!images.contains(ADDRESS), "steps get no names: {images}");

    // Steps of other stages are not in the least cache.
    let third = first.beside();
    let from = format!("type=registry,ref={least}");
    let told = build(&third, &root, &["-t", "made", "--cache-from", &from]).ok();
    assert!(runs(&told) > 0, "{told}");
}

#[test]
fn a_directory_brings_steps_and_cache_mounts() {
    let first = Daemon::start();
    let root = furnish(&first);
    let to = "type=local,dest=cache,mode=max,mounts=true";
    // The first time there is nothing.
    let output =
        build(&first, &root, &["-t", "made", "--cache-from", "type=local,src=cache", "--cache-to", to]);
    assert!(output.code == 0 && output.stderr.contains("not found"), "{output:?}");

    let second = first.beside();
    let told = build(&second, &root, &["-t", "made", "--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(runs(&told), 0, "{told}");
    same(&first, &second);
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,id=kept,target=/kept cat /kept/file > /read\n";
    fs::write(root.join("Dockerfile"), dockerfile).unwrap();
    build(&second, &root, &["-t", "read", "--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(second.berth(&["run", "--rm", "read", "cat", "/read"]).ok(), "content");
}

#[test]
fn an_image_is_a_cache_of_its_own_steps() {
    let first = Daemon::start();
    let _registry = Registry::start(first.root.path());
    let dockerfile = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n";
    let root = context(&first, "context", &[("Dockerfile", dockerfile)]);
    let name = format!("{ADDRESS}/inline:1");
    build(&first, &root, &["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    let second = first.beside();
    let from = format!("type=registry,ref={name}");
    let told = build(&second, &root, &["-t", "made", "--cache-from", &from]).ok();
    assert_eq!((runs(&told), told.matches("Using cache").count()), (0, 2), "{told}");
}

/// R16: a history does not say what a step has mounted, nor where the words of its program end.
#[test]
fn a_history_that_does_not_tell_all_is_no_cache() {
    let first = Daemon::start();
    let _registry = Registry::start(first.root.path());
    let text =
        "FROM busybox\nRUN --mount=target=/src cat /src/file > /made\nRUN [\"touch\", \"/a b\"]\nRUN true\n";
    let root = context(&first, "context", &[("Dockerfile", text), ("file", "one\n")]);
    let name = format!("{ADDRESS}/inline:2");
    build(&first, &root, &["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    fs::write(root.join("file"), "two\n").unwrap();
    fs::write(root.join("Dockerfile"), text.replace("/a b", "/a\", \"b")).unwrap();
    let from = format!("type=registry,ref={name}");
    let second = first.beside();
    build(&second, &root, &["-t", "made", "--cache-from", &from]).ok();
    assert_eq!(
        second.berth(&["run", "--rm", "made", "sh", "-c", "cat /made; ls -d /a /b"]).ok(),
        "two\n/a\n/b"
    );
    // The classic client names an image.
    second.berth(&["pull", "-q", &name]).ok();
    for client in BOTH {
        let context = root.to_str().unwrap();
        run(&mut command(&second, client, context, &["-t", "made", "--cache-from", &name])).ok();
        assert_eq!(second.berth(&["run", "--rm", "made", "cat", "/made"]).ok(), "two");
    }
}

#[test]
fn a_cache_that_lies_is_no_cache() {
    let first = Daemon::start();
    let root = furnish(&first);
    build(&first, &root, &["-t", "made", "--cache-to", "type=local,dest=cache,mode=max"]).ok();
    let cache = root.join("cache");
    let index = fs::read_to_string(cache.join("index.json")).unwrap();

    // Each image stands for another step.
    let mut swapped: Value = serde_json::from_str(&index).unwrap();
    let manifests = swapped["manifests"].as_array_mut().unwrap();
    let mut annotations: Vec<Value> = manifests.iter().map(|entry| entry["annotations"].clone()).collect();
    annotations.rotate_left(1);
    for (entry, annotations) in manifests.iter_mut().zip(annotations) {
        entry["annotations"] = annotations;
    }
    fs::write(cache.join("index.json"), swapped.to_string()).unwrap();
    let from = ["-t", "made", "--cache-from", "type=local,src=cache"];
    let told = build(&first.beside(), &root, &from).ok();
    assert!(told.contains("is incomplete: ") && told.contains("is not what the step makes"), "{told}");
    assert_eq!(runs(&told), 2, "{told}");

    // Content that is not what its name says.
    fs::write(cache.join("index.json"), &index).unwrap();
    for blob in fs::read_dir(cache.join("blobs/sha256")).unwrap().flatten() {
        let mut content = fs::read(blob.path()).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(blob.path(), content).unwrap();
    }
    let told = build(&first.beside(), &root, &from).ok();
    assert!(told.contains("is incomplete: ") && told.contains("has the digest"), "{told}");

    for index in ["nonsense", "{}", "[]"] {
        fs::write(cache.join("index.json"), index).unwrap();
        let told = build(&first.beside(), &root, &from).ok();
        assert_eq!(runs(&told), 2, "{told}");
    }
    fs::remove_dir_all(&cache).unwrap();
    fs::create_dir(&cache).unwrap();
    let told = build(&first.beside(), &root, &from).ok();
    assert!(told.contains("cannot be used: index.json is not there"), "{told}");
}

#[test]
fn a_cache_that_cannot_be_reached_is_told_of() {
    let daemon = Daemon::start();
    let root = context(&daemon, "context", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let far = format!("type=registry,ref={ADDRESS}/nowhere:1");
    let told = build(&daemon, &root, &["--cache-from", &far]).ok();
    assert!(told.contains(&format!("[Warning] the cache {ADDRESS}/nowhere:1 cannot be used: ")), "{told}");
    let output = build(&daemon, &root, &["--cache-to", &far]);
    assert!(output.code != 0 && output.stderr.contains(ADDRESS), "{output:?}");
    let told = build(&daemon, &root, &["--cache-to", &format!("{far},ignore-error=true")]).ok();
    assert!(told.contains("[Warning] the cache is not exported: "), "{told}");
    for (value, words) in [
        ("type=s3,bucket=b", "unexpected key 'bucket'"),
        ("type=gha", "unknown cache type \"gha\""),
        ("type=local,mode=max", "needs src=DIRECTORY or dest=DIRECTORY"),
        ("type=registry", "needs ref=NAME"),
        ("type=local,dest=c,mode=all", "unsupported cache mode"),
    ] {
        let output = build(&daemon, &root, &["--cache-to", value]);
        assert!(output.code != 0 && output.stderr.contains(words), "{value}: {output:?}");
    }
}
