//! Commands that only tell: state, list, ps, features, spec.

use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};

use super::arguments::{Format, Global, List, Ps, SpecFile};
use super::error::{Context as _, Error, Result};
use super::state::{self, Directory};
use crate::capability;
use crate::defaults;

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context(|| "write to standard output".to_owned())
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Invalid(format!("write JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Prints a container's state.
pub(super) fn state(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let state = directory.read()?;
    print_json(&state.report(&state.status(&directory)?.to_string()))
}

/// Lists the containers.
pub(super) fn list(global: &Global, list: &List) -> Result<()> {
    let mut reports = Vec::new();
    for id in state::ids(&global.root)? {
        let Ok(directory) = Directory::new(&global.root, &id) else { continue };
        // One that is just being made or deleted has no state.
        let Ok(state) = directory.read() else { continue };
        let Ok(status) = state.status(&directory) else { continue };
        reports.push(serde_json::to_value(state.report(&status.to_string())).unwrap_or_default());
    }
    if list.quiet {
        let ids: String = reports.iter().map(|report| format!("{}\n", text(report, "id"))).collect();
        return print(&ids);
    }
    match list.format {
        Format::Json => print_json(&reports),
        Format::Table => {
            let rows = reports.iter().map(|report| {
                ["id", "pid", "status", "bundle", "created", "owner"].map(|name| text(report, name))
            });
            print(&table(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows.collect()))
        }
    }
}

fn text(report: &Value, name: &str) -> String {
    match &report[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows in columns, under headings.
fn table<const N: usize>(headings: [&str; N], mut rows: Vec<[String; N]>) -> String {
    rows.insert(0, headings.map(str::to_owned));
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(index, cell)| {
            let width = rows.iter().map(|row| row[index].chars().count()).max().unwrap_or_default();
            if index + 1 == N { cell.clone() } else { format!("{cell:width$}   ") }
        });
        out.extend(cells);
        out.push('\n');
    }
    out
}

/// Lists the processes of a container.
pub(super) fn ps(global: &Global, ps: &Ps) -> Result<()> {
    let directory = Directory::new(&global.root, &ps.id)?;
    let pids = directory.read()?.cgroup()?.pids()?;
    if ps.format == Format::Json {
        return print_json(&pids);
    }
    let rows = pids.into_iter().map(|pid| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("?").to_owned()
        };
        let command = read("cmdline").replace('\0', " ");
        [field("Uid:"), pid.to_string(), field("PPid:"), command.trim_end().to_owned()]
    });
    print(&table(["UID", "PID", "PPID", "CMD"], rows.collect()))
}

/// Prints what this runtime supports (runtime specification, features.md).
pub(super) fn features() -> Result<()> {
    let capabilities: Vec<String> = capability::ALL.iter().map(|one| format!("CAP_{one}")).collect();
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "noatime", "nodev",
            "nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "rbind", "relatime",
            "remount", "ridmap", "ro", "rprivate", "rshared", "rslave", "runbindable", "rw", "shared", "slave",
            "strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable",
        ],
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": [
                    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
                ],
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
                "supportedFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                ],
            },
            "apparmor": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "selinux": { "enabled": true },
        },
        "annotations": { "dev.berth.version": env!("CARGO_PKG_VERSION") },
    }))
}

/// Writes an example configuration.
pub(super) fn spec(arguments: &SpecFile) -> Result<()> {
    if arguments.rootless {
        return Err(Error::Unsupported("running without root"));
    }
    let path = arguments.bundle.join("config.json");
    let mut spec = defaults::spec(&["sh"]);
    if let Some(mut process) = spec.process().clone() {
        process.set_terminal(Some(true));
        spec.set_process(Some(process));
    }
    let text = serde_json::to_string_pretty(&spec)
        .map_err(|error| Error::Invalid(format!("write JSON: {error}")))?;
    match fs::File::create_new(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::Invalid(format!("{} exists: remove it first", path.display())))
        }
        other => other.and_then(|mut file| file.write_all(text.as_bytes())).at("write", &path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns() {
        let rows = vec![["a".to_owned(), "long".to_owned()], ["bcd".to_owned(), "x".to_owned()]];
        assert_eq!(table(["ID", "B"], rows), "ID    B\na     long\nbcd   x\n");
    }
}
