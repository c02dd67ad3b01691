//! Plugins of the command line, as Docker's client runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::contexts::User;
use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

const METADATA: &str =
    r#"{"SchemaVersion":"0.1.0","Vendor":"Somebody","Version":"v1","ShortDescription":"Greets"}"#;

/// Writes a plugin that tells how it was called.
fn plugin(folder: &Path, name: &str, metadata: &str) {
    fs::create_dir_all(folder).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; exit; fi\n\
         echo \"$0\"; printf '<%s>' \"$@\"; echo; echo \"cli=$DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND\"\n\
         echo \"host=$DOCKER_HOST\"; cat; exit 7\n"
    );
    let path = folder.join(format!("docker-{name}"));
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

const CLIENTS: [Client; 2] = [Client::Berth, Client::Docker];

#[test]
fn plugins_are_commands() {
    let home = User::new();
    plugin(&home.path("cli-plugins"), "greet", METADATA);
    for client in CLIENTS {
        let output = home.run(client, &["-D", "greet", "--flag", "x y", "--help=1"]);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""), "{output:?}");
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert!(lines[0].ends_with("/cli-plugins/docker-greet"), "{lines:?}");
        assert_eq!(lines[1], "<-D><greet><--flag><x y><--help=1>");
        let program = home.command(client, &[]).get_program().to_str().unwrap().to_owned();
        assert_eq!(lines[2], format!("cli={program}"));
        let expected = if client == Client::Berth { "host=unix:///run/berth.sock" } else { "host=" };
        assert_eq!(lines[3], expected);
        let mut command = home.command(client, &["greet"]);
        assert!(run(command.env("DOCKER_HOST", "tcp://h:1")).stdout.contains("host=tcp://h:1\n"));
        let help = home.run(client, &["--help"]).ok();
        assert!(help.contains("greet") && help.contains("Greets"), "{help}");
    }
}

#[test]
fn the_first_directory_wins() {
    let home = User::new();
    plugin(&home.path("cli-plugins"), "greet", METADATA);
    plugin(&home.path("extra"), "greet", METADATA);
    let settings = serde_json::json!({"cliPluginsExtraDirs": [home.path("extra")]});
    fs::write(home.path("config.json"), settings.to_string()).unwrap();
    for client in CLIENTS {
        let shown = home.run(client, &["greet"]).stdout;
        assert!(shown.starts_with(home.path("extra").to_str().unwrap()), "{client:?}: {shown}");
    }
}

#[test]
fn what_is_no_plugin_is_no_command() {
    let daemon = Daemon::empty(&[]);
    let home = User::new();
    plugin(&home.path("cli-plugins"), "nobody", r#"{"SchemaVersion":"0.1.0"}"#);
    plugin(&home.path("cli-plugins"), "future", r#"{"SchemaVersion":"9.0.0","Vendor":"x"}"#);
    plugin(&home.path("cli-plugins"), "ps", METADATA);
    let check = |output: Output, name: &str| {
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
        assert!(output.stderr.contains(name), "{output:?}");
    };
    for client in CLIENTS {
        for name in ["nobody", "future", "absent", "Up", "../x"] {
            check(home.run(client, &[name]), name);
        }
        // Nothing replaces a command that there is.
        assert!(home.run(client, &["-H", &daemon.host(), "ps"]).ok().starts_with("CONTAINER ID"));
    }
}
