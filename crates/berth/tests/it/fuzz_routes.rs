//! The routes that [`fuzz_api`](crate::fuzz_api) tries, and whether the server has any other.

/// How a route's answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// At once and whole.
    Whole,
    /// In pieces, for as long as it likes.
    Stream,
}

use Answer::{Stream, Whole};

/// A route: `{}` is a name.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub parameters: &'static [&'static str],
    pub body: Option<&'static str>,
    pub answer: Answer,
}

const fn route(method: &'static str, path: &'static str, parameters: &'static [&'static str]) -> Route {
    Route { method, path, parameters, body: None, answer: Whole }
}

const fn stream(method: &'static str, path: &'static str, parameters: &'static [&'static str]) -> Route {
    Route { method, path, parameters, body: None, answer: Stream }
}

const fn document(
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    body: &'static str,
) -> Route {
    Route { method, path, parameters, body: Some(body), answer: Whole }
}

const CREATE: &str = r#"{
    "Hostname": "h", "Domainname": "d", "User": "1:1", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
    "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": ["A=b"],
    "Cmd": ["true"], "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 1000000000,
    "StartPeriod": 0, "StartInterval": 0, "Retries": 3}, "ArgsEscaped": false, "Image": "busybox",
    "Volumes": {"/v": {}}, "WorkingDir": "/", "Entrypoint": ["sh"], "NetworkDisabled": false,
    "MacAddress": "02:42:ac:11:00:02", "OnBuild": null, "Labels": {"a": "b"}, "StopSignal": "SIGTERM", "StopTimeout": 1,
    "Shell": ["sh"],
    "HostConfig": {
        "Binds": ["/tmp:/x:ro"], "ContainerIDFile": "", "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
        "NetworkMode": "none", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": [], "ConsoleSize": [24, 80], "Annotations": {"a": "b"}, "CapAdd": ["CHOWN"], "CapDrop": ["ALL"],
        "CgroupnsMode": "private", "Dns": ["192.0.2.1"], "DnsOptions": ["ndots:1"], "DnsSearch": ["x"],
        "ExtraHosts": ["a:192.0.2.1"], "GroupAdd": ["1"], "IpcMode": "private", "Cgroup": "", "Links": [],
        "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": true,
        "SecurityOpt": ["no-new-privileges"], "StorageOpt": {}, "Tmpfs": {"/t": "size=1m"}, "UTSMode": "",
        "UsernsMode": "", "ShmSize": 1048576, "Sysctls": {"net.ipv4.ip_forward": "0"}, "Runtime": "berth",
        "Isolation": "", "CpuShares": 2, "Memory": 67108864, "NanoCpus": 100000000, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 10}],
        "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "0", "CpusetMems": "0",
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 1:3 r"], "DeviceRequests": [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["a/b=c"],
        "Capabilities": [["gpu"]], "Options": {}}], "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": 0,
        "OomKillDisable": false, "PidsLimit": 10, "Ulimits": [{"Name": "nofile", "Hard": 9, "Soft": 9}],
        "Mounts": [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1, "Mode": 511}}],
        "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"], "Init": true
    },
    "NetworkingConfig": {"EndpointsConfig": {"none": {"IPAMConfig": {"IPv4Address": "192.0.2.9"}, "Links": [],
        "Aliases": ["a"], "DriverOpts": {}, "GwPriority": 1, "MacAddress": ""}}}
}"#;
const UPDATE: &str = r#"{"Memory": 67108864, "MemorySwap": -1, "CpuShares": 2, "NanoCpus": 100000000, "CpusetCpus": "0",
    "PidsLimit": 100, "BlkioWeight": 0, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "CpuPeriod": 0}"#;
const EXEC: &str = r#"{"AttachStdin": false, "AttachStdout": true, "Tty": false, "DetachKeys": "ctrl-p", "Cmd": ["true"],
    "Env": ["A=b"], "WorkingDir": "/", "User": "0", "Privileged": false, "ConsoleSize": [24, 80]}"#;
const START: &str = r#"{"Detach": true, "Tty": false, "ConsoleSize": [24, 80]}"#;
const NETWORK: &str = r#"{"Name": "n", "Driver": "bridge", "Scope": "local", "Internal": true, "Attachable": false,
    "Ingress": false, "EnableIPv6": false, "Options": {"a": "b"}, "Labels": {"a": "b"}, "IPAM": {"Driver": "default",
    "Config": [{"Subnet": "192.0.2.0/24", "IPRange": "192.0.2.0/25", "Gateway": "192.0.2.1"}], "Options": {}}}"#;

/// At least one for each arm of the server's tables, and some that it has not.
pub const ROUTES: &[Route] = &[
    route("GET", "/_ping", &["x"]),
    route("HEAD", "/_ping", &[]),
    route("GET", "/version", &[]),
    route("GET", "/info", &[]),
    route("GET", "/system/df", &["type", "verbose"]),
    stream("GET", "/events", &["since", "until", "filters"]),
    route("GET", "/containers/json", &["all", "limit", "size", "filters"]),
    document("POST", "/containers/create", &["name", "platform"], CREATE),
    route("GET", "/containers/{}/json", &["size"]),
    route("GET", "/containers/{}/top", &["ps_args"]),
    stream(
        "GET",
        "/containers/{}/logs",
        &["follow", "stdout", "stderr", "since", "until", "timestamps", "tail"],
    ),
    route("GET", "/containers/{}/changes", &[]),
    stream("GET", "/containers/{}/export", &[]),
    stream("GET", "/containers/{}/stats", &["stream", "one-shot"]),
    route("POST", "/containers/{}/resize", &["h", "w"]),
    route("POST", "/containers/{}/start", &["detachKeys", "checkpoint"]),
    route("POST", "/containers/{}/stop", &["signal", "t"]),
    route("POST", "/containers/{}/restart", &["signal", "t"]),
    route("POST", "/containers/{}/kill", &["signal"]),
    document("POST", "/containers/{}/update", &[], UPDATE),
    route("POST", "/containers/{}/rename", &["name"]),
    route("POST", "/containers/{}/pause", &[]),
    route("POST", "/containers/{}/unpause", &[]),
    stream("POST", "/containers/{}/attach", &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"]),
    stream("GET", "/containers/{}/attach/ws", &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"]),
    stream("POST", "/containers/{}/wait", &["condition"]),
    route("DELETE", "/containers/{}", &["v", "force", "link"]),
    route("DELETE", "/containers/{}/{}", &["v", "force", "link"]),
    route("HEAD", "/containers/{}/archive", &["path"]),
    stream("GET", "/containers/{}/archive", &["path"]),
    route("PUT", "/containers/{}/archive", &["path", "noOverwriteDirNonDir", "copyUIDGID"]),
    route("POST", "/containers/prune", &["filters"]),
    document("POST", "/containers/{}/exec", &[], EXEC),
    document("POST", "/exec/{}/start", &[], START),
    route("POST", "/exec/{}/resize", &["h", "w"]),
    route("GET", "/exec/{}/json", &[]),
    route("GET", "/images/json", &["all", "filters", "shared-size", "digests", "manifests"]),
    route("GET", "/images/{}/json", &["platform", "manifests"]),
    route("GET", "/images/{}/history", &["platform"]),
    route("POST", "/images/{}/tag", &["repo", "tag"]),
    route("POST", "/images/{}/push", &["tag", "platform"]),
    route("POST", "/images/create", &["fromSrc", "repo", "tag", "platform"]),
    route("POST", "/images/load", &["quiet"]),
    route("POST", "/images/prune", &["filters"]),
    route("GET", "/images/search", &["term", "limit", "filters"]),
    stream("GET", "/images/{}/get", &[]),
    stream("GET", "/images/get", &["names"]),
    route("DELETE", "/images/no-{}", &["force", "noprune"]),
    route("GET", "/networks", &["filters"]),
    route("GET", "/networks/{}", &["verbose", "scope"]),
    route("DELETE", "/networks/no-{}", &[]),
    document("POST", "/networks/create", &[], NETWORK),
    document(
        "POST",
        "/networks/{}/connect",
        &[],
        r#"{"Container": "made", "EndpointConfig": {"Aliases": ["a"]}}"#,
    ),
    document("POST", "/networks/{}/disconnect", &[], r#"{"Container": "made", "Force": true}"#),
    route("POST", "/networks/prune", &["filters"]),
    route("GET", "/volumes", &["filters"]),
    document(
        "POST",
        "/volumes/create",
        &[],
        r#"{"Name": "v", "Driver": "local", "DriverOpts": {}, "Labels": {"a": "b"}}"#,
    ),
    route("GET", "/volumes/{}", &[]),
    route("DELETE", "/volumes/{}", &["force"]),
    route("POST", "/volumes/prune", &["filters"]),
    document("POST", "/auth", &[], r#"{"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"}"#),
    route("PUT", "/volumes/{}", &["version"]),
    route("POST", "/volumes/{}/rename", &["name"]),
    route("POST", "/volumes/{}/snapshot", &["name"]),
    stream("GET", "/volumes/{}/archive", &[]),
    route("PUT", "/volumes/{}/archive", &[]),
    document(
        "POST",
        "/containers/{}/ports",
        &[],
        r#"{"Publish": {"80/tcp": [{"HostPort": "0"}]}, "Unpublish": {}}"#,
    ),
    document(
        "POST",
        "/commit",
        &["container", "repo", "tag", "comment", "author", "pause", "changes"],
        r#"{"Cmd": ["true"], "Env": ["A=b"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}}"#,
    ),
    stream(
        "POST",
        "/build",
        &[
            "dockerfile",
            "t",
            "q",
            "nocache",
            "rm",
            "memory",
            "cpuperiod",
            "shmsize",
            "buildargs",
            "labels",
            "cachefrom",
            "networkmode",
            "platform",
            "target",
            "outputs",
            "version",
        ],
    ),
    route("POST", "/build/prune", &["all", "keep-storage", "reserved-space", "max-used-space", "filters"]),
    // A registry that refuses at once: others would be looked for.
    route("GET", "/distribution/127.0.0.1:1/{}/json", &[]),
    route("GET", "/images/127.0.0.1:1/{}/estimate", &["platform"]),
    route("GET", "/berth/images/{}/layers", &[]),
    route("GET", "/plugins", &["filters"]),
    route("GET", "/plugins/{}/json", &[]),
    route("GET", "/plugins/privileges", &["remote"]),
    route("POST", "/plugins/pull", &["remote", "name"]),
    route("POST", "/plugins/create", &["name"]),
    route("POST", "/plugins/{}/enable", &["timeout"]),
    route("POST", "/plugins/{}/disable", &["force"]),
    route("POST", "/plugins/{}/push", &[]),
    route("POST", "/plugins/{}/upgrade", &["remote"]),
    document("POST", "/plugins/{}/set", &[], r#"["A=b"]"#),
    route("DELETE", "/plugins/{}", &["force"]),
    route("GET", "/swarm", &[]),
    document("POST", "/swarm/init", &[], r#"{"ListenAddr": "127.0.0.1:1"}"#),
    route("POST", "/swarm/leave", &["force"]),
    route("GET", "/nodes", &["filters"]),
    route("GET", "/tasks", &["filters"]),
    document(
        "POST",
        "/services/create",
        &[],
        r#"{"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}"#,
    ),
    route("DELETE", "/secrets/{}", &[]),
    document("POST", "/configs/create", &[], r#"{"Name": "c", "Data": "eA==", "Labels": {}}"#),
    route("POST", "/session", &[]),
    route("GET", "/debug/pprof/{}", &["seconds"]),
    route("OPTIONS", "/info", &[]),
    route("PATCH", "/containers/{}", &["x"]),
    route("GET", "/{}", &["x"]),
];

/// The server's tables: matches over method and segments, one function for each beginning of a path.
const TABLES: &str = include_str!("../../../berth-server/src/routes.rs");

/// What the segments begin with in the tables of these functions.
const BEGINNINGS: [(&str, &str); 7] = [
    ("dispatch", "networks"),
    ("container_route", "containers"),
    ("volume_route", "volumes"),
    ("exec_route", "exec"),
    ("image_route", "images"),
    ("system_route", ""),
    ("plugin_route", "plugins"),
];

/// A part of an arm's pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// One of these words.
    Words(Vec<&'static str>),
    /// A name.
    Name,
    /// Names with slashes.
    Names,
}

impl Part {
    fn parse(text: &'static str) -> Part {
        match text {
            _ if text.starts_with('"') => {
                Part::Words(text.split(" | ").map(|word| word.trim_matches('"')).collect())
            }
            _ if text.ends_with("..") => Part::Names,
            _ => Part::Name,
        }
    }
}

/// The arms that name a method.
fn arms() -> Vec<(Vec<&'static str>, Vec<Part>)> {
    let mut arms = Vec::new();
    for (at, _) in TABLES.match_indices("(&Method::") {
        let function = TABLES[..at].rsplit("fn ").next().unwrap().split('(').next().unwrap();
        let beginning = BEGINNINGS.iter().find(|(name, _)| *name == function);
        let (_, beginning) =
            beginning.unwrap_or_else(|| panic!("what do the routes of {function} begin with?"));
        let arm = TABLES[at + 1..].split(')').next().unwrap();
        let (methods, pattern) = arm.split_once(", ").unwrap();
        let methods = methods.split(" | ").map(|method| method.trim_start_matches("&Method::")).collect();
        let inside = pattern.split_once('[').map_or("name", |(_, rest)| rest.split(']').next().unwrap());
        let parts = inside.split(", ").filter(|part| !matches!(*part, "" | "..")).map(Part::parse);
        let beginning = Some(*beginning).filter(|word| !word.is_empty()).map(|word| Part::Words(vec![word]));
        arms.push((methods, beginning.into_iter().chain(parts).collect()));
    }
    arms
}

fn matches(parts: &[Part], segments: &[&str]) -> bool {
    let is_name = |segment: &&str| segment.contains("{}");
    match (parts, segments) {
        ([], []) => true,
        ([Part::Words(words), parts @ ..], [segment, rest @ ..]) => {
            words.contains(segment) && matches(parts, rest)
        }
        ([Part::Name, parts @ ..], [segment, rest @ ..]) => is_name(segment) && matches(parts, rest),
        ([Part::Names, parts @ ..], segments) => (1..=segments.len())
            .any(|count| segments[..count].iter().any(is_name) && matches(parts, &segments[count..])),
        _ => false,
    }
}

#[test]
fn the_server_has_no_other_route() {
    let arms = arms();
    assert!(arms.len() > 70, "the tables are not read: {arms:?}");
    let mut missing = Vec::new();
    for (methods, parts) in &arms {
        // Each word by itself.
        let choices = parts.iter().map(|part| if let Part::Words(words) = part { words.len() } else { 1 });
        for choice in 0..choices.max().unwrap_or(1) {
            let one = |part: &Part| match part {
                Part::Words(words) => Part::Words(vec![words[choice.min(words.len() - 1)]]),
                other => other.clone(),
            };
            let parts: Vec<Part> = parts.iter().map(one).collect();
            for method in methods {
                let tried = ROUTES.iter().any(|route| {
                    let segments: Vec<&str> = route.path.split('/').filter(|part| !part.is_empty()).collect();
                    route.method == *method && matches(&parts, &segments)
                });
                if !tried {
                    missing.push(format!("{method} {parts:?}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "routes that are not tried:\n{}", missing.join("\n"));
}
