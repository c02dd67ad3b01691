//! What registries are told of the programs that ask them.

use crate::daemon::{Client, Daemon};
use crate::faulty::{Asked, Faulty, Reply, contents, honest};
use crate::{files, raw};

/// A registry that gives tokens, has the image `x:y`, and takes anything.
fn registry() -> Faulty {
    let contents = contents(&files::busybox());
    Faulty::start(move |asked| {
        let token = Reply::new(200, r#"{"token": "t"}"#);
        match (asked.method.as_str(), asked.path.as_str()) {
            (_, path) if path.starts_with("/token") => token,
            (_, path) if asked.header("authorization").is_empty() && path != "/v2/" => {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
                Reply::new(401, "{}").header("WWW-Authenticate", realm)
            }
            ("POST" | "PUT" | "PATCH", _) => Reply::new(405, "{}"),
            _ => honest(&contents, asked),
        }
    })
}

fn agents(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|asked| asked.header("user-agent")).collect()
}

#[test]
fn registries_are_told_which_client_asks() {
    let daemon = Daemon::start();
    for (client, upstream) in [(Client::Berth, "Berth-Client/"), (Client::Docker, "Docker-Client/")] {
        let registry = registry();
        let (address, name) = (&registry.address, format!("{}/x:y", registry.address));
        let mut before = 0;
        let mut told = |what: &str, path: &str| {
            let asked = registry.asked().split_off(before);
            before += asked.len();
            assert!(asked.iter().any(|asked| asked.path.starts_with(path)), "{what}: {asked:?}");
            for agent in agents(&asked) {
                let words = format!("berth/{} UpstreamClient({upstream}", env!("CARGO_PKG_VERSION"));
                assert!(agent.starts_with(&words) && agent.ends_with("\\(linux\\))"), "{what}: {agent}");
            }
        };
        daemon.with(client, &["pull", &name]).ok();
        told("pull", "/token");
        daemon.with(client, &["push", &name]).fails(1, "");
        told("push", "/v2/x/");
        daemon.with(client, &["login", "-u", "a", "-p", "b", address]).ok();
        told("login", "/v2/");
        daemon.berth(&["rmi", &name]).ok();
    }
}

#[test]
fn what_a_client_calls_itself_stays_one_comment() {
    let daemon = Daemon::empty(&[]);
    let registry = registry();
    let path = format!("/distribution/{}/x:y/json", registry.address);
    let ask = |line: &str| {
        let answer = raw::exchange(&daemon, &raw::request("GET", &path, line, b""));
        assert_eq!(raw::status(&answer), 200, "{answer}");
        registry.asked().pop().unwrap().header("user-agent").to_owned()
    };
    let own = format!("berth/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(ask(""), own);
    assert_eq!(ask("User-Agent: \r\n"), own);
    assert_eq!(ask("User-Agent: a) (b; \\\r\n"), format!("{own} UpstreamClient(a\\) \\(b\\; \\\\)"));
}
