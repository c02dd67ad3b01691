//! Connections to registries: that they serve more than one request, and what becomes of requests when they end.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::daemon::{Client, Daemon};
use crate::faulty::{Asked, Faulty, Reply, Then, contents, honest};
use crate::files::{self, Image, Layer};

/// An image of several layers.
fn image() -> Image {
    let mut image = files::busybox();
    for number in 0..20 {
        let path = format!("file{number}");
        image.layers.push(Layer::new().file(&path, 0o644, format!("layer {number}").into_bytes()).bytes());
    }
    image
}

/// A registry that takes what it gets, and gives it.
#[derive(Default)]
struct Taking {
    contents: HashMap<String, Reply>,
    uploads: HashMap<String, Vec<u8>>,
    /// Uploads that were begun.
    begun: usize,
}

impl Taking {
    /// One with an image in it.
    fn with(image: &Image) -> Taking {
        Taking { contents: contents(image), ..Taking::default() }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        let (place, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        match asked.method.as_str() {
            "POST" => {
                self.begun += 1;
                let place = format!("{place}{}", self.begun);
                self.uploads.insert(place.clone(), Vec::new());
                Reply::new(202, "").header("Location", place)
            }
            "PATCH" => {
                self.uploads.insert(place.to_owned(), asked.body.clone());
                Reply::new(202, "").header("Location", place)
            }
            "PUT" if place.contains("/manifests/") => {
                let reply =
                    Reply::new(200, asked.body.clone()).header("Content-Type", asked.header("content-type"));
                self.contents.insert(place.to_owned(), reply);
                Reply::new(201, "")
            }
            "PUT" => {
                let Some(blob) = self.uploads.remove(place) else { return Reply::new(404, "") };
                let digest = query.trim_start_matches("digest=").replace("%3A", ":");
                if files::digest(&blob) != digest {
                    return Reply::new(400, "");
                }
                let repository = place.split("/blobs/").next().unwrap();
                self.contents.insert(format!("{repository}/blobs/{digest}"), Reply::new(200, blob));
                Reply::new(201, "")
            }
            "HEAD" => {
                let found = self.contents.get(place);
                let length = found.map(|reply| reply.body.len() as u64);
                Reply { length, ..Reply::new(if found.is_some() { 200 } else { 404 }, "") }
            }
            _ => honest(&self.contents, asked),
        }
    }

    /// The registry as a server; `then` says what becomes of the connection of the request with a number.
    fn serve(self, then: impl Fn(usize, &Asked) -> Then + Send + Sync + 'static) -> Faulty {
        let state = Mutex::new((self, 0));
        Faulty::start(move |asked| {
            let (registry, count) = &mut *state.lock().unwrap();
            *count += 1;
            registry.answer(asked).then(then(*count, asked))
        })
    }
}

/// Requests of these methods.
fn of_methods(registry: &Faulty, methods: &[&str]) -> usize {
    registry.asked().iter().filter(|asked| methods.contains(&asked.method.as_str())).count()
}

with_both_clients! {
    fn a_connection_serves_more_than_one_request(daemon: &Daemon, client: Client) {
        let registry = Taking::with(&image()).serve(|_, _| Then::Keep);
        let (pulled, pushed) = (format!("{}/x:y", registry.address), format!("{}/{client:?}:1", registry.address).to_lowercase());
        daemon.with(client, &["pull", "-q", &pulled]).ok();
        let (requests, connections) = (registry.asked().len(), registry.connections());
        // As many as there are downloads at once, and some more where a next request was faster than an answer's end.
        assert!(requests >= 21 && connections <= 10, "{requests} requests over {connections} connections");
        daemon.berth(&["tag", &pulled, &pushed]).ok();
        daemon.with(client, &["push", &pushed]).ok();
        let uploads = of_methods(&registry, &["PATCH"]);
        let (requests, connections) = (registry.asked().len() - requests, registry.connections() - connections);
        // What cannot be sent twice goes over one of its own, which then serves others.
        assert!(connections <= uploads + 15, "{requests} requests and {uploads} uploads over {connections} connections");
        assert!(requests >= 3 * uploads, "{requests}, {uploads}");
        daemon.berth(&["rmi", &pushed, &pulled]).ok();
        daemon.with(client, &["pull", "-q", &pushed]).ok();
        let said = daemon.berth(&["run", "--rm", "--network", "none", &pushed, "cat", "/file19"]).ok();
        assert_eq!(said, "layer 19");
        daemon.berth(&["rmi", "-f", &pushed]).ok();
    }

    fn a_connection_may_end_whenever_no_answer_is_on_its_way(daemon: &Daemon, client: Client) {
        let ends: [fn(usize) -> Then; 4] = [
            |_| Then::Leave,
            |_| Then::Hang,
            |number| if number % 2 == 0 { Then::Hang } else { Then::Keep },
            |number| [Then::Keep, Then::Leave, Then::Close, Then::Hang][number % 4].clone(),
        ];
        for end in ends {
            let registry = Taking::with(&image()).serve(move |number, _| end(number));
            let (pulled, pushed) = (format!("{}/x:y", registry.address), format!("{}/pushed:1", registry.address));
            daemon.with(client, &["pull", "-q", &pulled]).ok();
            daemon.berth(&["tag", &pulled, &pushed]).ok();
            daemon.with(client, &["push", "-q", &pushed]).ok();
            daemon.berth(&["rmi", "-f", &pushed, &pulled]).ok();
            daemon.with(client, &["pull", "-q", &pushed]).ok();
            daemon.berth(&["rmi", "-f", &pushed]).ok();
        }
    }

    fn what_comes_unasked_is_no_answer(daemon: &Daemon, client: Client) {
        // A list of tags is checked against nothing: who gets another one's answer would not know.
        let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"tags\":[\"y\",\"other\"]}".to_vec();
        let mut registry = Taking::with(&image());
        let list = Reply::new(200, r#"{"tags":["y"]}"#);
        registry.contents.insert("/v2/x/tags/list".to_owned(), list);
        // It comes with short answers, so that it is there when they are read.
        let is_short = |asked: &Asked| !asked.path.contains("/blobs/");
        let registry = registry
            .serve(move |_, asked| if is_short(asked) { Then::Say(evil.clone()) } else { Then::Keep });
        let repository = format!("{}/x", registry.address);
        for _ in 0..5 {
            daemon.with(client, &["pull", "-q", "--all-tags", &repository]).ok();
            let tags = daemon.berth(&["images", "--format", "{{.Tag}}", &repository]).ok();
            assert_eq!(tags, "y");
            daemon.berth(&["rmi", "-f", &format!("{repository}:y")]).ok();
        }
        assert_eq!(registry.count("/manifests/other"), 0);
        let asked = registry.asked();
        for (number, first) in asked.iter().enumerate().filter(|(_, asked)| is_short(asked)) {
            let is_last = asked[number + 1..].iter().all(|later| later.connection != first.connection);
            assert!(is_last, "{first:?}: this connection could not be trusted any more");
        }
    }

    fn a_connection_is_for_its_own_host_alone(daemon: &Daemon, client: Client) {
        let all = contents(&image());
        let shared = all.clone();
        let storage = Faulty::start(move |asked| honest(&shared, asked).then(Then::Keep));
        let elsewhere = storage.address.clone();
        let registry = Faulty::start(move |asked| {
            let reply = match asked.header("authorization") {
                // "someone:secret" in base64.
                "Basic c29tZW9uZTpzZWNyZXQ=" if asked.path.contains("/blobs/") => {
                    Reply::redirect(format!("http://{elsewhere}{}", asked.path))
                }
                "Basic c29tZW9uZTpzZWNyZXQ=" => honest(&all, asked),
                _ => Reply::new(401, "{}").header("WWW-Authenticate", "Basic realm=\"x\""),
            };
            reply.then(Then::Keep)
        });
        let login = ["login", "-u", "someone", "-p", "secret", &registry.address];
        daemon.with(client, &login).ok();
        daemon.with(client, &["pull", "-q", &format!("{}/x:y", registry.address)]).ok();
        assert!(storage.count("/blobs/") >= 20 && !storage.saw_credentials());
        for (server, address) in [(&registry, &registry.address), (&storage, &storage.address)] {
            assert!(server.asked().iter().all(|asked| asked.header("host") == *address));
        }
        daemon.with(client, &["logout", &registry.address]).ok();
        daemon.berth(&["rmi", "-f", &format!("{}/x:y", registry.address)]).ok();
    }
}
