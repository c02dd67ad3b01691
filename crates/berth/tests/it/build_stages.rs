//! Stages of a build: those that nobody needs, those at once that do not need each other, and their end together.

use std::fs;
use std::path::{Path, PathBuf};

use crate::building::{self, BOTH};
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{Output, eventually};
use crate::registry::{ADDRESS, Registry};

fn context(daemon: &Daemon, name: &str, dockerfile: &str) -> PathBuf {
    building::context(daemon, name, &[("Dockerfile", dockerfile)])
}

#[track_caller]
fn build(daemon: &Daemon, client: Client, context: &Path, arguments: &[&str]) -> Output {
    building::build(daemon, client, context, &[&["-t", "made"], arguments].concat())
}

#[test]
fn stages_that_nobody_needs_are_left_out() {
    let daemon = Daemon::start();
    let text = "FROM busybox AS unused\nARG SEEN\nRUN exit 1\nFROM busybox AS used\nRUN echo u > /u\n\
        FROM busybox\nCOPY --from=used /u /u\nFROM used AS later\nRUN echo l > /l\n";
    let root = context(&daemon, "unused", text);
    let arguments = ["--no-cache", "--build-arg", "SEEN=1"];
    let told = build(&daemon, Client::Berth, &root, &arguments).ok();
    assert!(told.contains("Step 1/4 : FROM busybox AS used") && !told.contains("exit 1"), "{told}");
    assert!(!told.contains("not consumed"), "{told}");
    assert_eq!(daemon.berth(&["run", "--rm", "made", "cat", "/l", "/u"]).ok(), "l\nu");
    // A client that knows the classic builder alone gets all that comes before the target, as from Docker.
    build(&daemon, Client::Docker, &root, &arguments).fails(1, "non-zero code: 1");
    for client in BOTH {
        build(&daemon, client, &root, &["--target", "unused"]).fails(1, "non-zero code: 1");
    }
    let text = "FROM busybox AS unused\nRUN echo e > /e\nFROM busybox AS target\nRUN echo e > /e\nFROM busybox\nRUN exit 1\n";
    let root = context(&daemon, "equal", text);
    let told = build(&daemon, Client::Docker, &root, &["--target", "target"]).ok();
    assert_eq!(told.matches("Using cache").count(), 1, "{told}");
    // A stage that only a trigger of the base asks for.
    let base = context(&daemon, "base", "FROM busybox\nONBUILD COPY --from=hidden /h /\n");
    build(&daemon, Client::Berth, &base, &["-t", "base"]).ok();
    let root =
        context(&daemon, "trigger", "FROM busybox AS hidden\nRUN echo h > /h\nFROM base\nRUN cat /h\n");
    assert!(build(&daemon, Client::Berth, &root, &[]).ok().contains("\nh\n"));
}

/// Each stage waits for the others: one after the other they would wait for ever.
#[test]
fn stages_go_on_at_once() {
    let daemon = Daemon::start();
    let wait = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,target=/c touch /c/{own}; echo from {own}; \
            while ! test -e /c/{other}; do usleep 10000; done; echo {own} > /{own}\n"
        )
    };
    let end = "FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN cat /one /two\n";
    let root = context(&daemon, "both", &(wait("one", "two") + &wait("two", "one") + end));
    let told = build(&daemon, Client::Docker, &root, &[]).ok();
    for line in
        ["[one] from one\n", "[two] from two\n", "[one] Step 1/8 : FROM busybox AS one\n", "[stage-2] one\n"]
    {
        assert!(told.contains(line), "no {line:?} in {told}");
    }
    assert_eq!(daemon.berth(&["run", "--rm", "made", "cat", "/one", "/two"]).ok(), "one\ntwo");
    let again = build(&daemon, Client::Berth, &root, &[]).ok();
    assert_eq!(again.matches("Using cache").count(), 5, "{again}");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
}

/// Equal steps of stages, and of builds, that go on at once are carried out once.
#[test]
fn equal_steps_are_made_once() {
    let daemon = Daemon::start();
    let step = "RUN --mount=type=cache,target=/c echo x >> /c/count && sleep 1 && wc -l < /c/count > /made\n";
    let stages = format!("FROM busybox AS one\n{step}FROM busybox AS two\n{step}");
    let end = "FROM busybox\nCOPY --from=one /made /one\nCOPY --from=two /made /two\n";
    let children: Vec<_> = (0..3)
        .map(|number| {
            let root = context(&daemon, &format!("equal{number}"), &(stages.clone() + end));
            let name = format!("equal:{number}");
            let mut command =
                building::command(&daemon, BOTH[number % 2], root.to_str().unwrap(), &["-q", "-t", &name]);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for (number, mut child) in children.into_iter().enumerate() {
        assert!(child.wait().unwrap().success());
        let name = format!("equal:{number}");
        assert_eq!(daemon.berth(&["run", "--rm", &name, "cat", "/one", "/two"]).ok(), "1\n1");
    }
    // One that failed is made again.
    let text = "FROM busybox AS one\nRUN --mount=type=cache,target=/f echo x >> /f/tries; test $(wc -l < /f/tries) = 2\n";
    let root = context(&daemon, "tried", text);
    build(&daemon, Client::Berth, &root, &[]).fails(1, "non-zero code: 1");
    build(&daemon, Client::Docker, &root, &[]).ok();
}

#[test]
fn a_stage_that_fails_ends_the_others() {
    let daemon = Daemon::start();
    let text = "FROM busybox AS long\nRUN --mount=type=cache,target=/c touch /c/there && exec sleep 8765\n\
        FROM busybox AS bad\nRUN --mount=type=cache,target=/c while ! test -e /c/there; do usleep 10000; done; exit 9\n\
        FROM long\nCOPY --from=bad / /\n";
    let root = context(&daemon, "bad", text);
    for client in BOTH {
        build(&daemon, client, &root, &["--force-rm"]).fails(9, "returned a non-zero code: 9");
        eventually("no container is left", || daemon.berth(&["ps", "-aq"]).ok().is_empty().then_some(()));
        daemon.berth(&["builder", "prune", "-af"]).ok();
    }
}

#[test]
fn a_stage_is_done_again_for_the_asking() {
    let daemon = Daemon::start();
    let text = "FROM busybox AS One\nRUN echo 1 > /1\nFROM busybox\nRUN echo 2 > /2\nCOPY --from=one /1 /\n";
    let root = context(&daemon, "again", text);
    build(&daemon, Client::Berth, &root, &[]).ok();
    let told = build(&daemon, Client::Berth, &root, &["--no-cache-filter", "ONE"]).ok();
    assert!(told.contains("RUN echo 2 > /2\n ---> Using cache"), "{told}");
    assert!(told.contains("RUN echo 1 > /1\n ---> Running in"), "{told}");
    // A layer that depends on nothing below it is no exception.
    let root = context(&daemon, "linked", "FROM busybox AS one\nCOPY --link Dockerfile /\n");
    let layer = |arguments: &[&str]| {
        build(&daemon, Client::Berth, &root, arguments).ok();
        daemon.inspect("made", "{{json .RootFS.Layers}}")
    };
    let first = layer(&[]);
    filetime(&root.join("Dockerfile"), 1_000_000_000);
    assert_eq!(layer(&[]), first, "times are no change");
    assert_ne!(layer(&["--no-cache-filter", "one"]), first);
}

/// Sets when a file was changed, in seconds since 1970.
fn filetime(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn stages_may_be_for_another_platform() {
    let daemon = Daemon::start();
    let host = daemon.inspect("busybox", "{{.Os}}/{{.Architecture}}");
    let text = "FROM --platform=$BUILDPLATFORM busybox AS first\n\
        ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH\n\
        RUN echo \"$BUILDPLATFORM $BUILDARCH; $TARGETPLATFORM $TARGETOS $TARGETARCH [$TARGETVARIANT]\" > /told\n\
        FROM scratch\nCOPY --from=first /told /\n";
    let root = context(&daemon, "platforms", text);
    let architecture = host.split('/').nth(1).unwrap();
    for client in BOTH {
        for (platform, expected) in
            [("linux/arm/v7", "linux/arm/v7 linux arm [v7]"), ("linux/s390x", "linux/s390x linux s390x []")]
        {
            build(&daemon, client, &root, &["--platform", platform]).ok();
            let made = daemon.inspect("made", "{{.Os}}/{{.Architecture}}{{with .Variant}}/{{.}}{{end}}");
            assert_eq!(made, platform);
            let told = format!("{host} {architecture}; {expected}\n");
            let copy = daemon.berth(&["create", "--platform", platform, "made", "x"]).ok();
            let to = daemon.root.path().join("told");
            daemon.berth(&["cp", &format!("{copy}:/told"), to.to_str().unwrap()]).ok();
            assert_eq!(fs::read_to_string(to).unwrap(), told);
        }
    }
}

/// Without overlayfs every step has a whole copy.
#[test]
fn whole_copies_make_the_same_files() {
    let daemons = [Daemon::start(), Daemon::empty(&["--storage-driver", "vfs"])];
    let text = "FROM busybox AS first\nRUN mkdir /d; echo a > /d/a; ln /d/a /d/b; rm /etc/passwd\n\
        FROM first\nRUN --mount=from=first,target=/m,rw rm /d/a; echo x > /m/x; ls /m/d > /seen\n\
        RUN --mount=target=/context cp /context/Dockerfile /copied\nCOPY --link --from=first /d /linked\nWORKDIR /w\n";
    let made = daemons.map(|daemon| {
        let archive = crate::files::busybox_archive();
        daemon.berth(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
        let root = context(&daemon, "copies", text);
        filetime(&root.join("Dockerfile"), 1_000_000_000);
        build(&daemon, Client::Berth, &root, &["--build-arg", "SOURCE_DATE_EPOCH=1600000000"]).ok();
        let files = "find /d /etc /linked /w /m /copied /seen 2>&1 | sort; cat /d/b /linked/a /seen /copied";
        daemon.berth(&["run", "--rm", "--network", "none", "made", "sh", "-c", files]).ok()
    });
    assert!(made[0] == made[1] && !made[0].contains("/d/a\n"), "{made:?}");
}

#[test]
fn one_layer_is_made_of_all() {
    let daemon = Daemon::start();
    let text = "FROM busybox\nRUN echo 1 > /1; rm -r /home\nRUN rm /1; echo 2 > /2\nENV A=b\n";
    let root = context(&daemon, "squash", text);
    let layers = |image: &str| {
        let text = daemon.inspect(image, "{{json .RootFS.Layers}}");
        serde_json::from_str::<Vec<String>>(&text).unwrap().len()
    };
    build(&daemon, Client::Berth, &root, &["--squash"]).ok();
    assert_eq!(layers("made"), layers("busybox") + 1);
    let seen = daemon.berth(&[
        "run",
        "--rm",
        "made",
        "sh",
        "-c",
        "echo $A; cat /2; ls /1 /home 2>&1 | grep -c 'No such'",
    ]);
    assert_eq!(seen.ok(), "b\n2\n2");
}

/// The cache has no layers with other times than those that are asked for.
#[test]
fn a_repeated_build_takes_nothing_of_another_time_from_the_cache() {
    let daemon = Daemon::start();
    let root = context(
        &daemon,
        "epochs",
        "FROM busybox\nRUN echo x > /ran\nCOPY Dockerfile /\nCOPY --link Dockerfile /link\n",
    );
    let built = |client, epoch: Option<&str>| {
        let argument = epoch.map(|epoch| format!("SOURCE_DATE_EPOCH={epoch}"));
        let arguments: Vec<&str> = argument.iter().flat_map(|text| ["--build-arg", text]).collect();
        let told = build(&daemon, client, &root, &arguments).ok();
        let times =
            daemon.berth(&["run", "--rm", "made", "stat", "-c", "%Y", "/ran", "/Dockerfile", "/link"]).ok();
        (times, told.matches("Using cache").count())
    };
    let plain = built(Client::Docker, None).0;
    let always = |epoch: &str| format!("{epoch}\n{epoch}\n{epoch}");
    assert_eq!(built(Client::Berth, Some("1600000000")), (always("1600000000"), 0));
    assert_eq!(built(Client::Docker, Some("1500000000")), (always("1500000000"), 0));
    assert_eq!(built(Client::Docker, Some("1600000000")), (always("1600000000"), 3));
    assert_eq!(built(Client::Berth, None), (plain, 3));
    for client in BOTH {
        build(&daemon, client, &root, &["--build-arg", "SOURCE_DATE_EPOCH=today"])
            .fails(1, "invalid SOURCE_DATE_EPOCH: today");
    }
}

#[test]
fn a_build_can_be_repeated() {
    let daemon = Daemon::start();
    let text = "FROM busybox AS first\nRUN mkdir -p /a/b; date > /dev/null; echo x > /a/b/c\n\
        FROM busybox\nWORKDIR /w\nCOPY --from=first /a /a\nCOPY Dockerfile .\nRUN --mount=target=/m cp -r /m /copied\nCMD x\n";
    let root = context(&daemon, "epoch", text);
    let made = |client| {
        let epoch = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
        let told = build(&daemon, client, &root, &epoch).ok();
        assert!(!told.contains("not consumed"), "{told}");
        fs::write(root.join("Dockerfile"), text).unwrap();
        daemon.inspect("made", "{{.Id}} {{.Created}}")
    };
    let first = made(Client::Berth);
    assert!(first.contains("2023-11-14T22:13:20Z"), "{first}");
    // Files of the next build are younger by a second at least.
    let second = std::time::Duration::from_millis(1100);
    std::thread::sleep(second);
    assert_eq!(made(Client::Docker), first);
    assert_eq!(
        daemon.berth(&["run", "--rm", "made", "stat", "-c", "%Y", "/copied/Dockerfile"]).ok(),
        "1700000000"
    );
}

#[test]
fn a_newer_base_is_taken_for_the_asking() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.root.path());
    let push = |version: &str| {
        let mut layers = files::busybox().layers;
        layers.push(files::Layer::new().file("version", 0o644, version).bytes());
        let image = files::Image { layers, config: files::busybox().config };
        let archive = files::write(daemon.root.path(), "base.tar", &image.docker_archive("base:latest"));
        registry.push("docker-archive", &archive, "team/base:latest");
    };
    let text = format!(
        "FROM {ADDRESS}/team/base AS one\nRUN cat /version\nFROM {ADDRESS}/team/base\n\
        COPY --from=one /version /\nCOPY --from={ADDRESS}/team/base:latest /version /copied\n"
    );
    let root = context(&daemon, "newer", &text);
    let versions = || daemon.berth(&["run", "--rm", "made", "cat", "/version", "/copied"]).ok();
    for (number, client) in BOTH.into_iter().enumerate() {
        // Neither client has anything the first time, and there is nothing newer the second time.
        let (old, new) = (format!("{number}-old\n"), format!("{number}-new\n"));
        push(&old);
        build(&daemon, client, &root, &["--pull"]).ok();
        assert_eq!(versions(), format!("{old}{old}").trim_end());
        push(&new);
        let told = build(&daemon, client, &root, &[]).ok();
        assert_eq!(
            (versions(), told.matches("Using cache").count()),
            (format!("{old}{old}").trim_end().to_owned(), 3)
        );
        build(&daemon, client, &root, &["--pull"]).ok();
        assert_eq!(versions(), format!("{new}{new}").trim_end());
        let told = build(&daemon, client, &root, &["--pull"]).ok();
        assert_eq!(told.matches("Using cache").count(), 3, "{told}");
    }
}
