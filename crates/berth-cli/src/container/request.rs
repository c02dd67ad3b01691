//! From flags to the request that creates a container.

use berth_api::container::{
    Config, CreateRequest, HealthConfig, HostConfig, LogConfig, RestartPolicy, Ulimit,
};
use berth_api::{Empty, Set};
use clap::ArgMatches;

use super::{devices, environment, mount, network, ports};
use crate::failure::{Failure, Outcome};
use crate::flags::{given, list, number, on, or_empty, some, text};
use crate::session::terminal;

/// Which streams are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Reads `-a`; without it, `run` in the foreground attaches all but an input that is not wanted.
pub fn attached(matches: &ArgMatches, foreground: bool) -> Outcome<Attached> {
    let names = list(matches, "attach");
    if names.is_empty() {
        return Ok(Attached {
            stdin: foreground && on(matches, "interactive"),
            stdout: foreground,
            stderr: foreground,
        });
    }
    let mut attached = Attached { stdin: false, stdout: false, stderr: false };
    for name in names {
        match name.to_lowercase().as_str() {
            "stdin" => attached.stdin = true,
            "stdout" => attached.stdout = true,
            "stderr" => attached.stderr = true,
            _ => {
                return Err(Failure::new(format!(
                    "invalid argument {name:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                )));
            }
        }
    }
    Ok(attached)
}

/// Reads all flags.
pub fn read(matches: &ArgMatches, attached: Attached) -> Outcome<CreateRequest> {
    let ports = ports::read(&list(matches, "publish"), &list(matches, "expose"))?;
    let network = network::read(matches)?;
    let mut binds = Vec::new();
    let mut volumes = Set::new();
    for text in list(matches, "volume") {
        match text.contains(':') {
            true => binds.push(mount::bind(&text)?),
            false => {
                volumes.insert(text, Empty {});
            }
        }
    }
    let open_stdin = on(matches, "interactive");
    let config = Config {
        hostname: or_empty(matches, "hostname"),
        domainname: or_empty(matches, "domainname"),
        user: or_empty(matches, "user"),
        attach_stdin: attached.stdin,
        attach_stdout: attached.stdout,
        attach_stderr: attached.stderr,
        exposed_ports: Some(ports.exposed).filter(|ports| !ports.is_empty()),
        tty: on(matches, "tty"),
        open_stdin,
        // Its input ends with the client that gave it.
        stdin_once: open_stdin && attached.stdin,
        env: Some(environment::variables(&list(matches, "env-file"), &list(matches, "env"))?),
        cmd: some(matches, "command"),
        healthcheck: health(matches)?,
        image: or_empty(matches, "image"),
        volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
        working_dir: or_empty(matches, "workdir"),
        // An empty one takes the image's away.
        entrypoint: text(matches, "entrypoint").map(|entrypoint| vec![entrypoint.to_owned()]),
        labels: Some(environment::labels(&list(matches, "label-file"), &list(matches, "label"))?),
        stop_signal: or_empty(matches, "stop-signal"),
        stop_timeout: matches.get_one::<i64>("stop-timeout").copied(),
        ..Config::default()
    };
    let host_config = HostConfig {
        binds: Some(binds).filter(|binds| !binds.is_empty()),
        port_bindings: Some(ports.bindings).filter(|bindings| !bindings.is_empty()),
        network_mode: if network.mode.is_empty() { "default".to_owned() } else { network.mode },
        ..host(matches)?
    };
    Ok(CreateRequest { config, host_config: Some(host_config), networking_config: network.endpoints })
}

fn host(matches: &ArgMatches) -> Outcome<HostConfig> {
    let limits = resources(matches)?;
    let restart_policy = restart(text(matches, "restart").unwrap_or_default())?;
    let auto_remove = on(matches, "rm");
    if auto_remove && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err(Failure::new("conflicting options: cannot specify both --restart and --rm"));
    }
    modes(matches)?;
    let storage_options = list(matches, "storage-opt");
    if storage_options.iter().any(|option| !option.contains('=')) {
        return Err(Failure::new("invalid storage option"));
    }
    let (security_options, unconfined) = security(&list(matches, "security-opt"))?;
    // As Docker's client: the daemon is told which paths, not why.
    let no_paths = unconfined.then(Vec::new);
    let mounts = list(matches, "mount").iter().map(|text| mount::mount(text)).collect::<Outcome<Vec<_>>>()?;
    Ok(HostConfig {
        container_id_file: or_empty(matches, "cidfile"),
        log_config: LogConfig {
            driver: or_empty(matches, "log-driver"),
            config: Some(environment::pairs(&list(matches, "log-opt"))).filter(|options| !options.is_empty()),
        },
        restart_policy,
        auto_remove,
        volume_driver: or_empty(matches, "volume-driver"),
        volumes_from: some(matches, "volumes-from"),
        console_size: terminal::size().map_or([0, 0], |(rows, columns)| [rows.into(), columns.into()]),
        annotations: Some(environment::pairs(&list(matches, "annotation"))).filter(|all| !all.is_empty()),
        cap_add: some(matches, "cap-add"),
        cap_drop: some(matches, "cap-drop"),
        cgroupns_mode: or_empty(matches, "cgroupns"),
        dns: some(matches, "dns"),
        dns_options: some(matches, "dns-option"),
        dns_search: some(matches, "dns-search"),
        extra_hosts: some(matches, "add-host"),
        group_add: some(matches, "group-add"),
        ipc_mode: or_empty(matches, "ipc"),
        links: some(matches, "link"),
        pid_mode: or_empty(matches, "pid"),
        privileged: on(matches, "privileged"),
        publish_all_ports: on(matches, "publish-all"),
        readonly_rootfs: on(matches, "read-only"),
        security_opt: security_options,
        masked_paths: no_paths.clone(),
        readonly_paths: no_paths,
        storage_opt: Some(environment::pairs(&storage_options)).filter(|all| !all.is_empty()),
        tmpfs: Some(mount::tmpfs(&list(matches, "tmpfs"))).filter(|all| !all.is_empty()),
        uts_mode: or_empty(matches, "uts"),
        userns_mode: or_empty(matches, "userns"),
        shm_size: number(matches, "shm-size"),
        sysctls: Some(environment::pairs(&list(matches, "sysctl"))).filter(|all| !all.is_empty()),
        runtime: or_empty(matches, "runtime"),
        isolation: or_empty(matches, "isolation"),
        mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        init: given(matches, "init").then(|| on(matches, "init")),
        ..limits
    })
}

fn resources(matches: &ArgMatches) -> Outcome<HostConfig> {
    if let Some(swappiness) = matches.get_one::<i64>("memory-swappiness")
        && !(-1..=100).contains(swappiness)
    {
        return Err(Failure::new(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        )));
    }
    let ulimits = list(matches, "ulimit").iter().map(|text| ulimit(text)).collect::<Outcome<Vec<_>>>()?;
    Ok(HostConfig {
        oom_score_adj: number(matches, "oom-score-adj"),
        cpu_shares: number(matches, "cpu-shares"),
        memory: number(matches, "memory"),
        nano_cpus: number(matches, "cpus"),
        cgroup_parent: or_empty(matches, "cgroup-parent"),
        blkio_weight: matches.get_one::<u16>("blkio-weight").copied().unwrap_or_default(),
        cpu_period: number(matches, "cpu-period"),
        cpu_quota: number(matches, "cpu-quota"),
        cpuset_cpus: or_empty(matches, "cpuset-cpus"),
        cpuset_mems: or_empty(matches, "cpuset-mems"),
        cpu_realtime_period: number(matches, "cpu-rt-period"),
        cpu_realtime_runtime: number(matches, "cpu-rt-runtime"),
        memory_reservation: number(matches, "memory-reservation"),
        memory_swap: number(matches, "memory-swap"),
        memory_swappiness: matches.get_one::<i64>("memory-swappiness").copied(),
        oom_kill_disable: given(matches, "oom-kill-disable").then(|| on(matches, "oom-kill-disable")),
        pids_limit: matches.get_one::<i64>("pids-limit").copied(),
        ulimits: Some(ulimits).filter(|ulimits| !ulimits.is_empty()),
        ..devices::read(matches)?
    })
}

/// Kinds of namespace that cannot be meant.
fn modes(matches: &ArgMatches) -> Outcome {
    let joins = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    for (flag, kind, known) in [
        ("pid", "PID", &["", "host"][..]),
        ("uts", "UTS", &["", "host"]),
        ("userns", "USER", &["", "host"]),
        ("cgroupns", "CGROUP", &["", "host", "private"]),
    ] {
        let mode = text(matches, flag).unwrap_or_default();
        let known = known.contains(&mode) || (flag == "pid" && joins(mode));
        if !known {
            return Err(Failure::new(format!("--{flag}: invalid {kind} mode")));
        }
    }
    Ok(())
}

/// The options for the daemon, and whether the system's paths are to be left open.
///
/// A seccomp profile is a file of the user's, which the daemon cannot read: its content is sent.
fn security(options: &[String]) -> Outcome<(Option<Vec<String>>, bool)> {
    let read = |option: &String| {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
            return Ok(option.clone());
        }
        let text = std::fs::read_to_string(value)
            .map_err(|error| Failure::io(format!("opening seccomp profile ({value}) failed"), &error))?;
        Ok(format!("seccomp={text}"))
    };
    let (open, others): (Vec<_>, Vec<_>) =
        options.iter().partition(|option| *option == "systempaths=unconfined");
    let all = others.into_iter().map(read).collect::<Outcome<Vec<_>>>()?;
    Ok((Some(all).filter(|all| !all.is_empty()), !open.is_empty()))
}

/// Reads a limit: `name=soft[:hard]`.
pub fn ulimit(text: &str) -> Outcome<Ulimit> {
    let wrong = || Failure::new(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| wrong()),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft > hard || soft < 0) {
        return Err(Failure::new(format!(
            "invalid argument {text:?} for \"--ulimit\" flag: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// Reads a restart policy: `name` or `name:count`.
pub fn restart(text: &str) -> Outcome<RestartPolicy> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let count = match count {
        "" => 0,
        count => count.parse::<i64>().map_err(|_| {
            Failure::new("invalid restart policy format: maximum retry count must be an integer")
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

fn health(matches: &ArgMatches) -> Outcome<Option<HealthConfig>> {
    let kinds = [("health-cmd", "CMD-SHELL"), ("health-http", "HTTP"), ("health-tcp", "TCP")];
    let mut tests = kinds
        .into_iter()
        .filter_map(|(flag, kind)| Some(vec![kind.to_owned(), text(matches, flag)?.to_owned()]));
    let test = tests.next();
    if tests.next().is_some() {
        return Err(Failure::new("--health-cmd, --health-http and --health-tcp exclude each other"));
    }
    let check = HealthConfig {
        test,
        interval: number(matches, "health-interval"),
        timeout: number(matches, "health-timeout"),
        start_period: number(matches, "health-start-period"),
        start_interval: number(matches, "health-start-interval"),
        retries: number(matches, "health-retries"),
    };
    let any = check != HealthConfig::default();
    for (flag, value) in [
        ("health-interval", check.interval),
        ("health-timeout", check.timeout),
        ("health-retries", check.retries),
        ("health-start-period", check.start_period),
        ("health-start-interval", check.start_interval),
    ] {
        if value < 0 {
            return Err(Failure::new(format!("--{flag} cannot be negative")));
        }
    }
    if on(matches, "no-healthcheck") {
        if any {
            return Err(Failure::new("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    Ok(any.then_some(check))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Outcome<CreateRequest> {
        let matches = crate::command_line().try_get_matches_from(line.split(' ')).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let attached = attached(matches, true)?;
        read(matches, attached)
    }

    #[test]
    fn flags_become_a_request() {
        let made = request(
            "berth run -it -e A=b --memory 64m --cpus .5 -v /a:/b -v /c -p 80 --entrypoint x --restart on-failure:3 \
             --cap-add SYS_ADMIN --tmpfs /t:size=1m --ulimit nofile=10:20 --network none image one two",
        )
        .unwrap();
        let host = made.host_config.unwrap();
        assert_eq!((host.memory, host.nano_cpus), (64 << 20, 500_000_000));
        assert_eq!(host.binds.unwrap(), ["/a:/b"]);
        assert!(made.config.volumes.unwrap().contains_key("/c"));
        assert_eq!(made.config.cmd.unwrap(), ["one", "two"]);
        assert_eq!(made.config.entrypoint.unwrap(), ["x"]);
        assert_eq!(
            (host.restart_policy.name.as_str(), host.restart_policy.maximum_retry_count),
            ("on-failure", 3)
        );
        assert_eq!(host.ulimits.unwrap()[0].soft, 10);
        assert_eq!(host.network_mode, "none");
        assert!(made.config.stdin_once && made.config.tty && host.init.is_none());
    }

    #[test]
    fn contradictions_are_refused() {
        for (line, message) in [
            (
                "berth run --rm --restart always x",
                "conflicting options: cannot specify both --restart and --rm",
            ),
            ("berth run --ulimit nofile=2:1 x", "ulimit soft limit must be less"),
            ("berth run --no-healthcheck --health-cmd y x", "--no-healthcheck conflicts"),
            ("berth run -e =x y", "invalid environment variable: =x"),
            ("berth run -a nowhere x", "valid streams are"),
            ("berth run --restart always:x y", "maximum retry count must be an integer"),
        ] {
            let failure = request(line).unwrap_err();
            assert!(failure.message.contains(message), "{line}: {failure}");
        }
    }

    #[test]
    fn health_checks_are_read() {
        let test = |line| request(line).unwrap().config.healthcheck.unwrap().test.unwrap();
        assert_eq!(test("berth run --health-cmd true x"), ["CMD-SHELL", "true"]);
        assert_eq!(test("berth run --health-http http://localhost/up x"), ["HTTP", "http://localhost/up"]);
        assert_eq!(test("berth run --health-tcp localhost:80 x"), ["TCP", "localhost:80"]);
        assert_eq!(test("berth run --no-healthcheck x"), ["NONE"]);
        let timed = request("berth run --health-interval 5s --health-retries 2 x").unwrap();
        let check = timed.config.healthcheck.unwrap();
        assert_eq!((check.test, check.interval, check.retries), (None, 5_000_000_000, 2));
        for (line, message) in [
            ("berth run --health-cmd a --health-tcp localhost:1 x", "exclude each other"),
            ("berth run --no-healthcheck --health-tcp localhost:1 x", "conflicts with --health-* options"),
        ] {
            assert!(request(line).unwrap_err().message.contains(message), "{line}");
        }
    }
}
