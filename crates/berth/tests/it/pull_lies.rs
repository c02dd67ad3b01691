//! Pulls from a registry that does everything wrong, one random way after another: each pull either gives the right image,
//! or fails with a clear text and leaves nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::faulty::{Asked, Faulty, Reply, contents, honest};
use crate::files::{self, Image, Layer};
use crate::output::feed;

/// Numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn image() -> Image {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| random.below(256) as u8).collect() };
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("noise", 0o644, noise(120_000)).bytes());
    layers.push(Layer::new().file("more", 0o644, noise(90_000)).bytes());
    Image { layers, config: files::busybox().config }
}

/// What the registry does to the answers about one thing.
#[derive(Debug, Clone)]
struct Mischief {
    /// A part of the path.
    about: String,
    /// Answers that are changed; the ones after are honest.
    times: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Cut(usize),
    Delay(u64),
    Corrupt(usize),
    Longer(u64),
    Shorter(u64),
    Header(&'static str, String),
    Without(&'static str),
    Status(u16),
    Elsewhere,
    Circle,
    Giant,
    Endless,
    NoRange,
    WrongRange,
    Empty,
}

fn mischief(random: &mut Random, parts: &[String]) -> Mischief {
    let about = parts[random.below(parts.len())].clone();
    let times = [1, 2, usize::MAX][random.below(3)];
    let other = files::digest(&random.0.to_le_bytes());
    let what = match random.below(19) {
        0..4 => What::Cut(random.below(130_000)),
        4 => What::Cut(random.below(120)),
        5 => What::Delay(random.below(300) as u64),
        6 => What::Corrupt(random.below(90_000)),
        7 => What::Longer(1 + random.below(5000) as u64),
        8 => What::Shorter(1 + random.below(500) as u64),
        9 => What::Header("Docker-Content-Digest", other),
        10 => What::Header(
            "Content-Type",
            ["text/html", "application/json", "application/vnd.oci.image.index.v1+json"][random.below(3)]
                .into(),
        ),
        11 => What::Without(["Content-Type", "Docker-Content-Digest"][random.below(2)]),
        12 => What::Status([404, 403, 500, 502, 418, 204][random.below(6)]),
        13 => What::Elsewhere,
        14 => What::Circle,
        15 => [What::Giant, What::Empty][random.below(2)].clone(),
        16 => What::Endless,
        17 => What::NoRange,
        _ => What::WrongRange,
    };
    Mischief { about, times, what }
}

fn spoiled(what: &What, asked: &Asked, honest: Reply, elsewhere: &str) -> Reply {
    let mut reply = honest;
    let length = reply.body.len();
    match what {
        What::Cut(at) => reply.cut = Some(*at),
        What::Delay(milliseconds) => reply.delay = Duration::from_millis(*milliseconds),
        What::Corrupt(at) if length > 0 => reply.body[at % length] ^= 0x40,
        What::Longer(by) => reply.length = Some(length as u64 + by),
        What::Shorter(by) => reply.length = Some((length as u64).saturating_sub(*by)),
        What::Header(name, value) => {
            reply.headers.retain(|line| !line.starts_with(name));
            reply = reply.header(name, value);
        }
        What::Without(name) => reply.headers.retain(|line| !line.starts_with(name)),
        What::Status(status) => reply = Reply::new(*status, "<html>no</html>"),
        What::Elsewhere => reply = Reply::redirect(format!("http://{elsewhere}{}", asked.path)),
        What::Circle => reply = Reply::redirect(&asked.path),
        What::Giant => reply.body = vec![b' '; 5 << 20],
        What::Empty => reply.body.clear(),
        What::Endless => reply.endless = !reply.body.is_empty(),
        What::WrongRange if reply.status == 206 => {
            reply.headers.retain(|line| !line.starts_with("Content-Range"));
            reply = reply.header("Content-Range", format!("bytes 7777777-8888888/{length}"));
        }
        What::Corrupt(_) | What::NoRange | What::WrongRange => {}
    }
    reply
}

/// The registry, and what it does wrong now.
struct Liar {
    server: Faulty,
    plan: Arc<Mutex<(Option<Mischief>, usize)>>,
}

impl Liar {
    fn start(contents: &HashMap<String, Reply>) -> Liar {
        Liar::start_at("127.0.0.1:0", contents)
    }

    fn start_at(address: &str, contents: &HashMap<String, Reply>) -> Liar {
        let (elsewhere, plain) = (contents.clone(), contents.clone());
        let elsewhere = Faulty::start(move |asked| honest(&elsewhere, asked)).address;
        let plan = Arc::new(Mutex::new((None::<Mischief>, 0)));
        let shared = Arc::clone(&plan);
        let server = Faulty::start_at(address, move |asked| {
            let what = {
                let mut plan = shared.lock().unwrap();
                let (mischief, done) = &mut *plan;
                let hit = mischief.as_ref().filter(|m| asked.path.contains(&m.about) && *done < m.times);
                let what = hit.map(|mischief| mischief.what.clone());
                *done += usize::from(what.is_some());
                what
            };
            let whole =
                matches!(what, Some(What::NoRange)).then(|| plain.get(&asked.path).cloned()).flatten();
            let reply = whole.unwrap_or_else(|| honest(&plain, asked));
            match what {
                Some(what) => spoiled(&what, asked, reply, &elsewhere),
                None => reply,
            }
        });
        Liar { server, plan }
    }

    fn does(&self, mischief: Option<Mischief>) {
        *self.plan.lock().unwrap() = (mischief, 0);
    }

    fn name(&self) -> String {
        format!("{}/x:y", self.server.address)
    }
}

#[track_caller]
fn nothing_is_stored(daemon: &Daemon, why: &str) {
    assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "", "{why}");
    let layers = std::fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
    assert_eq!(layers.filter(|layer| layer.file_name() != "empty").count(), 0, "{why}");
    // What is kept to go on with is never more than was announced.
    let partial = std::fs::read_dir(daemon.data_root().join("staging/partial")).unwrap().flatten();
    let kept: u64 = partial.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum();
    assert!(kept < 4 << 20, "{why}: {kept} bytes are kept");
}

/// What a pull of `x:y` asks for.
fn paths(contents: &HashMap<String, Reply>) -> Vec<String> {
    let part = |path: &String| path["/v2/x/".len()..].to_owned();
    let mut parts: Vec<String> = contents.keys().map(part).collect();
    parts.retain(|part| !part.starts_with("manifests/sha256"));
    parts.sort();
    parts
}

/// The same image under an index, beside one for another platform.
fn contents_with_index(image: &Image) -> HashMap<String, Reply> {
    let other = Image::new(vec![Layer::new().file("other", 0o644, "other")]);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let entry = |image: &Image, platform: &str| {
        let blobs = image.oci_blobs();
        let manifest = blobs.last().unwrap();
        json!({"mediaType": kind, "digest": files::digest(manifest), "size": manifest.len(),
               "platform": {"os": "linux", "architecture": platform}})
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry(&other, "s390x"), entry(image, "amd64")]});
    let mut all = contents(image);
    let index = index.to_string();
    let index = Reply::new(200, index.clone())
        .header("Content-Type", "application/vnd.oci.image.index.v1+json")
        .header("Docker-Content-Digest", files::digest(index.as_bytes()));
    all.insert("/v2/x/manifests/y".to_owned(), index);
    all
}

/// Lets a registry do `count` things wrong, one after another.
fn whatever_a_registry_does(seed: u64, count: usize, contents: &HashMap<String, Reply>, parts: &[String]) {
    let daemon = Daemon::empty(&["--max-download-attempts=2"]);
    let image = image();
    let liar = Liar::start(contents);
    let id = files::digest(&image.config_bytes());
    let mut random = Random(seed);
    let (mut good, mut bad) = (0, 0);
    for round in 0..count {
        let mischief = mischief(&mut random, parts);
        let why = format!("seed {seed}, round {round}: {mischief:?}");
        liar.does(Some(mischief));
        let output = daemon.berth(&["pull", &liar.name()]);
        if output.code == 0 {
            good += 1;
            assert_eq!(daemon.berth(&["inspect", "-f", "{{.Id}}", &liar.name()]).ok(), id, "{why}");
            daemon.berth(&["rmi", &liar.name()]).ok();
        } else {
            bad += 1;
            assert_eq!(output.code, 1, "{why}: {output:?}");
            let text = output.stderr.trim();
            // It names the registry, or the digest of what is wrong.
            let is_clear = text.contains(&liar.server.address)
                || text.contains("sha256:")
                || text.contains("127.0.0.1:");
            assert!(is_clear && text.len() > 30 && !text.contains("panicked"), "{why}: {output:?}");
        }
        nothing_is_stored(&daemon, &why);
    }
    assert!(good > 0 && bad > 0, "{good} pulls succeeded, {bad} failed");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    liar.does(None);
    daemon.berth(&["pull", "-q", &liar.name()]).ok();
    let counts =
        daemon.berth(&["run", "--rm", "--network", "none", &liar.name(), "wc", "-c", "/noise", "/more"]).ok();
    assert!(counts.contains("120000 /noise") && counts.contains("90000 /more"), "{counts}");
}

#[test]
fn a_pull_gives_the_right_image_or_nothing_1() {
    let contents = contents(&image());
    whatever_a_registry_does(0x1234_5678_9abc_def1, 35, &contents, &paths(&contents));
}

#[test]
fn a_pull_gives_the_right_image_or_nothing_2() {
    let contents = contents(&image());
    whatever_a_registry_does(0x0fed_cba9_8765_4321, 35, &contents, &paths(&contents));
}

#[test]
fn a_pull_of_one_of_several_platforms_gives_the_right_image_or_nothing() {
    let contents = contents_with_index(&image());
    let mut parts: Vec<String> = contents.keys().map(|path| path["/v2/x/".len()..].to_owned()).collect();
    parts.sort();
    whatever_a_registry_does(0x05ee_d0f1_dea5_eed0, 35, &contents, &parts);
}

#[test]
fn whatever_is_wrong_with_a_mirror_a_pull_gives_what_the_registry_has() {
    let daemon = Daemon::empty(&[
        "--max-download-attempts=1",
        "--registry-mirror",
        "127.0.0.1:5005=http://127.0.0.1:5006/",
    ]);
    let image = image();
    let contents = contents(&image);
    let mirror = Liar::start_at("127.0.0.1:5006", &contents);
    let parts = paths(&contents);
    let registry = Faulty::start_at("127.0.0.1:5005", move |asked| honest(&contents, asked));
    let id = files::digest(&image.config_bytes());
    let mut random = Random(0x0bad_5eed_0bad_5eed);
    for round in 0..40 {
        let mischief = mischief(&mut random, &parts);
        let why = format!("round {round}: {mischief:?}");
        mirror.does(Some(mischief));
        let output = daemon.berth(&["pull", "127.0.0.1:5005/x:y"]);
        assert_eq!(output.code, 0, "{why}: {output:?}");
        assert_eq!(daemon.berth(&["inspect", "-f", "{{.Id}}", "127.0.0.1:5005/x:y"]).ok(), id, "{why}");
        daemon.berth(&["rmi", "127.0.0.1:5005/x:y"]).ok();
        daemon.berth(&["builder", "prune", "-af"]).ok();
        nothing_is_stored(&daemon, &why);
    }
    assert!(registry.count("/v2/x/") > 0, "what the mirror spoiled came from the registry");
    let before = registry.count("/v2/x/");
    mirror.does(None);
    daemon.with(Client::Docker, &["pull", "-q", "127.0.0.1:5005/x:y"]).ok();
    assert_eq!(registry.count("/v2/x/"), before, "a mirror without fault is all that is asked");
}

#[test]
fn a_list_of_tags_has_an_end() {
    let daemon = Daemon::empty(&[]);
    let page: Vec<String> = (0..20_000).map(|number| format!("t{number}")).collect();
    let page = json!({"name": "x", "tags": page}).to_string();
    let registry = Faulty::start(move |asked| match asked.path.starts_with("/v2/x/tags/list") {
        true => Reply::new(200, page.clone()).header("Link", "</v2/x/tags/list?last=t>; rel=\"next\""),
        false => Reply::new(404, "{}"),
    });
    let name = format!("{}/x", registry.address);
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["pull", "-a", &name]).fails(1, "the list of tags has no end");
    }
    assert!(registry.count("tags/list") < 20, "{}", registry.count("tags/list"));
}

#[test]
fn a_tag_that_moves_while_it_is_pulled_gives_one_image_or_the_other() {
    let daemon = Daemon::empty(&[]);
    let old = files::busybox();
    let new = Image::new(vec![Layer::new().file("new", 0o644, "new")]);
    let ids = [&old, &new].map(|image| files::digest(&image.config_bytes()));
    let (mut all, fresh) = (contents(&old), contents(&new));
    let tags = [all.remove("/v2/x/manifests/y").unwrap(), fresh["/v2/x/manifests/y"].clone()];
    all.extend(fresh.into_iter().filter(|(path, _)| !path.ends_with("/y")));
    let turn = AtomicUsize::new(0);
    let registry = Faulty::start(move |asked| match asked.path.as_str() {
        // Another one each time it is asked for.
        "/v2/x/manifests/y" => tags[turn.fetch_add(1, Ordering::Relaxed) % 2].clone(),
        _ => honest(&all, asked),
    });
    for client in [Client::Berth, Client::Docker, Client::Berth] {
        let name = format!("{}/x:y", registry.address);
        daemon.with(client, &["pull", "-q", &name]).ok();
        let id = daemon.berth(&["inspect", "-f", "{{.Id}}", &name]).ok();
        assert!(ids.contains(&id), "{id}");
    }
}

/// A registry whose manifest announces other things than there are.
fn announcing(change: impl FnOnce(&mut Value)) -> Faulty {
    let image = files::busybox();
    let mut contents = contents(&image);
    let mut manifest: Value = serde_json::from_slice(image.oci_blobs().last().unwrap()).unwrap();
    change(&mut manifest);
    let reply = Reply::new(200, manifest.to_string())
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    contents.insert("/v2/x/manifests/y".to_owned(), reply);
    Faulty::start(move |asked| honest(&contents, asked))
}

#[test]
fn a_pull_that_cannot_fit_fails_before_it_begins() {
    let daemon = Daemon::empty(&[]);
    for size in [300_u64 << 40, u64::MAX / 2] {
        let registry = announcing(|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = json!([layer]);
            manifest["layers"][0]["size"] = json!(size);
        });
        let name = format!("{}/x:y", registry.address);
        for client in [Client::Berth, Client::Docker] {
            let output = daemon.with(client, &["pull", &name]).fails(1, "no space left for");
            assert!(output.stderr.contains("must be free"), "{output:?}");
        }
        let layer = &files::digest(&files::busybox().oci_blobs()[0]);
        assert_eq!(registry.count(layer), 0, "the layer was not asked for");
        let estimate = daemon.berth(&["pull", "--estimate", &name]);
        assert!(estimate.code == 1 && estimate.stdout.contains("Fits:     no"), "{estimate:?}");
        nothing_is_stored(&daemon, "nothing fits");
    }
}

#[test]
fn an_estimate_tells_what_will_be_downloaded() {
    let daemon = Daemon::empty(&[]);
    let image = image();
    let registry = contents(&image);
    let registry = Faulty::start(move |asked| honest(&registry, asked));
    let name = format!("{}/x:y", registry.address);
    let all: usize = image.oci_blobs().iter().rev().skip(2).map(Vec::len).sum();
    let estimate = |daemon: &Daemon| {
        let path = format!("/images/{name}/estimate");
        let (code, found) = crate::api::ask(daemon, &path, None);
        assert_eq!(code, 200, "{found}");
        found
    };
    let found = estimate(&daemon);
    assert_eq!((&found["Download"], &found["Total"]), (&json!(all), &json!(all)));
    assert_eq!((&found["UnpackedIsExact"], &found["Fits"]), (&json!(false), &json!(true)));
    let text = daemon.berth(&["pull", "--estimate", &name]).ok();
    assert!(text.contains("Layers:   3, of which 0 are here") && text.contains("Fits:     yes"), "{text}");
    nothing_is_stored(&daemon, "it is only an estimate");
    // Its lowest layer is there with another image.
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    let found = estimate(&daemon);
    let base = image.oci_blobs()[0].len();
    assert_eq!((&found["Download"], &found["Layers"][0]["Exists"]), (&json!(all - base), &json!(true)));
    let mut terminal = crate::terminal::Terminal::run(daemon.client(Client::Berth, &["pull", &name]));
    terminal.expect("(2 of 3 layers): more than ");
    terminal.expect("Downloaded newer image");
    let plain = daemon.berth(&["pull", &name]).ok();
    assert!(!plain.contains("layers)"), "nothing is to be brought: {plain}");
    assert_eq!(estimate(&daemon)["Download"], 0);
    daemon.berth(&["pull", "--estimate", "127.0.0.1:1/x"]).fails(1, "127.0.0.1:1");
}

#[test]
fn r25_credentials_go_to_their_registry_alone() {
    let daemon = Daemon::empty(&[]);
    let contents = contents(&files::busybox());
    let storage = contents.clone();
    let storage = Faulty::start(move |asked| honest(&storage, asked));
    let target = storage.address.clone();
    let registry = Faulty::start(move |asked| match asked.header("authorization") {
        // "someone:secret".
        "Basic c29tZW9uZTpzZWNyZXQ=" if asked.path.contains("/blobs/") => {
            Reply::redirect(format!("http://{target}{}", asked.path))
        }
        "Basic c29tZW9uZTpzZWNyZXQ=" => honest(&contents, asked),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let login = ["login", "-u", "someone", "--password-stdin", &registry.address];
    feed(&mut daemon.client(Client::Berth, &login), b"secret").ok();
    for client in [Client::Berth, Client::Docker] {
        let name = format!("{}/x:y", registry.address);
        daemon.with(client, &["pull", &name]).ok();
        daemon.berth(&["rmi", &name]).ok();
    }
    assert!(storage.count("/blobs/") > 0 && !storage.saw_credentials());
    assert!(!daemon.log().contains("c29tZW9uZTpzZWNyZXQ"), "{}", daemon.log());
}
