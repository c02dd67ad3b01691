//! `container prune`: what goes, what stays, what it says.

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::output::{feed, run};

/// What `GET`, `POST` and the like answer: status and body.
pub fn api(daemon: &Daemon, method: &str, path: &str) -> (u16, String) {
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]).arg(daemon.socket());
    let text = run(command.arg(format!("http://d{path}"))).ok();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.trim_end().to_owned())
}

with_both_clients! {
    fn stopped_containers_go_and_others_stay(daemon: &Daemon, client: Client) {
        let written = daemon.background(&["busybox", "sh", "-c", "head -c 123456 /dev/zero > /file"]);
        daemon.wait(&written);
        let created = daemon.with(client, &["create", "busybox"]).ok();
        let running = daemon.background(&["busybox", "sleep", "1000"]);
        let text = daemon.with(client, &["container", "prune", "-f"]).ok();
        assert_eq!(text, format!("Deleted Containers:\n{created}\n{written}\n\nTotal reclaimed space: 123.5kB"));
        assert_eq!(daemon.berth(&["ps", "-aq", "--no-trunc"]).ok(), running);
        assert_eq!(daemon.with(client, &["container", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
    }

    fn it_asks_first(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["create", "busybox"]).ok();
        let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
        for answer in ["n\n", "\n", "", "no\n"] {
            let output = feed(&mut daemon.client(client, &["container", "prune"]), answer.as_bytes());
            assert_eq!(output.ok(), question);
            assert_eq!(daemon.berth(&["ps", "-aq", "--no-trunc"]).ok(), id);
        }
        let text = feed(&mut daemon.client(client, &["container", "prune"]), b"y\n").ok();
        assert!(text.contains(&format!("Deleted Containers:\n{id}\n")), "{text}");
    }

    fn filters_select(daemon: &Daemon, client: Client) {
        let create = |labels: &[&str]| {
            daemon.with(client, &[&["create"], labels, &["busybox"]].concat()).ok()
        };
        let plain = create(&[]);
        let front = create(&["--label", "tier=front"]);
        let back = create(&["--label", "tier=back", "--label", "keep"]);
        let prune = |filter: &str| daemon.with(client, &["container", "prune", "-f", "--filter", filter]);
        assert_eq!(prune("until=1h").ok(), "Total reclaimed space: 0B");
        assert_eq!(prune("label=tier=middle").ok(), "Total reclaimed space: 0B");
        assert!(prune("label=tier=front").ok().contains(&front));
        let text = prune("label!=keep").ok();
        assert!(text.contains(&plain) && !text.contains(&back), "{text}");
        prune("colour=red").fails(1, "invalid filter 'colour'");
        prune("until=soon").fails(1, "soon");
        assert!(prune("until=0s").ok().contains(&back));
    }
}

#[test]
fn the_answer_and_the_event_have_dockers_form() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sh", "-c", "echo 12345 > /file"]);
    daemon.wait(&id);
    let (status, body) = api(&daemon, "POST", "/v1.45/containers/prune");
    assert_eq!((status, body), (200, format!("{{\"ContainersDeleted\":[\"{id}\"],\"SpaceReclaimed\":6}}")));
    let (_, body) = api(&daemon, "POST", "/v1.45/containers/prune");
    assert_eq!(body, "{\"ContainersDeleted\":null,\"SpaceReclaimed\":0}");
    let text = daemon
        .berth(&["events", "--since", "1h", "--until", "0s", "--filter", "event=prune", "--format", "json"])
        .ok();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{text}");
    assert_eq!(events[0]["Type"], "container");
    assert_eq!(events[0]["Actor"]["Attributes"], serde_json::json!({"reclaimed": "6"}));
}
