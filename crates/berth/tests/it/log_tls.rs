//! Log drivers over TLS: who is believed, and what arrives.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::daemon::{Client, Daemon};
use crate::daemon_tls::Certificates;
use crate::output::eventually;

/// A server that writes down what it gets.
pub struct Server {
    child: Child,
    /// Where it listens, of 127.0.0.1.
    pub port: u16,
    output: PathBuf,
}

impl Server {
    /// With `more` arguments of `openssl s_server`.
    pub fn start(certificates: &Certificates, more: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let output = certificates.path("received");
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
            .arg("-cert")
            .arg(certificates.path("server.pem"))
            .arg("-key")
            .arg(certificates.path("server-key.pem"))
            .arg("-CAfile")
            .arg(certificates.path("ca.pem"))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&output).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, output };
        eventually("the server listens", || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            table.contains(&format!(":{:04X} 00000000:0000 0A", server.port)).then_some(())
        });
        server
    }

    /// What came so far.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(driver: &str, options: &[String], script: &str) -> Vec<String> {
    let mut all: Vec<String> = ["run", "-d", "--name", "cc", "--log-driver", driver].map(String::from).into();
    for option in options {
        all.extend(["--log-opt".to_owned(), option.clone()]);
    }
    all.extend(["busybox", "sh", "-c", script].map(String::from));
    all
}

with_both_clients! {
    fn syslog_over_tls_to_a_server_that_wants_to_know_the_client(daemon: &Daemon, client: Client) {
        let certificates = Certificates::make();
        let server = Server::start(&certificates, &["-Verify", "1", "-verify_return_error"]);
        let file = |name: &str| certificates.path(name).display().to_string();
        let options = [
            format!("syslog-address=tcp+tls://127.0.0.1:{}", server.port),
            format!("syslog-tls-ca-cert={}", file("ca.pem")),
            format!("syslog-tls-cert={}", file("client.pem")),
            format!("syslog-tls-key={}", file("client-key.pem")),
            "syslog-format=rfc5424".into(),
            "tag=t".into(),
        ];
        daemon.with(client, &arguments("syslog", &options, "seq 1 3000")).ok();
        assert_eq!(daemon.wait("cc"), 0);
        let text = eventually("all arrived", || Some(server.received()).filter(|text| text.ends_with(" t - 3000\n")));
        // Each message says its length.
        let (mut rest, mut count) = (text.as_str(), 0);
        while let Some((length, message)) = rest.split_once(' ') {
            let (message, next) = message.split_at(length.parse().unwrap());
            count += 1;
            assert!(message.starts_with("<30>1 ") && message.ends_with(&format!(" t - {count}\n")), "{message}");
            rest = next;
        }
        assert_eq!(count, 3000);
        assert_eq!(daemon.berth(&["logs", "cc"]).ok().lines().count(), 3000);
    }

    fn a_server_that_nobody_vouches_for_is_not_believed(daemon: &Daemon, client: Client) {
        let certificates = Certificates::make();
        let server = Server::start(&certificates, &[]);
        let address = format!("syslog-address=tcp+tls://127.0.0.1:{}", server.port);
        let other = format!("syslog-tls-ca-cert={}", certificates.path("other.pem").display());
        let refused = daemon.with(client, &arguments("syslog", &[address.clone(), other.clone()], "true"));
        refused.fails(125, "failed to initialize logging driver: tls: ");
        daemon.berth(&["rm", "-f", "cc"]).ok();
        let missing = "syslog-tls-ca-cert=/nonexistent/ca.pem".to_owned();
        let refused = daemon.with(client, &arguments("syslog", &[address.clone(), missing], "true"));
        refused.fails(127, "could not read CA certificate \"/nonexistent/ca.pem\"");
        daemon.berth(&["rm", "-f", "cc"]).ok();
        let fluentd = format!("fluentd-address=tls://127.0.0.1:{}", server.port);
        daemon.with(client, &arguments("fluentd", &[fluentd], "true")).fails(125, "failed to initialize logging driver: tls: ");
        daemon.berth(&["rm", "-f", "cc"]).ok();
        assert_eq!(server.received(), "");
        // Whoever insists gets it.
        let options = [address, other, "syslog-tls-skip-verify=true".into()];
        daemon.with(client, &arguments("syslog", &options, "echo hidden")).ok();
        eventually("it arrived", || server.received().contains("hidden").then_some(()));
    }
}

#[test]
fn a_broken_tls_connection_is_made_again() {
    let certificates = Certificates::make();
    let daemon = Daemon::start();
    let server = Server::start(&certificates, &[]);
    let (port, output) = (server.port, server.output.clone());
    let options = [
        format!("syslog-address=tcp+tls://127.0.0.1:{port}"),
        format!("syslog-tls-ca-cert={}", certificates.path("ca.pem").display()),
    ];
    let script = "i=0; while :; do i=$((i+1)); echo number $i; sleep 0.05; done";
    daemon.with(Client::Berth, &arguments("syslog", &options, script)).ok();
    eventually("a line", || server.received().contains("number").then_some(()));
    drop(server);
    let again = Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-naccept", "1"])
        .arg("-cert")
        .arg(certificates.path("server.pem"))
        .arg("-key")
        .arg(certificates.path("server-key.pem"))
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&output).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child: again, port, output };
    eventually("a line after that", || server.received().contains("number").then_some(()));
    daemon.berth(&["rm", "-f", "cc"]).ok();
}
