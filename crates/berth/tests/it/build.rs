//! `POST /build` through the stock client and by hand.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::building::{self, context};
use crate::daemon::{Client, Daemon};
use crate::output::{Output, eventually, feed, run};
use crate::raw;

fn command(daemon: &Daemon, context: &Path, arguments: &[&str]) -> Command {
    building::command(daemon, Client::Docker, context.to_str().unwrap(), arguments)
}

#[track_caller]
fn build(daemon: &Daemon, context: &Path, arguments: &[&str]) -> Output {
    run(&mut command(daemon, context, arguments))
}

/// A build that goes on while the test does.
fn begin(daemon: &Daemon, context: &Path) -> std::process::Child {
    let mut command = command(daemon, context, &[]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a shell prints in a container of an image.
fn shell(daemon: &Daemon, image: &str, script: &str) -> String {
    daemon.with(Client::Docker, &["run", "--rm", "--entrypoint", "sh", image, "-c", script]).ok()
}

fn config(daemon: &Daemon, image: &str) -> Value {
    serde_json::from_str(&daemon.berth(&["image", "inspect", "-f", "{{json .Config}}", image]).ok()).unwrap()
}

/// The container of the step that runs a program; steps before it may still go on.
fn running(daemon: &Daemon, program: &str) -> String {
    eventually("a step that runs", || {
        let list = daemon.berth(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"]).ok();
        let line = list.lines().find(|line| line.contains(program))?;
        line.split(' ').next().map(str::to_owned)
    })
}

/// Names in a directory of the data root.
fn names(daemon: &Daemon, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(daemon.data_root().join(directory)).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_first_image() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\nRUN echo made > /made && echo out && echo err >&2\nCOPY file /dir/\n\
        CMD [\"cat\", \"/made\", \"/dir/file\"]\n";
    let context = context(&daemon, "context", &[("Dockerfile", dockerfile), ("file", "copied\n")]);
    let text = build(&daemon, &context, &["-t", "first", "-t", "first:two"]).ok();
    for line in [
        "Step 1/4 : FROM busybox",
        "Step 2/4 : RUN echo made > /made && echo out && echo err >&2",
        " ---> Running in ",
        "\nout\n",
        " ---> Removed intermediate container ",
        "Successfully built ",
        "Successfully tagged first:latest",
        "Successfully tagged first:two",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert_eq!(daemon.berth(&["run", "--rm", "first:two"]).ok(), "made\ncopied");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "", "no container is left");
    let listed = daemon.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        ["busybox:latest", "first:latest", "first:two"],
        "steps are no images that are listed"
    );
    let id = daemon.inspect("first", "{{.Id}}");
    let again = build(&daemon, &context, &["-t", "first"]).ok();
    assert_eq!(again.matches(" ---> Using cache").count(), 3, "{again}");
    assert_eq!(daemon.inspect("first", "{{.Id}}"), id);
    let history = daemon.berth(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "first"]).ok();
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines[0], "/bin/sh -c #(nop)  CMD [\"cat\" \"/made\" \"/dir/file\"]");
    assert!(
        lines[1].starts_with("/bin/sh -c #(nop) COPY file:") && lines[1].ends_with(" in /dir/ "),
        "{history}"
    );
    assert_eq!(lines[2], "/bin/sh -c echo made > /made && echo out && echo err >&2");
    // Another file: the copy and what follows are made again.
    fs::write(context.join("file"), "other\n").unwrap();
    let other = build(&daemon, &context, &["-q", "-t", "first"]).ok();
    assert!(other.starts_with("sha256:") && other != id, "{other}");
    assert_eq!(daemon.berth(&["run", "--rm", "first"]).ok(), "made\nother");
    let fresh = build(&daemon, &context, &["--no-cache"]).ok();
    assert!(!fresh.contains("Using cache"), "{fresh}");
}

const ALL: &str = r#"# escape=\
ARG BASE=busybox
FROM $BASE AS files
WORKDIR /work/deep
RUN echo stage > file; chown 5:6 file; ln -s file link; mkdir -p tree/in; echo x > tree/in/x; chmod 700 tree
FROM ${BASE}
MAINTAINER An Author
ARG WHO=nobody
ARG UNSET
ENV A=1 B="two words" C=$WHO
ENV OLD old value
LABEL a=b "c d"=e
WORKDIR /first
WORKDIR second
RUN pwd > where; echo $WHO/$A/$B/$OLD > seen; id -u > me
USER 7:8
RUN touch /tmp/mine; id -u > /tmp/me; id -g >> /tmp/me
USER root
COPY --from=files /work/deep/file /work/deep/link ./
COPY --from=files /work/deep/tree tree
COPY --chown=9:10 --chmod=640 a.txt renamed
COPY dir /dir
COPY *.txt texts/
ADD archive.tar.gz /unpacked
COPY archive.tar.gz /packed/
COPY <<-"END" /heredoc
	plain $A
END
COPY <<END /expanded
value $A
END
RUN <<END
echo one > /script
echo two >> /script
END
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=7s CMD true
SHELL ["/bin/sh", "-e", "-c"]
RUN echo $- > /flags
ONBUILD RUN echo triggered > /triggered
ONBUILD COPY a.txt /from-trigger
ENTRYPOINT ["cat"]
CMD ["/first/second/seen"]
"#;

const SEEN: &str = "cat where me file /tmp/me
stat -c '%n %a %u:%g' file link tree tree/in renamed /tmp/mine /dir /dir/x/y
readlink /dir/link
ls texts /unpacked /packed
cat /heredoc /expanded /script
echo $PWD
cat /dir/z
env | grep -c UNSET
grep -c e /flags";

#[test]
fn every_instruction_is_seen_inside() {
    let daemon = Daemon::start();
    let files = [
        ("Dockerfile", ALL),
        ("a.txt", "a\n"),
        ("b.txt", "b\n"),
        ("dir/x/y", "y\n"),
        ("dir/z", "z\n"),
        ("pack/p", "p\n"),
    ];
    let context = context(&daemon, "all", &files);
    std::os::unix::fs::symlink("z", context.join("dir/link")).unwrap();
    let archive = context.join("archive.tar.gz");
    run(Command::new("tar").arg("-C").arg(context.join("pack")).arg("-czf").arg(archive).arg(".")).ok();
    build(&daemon, &context, &["-t", "all", "--build-arg", "WHO=somebody", "--label", "added=yes"]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "all"]).ok(), "somebody/1/two words/old value");
    let expected = "/first/second\n0\nstage\n7\n8\nfile 644 5:6\nlink 644 5:6\ntree 700 0:0\ntree/in 755 0:0\n\
        renamed 640 9:10\n/tmp/mine 644 7:8\n/dir 755 0:0\n/dir/x/y 644 0:0\nz\n/packed:\narchive.tar.gz\n\n\
        /unpacked:\np\n\ntexts:\na.txt\nb.txt\nplain $A\nvalue 1\none\ntwo\n/first/second\nz\n0\n1";
    assert_eq!(shell(&daemon, "all", SEEN), expected);
    let found = config(&daemon, "all");
    assert_eq!(found["Labels"], json!({"a": "b", "c d": "e", "added": "yes"}));
    assert_eq!(found["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!((&found["Volumes"], &found["StopSignal"]), (&json!({"/data": {}}), &json!("SIGINT")));
    assert_eq!(found["Healthcheck"]["Test"], json!(["CMD-SHELL", "true"]));
    assert_eq!(found["OnBuild"], json!(["RUN echo triggered > /triggered", "COPY a.txt /from-trigger"]));
    assert_eq!((&found["WorkingDir"], &found["User"]), (&json!("/first/second"), &json!("root")));
    assert_eq!(daemon.inspect("all", "{{.Author}}"), "An Author");
    // What it left for others.
    fs::write(context.join("Dockerfile"), "FROM all\nRUN cat /triggered\n").unwrap();
    let text = build(&daemon, &context, &["-t", "child"]).ok();
    assert!(text.contains("# Executing 2 build triggers\n") && text.contains("\ntriggered\n"), "{text}");
    assert_eq!(shell(&daemon, "child", "cat /from-trigger"), "a");
    assert!(config(&daemon, "child").get("OnBuild").is_none_or(Value::is_null));
}

#[test]
fn failures_are_told_as_docker_tells_them() {
    let daemon = Daemon::start();
    let write = |text: &str| context(&daemon, "bad", &[("Dockerfile", text)]);
    let missing = "COPY failed: file not found in build context or excluded by .dockerignore: \
        stat absent: file does not exist";
    for (text, code, expected) in [
        ("FROM busybox\nRUN exit 7\n", 7, "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ("FROM busybox\nCOPY absent /\n", 1, missing),
        ("FROM busybox\nCOPY *.none /\n", 1, "COPY failed: no source files were specified"),
        ("FROM busybox\nCOPY ../x /\n", 1, "COPY failed: forbidden path outside the build context: ../x ()"),
        ("FROM busybox\nRNU x\n", 1, "dockerfile parse error on line 2: unknown instruction: RNU"),
        ("FROM busybox\nRUN touch /foo\nVOLUME /foo\n", 1, "file exists"),
        (
            "FROM busybox\nVOLUME named:/foo\nRUN ls /foo/oops\n",
            1,
            "ls /foo/oops' returned a non-zero code: 1",
        ),
        ("FROM busybox\nCOPY --from=0 a b\n", 1, "invalid from flag value 0: refers to current build stage"),
        (
            "# syntax=an/other:1\nFROM busybox\n",
            1,
            "Dockerfile line 1: the frontend an/other:1 cannot be used",
        ),
        ("FROM scratch\n", 1, "No image was generated. Is your Dockerfile empty?"),
        ("FROM busybox\nCOPY --chown=none Dockerfile /\n", 1, "unable to convert uid/gid chown string"),
        ("", 1, "the Dockerfile (Dockerfile) cannot be empty"),
    ] {
        build(&daemon, &write(text), &["--force-rm"]).fails(code, expected);
    }
    build(&daemon, &write("FROM busybox\n"), &["--target", "none"]).fails(1, "could not be found");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
    // A step that failed leaves its container to be looked into.
    build(&daemon, &write("FROM busybox\nRUN echo x > /y; false\n"), &[]).fails(1, "non-zero code: 1");
    let id = daemon.berth(&["ps", "-aq"]).ok();
    assert!(daemon.berth(&["diff", &id]).ok().contains("A /y"));
    // It can be started again, although nobody had cared to bring its files to the disk.
    assert_eq!(daemon.berth(&["start", "-a", &id]).code, 1);
    assert!(daemon.berth(&["diff", &id]).ok().contains("A /y"));
    let left = names(&daemon, "staging");
    assert!(left.iter().all(|name| name == "trash" || name == "partial"), "{left:?}");
}

#[test]
fn links_lead_nowhere_else() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\nRUN ln -s /real /there; mkdir /real\nCOPY sub/passwd /out\nCOPY file /there/\n\
        COPY tree /tree\n";
    let files =
        [("Dockerfile", dockerfile), ("file", "f\n"), ("etc/secret", "of the context\n"), ("tree/a", "a\n")];
    let context = context(&daemon, "links", &files);
    fs::create_dir(context.join("sub")).unwrap();
    let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, context.join(path)).unwrap();
    link("/etc/secret", "sub/passwd");
    link("/etc/passwd", "tree/link");
    build(&daemon, &context, &["-t", "links"]).ok();
    let found = shell(&daemon, "links", "cat /out /real/file; readlink /tree/link");
    assert_eq!(found, "of the context\nf\n/etc/passwd");
    link("/etc/hostname", "out");
    fs::write(context.join("Dockerfile"), "FROM busybox\nCOPY out /\n").unwrap();
    build(&daemon, &context, &[]).fails(1, "file not found in build context");
}

#[test]
fn a_build_ends_with_its_client() {
    let daemon = Daemon::start();
    let context = context(&daemon, "long", &[("Dockerfile", "FROM busybox\nRUN exec sleep 4321\n")]);
    let mut child = begin(&daemon, &context);
    let pid = daemon.init_pid(&running(&daemon, "sleep 4321"));
    child.kill().unwrap();
    child.wait().unwrap();
    let process = format!("/proc/{pid}");
    eventually("the program ends", || (!Path::new(&process).exists()).then_some(()));
    eventually("the container is gone", || daemon.berth(&["ps", "-aq"]).ok().is_empty().then_some(()));
}

#[test]
fn a_killed_daemon_leaves_nothing_but_cache() {
    let mut daemon = Daemon::start();
    let dockerfile = "FROM busybox\nRUN echo cached > /cached\nRUN exec sleep 5432\n";
    let context = context(&daemon, "killed", &[("Dockerfile", dockerfile)]);
    let mut child = begin(&daemon, &context);
    running(&daemon, "sleep 5432");
    daemon.kill();
    child.wait().unwrap();
    daemon.launch();
    eventually("the container is gone", || daemon.berth(&["ps", "-aq"]).ok().is_empty().then_some(()));
    eventually("its files are gone", || names(&daemon, "containers").is_empty().then_some(()));
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo cached > /cached\n").unwrap();
    let text = build(&daemon, &context, &[]).ok();
    assert_eq!(text.matches("Using cache").count(), 1, "{text}");
}

#[test]
fn builds_go_on_beside_each_other() {
    let daemon = Daemon::start();
    let start = |number: usize| {
        let text =
            format!("FROM busybox\nRUN echo shared > /shared\nRUN echo {number} > /own\nCOPY Dockerfile /\n");
        let context = context(&daemon, &format!("beside{number}"), &[("Dockerfile", &text)]);
        let name = format!("beside:{number}");
        let mut command = command(&daemon, &context, &["-q", "-t", &name]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(start).collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let found = shell(&daemon, &format!("beside:{number}"), "cat /shared /own");
        assert_eq!(found, format!("shared\n{number}"));
    }
}

#[test]
fn the_stream_is_that_of_the_api() {
    let daemon = Daemon::start();
    let files = [("Dockerfile.x", "FROM busybox\nRUN exit 3\n"), ("dockerfile", "FROM busybox\nLABEL a=b\n")];
    let context = context(&daemon, "raw", &files);
    let archive = daemon.root.path().join("c.tar");
    run(Command::new("tar").arg("-C").arg(&context).arg("-cf").arg(&archive).arg(".")).ok();
    let tar = fs::read(archive).unwrap();
    let post = |query: &str, body: &[u8]| {
        let path = format!("/v1.41/build{query}");
        raw::exchange(&daemon, &raw::request("POST", &path, "Content-Type: application/x-tar\r\n", body))
    };
    let answer = post("", &tar);
    assert_eq!(raw::status(&answer), 200, "a Dockerfile in lower case is found, too: {answer}");
    assert!(answer.contains("{\"stream\":\"Step 1/2 : FROM busybox\\n\"}\r\n"), "{answer}");
    assert!(answer.contains("{\"aux\":{\"ID\":\"sha256:"), "{answer}");
    let answer = post("?dockerfile=Dockerfile.x&t=never", &tar);
    let words = "The command '/bin/sh -c exit 3' returned a non-zero code: 3";
    let error = format!("{{\"errorDetail\":{{\"code\":3,\"message\":\"{words}\"}},\"error\":\"{words}\"}}");
    assert!(raw::status(&answer) == 200 && answer.contains(&error), "{answer}");
    assert_eq!(daemon.berth(&["images", "-q", "never"]).ok(), "");
    let answer = post("?dockerfile=absent", &tar);
    let words = "Cannot locate specified Dockerfile: absent";
    assert!(raw::status(&answer) == 500 && answer.contains(words), "{answer}");
    for query in ["?t=UPPER", "?version=9", "?allow=everything", "?remote=ftp://x/y"] {
        assert_eq!(raw::status(&post(query, &tar)), 400, "{query}");
    }
    assert_eq!(raw::status(&post("", &vec![b'x'; 2000])), 400);
}

#[test]
fn limits_of_a_build_are_those_of_its_steps() {
    let daemon = Daemon::start();
    let dockerfile = "FROM busybox\n\
        RUN ulimit -n; df -k /dev/shm | tail -1; grep extra /etc/hosts; ls /sys/class/net; \
        cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2> /dev/null; true\n";
    let context = context(&daemon, "limits", &[("Dockerfile", dockerfile)]);
    let limits = ["--ulimit", "nofile=77:88", "--shm-size", "3m", "--memory", "64m"];
    let network = ["--add-host", "extra:1.2.3.4", "--network", "none"];
    let text = build(&daemon, &context, &[&limits[..], &network].concat()).ok();
    assert!(
        text.contains("\n77\n") && text.contains(" 3072 ") && text.contains("1.2.3.4\textra\n"),
        "{text}"
    );
    assert!(!text.contains("eth0"), "{text}");
    assert!(text.contains(&format!("\n{}\n", 64 << 20)), "{text}");
}

#[test]
fn what_clients_send_beside_the_context() {
    let daemon = Daemon::start();
    let context = context(&daemon, "beside", &[("file", "f\n")]);
    // Docker's client ends its archive right after the Dockerfile that it adds.
    let dockerfile = b"FROM busybox\nARG USED\nCOPY file /\nENTRYPOINT [\"cat\"]\nCMD []\n";
    let arguments =
        ["-t", "stdin", "-f", "-", "--build-arg", "UNUSED=x", "--build-arg", "NAMED", "--build-arg", "USED"];
    let output = feed(&mut command(&daemon, &context, &arguments), dockerfile);
    let words = "[Warning] One or more build-args [NAMED UNUSED] were not consumed";
    assert!(output.stdout.contains(words), "{output:#?}");
    assert_eq!(config(&daemon, "stdin")["Cmd"], Value::Null);
    assert_eq!(daemon.berth(&["run", "--rm", "stdin", "/file"]).ok(), "f");
    let id = daemon.inspect("stdin", "{{.Id}}");
    // Steps of an image that may have come from elsewhere.
    let again = [&arguments[..], &["--cache-from", "stdin"]].concat();
    let output = feed(&mut command(&daemon, &context, &again), dockerfile).ok();
    assert_eq!(output.matches("Using cache").count(), 4, "{output}");
    assert_eq!(daemon.inspect("stdin", "{{.Id}}"), id);
    let none = [&arguments[..], &["--cache-from", "absent"]].concat();
    assert!(!feed(&mut command(&daemon, &context, &none), dockerfile).ok().contains("Using cache"));
}
