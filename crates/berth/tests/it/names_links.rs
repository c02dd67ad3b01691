//! Links: names that one container has for another.

use crate::daemon::{Client, Daemon};

fn sleeper(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.with(client, &arguments).ok();
}

fn inside(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.berth(&["exec", name, "sh", "-c", script]).stdout
}

fn address(daemon: &Daemon, name: &str, network: &str) -> String {
    daemon.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

fn reaches(daemon: &Daemon, from: &str, name: &str) -> bool {
    daemon.berth(&["exec", from, "ping", "-c", "1", "-W", "1", name]).code == 0
}

with_both_clients! {
    fn linked_containers_are_found_on_the_default_bridge(daemon: &Daemon, client: Client) {
        sleeper(daemon, client, "one", &["--hostname", "fred", "--expose", "80", "--expose", "81", "-e", "A=b"]);
        sleeper(daemon, client, "two", &["--link", "one:al-ias", "--link", "one"]);
        let ip = address(daemon, "one", "bridge");
        for name in ["al-ias", "one", "fred"] {
            assert!(reaches(daemon, "two", name), "{name}");
        }
        let hosts = inside(daemon, "two", "cat /etc/hosts");
        assert!(hosts.contains(&format!("{ip}\tal-ias fred one\n{ip}\tone fred\n")), "{hosts}");
        let variables = inside(daemon, "two", "tr '\\0' '\\n' < /proc/1/environ");
        for line in [format!("AL_IAS_PORT=tcp://{ip}:80"), format!("AL_IAS_PORT_80_TCP_END=tcp://{ip}:81"), "AL_IAS_NAME=/two/al-ias".into(),
            "AL_IAS_ENV_A=b".into(), "ONE_PORT_81_TCP_PROTO=tcp".into()] {
            assert!(variables.lines().any(|found| found == line), "{line}: {variables}");
        }
        let shown = daemon.inspect("two", "{{json .HostConfig.Links}}");
        assert_eq!(shown, r#"["/one:/two/al-ias","/one:/two/one"]"#);
        let names = |flags: &[&str]| daemon.with(client, &[&["ps", "--format", "{{.Names}}", "-f", "name=one"], flags].concat()).ok();
        assert_eq!((names(&[]).as_str(), names(&["--no-trunc"]).as_str()), ("one", "one,two/al-ias,two/one"));
        assert_eq!(daemon.with(client, &["inspect", "-f", "{{.Name}}", "two/al-ias"]).ok(), "/one");
        // Both are renamed; the names of links follow.
        daemon.with(client, &["rename", "two", "zwei"]).ok();
        daemon.with(client, &["rename", "one", "eins"]).ok();
        assert_eq!(daemon.inspect("zwei", "{{json .HostConfig.Links}}"), r#"["/eins:/zwei/al-ias","/eins:/zwei/one"]"#);
        daemon.with(client, &["rm", "--link", "/zwei/al-ias"]).ok();
        assert_eq!(daemon.inspect("zwei", "{{json .HostConfig.Links}}"), r#"["/eins:/zwei/one"]"#);
        assert!(!inside(daemon, "zwei", "cat /etc/hosts").contains("al-ias"));
        daemon.with(client, &["rm", "--link", "eins"]).fails(1, "cannot remove the default link name of the container");
        daemon.with(client, &["rm", "--link", "/zwei/al-ias"]).fails(1, "No such container");
    }

    fn entries_follow_a_target_that_is_started_again(daemon: &Daemon, client: Client) {
        sleeper(daemon, client, "one", &[]);
        sleeper(daemon, client, "two", &["--link", "one:uno"]);
        let first = address(daemon, "one", "bridge");
        daemon.with(client, &["stop", "-t", "0", "one"]).ok();
        // The address goes to another meanwhile.
        for index in 0..3 {
            let name = format!("other{index}");
            sleeper(daemon, client, &name, &[]);
        }
        daemon.with(client, &["start", "one"]).ok();
        let second = address(daemon, "one", "bridge");
        assert_ne!(first, second);
        let hosts = inside(daemon, "two", "cat /etc/hosts");
        assert!(hosts.contains(&format!("{second}\tuno ")) && !hosts.contains(&format!("{first}\tuno")), "{hosts}");
        assert!(reaches(daemon, "two", "uno"));
        // And it is found again by who starts later.
        daemon.with(client, &["restart", "-t", "0", "two"]).ok();
        assert!(reaches(daemon, "two", "uno"));
        daemon.with(client, &["stop", "-t", "0", "one", "two"]).ok();
        daemon.with(client, &["start", "two"]).fails(1, "Cannot link to a non running container: /one AS /two/uno");
        // Who is gone has no link any more.
        daemon.with(client, &["rm", "one"]).ok();
        daemon.with(client, &["start", "two"]).ok();
        assert_eq!(daemon.inspect("two", "{{json .HostConfig.Links}}"), "null");
    }

    fn what_cannot_be_linked_is_refused(daemon: &Daemon, client: Client) {
        sleeper(daemon, client, "hosted", &["--network", "host"]);
        sleeper(daemon, client, "one", &[]);
        sleeper(daemon, client, "shares", &["--network", "container:one"]);
        let host = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
        for (flags, words) in [
            (&["--link", "hosted:x"][..], host),
            (&["--network", "host", "--link", "one:x"], host),
            (&["--network", "container:one", "--link", "one:x"], "container type network can't be used with links"),
            (&["--link", "absent:x"], "could not get container for absent"),
            (&["--link", "one:a:b"], "bad format for links: one:a:b"),
        ] {
            let arguments = [&["run", "--rm"], flags, &["busybox", "true"]].concat();
            let refused = daemon.with(client, &arguments);
            assert_ne!(refused.code, 0);
            assert!(refused.stderr.contains(words), "{flags:?}: {}", refused.stderr);
        }
        // Who shares a network is found where the network is; of two with one alias the first counts.
        let found = daemon.with(client, &["run", "--rm", "--read-only", "--link", "shares:x", "busybox", "grep", "x", "/etc/hosts"]).ok();
        assert!(found.contains(&format!("{}\tx ", address(daemon, "one", "bridge"))), "{found}");
        sleeper(daemon, client, "two", &[]);
        let same = ["run", "--rm", "--link", "one:x", "--link", "two:x", "busybox", "grep", "-c", "\tx ", "/etc/hosts"];
        assert_eq!(daemon.with(client, &same).ok(), "1");
    }

    fn on_networks_of_users_links_are_names_of_one_container(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "mine"]).ok();
        daemon.with(client, &["network", "create", "more"]).ok();
        sleeper(daemon, client, "first", &["--network", "mine"]);
        sleeper(daemon, client, "second", &["--network", "mine", "--link", "first:foo", "--link", "third:bar"]);
        assert_eq!(daemon.inspect("second", "{{json .HostConfig.Links}}"), "null");
        assert_eq!(daemon.inspect("second", "{{json .NetworkSettings.Networks.mine.Links}}"), r#"["first:foo","third:bar"]"#);
        assert!(reaches(daemon, "second", "first") && reaches(daemon, "second", "foo"));
        assert!(!reaches(daemon, "second", "third") && !reaches(daemon, "second", "bar"));
        sleeper(daemon, client, "third", &["--network", "mine"]);
        assert!(reaches(daemon, "second", "third") && reaches(daemon, "second", "bar"));
        assert!(!reaches(daemon, "third", "foo"), "the name is of one container alone");
        for name in ["first", "second"] {
            daemon.with(client, &["restart", "-t", "0", name]).ok();
            assert!(reaches(daemon, "second", "foo"), "after {name} was started again");
        }
        daemon.with(client, &["network", "connect", "more", "first"]).ok();
        daemon.with(client, &["network", "connect", "--link", "first:far", "more", "second"]).ok();
        assert!(reaches(daemon, "second", "far"));
        daemon.with(client, &["network", "disconnect", "more", "second"]).ok();
        assert!(!reaches(daemon, "second", "far") && reaches(daemon, "second", "foo"));
    }
}

#[test]
fn linked_containers_start_with_the_daemon_in_order() {
    let mut daemon = Daemon::start();
    let flags = ["--restart", "always"];
    // The one that has the link comes first by its ID as often as not.
    for name in ["one", "three", "five"] {
        sleeper(&daemon, Client::Berth, name, &flags);
        let other = format!("with-{name}");
        sleeper(&daemon, Client::Berth, &other, &[&flags[..], &["--link", &format!("{name}:x")]].concat());
    }
    daemon.stop();
    daemon.launch();
    for name in ["one", "three", "five"] {
        let other = format!("with-{name}");
        crate::output::eventually("it runs", || {
            (daemon.inspect(&other, "{{.State.Running}}") == "true").then_some(())
        });
        assert_eq!(
            daemon.inspect(&other, "{{json .HostConfig.Links}}"),
            format!(r#"["/{name}:/{other}/x"]"#)
        );
        assert!(reaches(&daemon, &other, "x"));
    }
}
