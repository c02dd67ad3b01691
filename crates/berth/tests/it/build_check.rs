//! `build --check`, `# check=` and the warnings of ordinary builds.

use std::fs;

use serde_json::Value;

use crate::build_recorder::Recorder;
use crate::building::{BOTH, build, context};
use crate::daemon::{Client, Daemon};
use crate::output::feed;

/// Breaks some rules.
const ODD: &str = "FROM busybox AS Base\n\
    MAINTAINER me\n\
    FROM base\n\
    ENV old style\n\
    LABEL a=$NOWHERE\n\
    WORKDIR relative\n\
    COPY kept gone /\n\
    CMD echo hi\n";

#[test]
fn warnings_are_shown_with_their_lines_and_nothing_is_built() {
    let daemon = Daemon::start();
    let files = [
        ("Dockerfile", ODD),
        (".dockerignore", "gone\n"),
        ("kept", ""),
        ("gone", ""),
        ("ok", "FROM busybox\n"),
    ];
    let root = context(&daemon, "context", &files);
    let before = daemon.berth(&["images", "-aq"]).ok();
    let output = build(&daemon, Client::Berth, &root, &["--check"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.starts_with("Check complete, 7 warnings have been found!\n"), "{output:?}");
    for (rule, slug, message, place) in [
        ("StageNameCasing", "stage-name-casing", "Stage name 'Base' should be lowercase", 1),
        (
            "MaintainerDeprecated",
            "maintainer-deprecated",
            "Maintainer instruction is deprecated in favor of using label",
            2,
        ),
        (
            "LegacyKeyValueFormat",
            "legacy-key-value-format",
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            4,
        ),
        ("UndefinedVar", "undefined-var", "Usage of undefined variable '$NOWHERE'", 5),
        (
            "WorkdirRelativePath",
            "workdir-relative-path",
            "Relative workdir \"relative\" can have unexpected results if the base image changes",
            6,
        ),
        (
            "CopyIgnoredFile",
            "copy-ignored-file",
            "Attempting to Copy file \"gone\" that is excluded by .dockerignore",
            7,
        ),
        (
            "JSONArgsRecommended",
            "json-args-recommended",
            "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            8,
        ),
    ] {
        let text = format!(
            "\nWARNING: {rule} - https://docs.docker.com/go/dockerfile/rule/{slug}/\n{message}\nDockerfile:{place}\n---"
        );
        assert!(output.stdout.contains(&text), "no {text:?} in {}", output.stdout);
    }
    assert!(output.stdout.contains("   8 | >>> CMD echo hi\n"), "{}", output.stdout);
    assert!(!output.stdout.contains("Sending") && !output.stdout.contains("Step"), "{}", output.stdout);
    assert_eq!(daemon.berth(&["images", "-aq"]).ok(), before);

    let file = root.join("ok");
    let output = build(&daemon, Client::Berth, &root, &["--check", "-f", file.to_str().unwrap()]);
    assert_eq!(output.ok(), "Check complete, no warnings found.");
    fs::write(root.join("Dockerfile"), "FORM busybox\n").unwrap();
    build(&daemon, Client::Berth, &root, &["--check"]).fails(1, "unknown instruction: FORM");
    let mut command = daemon.client(Client::Berth, &["build", "--check", "-"]);
    let output = feed(&mut command, b"FROM busybox\nCMD x\n");
    assert!(output.code == 1 && output.stdout.contains("\nDockerfile:2\n"), "{output:?}");
}

#[test]
fn a_dockerfile_says_which_warnings_count() {
    let daemon = Daemon::start();
    let root = context(&daemon, "context", &[("Dockerfile", "")]);
    let write = |text: &str| fs::write(root.join("Dockerfile"), text).unwrap();
    for client in BOTH {
        write("# check=error=true\nFROM busybox AS Name\nCMD x\n");
        let rules = "lint violation found for rules: JSONArgsRecommended, StageNameCasing";
        build(&daemon, client, &root, &["-t", "refused"]).fails(1, rules);
        write("# check=skip=JSONArgsRecommended,StageNameCasing;error=true\nFROM busybox AS Name\nCMD x\n");
        build(&daemon, client, &root, &[]).ok();
        write("# check=skipped=all\nFROM busybox\n");
        build(&daemon, client, &root, &[]).fails(1, "invalid check option \"skipped\"");
    }
    assert_eq!(daemon.berth(&["images", "-q", "refused"]).ok(), "");
    write("FROM busybox AS a\n# check=skip=JSONArgsRecommended\nCMD x\n");
    let output = build(&daemon, Client::Berth, &root, &["--check"]);
    assert_eq!(output.ok(), "Check complete, no warnings found.");
}

#[test]
fn builds_tell_of_warnings_at_their_end() {
    let daemon = Daemon::start();
    let root = context(&daemon, "context", &[("Dockerfile", "FROM busybox\nCMD x\n")]);
    let told = "1 warning found (use --check to expand):\n - JSONArgsRecommended: JSON arguments recommended for CMD \
        to prevent unintended behavior related to OS signals (line 2)\n";
    let output = build(&daemon, Client::Berth, &root, &[]);
    assert!(output.code == 0 && output.stderr.contains(told), "{output:?}");
    let output = build(&daemon, Client::Berth, &root, &["-q"]);
    assert!(output.code == 0 && output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.starts_with("sha256:"), "{output:?}");
    let output = build(&daemon, Client::Berth, &root, &["--progress", "rawjson"]).ok();
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = lines.filter(|line| !line["aux"]["Warnings"].is_null()).collect();
    assert_eq!(found[0]["aux"]["Warnings"][0]["Rule"], "JSONArgsRecommended");
    // The stock client knows nothing of this, and is told nothing.
    let output = build(&daemon, Client::Docker, &root, &[]);
    assert!(output.code == 0 && !output.stderr.contains("warning found"), "{output:?}");
}

#[test]
fn other_daemons_are_not_asked_for_what_they_do_not_know() {
    let recorder = Recorder::start();
    recorder.write("context/Dockerfile", "FROM x\n");
    for (arguments, words) in [
        (&["--check", "context"][..], "does not know --check"),
        (&["-o", "out", "context"], "does not know --output"),
        (&["--build-context", "a=context", "context"], "does not know --build-context"),
        (&["--cache-to", "type=local,dest=c", "context"], "does not know --cache-to"),
    ] {
        let (output, request) = recorder.build(Client::Berth, arguments, b"");
        output.fails(1, words);
        assert!(request.is_none(), "{arguments:?}");
    }
    let (output, request) =
        recorder.build(Client::Berth, &["-o", "type=image,name=a:1", "-t", "b", "context"], b"");
    output.ok();
    assert_eq!(request.unwrap().get("t"), Some("a:1"));
}
