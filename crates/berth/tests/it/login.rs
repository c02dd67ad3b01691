//! `login`, `logout`, and that what they keep is used.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::faulty::{Faulty, Reply, contents, honest};
use crate::files;
use crate::output::{feed, run};
use crate::registry::{ADDRESS, Registry};
use crate::terminal::Terminal;

const PRIVATE: &str = "127.0.0.1:5001";

fn settings(daemon: &Daemon) -> Value {
    serde_json::from_slice(&std::fs::read(daemon.root.path().join("config.json")).unwrap()).unwrap()
}

#[track_caller]
fn login(daemon: &Daemon, client: Client, password: &str) -> crate::output::Output {
    let arguments = ["login", "-u", "someone", "--password-stdin", PRIVATE];
    feed(&mut daemon.client(client, &arguments), password.as_bytes())
}

with_both_clients! {
    fn an_account_is_tried_kept_used_and_forgotten(daemon: &Daemon, client: Client) {
        let _registry = Registry::start_private(daemon.root.path(), PRIVATE);
        std::fs::write(daemon.root.path().join("config.json"), r#"{"future": [1], "auths": {}}"#).unwrap();
        let name = format!("{PRIVATE}/mine:1");
        daemon.berth(&["tag", "busybox", &name]).ok();
        daemon.with(client, &["push", &name]).fails(1, "no basic auth credentials");
        daemon.with(client, &["pull", &name]).fails(1, "no basic auth credentials");
        login(daemon, client, "wrong").fails(
            1,
            &format!("Error response from daemon: login attempt to http://{PRIVATE}/v2/ failed with status: 401 Unauthorized"),
        );
        assert_eq!(settings(daemon)["auths"], json!({}), "what was refused is not kept");
        let done = login(daemon, client, "secret\n");
        assert!(done.stderr.contains("WARNING! Your credentials are stored unencrypted in"), "{done:?}");
        assert_eq!(done.ok(), "Login Succeeded");
        // "someone:secret" in base64; and nothing that is unknown was lost.
        assert_eq!(settings(daemon)["auths"], json!({PRIVATE: {"auth": "c29tZW9uZTpzZWNyZXQ="}}));
        if client == Client::Berth {
            assert_eq!(settings(daemon)["future"], json!([1]));
            let mode = std::fs::metadata(daemon.root.path().join("config.json")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        daemon.with(client, &["push", &name]).ok();
        daemon.with(client, &["rmi", &name]).ok();
        daemon.with(client, &["pull", &name]).ok();
        let again = daemon.with(client, &["login", PRIVATE]);
        assert!(again.stderr.contains("Authenticating with existing credentials... [Username: someone]"), "{again:?}");
        assert_eq!(again.ok(), "Login Succeeded");
        let said = daemon.with(client, &["logout", PRIVATE]).ok();
        assert_eq!(said, format!("Removing login credentials for {PRIVATE}"));
        assert_eq!(settings(daemon)["auths"], json!({}));
        daemon.with(client, &["push", &name]).fails(1, "no basic auth credentials");
        assert!(!daemon.log().contains("secret"), "{}", daemon.log());
    }

    fn flags_that_make_no_sense_are_refused(daemon: &Daemon, client: Client) {
        let refused = |arguments: &[&str], text: &str| {
            let mut all = vec!["login"];
            all.extend(arguments);
            daemon.with(client, &all).fails(1, text);
        };
        refused(&["-u", "x", PRIVATE], "cannot perform an interactive login from a non");
        refused(&["--password-stdin", PRIVATE], "--username");
        refused(&["-u", "x", "-p", "y", "--password-stdin", PRIVATE], "password and --password-stdin");
        if client == Client::Berth {
            // Newer than the stock client here.
            refused(&["-u", "x", "--password-stdin", PRIVATE], "password is empty");
            refused(&["-u", "", "-p", "y", PRIVATE], "username is empty");
        }
    }

    fn helpers_keep_what_the_file_does_not(daemon: &Daemon, client: Client) {
        let _registry = Registry::start_private(daemon.root.path(), PRIVATE);
        let folder = daemon.root.path();
        let kept = folder.join("kept");
        let helper = format!(
            "#!/bin/sh\ncase $1 in\nstore) cat > {kept};;\nget) if [ -e {kept} ]; then cat {kept}; \
             else echo 'credentials not found in native keychain'; exit 1; fi;;\nerase) rm -f {kept};;\nesac\n",
            kept = kept.display()
        );
        let path = folder.join("docker-credential-test");
        std::fs::write(&path, helper).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let search = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let with_helper = |arguments: &[&str], input: &str| {
            feed(daemon.client(client, arguments).env("PATH", &search), input.as_bytes())
        };
        for config in [json!({"credsStore": "test"}), json!({"credHelpers": {PRIVATE: "test"}, "credsStore": "absent"})] {
            std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
            let done = with_helper(&["login", "-u", "someone", "--password-stdin", PRIVATE], "secret");
            assert!(!done.stderr.contains("unencrypted"), "{done:?}");
            assert_eq!(done.ok(), "Login Succeeded");
            let secret: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
            assert_eq!(secret, json!({"ServerURL": PRIVATE, "Username": "someone", "Secret": "secret"}));
            assert_eq!(settings(daemon)["auths"], json!({PRIVATE: {}}), "that there is one is noted");
            let name = format!("{PRIVATE}/helped:1");
            daemon.berth(&["tag", "busybox", &name]).ok();
            with_helper(&["push", &name], "").ok();
            // Without the program. Docker's client pushes without the account then.
            let text = match client {
                Client::Berth => "error getting credentials - err: exec: \"docker-credential-test\": executable file not found in $PATH",
                Client::Docker => "no basic auth credentials",
            };
            daemon.with(client, &["push", &name]).fails(1, text);
            with_helper(&["logout", PRIVATE], "").ok();
            assert!(!kept.exists());
            with_helper(&["push", &name], "").fails(1, "no basic auth credentials");
        }
        std::fs::write(&path, "#!/bin/sh\necho it is broken; exit 3\n").unwrap();
        let text = "error getting credentials - err: exit status 3, out: `it is broken`";
        if client == Client::Berth {
            with_helper(&["pull", &format!("{PRIVATE}/x")], "").fails(1, text);
        }
    }

    fn a_broken_helper_is_not_in_the_way_of_public_images(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        registry.push("docker-archive", files::busybox_archive().to_str().unwrap(), "public:1");
        let folder = daemon.root.path();
        let path = folder.join("docker-credential-broken");
        std::fs::write(&path, "#!/bin/sh\necho it is broken; exit 3\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let search = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let name = format!("{ADDRESS}/public:1");
        for store in ["broken", "absent"] {
            std::fs::write(folder.join("config.json"), json!({"credsStore": store}).to_string()).unwrap();
            for arguments in [["pull", "-q", &name], ["push", "-q", &name]] {
                let output = run(daemon.client(client, &arguments).env("PATH", &search));
                if client == Client::Berth {
                    let warning = "WARNING: error getting credentials - err: ";
                    let end = format!(": going on without an account for {ADDRESS}");
                    assert!(output.stderr.starts_with(warning) && output.stderr.trim_end().ends_with(&end), "{output:?}");
                }
                output.ok();
            }
        }
    }

    fn a_helper_may_keep_a_token_instead_of_a_password(daemon: &Daemon, client: Client) {
        let contents = contents(&files::busybox());
        let server = Faulty::start(move |asked| {
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            match (asked.method.as_str(), asked.path.as_str()) {
                ("POST", "/token") if form.contains("grant_type=refresh_token") && form.contains("refresh_token=k3ptback") => {
                    Reply::new(200, r#"{"access_token": "fresh", "expires_in": 300}"#)
                }
                (_, path) if path.starts_with("/token") => Reply::new(401, "{}"),
                _ if asked.header("authorization") == "Bearer fresh" => honest(&contents, asked),
                _ => {
                    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host"));
                    Reply::new(401, "{}").header("WWW-Authenticate", realm)
                }
            }
        });
        let folder = daemon.root.path();
        let path = folder.join("docker-credential-token");
        let secret = json!({"ServerURL": server.address, "Username": "<token>", "Secret": "k3ptback"});
        std::fs::write(&path, format!("#!/bin/sh\ncat > /dev/null; echo '{secret}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(folder.join("config.json"), json!({"credsStore": "token"}).to_string()).unwrap();
        let search = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let name = format!("{}/x:y", server.address);
        run(daemon.client(client, &["pull", "-q", &name]).env("PATH", &search)).ok();
        assert_eq!(server.asked().iter().filter(|asked| asked.method == "POST").count(), 1);
        assert!(!daemon.log().contains("k3ptback"), "{}", daemon.log());
    }

    fn a_password_that_is_typed_is_not_shown(daemon: &Daemon, client: Client) {
        let _registry = Registry::start_private(daemon.root.path(), PRIVATE);
        let mut terminal = Terminal::run(daemon.client(client, &["login", PRIVATE]));
        terminal.expect("Username: ");
        terminal.send("someone\n");
        terminal.expect("Password: ");
        terminal.send("secret\n");
        let shown = terminal.expect("Login Succeeded");
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(terminal.end(), 0);
    }
}

#[test]
fn the_api_tells_right_from_wrong() {
    let daemon = Daemon::empty(&[]);
    let _registry = Registry::start_private(daemon.root.path(), PRIVATE);
    let ask = |password: &str| {
        let body = json!({"username": "someone", "password": password, "serveraddress": format!("http://{PRIVATE}")});
        api::ask(&daemon, "/v1.44/auth", Some(&body))
    };
    assert_eq!(ask("secret"), (200, json!({"Status": "Login Succeeded"})));
    let (code, answer) = ask("wrong");
    assert_eq!(code, 401, "{answer}");
    let (code, _) = api::ask(&daemon, &format!("/distribution/{PRIVATE}/x/json"), None);
    assert_eq!(code, 401);
}

#[test]
fn variables_hold_accounts_too() {
    let daemon = Daemon::start();
    let _registry = Registry::start_private(daemon.root.path(), PRIVATE);
    let name = format!("{PRIVATE}/variable:1");
    daemon.berth(&["tag", "busybox", &name]).ok();
    let auths = json!({"auths": {PRIVATE: {"auth": "c29tZW9uZTpzZWNyZXQ="}}}).to_string();
    let mut push: Command = daemon.client(Client::Berth, &["push", "-q", &name]);
    assert_eq!(run(push.env("DOCKER_AUTH_CONFIG", auths)).ok(), name);
}
