//! Images on their way through proxies, with and without TLS on either side of them.

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::feed;
use crate::registry::Registry;
use crate::registry_hosts::{Settings, add_addresses, addresses, certified};
use crate::tls_front;
use crate::way_out::WayOut;

/// Pushes and pulls by both clients from a registry without TLS and one with, whose requests are to go by `proxy`, an
/// address of this machine's that begins with its scheme.
fn transfers_by(scheme: &str) {
    let (v4, v6) = addresses();
    let proxy = format!("{scheme}://user:secret@{v4}:3128");
    let plain = format!("{v4}:5005");
    let daemon =
        Daemon::empty(&["--http-proxy", &proxy, "--https-proxy", &proxy, "--insecure-registry", &plain]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    add_addresses(&v4, &v6);
    let (certificates, tls) = certified(&v4, &v6, false);
    let way = WayOut::open();
    let mut settings = Vec::new();
    if scheme == "https" {
        let inner = format!("127.0.0.1:{}", way.listen());
        tls_front::open(&format!("{v4}:3128"), &certificates, "registry", &inner);
        let files = Settings::of(&format!("{v4}:3128"));
        files.put(&certificates, "ca.pem", "ca.crt");
        settings.push(files);
    } else {
        way.listen_at(3128);
    }
    let secure = format!("{v4}:5443");
    let files = Settings::of(&secure);
    files.put(&certificates, "ca.pem", "ca.crt");
    settings.push(files);
    let _plain = Registry::start_at(daemon.root.path(), &plain, "");
    let _secure = Registry::start_at(daemon.root.path(), &secure, &tls);
    for (authority, asked) in
        [(&plain, format!("GET http://{plain}/v2/x/manifests/")), (&secure, format!("CONNECT {secure}"))]
    {
        let mut all = Vec::new();
        for client in [Client::Berth, Client::Docker] {
            let name = format!("{authority}/x:{client:?}").to_lowercase();
            daemon.berth(&["tag", "busybox", &name]).ok();
            daemon.with(client, &["push", &name]).ok();
            daemon.berth(&["rmi", &name]).ok();
            daemon.with(client, &["pull", "-q", &name]).ok();
            // A tunnel serves several requests, which are not seen.
            all.extend(way.take_asked());
            assert!(all.iter().any(|line| line.starts_with(&asked)), "{asked} in {all:?}");
            let said = daemon.berth(&["run", "--rm", "--network", "none", &name, "echo", "here"]).ok();
            assert_eq!(said, "here");
        }
    }
    assert!(!daemon.log().contains("secret"), "{}", daemon.log());
}

#[test]
fn images_go_through_a_proxy() {
    transfers_by("http");
}

#[test]
fn images_go_through_a_proxy_that_is_spoken_to_with_tls() {
    transfers_by("https");
}

#[test]
fn what_is_no_proxy_for_registries_is_not_gone_past() {
    let (v4, v6) = addresses();
    let daemon = Daemon::empty(&[
        "--http-proxy",
        "socks5://user:secret@192.0.2.1:1080",
        "--https-proxy",
        "socks5://user:secret@192.0.2.1:1080",
    ]);
    add_addresses(&v4, &v6);
    let seen =
        crate::faulty::Faulty::start_at(&format!("{v4}:5005"), |_| crate::faulty::Reply::new(200, "{}"));
    for client in [Client::Berth, Client::Docker] {
        let output = daemon
            .with(client, &["pull", &format!("{v4}:5005/x:1")])
            .fails(1, "the proxy socks5://xxxxx:xxxxx@192.0.2.1:1080 cannot be used: only http://");
        assert!(!output.stderr.contains("secret"), "{output:?}");
        let login = ["login", "-u", "someone", "--password-stdin", &format!("{v4}:5005")];
        feed(&mut daemon.client(client, &login), b"word").fails(1, "cannot be used");
    }
    assert_eq!(seen.asked().len(), 0, "nothing went there");
}
