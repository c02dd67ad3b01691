//! AppArmor: the profile that confines containers where the kernel has it, and which profile a process gets.
//!
//! The kernel takes compiled profiles only, so the profile is loaded by AppArmor's own compiler, once, when the engine
//! is opened. Nothing of this is on the way of a start: a process gets its profile by a name that the kernel knows.

mod profile;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use berth_api::container::HostConfig;
use oci_spec::runtime::Process;
use tokio::io::AsyncWriteExt as _;

use crate::create::security::SecurityOptions;

/// The profile of containers that name none.
const DEFAULT: &str = "docker-default";
/// What is no profile.
const UNCONFINED: &str = "unconfined";
/// Where the compiler may be.
const COMPILERS: [&str; 3] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/bin/apparmor_parser"];
/// How long compiling may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What this host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppArmor {
    /// The kernel has none, or it is switched off.
    Absent,
    /// Profiles can be asked for by name, but there is none by default.
    WithoutDefault,
    /// Containers are confined unless they say otherwise.
    Present,
}

impl AppArmor {
    /// Looks at the kernel, and loads the default profile.
    pub(crate) async fn prepare() -> Self {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|state| state.starts_with(b"Y")) {
            return Self::Absent;
        }
        match load().await {
            Ok(()) => Self::Present,
            // An earlier engine's, or Docker's own.
            Err(_) if is_loaded() => Self::Present,
            Err(why) => {
                tracing::warn!(
                    why,
                    "AppArmor: the profile {DEFAULT} is not loaded, containers run unconfined"
                );
                Self::WithoutDefault
            }
        }
    }

    /// Whether the kernel has it.
    pub(crate) fn is_present(self) -> bool {
        self != Self::Absent
    }

    /// The profile that the container's processes get, as `inspect` shows it; empty without AppArmor.
    pub(crate) fn profile(self, host: &HostConfig) -> String {
        if !self.is_present() {
            return String::new();
        }
        let named = SecurityOptions::parse(host).ok().and_then(|options| options.apparmor);
        match named.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None if host.privileged || self == Self::WithoutDefault => UNCONFINED.to_owned(),
            None => DEFAULT.to_owned(),
        }
    }

    /// Gives a process of a container its profile.
    pub(crate) fn confine(self, process: &mut Process, host: &HostConfig) {
        let profile = Some(self.profile(host)).filter(|name| !matches!(name.as_str(), "" | UNCONFINED));
        process.set_apparmor_profile(profile);
    }
}

/// Whether the kernel knows the default profile.
fn is_loaded() -> bool {
    let profiles = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    profiles.lines().any(|line| line.split(' ').next() == Some(DEFAULT))
}

/// Compiles the default profile into the kernel, in place of one that is there.
async fn load() -> Result<(), String> {
    let compiler = COMPILERS.iter().map(Path::new).find(|path| path.exists());
    let compiler: PathBuf = compiler.ok_or("there is no apparmor_parser")?.to_owned();
    let mut child = tokio::process::Command::new(&compiler)
        .args(["--replace", "--skip-cache", "--quiet"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", compiler.display()))?;
    let text = profile::text(DEFAULT, Path::new(profile::ABI).exists());
    if let Some(mut input) = child.stdin.take() {
        // What a compiler that reads nothing has to say is in its output.
        let _ = input.write_all(text.as_bytes()).await;
    }
    match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(format!("{}: {error}", compiler.display())),
        Err(_) => Err(format!("{} does not end", compiler.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(options: &[&str], privileged: bool) -> HostConfig {
        let security_opt = Some(options.iter().map(|option| (*option).to_owned()).collect());
        HostConfig { security_opt, privileged, ..HostConfig::default() }
    }

    #[test]
    fn the_profile_is_the_one_asked_for_or_the_default() {
        use AppArmor::{Absent, Present, WithoutDefault};
        for (apparmor, options, privileged, profile) in [
            (Present, &[][..], false, "docker-default"),
            (Present, &[], true, "unconfined"),
            (Present, &["apparmor=mine"], false, "mine"),
            (Present, &["apparmor:mine"], true, "mine"),
            (Present, &["apparmor=unconfined"], false, "unconfined"),
            (Present, &["apparmor="], false, "docker-default"),
            (WithoutDefault, &[], false, "unconfined"),
            (WithoutDefault, &["apparmor=mine"], false, "mine"),
            (Absent, &["apparmor=mine"], false, ""),
        ] {
            let host = host(options, privileged);
            assert_eq!(apparmor.profile(&host), profile, "{apparmor:?} {options:?}");
            let mut process = Process::default();
            apparmor.confine(&mut process, &host);
            let named = Some(profile.to_owned()).filter(|name| name != "unconfined" && !name.is_empty());
            assert_eq!(*process.apparmor_profile(), named);
        }
    }
}
