//! What flags take, as far as it is known without asking anyone.

use clap::Command;

use super::{Kind, Wanted};

const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
const LIMITS: [&str; 16] = [
    "as=",
    "core=",
    "cpu=",
    "data=",
    "fsize=",
    "locks=",
    "memlock=",
    "msgqueue=",
    "nice=",
    "nofile=",
    "nproc=",
    "rss=",
    "rtprio=",
    "rttime=",
    "sigpending=",
    "stack=",
];
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
const ACTIONS: [&str; 24] = [
    "attach",
    "connect",
    "create",
    "delete",
    "destroy",
    "detach",
    "die",
    "disconnect",
    "exec_create",
    "exec_start",
    "health_status",
    "kill",
    "load",
    "oom",
    "pause",
    "prune",
    "pull",
    "rename",
    "restart",
    "start",
    "stop",
    "tag",
    "unpause",
    "update",
];

/// Words to choose from.
pub fn words(words: &[&str]) -> Wanted {
    Wanted::Words(words.iter().map(|word| (*word).to_owned()).collect())
}

/// What a flag of a command takes.
pub fn of_flag(command: &Command, flag: &str) -> Wanted {
    match flag {
        "filter" => words(filters(command.get_name())),
        "restart" => words(&["always", "no", "on-failure", "on-failure:", "unless-stopped"]),
        "pull" => words(&["always", "missing", "never"]),
        "signal" | "stop-signal" => words(&SIGNALS),
        "cap-add" | "cap-drop" => words(&CAPABILITIES),
        "ulimit" => words(&LIMITS),
        "log-driver" => {
            words(&["fluentd", "gelf", "journald", "json-file", "local", "none", "splunk", "syslog"])
        }
        "log-opt" => words(&[
            "compress=",
            "env=",
            "env-regex=",
            "fluentd-address=",
            "gelf-address=",
            "labels=",
            "labels-regex=",
            "max-buffer-size=",
            "max-file=",
            "max-size=",
            "mode=",
            "splunk-token=",
            "splunk-url=",
            "syslog-address=",
            "syslog-facility=",
            "tag=",
        ]),
        "format" => words(&["json", "table"]),
        "attach" => words(&["stderr", "stdin", "stdout"]),
        "cgroupns" => words(&["host", "private"]),
        "ipc" => words(&["container:", "host", "none", "private", "shareable"]),
        "pid" => words(&["container:", "host"]),
        "userns" | "uts" => words(&["host"]),
        "security-opt" => words(&[
            "apparmor=",
            "label=",
            "no-new-privileges",
            "seccomp=",
            "seccomp=unconfined",
            "systempaths=unconfined",
            "writable-cgroups=true",
        ]),
        "mount" => words(&["type=bind,", "type=image,", "type=tmpfs,", "type=volume,"]),
        "gpus" => words(&["all", "device="]),
        "platform" => words(&[
            "linux/amd64",
            "linux/arm/v7",
            "linux/arm64",
            "linux/386",
            "linux/ppc64le",
            "linux/s390x",
        ]),
        "type" => words(&crate::container::KINDS),
        "tail" => words(&["all"]),
        "volume-driver" => words(&["local"]),
        "log-level" => words(&["debug", "error", "fatal", "info", "warn"]),
        "env" => {
            let mut names: Vec<String> =
                std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
            names.sort();
            Wanted::Words(names)
        }
        "network" => Wanted::Names(vec![Kind::Networks]),
        "runtime" => Wanted::Names(vec![Kind::Runtimes]),
        "context" => Wanted::Names(vec![Kind::Contexts]),
        "driver" => words(&["local"]),
        "opt" => words(&["device=", "o=", "size=", "type="]),
        "volumes-from" | "link" => Wanted::Names(vec![Kind::Containers]),
        "progress" => words(&["auto", "plain", "rawjson"]),
        "cache-from" => Wanted::Names(vec![Kind::Images]),
        "env-file" | "label-file" | "cidfile" | "iidfile" | "file" | "input" | "output" | "device"
        | "volume" | "config" | "tlscacert" | "tlscert" | "tlskey" | "checkpoint-dir" | "workdir" => {
            Wanted::Files
        }
        _ => Wanted::Nothing,
    }
}

/// The filters of a command.
fn filters(command: &str) -> &'static [&'static str] {
    match command {
        "ps" | "ls" | "list" => &[
            "ancestor=",
            "before=",
            "exited=",
            "expose=",
            "health=",
            "id=",
            "label=",
            "name=",
            "network=",
            "publish=",
            "since=",
            "status=",
            "volume=",
        ],
        "search" => &["is-official=", "stars="],
        "images" => &["before=", "dangling=", "label=", "reference=", "since=", "until="],
        "events" => &["container=", "daemon=", "event=", "image=", "label=", "network=", "type=", "volume="],
        "prune" => &["label!=", "label=", "until="],
        "du" => &["description=", "id=", "inuse=", "private=", "shared=", "type="],
        _ => &[],
    }
}

/// What a filter of a command asks for.
pub fn of_filter(command: &str, filter: &str) -> Wanted {
    match (command, filter) {
        ("events", "type") => {
            words(&["builder", "container", "daemon", "image", "network", "plugin", "volume"])
        }
        ("events", "event") => words(&ACTIONS),
        (_, "status") => words(&STATES),
        (_, "health") => words(&["healthy", "none", "starting", "unhealthy"]),
        ("du", "type") => words(&["exec.cachemount", "internal", "regular", "source.local"]),
        ("du", "inuse" | "private" | "shared") | (_, "dangling" | "is-official") => words(&["false", "true"]),
        (_, "ancestor" | "image" | "reference") => Wanted::Names(vec![Kind::Images]),
        ("images", "before" | "since") => Wanted::Names(vec![Kind::Images]),
        (_, "before" | "since" | "name" | "container") => Wanted::Names(vec![Kind::Containers]),
        (_, "network") => Wanted::Names(vec![Kind::Networks]),
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_with_filters_offers_some() {
        fn check(command: &Command) {
            let filtered = command.get_arguments().any(|arg| arg.get_long() == Some("filter"));
            assert!(!filtered || !filters(command.get_name()).is_empty(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        let mut root = crate::command_line();
        root.build();
        check(&root);
    }
}
