//! `search`, against servers that speak the protocol of Docker's index.

use serde_json::{Value, json};

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::faulty::{Faulty, Reply};
use crate::output::feed;

/// An index with three repositories.
fn index() -> Faulty {
    Faulty::start(|asked| {
        if asked.path == "/v1/_ping" {
            return Reply::new(200, "true").header("X-Docker-Registry-Standalone", "true");
        }
        if !asked.path.starts_with("/v1/search?") {
            return Reply::new(404, "404 page not found");
        }
        let found = json!({"query": "x", "num_results": 3, "results": [
            {"name": "someone/busy", "description": "first\nline \u{1b}[31m", "star_count": 3, "is_official": false, "is_automated": true},
            {"name": "busybox", "description": "A description that is much longer than any table has room for.", "star_count": 900, "is_official": true},
            {"name": "nothing", "description": null, "star_count": 0, "is_official": false},
        ]});
        Reply::new(200, found.to_string()).header("Content-Type", "application/json")
    })
}

with_both_clients! {
    fn a_registry_is_searched_and_filtered(daemon: &Daemon, client: Client) {
        let index = index();
        let search = |arguments: &[&str]| {
            let term = format!("{}/bu sy", index.address);
            let mut all = vec!["search"];
            all.extend(arguments);
            all.push(&term);
            daemon.with(client, &all)
        };
        let table = search(&["--format", "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"]).ok();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(lines[0], ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
        assert_eq!(lines[2], ["busybox", "A description that is much longer than any t…", "900", "[OK]"]);
        assert_eq!(lines[1][0], "someone/busy");
        assert!(lines[1][1].starts_with("first line"), "{table}");
        assert!(client == Client::Docker || !table.contains('\u{1b}'), "{table}");
        assert_eq!(lines.len(), 4);
        let asked = index.asked().last().unwrap().path.clone();
        assert!(asked.starts_with("/v1/search?q=bu+sy&n=25"), "{asked}");
        search(&["--limit", "7"]).ok();
        assert!(index.asked().last().unwrap().path.ends_with("&n=7"));
        let names = |arguments: &[&str]| search(&[&["--format", "{{.Name}}"], arguments].concat()).ok();
        assert_eq!(names(&["--filter", "is-official=true"]), "busybox");
        assert_eq!(names(&["--filter", "is-official=false"]), "someone/busy\nnothing");
        assert_eq!(names(&["-f", "stars=3", "-f", "stars=1"]), "someone/busy\nbusybox");
        assert_eq!(names(&["-f", "is-automated=true"]), "");
        let whole = search(&["--no-trunc", "--format", "{{.Description}}"]).ok();
        assert!(whole.contains("than any table has room for."), "{whole}");
        let rows: Vec<Value> =
            search(&["--format", "{{json .}}"]).ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&rows[1]["Name"], &rows[1]["StarCount"]), (&json!("busybox"), &json!("900")));
        assert!(!index.saw_credentials());
    }

    fn what_makes_no_sense_is_refused(daemon: &Daemon, client: Client) {
        let index = index();
        let term = format!("{}/x", index.address);
        for (arguments, text) in [
            (&["-f", "stars=a", &term][..], "invalid filter 'stars=a'"),
            (&["-f", "is-automated=a", &term], "invalid filter 'is-automated=a'"),
            (&["-f", "is-official=a", &term], "invalid filter 'is-official=a'"),
            (&["-f", "colour=a", &term], "invalid filter 'colour'"),
            (&["--limit", "101", &term], "limit 101 is outside the range of [1, 100]"),
            (&["https://x.example/y"], "invalid repository name: repository name (https://x.example/y) should not have a scheme"),
            (&["127.0.0.1:1/x"], "127.0.0.1:1"),
        ] {
            daemon.with(client, &[&["search"], arguments].concat()).fails(1, text);
        }
        assert_eq!(index.count("search"), 0, "nothing of that is the registry's business");
        let without = Faulty::start(|_| Reply::new(404, "404 page not found"));
        daemon.with(client, &["search", &format!("{}/x", without.address)]).fails(1, "unexpected status code 404");
        let broken = Faulty::start(|_| Reply::new(200, "<html>"));
        daemon.with(client, &["search", &format!("{}/x", broken.address)]).fails(1, "error decoding registry search results");
    }

    fn the_account_of_the_registry_is_used_and_no_other(daemon: &Daemon, client: Client) {
        let private = Faulty::start(|asked| match asked.header("authorization") {
            // "someone:secret".
            "Basic c29tZW9uZTpzZWNyZXQ=" if asked.path.starts_with("/v1/search") => {
                Reply::new(200, r#"{"results": [{"name": "mine"}]}"#).header("Content-Type", "application/json")
            }
            "Basic c29tZW9uZTpzZWNyZXQ=" => Reply::new(200, "{}"),
            _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
        });
        let other = index();
        let term = format!("{}/x", private.address);
        if client == Client::Berth {
            // Docker's asks for the account instead.
            daemon.with(client, &["search", &term]).fails(1, "401");
        }
        let login = ["login", "-u", "someone", "--password-stdin", &private.address];
        feed(&mut daemon.client(client, &login), b"secret").ok();
        assert_eq!(daemon.with(client, &["search", "--format", "{{.Name}}", &term]).ok(), "mine");
        daemon.with(client, &["search", &format!("{}/x", other.address)]).ok();
        assert!(!other.saw_credentials());
    }
}

#[test]
fn the_api_takes_no_limit_as_the_usual_one() {
    let daemon = Daemon::empty(&[]);
    let index = index();
    let term = format!("{}/x", index.address).replace('/', "%2F");
    let (code, found) = api::ask(&daemon, &format!("/images/search?term={term}&limit=0"), None);
    assert_eq!(
        (code, found[1]["name"].as_str(), &found[1]["is_automated"]),
        (200, Some("busybox"), &json!(false))
    );
    assert_eq!(found[2]["description"], "");
    assert!(
        index.asked()[0].path.ends_with("&n=25") || index.asked().last().unwrap().path.ends_with("&n=25")
    );
    for path in ["limit=x", "limit=-1", "limit=101", "filters=x"] {
        assert_eq!(
            api::refused(&daemon, "GET", &format!("/images/search?term={term}&{path}")).0,
            400,
            "{path}"
        );
    }
}

#[test]
fn docker_hub_is_searched_at_its_index() {
    const PROXY: &str = "127.0.0.1:3128";
    let daemon = Daemon::empty(&[&format!("--https-proxy=http://{PROXY}")]);
    let proxy = Faulty::start_at(PROXY, |_| Reply::new(403, ""));
    // The namespace has no way out: what is asked of the proxy is where it would have gone.
    daemon.berth(&["search", "busybox"]).fails(1, "proxy refuses");
    let asked = proxy.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("CONNECT", "index.docker.io:443"));
}
