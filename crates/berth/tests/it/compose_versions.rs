//! The versions of Compose that Debian has, each driving one test's daemon.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::files::once;
use crate::output::{Output, run};

/// A version of Compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compose {
    /// Version 1, written in Python: of Debian 12, installed on this machine.
    One,
    /// Version 2, a plugin of the command line written in Go: of Debian 13.
    Two,
    /// The newest that Debian has.
    Newest,
}

impl Compose {
    /// Gets the plugin, for which the network is needed: before the test has a daemon.
    pub fn fetch(self) -> Option<PathBuf> {
        match self {
            Compose::One => None,
            Compose::Two => Some(plugin("trixie")),
            Compose::Newest => Some(plugin("sid")),
        }
    }

    /// Whether it is version 1.
    pub fn is_one(self) -> bool {
        self == Compose::One
    }
}

/// A stack: a folder with a `compose.yaml`, and what runs its commands.
pub struct Stack<'a> {
    daemon: &'a Daemon,
    client: Client,
    version: Compose,
    folder: PathBuf,
}

impl<'a> Stack<'a> {
    /// A stack called `stack` of the files given by name and content. Version 2 is a plugin of `client`.
    pub fn new(
        daemon: &'a Daemon,
        client: Client,
        version: Compose,
        plugin: Option<&Path>,
        files: &[(&str, &str)],
    ) -> Stack<'a> {
        let folder = daemon.root.path().join("stack");
        fs::create_dir_all(&folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        if let Some(plugin) = plugin {
            let plugins = daemon.root.path().join("cli-plugins");
            fs::create_dir_all(&plugins).unwrap();
            let here = plugins.join("docker-compose");
            let _ = fs::remove_file(&here);
            std::os::unix::fs::symlink(plugin, here).unwrap();
        }
        Stack { daemon, client, version, folder }
    }

    /// The command, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = match self.version {
            Compose::One => {
                let mut command = Command::new("docker-compose");
                command.env("DOCKER_HOST", self.daemon.host()).env("COMPOSE_HTTP_TIMEOUT", "60");
                command
            }
            _ => self.daemon.client(self.client, &["compose"]),
        };
        command.current_dir(&self.folder).args(["-p", "stack", "-f", "compose.yaml"]).args(arguments);
        command
    }

    /// Runs Compose with these arguments.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Runs Compose and returns what it printed; it must succeed.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.run(arguments).ok()
    }

    /// A command within a service's first container.
    #[track_caller]
    pub fn exec(&self, service: &str, command: &[&str]) -> String {
        self.ok(&[&["exec", "-T", service], command].concat())
    }

    /// IDs of the stack's containers, ended ones too, of one service or of all.
    pub fn containers(&self, service: Option<&str>) -> Vec<String> {
        let mut arguments =
            vec!["ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project=stack"];
        let label = service.map(|service| format!("label=com.docker.compose.service={service}"));
        if let Some(label) = &label {
            arguments.extend(["--filter", label]);
        }
        let mut all: Vec<String> =
            self.daemon.with(self.client, &arguments).ok().lines().map(str::to_string).collect();
        all.sort();
        all
    }

    /// The ID of a service's only container.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let all = self.containers(Some(service));
        assert_eq!(all.len(), 1, "containers of {service}");
        all[0].clone()
    }
}

/// The plugin of a release of Debian, got by `apt-get` with settings of its own.
fn plugin(release: &str) -> PathBuf {
    once(&format!("docker-compose-{release}"), |path| {
        let folder = path.with_extension("apt");
        let _ = fs::remove_dir_all(&folder);
        for part in ["lists/partial", "archives/partial", "unpacked"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let sources = folder.join("sources.list");
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let line = format!("deb [signed-by={key}] http://deb.debian.org/debian {release} main\n");
        fs::write(&sources, line).unwrap();
        fs::write(folder.join("status"), "").unwrap();
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.current_dir(&folder);
            for (name, value) in [
                ("Dir::State", folder.clone()),
                ("Dir::State::lists", folder.join("lists")),
                ("Dir::State::status", folder.join("status")),
                ("Dir::Cache", folder.clone()),
                ("Dir::Cache::archives", folder.join("archives")),
                ("Dir::Etc::sourcelist", sources.clone()),
                ("Dir::Etc::sourceparts", "/dev/null".into()),
                ("Dir::Etc::preferencesparts", "/dev/null".into()),
                ("APT::Sandbox::User", "root".into()),
            ] {
                command.arg("-o").arg(format!("{name}={}", value.display()));
            }
            done(command.args(["-q", "-o", "Acquire::Languages=none"]).args(arguments));
        };
        apt(&["update"]);
        apt(&["download", "docker-compose"]);
        let package = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        let package = package.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb")).unwrap();
        done(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder.join("unpacked")));
        fs::rename(folder.join("unpacked/usr/libexec/docker/cli-plugins/docker-compose"), path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    })
}

/// Runs a command that may take minutes.
fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:#?}");
}
