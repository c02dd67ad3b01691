//! Registries that want to be asked later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Client, Daemon};
use crate::faulty::{Faulty, Reply, contents, honest};
use crate::files;

fn refusal(status: u16) -> Reply {
    let body =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    Reply::new(status, body)
}

/// A registry that refuses the first requests for each kind of thing.
fn busy(times: usize, reply: Reply) -> Faulty {
    let contents = contents(&files::busybox());
    let (manifests, blobs) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Faulty::start(move |asked| {
        let counter = if asked.path.contains("manifests") { &manifests } else { &blobs };
        let is_early = asked.path != "/v2/" && counter.fetch_add(1, Ordering::Relaxed) < times;
        if is_early { reply.clone() } else { honest(&contents, asked) }
    })
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let daemon = Daemon::empty(&[]);
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    for (reply, client) in [
        (refusal(429).header("Retry-After", 1), Client::Berth),
        (
            refusal(503).header("Date", date).header("Retry-After", "Wed, 21 Oct 2015 07:28:01 GMT"),
            Client::Docker,
        ),
        (refusal(503), Client::Docker),
    ] {
        let registry = busy(1, reply);
        let name = format!("{}/x:y", registry.address);
        let begun = Instant::now();
        let told = daemon.with(client, &["pull", &name]).ok();
        assert!(begun.elapsed() >= Duration::from_millis(900), "it waited twice");
        let line = format!("Waiting for {} (", registry.address);
        assert!(told.contains(&line) && told.contains("asking again in 1 s"), "{told}");
        assert_eq!(registry.count("manifests/"), 2);
        daemon.berth(&["rmi", &name]).ok();
    }
}

#[test]
fn a_registry_that_wants_hours_is_not_waited_for_and_the_error_says_what_to_do() {
    let daemon = Daemon::empty(&[]);
    for (status, words) in [(429, "toomanyrequests: "), (503, "unavailable: ")] {
        let registry = busy(usize::MAX, refusal(status).header("Retry-After", 21_600));
        let name = format!("{}/x:y", registry.address);
        for client in [Client::Berth, Client::Docker] {
            let begun = Instant::now();
            let output = daemon.with(client, &["pull", &name]).fails(1, words);
            assert!(begun.elapsed() < Duration::from_secs(10), "{output:?}");
            assert!(output.stderr.contains("You have reached your pull rate limit."), "{output:?}");
            let advice = format!("{} wants no more requests for 6 h: try again then", registry.address);
            assert!(output.stderr.contains(&advice), "{output:?}");
            assert_eq!(output.stderr.contains("log in first"), status == 429, "{output:?}");
        }
        assert_eq!(registry.count("manifests/"), 2, "once for each client");
    }
}

#[test]
fn patience_with_a_registry_that_names_no_time_ends() {
    let daemon = Daemon::empty(&[]);
    let registry = busy(usize::MAX, refusal(429));
    let output = daemon
        .berth(&["pull", &format!("{}/x:y", registry.address)])
        .fails(1, "goes on refusing: try again later");
    assert_eq!(registry.count("manifests/"), 6, "{output:?}");
    assert!(output.stdout.contains("asking again in 8 s"), "{output:?}");
}

#[test]
fn a_busy_mirror_is_passed_over_at_once() {
    let daemon = Daemon::empty(&["--registry-mirror", "127.0.0.1:5005=http://127.0.0.1:5006/"]);
    let contents = contents(&files::busybox());
    let mirror = Faulty::start_at("127.0.0.1:5006", |_| refusal(429).header("Retry-After", 60));
    let _registry = Faulty::start_at("127.0.0.1:5005", move |asked| honest(&contents, asked));
    let begun = Instant::now();
    daemon.berth(&["pull", "127.0.0.1:5005/x:y"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(mirror.count("manifests/") == 1, "{:?}", mirror.asked());
}

#[test]
fn a_realm_that_wants_no_more_requests_has_the_last_word_of_a_push() {
    let daemon = Daemon::start();
    let registry = Faulty::start(|asked| {
        if asked.path.starts_with("/token") {
            return Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"out of tokens"}]}"#)
                .header("Retry-After", 21_600);
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
        Reply::new(401, "{}").header("WWW-Authenticate", realm)
    });
    let name = format!("{}/x:y", registry.address);
    daemon.berth(&["tag", "busybox", &name]).ok();
    for client in [Client::Berth, Client::Docker] {
        let output = daemon.with(client, &["push", &name]).fails(1, "");
        assert_eq!(
            output.stderr.trim_end().lines().last(),
            Some("toomanyrequests: out of tokens"),
            "{output:?}"
        );
    }
}
