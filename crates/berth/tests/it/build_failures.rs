//! Where and why a build fails, and what its arguments say to the builder, through both clients.

use std::fs;

use crate::building::{BOTH, build, context};
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};

/// The architecture that an image says it is for does not make its programs run.
#[test]
fn programs_of_another_machine_need_an_emulator() {
    let daemon = Daemon::start();
    // A program in the form of the kernel's, for a machine that there is not.
    let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    program.resize(64, 0);
    program[16..20].copy_from_slice(&[2, 0, 0xf0, 0xf0]);
    let image = Image::new(vec![Layer::new().file("bin/sh", 0o755, &program)]);
    let mut config = image.config_value();
    config["architecture"] = "riscv64".into();
    let path = files::write(
        daemon.root.path(),
        "foreign.tar",
        &image.docker_archive_with("foreign:latest", &config),
    );
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    let root = context(&daemon, "foreign", &[("Dockerfile", "FROM foreign\nRUN true\n")]);
    for client in BOTH {
        let output = build(&daemon, client, &root, &["--platform", "linux/riscv64"]);
        let output = output.fails(1, "the image is for linux/riscv64 and this host is linux/");
        assert!(
            output.stderr.contains("binfmt_misc") && output.stderr.contains("exec format error"),
            "{output:?}"
        );
    }
}

/// What is meant for the builder is no argument that nobody asks for.
#[test]
fn arguments_for_the_builder_are_heeded() {
    let daemon = Daemon::start();
    let root = context(&daemon, "builder", &[("Dockerfile", "FROM busybox\nRUN hostname; echo x >> /x\n")]);
    let arguments = |pairs: &[&str]| {
        let all: Vec<&str> = pairs.iter().flat_map(|pair| ["--build-arg", pair]).collect();
        BOTH.map(|client| build(&daemon, client, &root, &all))
    };
    for output in arguments(&[
        "BUILDKIT_SANDBOX_HOSTNAME=there",
        "BUILDKIT_INLINE_CACHE=1",
        "BUILDKIT_MULTI_PLATFORM=1",
    ]) {
        let told = output.ok();
        assert!(
            (told.contains("\nthere\n") || told.contains("Using cache")) && !told.contains("not consumed"),
            "{told}"
        );
    }
    for output in arguments(&["BUILDKIT_SYNTAX=an/other:1"]) {
        output.fails(1, "the frontend an/other:1 cannot be used");
    }
    for output in arguments(&["BUILDKIT_SYNTAX=docker/dockerfile:1", "OTHER=1"]) {
        let told = output.ok();
        assert!(told.contains("One or more build-args [OTHER] were not consumed"), "{told}");
    }
    fs::write(root.join("Dockerfile"), "FROM busybox as x\nRUN true\n").unwrap();
    for output in arguments(&["BUILDKIT_DOCKERFILE_CHECK=error=true"]) {
        output.fails(1, "lint violation found");
    }
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/file; wc -l < /c/file\n";
    fs::write(root.join("Dockerfile"), text).unwrap();
    for pair in [&["BUILDKIT_CACHE_MOUNT_NS=one"][..], &["BUILDKIT_CACHE_MOUNT_NS=two"], &[]] {
        let [first, second] = arguments(pair).map(|output| output.ok());
        assert!(first.contains("\n1\n") && second.contains("Using cache"), "{first}{second}");
    }
}

/// A client of ours shows the place; the stock client's text stays Docker's.
#[test]
fn failures_are_told_with_their_lines() {
    let daemon = Daemon::start();
    let first = "FROM busybox AS builder\n\n";
    for (text, place, words) in [
        (
            "RUN echo a && \\\n  exit 7\n",
            "   3 | >>> RUN echo a && \\\n   4 | >>>   exit 7\n",
            "non-zero code: 7",
        ),
        ("COPY absent /\n", "   3 | >>> COPY absent /\n", "COPY failed: file not found"),
        ("RNU x\n", "   3 | >>> RNU x\n", "unknown instruction: RNU (did you mean RUN?)"),
        ("ENV A=${B?why}\n", "   3 | >>> ENV A=${B?why}\n", "B: why"),
        ("EXPOSE x\n", "   3 | >>> EXPOSE x\n", "invalid containerPort: x"),
        ("FROM ${NONE}\n", "   3 | >>> FROM ${NONE}\n", "should not be blank"),
        ("FROM biulder\n", "   3 | >>> FROM biulder\n", "(did you mean the stage builder?)"),
        (
            "FROM busybox\nCOPY --from=bilder /a /\n",
            "   4 | >>> COPY --from=bilder /a /\n",
            "(did you mean the stage builder?)",
        ),
        (
            "RUN --mount=type=bind,from=absent.invalid/x,target=/x true\n",
            "   3 | >>> RUN --mount",
            "absent.invalid/x",
        ),
    ] {
        let root = context(&daemon, "placed", &[("Dockerfile", &format!("{first}{text}"))]);
        let output = build(&daemon, Client::Berth, &root, &["--force-rm"]);
        let told = &output.stderr;
        let (at, why) = (told.find(place), told.find(words));
        assert!(output.code != 0 && at.is_some() && at < why, "{text}: {output:?}");
        assert!(told.contains("Dockerfile:"), "{told}");
        let output = build(&daemon, Client::Docker, &root, &["--force-rm"]);
        assert!(
            output.code != 0 && output.stderr.contains(words) && !output.stderr.contains(">>>"),
            "{output:?}"
        );
    }
}
