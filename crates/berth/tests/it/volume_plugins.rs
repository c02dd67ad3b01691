//! Volumes of plugins: a driver of our own, on a socket, keeps directories.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files::Layer;
use crate::output::eventually;
use crate::plugin_server::{Calls, HANG_UP, PluginServer};
use crate::raw;

/// A driver whose volumes are directories, and what it was asked.
struct Driver {
    server: PluginServer,
    name: String,
    state: Arc<Mutex<State>>,
    calls: Calls,
}

#[derive(Default)]
struct State {
    /// Options by volume.
    volumes: BTreeMap<String, Value>,
    /// Who has mounted what: `volume user`.
    mounts: Vec<String>,
}

impl Driver {
    fn start() -> Driver {
        let (state, calls) = (Arc::<Mutex<State>>::default(), Calls::default());
        let server = PluginServer::start(|_, _| Value::Null);
        fs::remove_file(server.socket()).unwrap();
        let driver = Driver { name: server.name.clone(), server, state, calls };
        driver.serve();
        driver
    }

    fn socket(&self) -> PathBuf {
        self.server.socket()
    }

    fn place(&self, volume: &str) -> PathBuf {
        self.server.folder.path().join(volume)
    }

    fn serve(&self) {
        let (state, calls) = (Arc::clone(&self.state), self.calls.clone());
        let folder = self.server.folder.path().to_owned();
        self.server.serve(move |method, question| {
            let method = method.strip_prefix("VolumeDriver.").unwrap_or(method);
            calls.note(method, question);
            reply(method, question, &mut state.lock().unwrap(), &folder)
        });
    }

    fn count(&self, method: &str) -> usize {
        self.calls.count(method)
    }

    fn mounts(&self) -> Vec<String> {
        self.state.lock().unwrap().mounts.clone()
    }
}

fn reply(method: &str, question: &Value, state: &mut State, folder: &Path) -> Value {
    let name = question["Name"].as_str().unwrap_or_default().to_owned();
    let user = format!("{name} {}", question["ID"].as_str().unwrap_or_default());
    let place = folder.join(&name);
    let described = |name: &str, state: &State| {
        let mounted = state.mounts.iter().any(|mount| mount.starts_with(&format!("{name} ")));
        let place = if mounted { folder.join(name).display().to_string() } else { String::new() };
        json!({"Name": name, "Mountpoint": place, "CreatedAt": "2026-01-02T03:04:05Z", "Status": {"kept": "well"}})
    };
    let known = state.volumes.contains_key(&name);
    match method {
        "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
        "Capabilities" => json!({"Capabilities": {"Scope": "Global"}}),
        "Create" if question["Opts"]["bad"].is_string() => json!({"Err": "no such option: bad"}),
        "Create" => {
            fs::create_dir_all(place).unwrap();
            state.volumes.insert(name, question["Opts"].clone());
            Value::Null
        }
        "List" => {
            let all: Vec<Value> = state.volumes.keys().map(|name| described(name, state)).collect();
            json!({"Volumes": all})
        }
        "Get" if known => json!({"Volume": described(&name, state)}),
        "Path" if known => json!({"Mountpoint": place}),
        "Mount" if known && state.volumes[&name]["unmountable"].is_string() => json!({"Err": "it is stuck"}),
        "Mount" if known && state.volumes[&name]["silent"].is_string() => {
            state.mounts.push(user);
            json!(HANG_UP)
        }
        "Mount" if known => {
            state.mounts.push(user);
            json!({"Mountpoint": place})
        }
        "Unmount" if known => {
            state.mounts.retain(|mount| *mount != user);
            json!({})
        }
        "Remove" if known && state.volumes[&name]["sticky"].is_string() => json!({"Err": "it does not go"}),
        "Remove" if known => {
            fs::remove_dir_all(place).unwrap();
            state.volumes.remove(&name);
            json!({"Err": ""})
        }
        _ => json!({"Err": "no such volume"}),
    }
}

with_both_clients! {
    fn a_plugin_keeps_volumes(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        assert_eq!(with(&["volume", "create", "-d", &driver.name, "-o", "colour=red", "--label", "a=b", "data"]).ok(), "data");
        assert_eq!(driver.state.lock().unwrap().volumes["data"], json!({"colour": "red"}));
        let shown: Value = serde_json::from_str(&with(&["volume", "inspect", "data"]).ok()).unwrap();
        assert_eq!(shown[0], json!({
            "CreatedAt": "2026-01-02T03:04:05Z", "Driver": driver.name, "Labels": {"a": "b"}, "Mountpoint": "", "Name": "data",
            "Options": {"colour": "red"}, "Scope": "global", "Status": {"kept": "well"},
        }));
        assert_eq!(with(&["volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}"]).ok(), format!("{} data global", driver.name));
        assert!(with(&["info", "--format", "{{.Plugins.Volume}}"]).ok().contains(&driver.name));
        // What a container writes is the driver's.
        let id = daemon.background(&["-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/f; sleep 1000"]);
        eventually("it wrote", || driver.place("data").join("f").exists().then_some(()));
        assert_eq!(driver.mounts(), [format!("data {id}")]);
        let mount = with(&["inspect", "-f", "{{range .Mounts}}{{.Driver}} {{.Source}}{{end}}", &id]).ok();
        assert_eq!(mount, format!("{} {}", driver.name, driver.place("data").display()));
        assert_eq!(with(&["run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/f"]).ok(), "kept");
        with(&["volume", "rm", "data"]).fails(1, "volume is in use");
        with(&["rm", "-f", &id]).ok();
        assert_eq!(driver.mounts(), Vec::<String>::new());
        // Files go in and out of it also where nothing runs.
        let id = with(&["create", "-v", "data:/data", "busybox"]).ok();
        let here = daemon.root.path().join("here");
        with(&["cp", &format!("{id}:/data/f"), here.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&here).unwrap(), "kept\n");
        with(&["cp", here.to_str().unwrap(), &format!("{id}:/data/g")]).ok();
        assert_eq!(fs::read_to_string(driver.place("data").join("g")).unwrap(), "kept\n");
        assert_eq!(driver.mounts(), Vec::<String>::new());
        with(&["rm", "-v", &id]).ok();
        with(&["volume", "prune", "-f", "-a"]).ok();
        assert_eq!(with(&["volume", "rm", "data"]).ok(), "data");
        assert!(!driver.place("data").exists());
        with(&["volume", "inspect", "data"]).fails(1, "no such volume");
        assert_eq!((driver.count("Plugin.Activate"), driver.count("Capabilities")), (1, 1));
    }

    fn a_copy_keeps_the_volumes_of_a_running_container(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        with(&["volume", "create", "-d", &driver.name, "data"]).ok();
        let id = daemon.background(&["-v", "data:/data", "busybox", "sh", "-c", "echo x > /data/f; sleep 1000"]);
        eventually("it wrote", || driver.place("data").join("f").exists().then_some(()));
        let here = daemon.root.path().join("here");
        let calls = || (driver.count("Mount"), driver.count("Unmount"));
        assert_eq!(calls(), (1, 0));
        with(&["cp", &format!("{id}:/data/f"), here.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&here).unwrap(), "x\n");
        let (mounts, unmounts) = calls();
        assert!(mounts >= 2 && mounts == unmounts + 1, "{mounts} {unmounts}");
        assert_eq!(driver.mounts(), [format!("data {id}")]);
        with(&["cp", here.to_str().unwrap(), &format!("{id}:/data/g")]).ok();
        assert_eq!(fs::read_to_string(driver.place("data").join("g")).unwrap(), "x\n");
        assert_eq!(driver.mounts(), [format!("data {id}")]);
        // A plugin that refuses does not stand in the way: the container has its volume.
        driver.state.lock().unwrap().volumes.insert("data".into(), json!({"unmountable": "yes"}));
        with(&["cp", &format!("{id}:/data/g"), here.to_str().unwrap()]).ok();
        with(&["rm", "-f", &id]).ok();
        assert_eq!(driver.mounts(), Vec::<String>::new());
    }

    fn volumes_of_a_plugin_without_names(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        daemon.with(client, &["run", "--rm", "--volume-driver", &driver.name, "-v", "/v", "-v", "named:/n", "busybox", "touch", "/v/x"]).ok();
        eventually("its own went with it", || {
            let left: Vec<String> = driver.state.lock().unwrap().volumes.keys().cloned().collect();
            (left == ["named"] && driver.mounts().is_empty()).then_some(())
        });
        // The image's content is copied there, too.
        daemon.with(client, &["run", "--rm", "-v", "named:/etc", "busybox", "true"]).ok();
        assert!(driver.place("named").join("passwd").exists());
    }

    fn what_a_plugin_refuses_is_told(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        let create = |name: &str, option: &str| with(&["volume", "create", "-d", &driver.name, "-o", option, name]);
        create("bad", "bad=1").fails(1, "create bad: VolumeDriver.Create: no such option: bad");
        create("stuck", "unmountable=1").ok();
        with(&["run", "--rm", "-v", "stuck:/m", "busybox"]).fails(125, "VolumeDriver.Mount: it is stuck");
        assert_eq!(driver.count("Unmount"), 0);
        // One that hangs up may have mounted it: that is undone.
        create("silent", "silent=1").ok();
        with(&["run", "--rm", "-v", "silent:/m", "busybox"]).fails(125, "VolumeDriver.Mount");
        assert_eq!((driver.count("Unmount"), driver.mounts()), (1, Vec::new()));
        // Names that the local driver would refuse are the plugin's affair, as far as they can be directories.
        create("two words", "x=1").ok();
        with(&["run", "--rm", "-v", "two words:/m", "busybox", "touch", "/m/here"]).ok();
        assert!(driver.place("two words").join("here").exists());
        eventually("it is free", || (with(&["volume", "rm", "two words"]).code == 0).then_some(()));
        create(".hidden", "x=1").fails(1, "create .hidden: the name of a volume is one of a directory");
        create("sticky", "sticky=1").ok();
        with(&["volume", "rm", "sticky"]).fails(1, "VolumeDriver.Remove: it does not go");
        assert!(with(&["volume", "ls", "-q"]).ok().contains("sticky"));
        // Names are unique, whoever keeps the volumes.
        with(&["volume", "create", "mine"]).ok();
        create("mine", "x=1").fails(1, "driver 'local' already has volume 'mine': volume name must be unique");
        with(&["volume", "create", "-d", "local", "sticky"]).fails(1, "already has volume 'sticky': volume name must be unique");
        // What the plugin has by itself can be used, and what it has lost is made again.
        fs::create_dir(driver.place("found")).unwrap();
        driver.state.lock().unwrap().volumes.insert("found".into(), json!({}));
        assert!(with(&["volume", "ls", "-q"]).ok().contains("found"));
        with(&["run", "--rm", "-v", "found:/m", "busybox", "touch", "/m/here"]).ok();
        assert!(driver.place("found").join("here").exists());
        driver.state.lock().unwrap().volumes.remove("found");
        with(&["volume", "inspect", "found"]).fails(1, "no such volume");
        with(&["volume", "create", "-d", "local", "found"]).ok();
        assert_eq!(with(&["volume", "inspect", "-f", "{{.Driver}}", "found"]).ok(), "local");
        fs::create_dir(driver.place("unused")).unwrap();
        driver.state.lock().unwrap().volumes.insert("unused".into(), json!({}));
        with(&["volume", "rm", "unused"]).ok();
        assert!(!driver.place("unused").exists());
        // Forgotten by force.
        with(&["volume", "rm", "-f", "sticky"]).ok();
    }
}

#[test]
fn a_plugins_volume_outlives_the_daemon() {
    let driver = Driver::start();
    let mut daemon = Daemon::start();
    daemon.berth(&["volume", "create", "-d", &driver.name, "data"]).ok();
    let id = daemon.background(&["-v", "data:/d", "busybox", "sleep", "1000"]);
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.inspect("data", "{{.Scope}} {{.Driver}}"), format!("global {}", driver.name));
    assert_eq!(driver.mounts(), [format!("data {id}")], "the container goes on");
    let place = driver.place("data").display().to_string();
    assert_eq!(daemon.inspect("data", "{{.Mountpoint}}"), place);
    assert_eq!(daemon.inspect(&id, "{{(index .Mounts 0).Source}}"), place);
    daemon.berth(&["rm", "-f", &id]).ok();
    assert_eq!(driver.mounts(), Vec::<String>::new(), "by the name under which it was mounted");
    daemon.berth(&["volume", "rm", "data"]).ok();
}

#[test]
fn a_plugin_that_is_gone_holds_nobody_up() {
    let driver = Driver::start();
    let daemon = Daemon::start();
    daemon.berth(&["volume", "create", "-d", &driver.name, "data"]).ok();
    fs::remove_file(driver.socket()).unwrap();
    let mut waiting = daemon.client(Client::Berth, &["run", "--rm", "-v", "data:/d", "busybox", "true"]);
    let mut waiting =
        waiting.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    daemon.berth(&["volume", "create", "other"]).ok();
    daemon.berth(&["run", "--rm", "-v", "other:/d", "busybox", "true"]).ok();
    // It comes back, and the one that waited goes on.
    driver.serve();
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn a_copy_keeps_the_volumes_of_a_container_at_rest() {
    let driver = Driver::start();
    let daemon = Daemon::start();
    daemon.berth(&["volume", "create", "-d", &driver.name, "data"]).ok();
    daemon.berth(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
    let id = daemon.berth(&["create", "-v", "data:/data", "-v", "mem:/data/mem", "busybox"]).ok();
    let tar = Layer::new()
        .file("mem/first", 0o644, "of memory")
        .file("large", 0o644, vec![b'x'; 4_000_000])
        .bytes();
    let request = raw::request("PUT", &format!("/v1.44/containers/{id}/archive?path=/data"), "", &tar);
    let mut stream = raw::connect(&daemon);
    let (most, rest) = request.split_at(request.len() - 1_000_000);
    stream.write_all(most).unwrap();
    // A container that starts meanwhile has the same memory.
    let memory = daemon.data_root().join("volumes/mem/_data/first");
    eventually("a part has arrived", || memory.exists().then_some(()));
    let mounts = driver.mounts();
    assert!(mounts.len() == 1 && mounts[0].starts_with("data view-"), "{mounts:?}");
    assert_eq!(
        daemon.berth(&["run", "--rm", "-v", "mem:/m", "busybox", "cat", "/m/first"]).ok(),
        "of memory"
    );
    assert_eq!(driver.count("Unmount"), 0);
    stream.write_all(rest).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert_eq!(driver.mounts(), Vec::<String>::new());
    assert_eq!(fs::metadata(driver.place("data").join("large")).unwrap().len(), 4_000_000);
    // A client that goes away in the middle leaves nothing mounted either.
    let mut stream = raw::connect(&daemon);
    stream.write_all(most).unwrap();
    eventually("it is mounted", || (driver.count("Mount") == 2).then_some(()));
    drop(stream);
    eventually("it is given back", || driver.mounts().is_empty().then_some(()));
    daemon.berth(&["rm", &id]).ok();
    for volume in ["data", "mem"] {
        eventually("it is free", || (daemon.berth(&["volume", "rm", volume]).code == 0).then_some(()));
    }
}
