//! Builds that are killed, lied to, and led astray.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::building::{BOTH, build, command, context};
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::model::Random;
use crate::output::{eventually, run};

/// A build of all kinds of steps, in two stages that go on at once. It gives the same image each time.
const STEPS: &str = "FROM busybox AS side\nWORKDIR /side\nRUN seq 20000 > numbers\nCOPY --chown=user files/ ./files/\n\
    RUN --mount=type=cache,target=/cache echo x >> /cache/count; sha256sum numbers > sum\n\
    FROM busybox\nENV A=b\nADD packed.tar /packed/\nRUN --mount=type=secret,id=key sha256sum /run/secrets/key > /of-key\n\
    RUN --mount=source=files,target=/mnt,rw touch /mnt/new && cp -r /mnt /bound && rm -r /etc/group\n\
    COPY --link --from=side /side /linked/\nRUN mv /bound /moved && chmod 700 /moved\nUSER user\nCMD [\"true\"]\n";

/// Names in a directory.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What is left of a build that was ended, but for what a later one takes from the cache.
fn traces(daemon: &Daemon) -> Vec<String> {
    let mut traces: Vec<String> =
        daemon.berth(&["ps", "-aq"]).ok().lines().map(|id| format!("container {id}")).collect();
    let data = daemon.data_root();
    for directory in ["containers", "volumes", "tmp", "staging", "staging/trash", "staging/partial"] {
        let found = names(&data.join(directory)).into_iter();
        let left =
            found.filter(|name| directory != "staging" || !matches!(name.as_str(), "trash" | "partial"));
        traces.extend(left.map(|name| format!("{directory}/{name}")));
    }
    let secrets = names(&daemon.exec_root()).into_iter().filter(|name| name.starts_with("secret-"));
    traces.extend(secrets);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = daemon.root.path().to_str().unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(root)).map(str::to_owned));
    traces
}

#[track_caller]
fn leaves_nothing(daemon: &Daemon, history: &[String]) {
    let mut last = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        last = traces(daemon);
        if last.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("left after {history:?}: {last:?}");
}

/// Ends builds at moments that nobody chose, by killing the daemon or the client.
fn killed_at_any_step(seed: u64) {
    let mut random = Random::new(seed);
    let mut daemon = Daemon::start();
    let text =
        [("Dockerfile", STEPS), ("files/one", "one\n"), ("files/deep/two", "two\n"), ("key", "sesame")];
    let root = context(&daemon, "steps", &text);
    let packed = Layer::new().dir("in", 0o750).file("in/file", 0o4640, "in an archive\n").bytes();
    fs::write(root.join("packed.tar"), packed).unwrap();
    let secret = format!("id=key,src={}", root.join("key").display());
    let arguments = ["-q", "--build-arg", "SOURCE_DATE_EPOCH=1760000000", "--secret", &secret];
    let context = root.to_str().unwrap();
    let begun = Instant::now();
    let expected = build(&daemon, Client::Berth, &root, &arguments).ok();
    let whole = begun.elapsed().as_micros() as u64;
    daemon.berth(&["builder", "prune", "-af"]).ok();
    daemon.berth(&["image", "rm", "-f", &expected]).ok();
    let mut history = Vec::new();
    for _ in 0..8 {
        let delay = Duration::from_micros(random.below(whole));
        let kill_daemon = random.below(2) == 0;
        history.push(format!("{} killed after {delay:?}", if kill_daemon { "daemon" } else { "client" }));
        let mut client = command(&daemon, Client::Berth, context, &arguments);
        let mut client =
            client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        if kill_daemon {
            daemon.kill();
            client.wait().unwrap();
            daemon.launch();
        } else {
            // It may be done by now.
            client.kill().unwrap();
            client.wait().unwrap();
        }
        leaves_nothing(&daemon, &history);
    }
    // What is taken from the cache of all of them is what one build would have made.
    assert_eq!(build(&daemon, Client::Berth, &root, &arguments).ok(), expected, "{history:?}");
    let again = [&arguments[..], &["--no-cache"]].concat();
    assert_eq!(build(&daemon, Client::Berth, &root, &again).ok(), expected, "{history:?}");
    leaves_nothing(&daemon, &history);
}

#[test]
fn builds_killed_at_any_step_leave_nothing_but_cache_first() {
    killed_at_any_step(0x5eed_0007);
}

#[test]
fn builds_killed_at_any_step_leave_nothing_but_cache_second() {
    killed_at_any_step(0xbeef_cafe);
}

/// R16: an image that claims to have been made by a step is not what the step makes.
#[test]
fn histories_of_images_are_not_believed() {
    let daemon = Daemon::start();
    let root = context(
        &daemon,
        "poisoned",
        &[("Dockerfile", "FROM busybox\nRUN echo good > /made\nCOPY file /\n"), ("file", "good\n")],
    );
    let honest = build(&daemon, Client::Docker, &root, &["-q"]).ok();
    let steps: Vec<String> = daemon
        .berth(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", &honest])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    daemon.berth(&["builder", "prune", "-af"]).ok();
    daemon.berth(&["image", "rm", "-f", &honest]).ok();
    // The layers are busybox's and the attacker's; the history, and the parent that a legacy archive may name, are the build's.
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("made", 0o644, "evil\n").file("file", 0o644, "evil\n").bytes());
    let base = daemon.inspect("busybox", "{{.Id}}");
    let (copied, ran) = (steps[0].clone(), steps[1].clone());
    let evil = Image { layers, config: files::busybox().config };
    let mut archive = evil.config_value();
    archive["history"] =
        json!([{"created_by": "test"}, {"created_by": ran}, {"created_by": copied, "empty_layer": true}]);
    archive["parent"] = json!(base);
    archive["container_config"] = json!({"Cmd": ["/bin/sh", "-c", ran]});
    let path =
        files::write(daemon.root.path(), "evil.tar", &evil.docker_archive_with("evil:latest", &archive));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    for client in BOTH {
        let told = build(&daemon, client, &root, &["-t", "made"]).ok();
        assert_eq!(
            daemon.berth(&["run", "--rm", "made", "cat", "/made", "/file"]).ok(),
            "good\ngood",
            "{told}"
        );
    }
}

/// R17: a cache that a step has filled with links leads no later step out of it.
#[test]
fn links_in_caches_lead_nowhere_else() {
    let daemon = Daemon::start();
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "of the host\n").unwrap();
    let path = outside.display();
    let text = format!(
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c ln -s {path} /c/there && ln -s /proc/self/root{path} /c/magic\n\
        RUN --mount=type=cache,id=c,target=/c ! cat /c/there/file && ! cat /c/magic/file\n\
        RUN --mount=type=cache,id=c,target=/c --mount=type=tmpfs,target=/c/there/x true || true\n"
    );
    let root = context(&daemon, "links", &[("Dockerfile", &text)]);
    for client in BOTH {
        build(&daemon, client, &root, &["--no-cache"]);
        assert_eq!(names(&outside), ["file"]);
        daemon.berth(&["builder", "prune", "-af"]).ok();
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "of the host\n",
            "what is removed is the link"
        );
    }
}

/// R26: nothing that an image has for its list of users is waited for, or read from the host.
#[test]
fn lists_of_users_are_files_of_the_image() {
    let daemon = Daemon::start();
    let secret = daemon.root.path().join("secret");
    fs::write(&secret, "hidden:x:4321:4321::/:/bin/sh\n").unwrap();
    for (makes, name) in [
        ("mkfifo /etc/passwd /etc/group".to_owned(), "user"),
        ("mknod /etc/passwd c 1 5 && mknod /etc/group c 1 5".to_owned(), "user"),
        (format!("ln -s {} /etc/passwd", secret.display()), "hidden"),
        (format!("ln -s /proc/1/root{} /etc/passwd", secret.display()), "hidden"),
    ] {
        for step in [format!("COPY --chown={name} Dockerfile /"), format!("USER {name}\nRUN true")] {
            let text = format!("FROM busybox\nRUN rm /etc/passwd /etc/group && {makes}\n{step}\n");
            let root = context(&daemon, "users", &[("Dockerfile", &text)]);
            for client in BOTH {
                let output = run(&mut command(&daemon, client, root.to_str().unwrap(), &["--force-rm"]));
                assert_ne!(output.code, 0, "{text}: {output:?}");
            }
        }
    }
    eventually("nothing is left", || daemon.berth(&["ps", "-aq"]).ok().is_empty().then_some(()));
}

/// What is copied when a build ends is not copied to its end.
#[test]
fn a_build_ends_in_the_midst_of_a_copy() {
    let daemon = Daemon::start();
    // Holes, which take no room but a while to read.
    let text =
        "FROM busybox AS large\nRUN truncate -s 8G /large\nFROM busybox\nCOPY --from=large /large /copied/\n";
    let root = context(&daemon, "large", &[("Dockerfile", text)]);
    build(&daemon, Client::Berth, &root, &["--target", "large"]).ok();
    for client in BOTH {
        let mut client = command(&daemon, client, root.to_str().unwrap(), &[]);
        let client = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        let told = BufReader::new(client.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(told.inspect(|line| println!("{line}")).any(|line| line.contains("COPY --from=large")));
        kill_process(Pid::from_child(&client), Signal::INT).unwrap();
        client.wait().unwrap();
        leaves_nothing(&daemon, &[]);
    }
}

/// Images that a build has made, and has not named yet, are in use.
#[test]
fn builds_go_on_while_all_is_pruned() {
    let daemon = Daemon::start();
    let text = "FROM busybox\nENV A=b\nWORKDIR /made\nLABEL c=d\nCOPY file .\nENV E=f\nRUN cat file\nCMD [\"true\"]\n";
    let root = context(&daemon, "pruned", &[("Dockerfile", text), ("file", "x\n")]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let prune = |arguments: &'static [&'static str]| {
            while !over.load(Ordering::Relaxed) {
                daemon.berth(arguments).ok();
            }
        };
        scope.spawn(move || prune(&["image", "prune", "-f"]));
        scope.spawn(move || prune(&["builder", "prune", "-af"]));
        // Also when a build fails.
        let _over = Over(&over);
        for number in 0..12 {
            let name = format!("made:{number}");
            let client = BOTH[number % BOTH.len()];
            build(&daemon, client, &root, &["-q", "--no-cache", "-t", &name]).ok();
            build(&daemon, client, &root, &["-q", "-t", &name]).ok();
        }
    });
    let made = daemon.berth(&["images", "-q", "made"]).ok();
    assert_eq!(made.lines().count(), 12, "{made}");
}

/// Sets what it holds in the end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
