//! `import`, and archives in every compression.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, feed, run};
use crate::prune::api;

/// The archive as each program compresses it.
fn compressed(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("none", data.to_vec()), ("gzip", files::gzip(data))];
    for program in ["zstd", "xz", "bzip2"] {
        let mut command = Command::new(program);
        let mut child = command.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let data = data.to_vec();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &data).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        all.push((program, output.stdout));
    }
    all
}

with_both_clients! {
    fn an_archive_becomes_an_image_however_it_is_compressed(daemon: &Daemon, client: Client) {
        let layer = files::busybox().layers.remove(0);
        for (kind, data) in compressed(&layer) {
            let path = files::write(daemon.root.path(), "root.tar", &data);
            let id = daemon.with(client, &["import", &path, &format!("imported:{kind}")]).ok();
            assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
            assert_eq!(daemon.inspect(&format!("imported:{kind}"), "{{.Id}}"), id);
            let diff = daemon.inspect(&id, "{{json .RootFS.Layers}}");
            assert_eq!(diff, json!([files::digest(&layer)]).to_string(), "{kind}");
        }
        assert_eq!(daemon.with(client, &["run", "--rm", "imported:xz", "/bin/echo", "runs"]).ok(), "runs");
        daemon.with(client, &["run", "--rm", "imported:xz"]).fails(125, "no command specified");
    }

    fn standard_input_changes_and_message(daemon: &Daemon, client: Client) {
        let layer = files::busybox().layers.remove(0);
        let arguments = ["import", "-c", "CMD [\"echo\", \"changed\"]", "-c", "ENV PATH=/bin", "-m", "a message", "--platform",
            "linux/arm64/v8", "-", "imported"];
        let id = feed(&mut daemon.client(client, &arguments), &layer).ok();
        let found: Value = serde_json::from_str(&daemon.berth(&["image", "inspect", "--format", "{{json .}}", "imported"]).ok()).unwrap();
        assert_eq!((&found["Id"], &found["RepoTags"]), (&json!(id), &json!(["imported:latest"])));
        assert_eq!((&found["Architecture"], &found["Variant"], &found["Os"]), (&json!("arm64"), &json!("v8"), &json!("linux")));
        assert_eq!((&found["Config"]["Cmd"], &found["Config"]["Env"]), (&json!(["echo", "changed"]), &json!(["PATH=/bin"])));
        assert_eq!(found["Comment"], json!("a message"));
        let history = daemon.with(client, &["history", "--format", "{{.Comment}}", "imported"]).ok();
        assert_eq!(history, "a message");
        let events = ["events", "--since", "1h", "--until", "0s", "--filter", "type=image", "--filter", "event=import", "--format", "{{.Actor.ID}}"];
        assert_eq!(daemon.berth(&events).ok(), id);
    }

    fn an_address_is_fetched_by_the_daemon(daemon: &Daemon, client: Client) {
        let folder = daemon.root.path().join("served");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("root.tar.gz"), files::gzip(&files::busybox().layers[0])).unwrap();
        let server = Server::start(&folder);
        let url = format!("http://{}/root.tar.gz", server.address);
        let text = daemon.with(client, &["import", &url, "fetched:v1"]).ok();
        assert!(text.contains(&format!("Downloading from {url}")), "{text}");
        let id = daemon.inspect("fetched:v1", "{{.Id}}");
        assert!(text.ends_with(&id), "{text}");
        assert_eq!(daemon.inspect("fetched:v1", "{{.Comment}}"), format!("Imported from {url}"));
        daemon.with(client, &["import", &format!("http://{}/absent", server.address)]).fails(1, "404");
        daemon.with(client, &["import", "http://127.0.0.1:1/x"]).fails(1, "127.0.0.1:1");
    }

    fn what_makes_no_sense_is_refused_and_leaves_nothing(daemon: &Daemon, client: Client) {
        let layer = files::busybox().layers.remove(0);
        let path = files::write(daemon.root.path(), "root.tar", &layer);
        let cut = files::write(daemon.root.path(), "cut.tar.gz", &files::gzip(&layer)[..5000]);
        let text = files::write(daemon.root.path(), "text.tar", &[b'x'; 2000]);
        let import = |arguments: &[&str]| daemon.with(client, &[&["import"], arguments].concat());
        import(&["/absent/file.tar"]).fails(1, "no such file");
        import(&["-c", "RUN x", &path]).fails(1, "RUN is not a valid change command");
        import(&["--platform", "windows/amd64", &path]).fails(1, "operating system is not supported");
        import(&[&path, "Upper"]).fails(1, "must be lowercase");
        import(&[&cut, "cut"]).fails(1, "");
        import(&[&text, "text"]).fails(1, "");
        assert_eq!(daemon.berth(&["images", "-aq"]).ok().lines().count(), 1);
        eventually("nothing is left", || {
            let staged = fs::read_dir(daemon.data_root().join("staging")).unwrap().flatten();
            (staged.filter(|entry| entry.file_name() != "trash" && entry.file_name() != "partial").count() == 0).then_some(())
        });
    }

    fn load_takes_every_compression(daemon: &Daemon, client: Client) {
        let image = files::layered();
        for (kind, data) in compressed(&image.docker_archive("layered:v1")) {
            let path = files::write(daemon.root.path(), "a.tar", &data);
            let text = daemon.with(client, &["load", "-i", &path]).ok();
            assert!(text.contains("Loaded image: layered:v1"), "{kind}: {text}");
            daemon.with(client, &["rmi", "layered:v1"]).ok();
        }
        // Layers within the archive, too.
        for (kind, data) in compressed(&image.layers[1]) {
            let layers = [vec![image.layers[0].clone(), data], image.layers[2..].to_vec()].concat();
            let archive = image.docker_archive_of("layered:v1", &layers);
            let path = files::write(daemon.root.path(), "a.tar", &archive);
            let text = daemon.with(client, &["load", "-i", &path]).ok();
            assert!(text.contains("Loaded image: layered:v1"), "{kind}: {text}");
            daemon.with(client, &["rmi", "layered:v1"]).ok();
        }
    }
}

/// A web server of one folder.
struct Server {
    child: std::process::Child,
    address: String,
}

impl Server {
    fn start(folder: &std::path::Path) -> Server {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(" port ").nth(1).unwrap().split(' ').next().unwrap();
        let address = format!("127.0.0.1:{port}");
        Server { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_root_made_by_tar_comes_back_file_by_file() {
    let daemon = Daemon::start();
    let root = daemon.root.path().join("root");
    fs::create_dir(&root).unwrap();
    files::unpack_busybox(&root);
    let script = "cd \"$0\"; mkdir -p deep/er; echo x > deep/er/x; ln deep/er/x deep/y; mkfifo fifo; mknod null c 1 3; \
        truncate -s 5000000 hole; echo end >> hole; chown 70000:5 hole; chmod 4711 deep/y; ln -s /nowhere link; \
        setfattr -n user.test -v value deep/er/x; touch -h -d @1500000000 link deep/y; touch -d @1400000000 deep";
    run(Command::new("sh").args(["-c", script]).arg(&root)).ok();
    let archive = daemon.root.path().join("root.tar");
    let mut tar = Command::new("tar");
    tar.args(["--sparse", "--xattrs", "--format=posix", "-C"]).arg(&root).arg("-cf").arg(&archive).arg(".");
    run(&mut tar).ok();
    let id = daemon.berth(&["import", archive.to_str().unwrap(), "root:v1"]).ok();
    let list = "find . -not -path './deep/er/none' | sort | while read -r f; do stat -c '%n %F %a %u:%g %h %s %Y %t:%T' \"$f\"; done; md5sum hole deep/y";
    let expected = run(Command::new("/bin/busybox").args(["sh", "-c", list]).current_dir(&root)).ok();
    let layer = daemon.inspect(&id, "{{.GraphDriver.Data.UpperDir}}");
    let found = run(Command::new("/bin/busybox").args(["sh", "-c", list]).current_dir(&layer)).ok();
    let stable = |text: &str| -> Vec<String> {
        // Sizes and links of directories are the file system's.
        text.lines().filter(|line| !line.contains(" directory ")).map(str::to_owned).collect()
    };
    assert_eq!(stable(&found), stable(&expected));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(format!("{layer}/deep/er/x"), "user.test", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"value");
    // The layer is kept as it came.
    let saved = daemon.root.path().join("saved.tar");
    daemon.berth(&["save", "-o", saved.to_str().unwrap(), "root:v1"]).ok();
    let digest = files::digest(&fs::read(&archive).unwrap());
    let name = format!("blobs/sha256/{}", &digest[7..]);
    let out = Command::new("tar").arg("-xOf").arg(&saved).arg(&name).output().unwrap();
    assert!(out.stdout == fs::read(&archive).unwrap(), "save gives the archive itself");
}

#[test]
fn the_answer_is_dockers() {
    let daemon = Daemon::start();
    let path = files::write(daemon.root.path(), "root.tar", &files::busybox().layers[0]);
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", "POST", "-T", &path, "--unix-socket"]).arg(daemon.socket());
    let text = run(command.arg("http://d/v1.55/images/create?fromSrc=-&repo=made&tag=v1&message=m")).ok();
    let id = daemon.inspect("made:v1", "{{.Id}}");
    assert_eq!(text.trim_end(), json!({ "status": id }).to_string());
    let (status, text) = api(&daemon, "POST", "/v1.55/images/create?fromSrc=-&changes=RUN+x");
    assert_eq!((status, text.as_str()), (400, r#"{"message":"RUN is not a valid change command"}"#));
    assert_eq!(api(&daemon, "POST", "/v1.55/images/create").0, 400);
}

#[test]
fn an_image_of_many_megabytes_needs_little_memory() {
    let daemon = Daemon::start();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = peak();
    let script = "truncate -s 300M zeros; tar -cf - zeros | \"$1\" -c > \"$2\"";
    for program in ["gzip", "bzip2", "xz"] {
        let path = daemon.root.path().join(program);
        let mut command = Command::new("sh");
        run(command.args(["-c", script, "sh", program]).arg(&path).current_dir(daemon.root.path())).ok();
        daemon.berth(&["import", path.to_str().unwrap()]).ok();
    }
    let grown = peak() - before;
    assert!(grown < 64 << 10, "{grown} KiB more");
}
