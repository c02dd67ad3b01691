//! The flags of `run` and `create`.

use clap::{Arg, value_parser};

use crate::flags::{many, one, switch};
use crate::values::{self, duration, size};

/// All flags that describe a container.
pub fn all() -> Vec<Arg> {
    [process(), identity(), resources(), security(), network(), files(), life(), health()].concat()
}

fn process() -> Vec<Arg> {
    vec![
        many("attach", "STREAM").short('a').help("Attach to stdin, stdout or stderr"),
        one("entrypoint", "COMMAND").help("Replace the image's entrypoint"),
        many("env", "NAME[=VALUE]").short('e').help("Set a variable"),
        many("env-file", "FILE").help("Read variables from a file"),
        switch("init").help("Run a tiny init that passes signals on and reaps processes"),
        switch("interactive").short('i').help("Keep stdin open"),
        switch("tty").short('t').help("Give it a terminal"),
        one("user", "USER[:GROUP]").short('u').help("User and group, by names or numbers"),
        one("workdir", "DIR").short('w').help("Working directory"),
        many("group-add", "GROUP").help("Further group"),
    ]
}

fn identity() -> Vec<Arg> {
    vec![
        many("annotation", "NAME=VALUE").help("Annotation for the OCI runtime"),
        one("cidfile", "FILE").help("Write the container's ID to a file"),
        one("domainname", "NAME").help("NIS domain name"),
        one("hostname", "NAME").short('h').help("Host name inside"),
        many("label", "NAME[=VALUE]").short('l').help("Label"),
        many("label-file", "FILE").help("Read labels from a file"),
        one("name", "NAME").help("Name of the container"),
        one("platform", "OS/ARCH").help("Platform of the image"),
        one("pull", "WHEN").default_value("missing").help("Pull the image: always, missing or never"),
        switch("quiet").short('q').help("Do not show the pull"),
    ]
}

fn number(name: &'static str, value: &'static str) -> Arg {
    one(name, value).value_parser(values::integer)
}

fn bytes(name: &'static str) -> Arg {
    one(name, "BYTES").value_parser(size::bytes)
}

fn resources() -> Vec<Arg> {
    vec![
        one("blkio-weight", "WEIGHT").value_parser(value_parser!(u16)).help("Block I/O weight, 10 to 1000"),
        many("blkio-weight-device", "PATH:WEIGHT").help("Block I/O weight on a device"),
        one("cgroup-parent", "PATH").help("Parent of the cgroup"),
        number("cpu-period", "MICROSECONDS").help("Period of the CPU quota"),
        number("cpu-quota", "MICROSECONDS").help("CPU time in each period"),
        number("cpu-rt-period", "MICROSECONDS").help("Period of real-time CPU time"),
        number("cpu-rt-runtime", "MICROSECONDS").help("Real-time CPU time in each period"),
        number("cpu-shares", "WEIGHT").short('c').help("CPU weight"),
        one("cpus", "NUMBER").value_parser(values::cpus).help("Most CPUs to use"),
        one("cpuset-cpus", "LIST").help("CPUs to run on, such as 0-3,5"),
        one("cpuset-mems", "LIST").help("Memory nodes to use"),
        many("device", "PATH").help("Give it a device of the host, or one by its CDI name"),
        many("device-cgroup-rule", "RULE").help("Rule for devices"),
        many("device-read-bps", "PATH:RATE").help("Most bytes a second read from a device"),
        many("device-read-iops", "PATH:RATE").help("Most reads a second from a device"),
        many("device-write-bps", "PATH:RATE").help("Most bytes a second written to a device"),
        many("device-write-iops", "PATH:RATE").help("Most writes a second to a device"),
        many("gpus", "GPUS").help("GPUs: all, a number, or device=NAME"),
        bytes("memory").short('m').help("Most memory"),
        bytes("memory-reservation").help("Memory to keep when it becomes scarce"),
        one("memory-swap", "BYTES")
            .value_parser(size::bytes_or_unlimited)
            .help("Most memory and swap together; -1: any"),
        number("memory-swappiness", "PERCENT")
            .default_value("-1")
            .help("How readily it is swapped out, 0 to 100"),
        switch("oom-kill-disable").help("Do not kill it for want of memory"),
        number("oom-score-adj", "NUMBER").help("How readily the kernel kills it, -1000 to 1000"),
        number("pids-limit", "NUMBER").help("Most processes and threads; -1: any number"),
        bytes("shm-size").help("Size of /dev/shm"),
        many("sysctl", "NAME=VALUE").help("Kernel parameter of its namespaces"),
        many("ulimit", "NAME=SOFT[:HARD]").help("Resource limit of its processes"),
    ]
}

fn security() -> Vec<Arg> {
    vec![
        many("cap-add", "CAPABILITY").help("Add a capability"),
        many("cap-drop", "CAPABILITY").help("Drop a capability"),
        one("cgroupns", "MODE").help("Cgroup namespace: host or private"),
        one("ipc", "MODE").help("IPC namespace"),
        one("pid", "MODE").help("PID namespace"),
        switch("privileged").help("Give it all that root of the host has"),
        many("security-opt", "OPTION").help("Security option"),
        one("userns", "MODE").help("User namespace"),
        one("uts", "MODE").help("UTS namespace"),
    ]
}

fn network() -> Vec<Arg> {
    vec![
        many("add-host", "NAME:ADDRESS").help("Line of /etc/hosts"),
        many("dns", "ADDRESS").help("Name server"),
        many("dns-option", "OPTION").alias("dns-opt").help("Option of the resolver"),
        many("dns-search", "DOMAIN").help("Search domain"),
        many("expose", "PORT").help("Port that it serves"),
        one("ip", "ADDRESS").value_parser(values::address).help("Its IPv4 address"),
        one("ip6", "ADDRESS").value_parser(values::address).help("Its IPv6 address"),
        many("link-local-ip", "ADDRESS").help("Link-local address"),
        many("link", "CONTAINER[:ALIAS]").help("Link to another container"),
        one("mac-address", "ADDRESS").help("Its MAC address"),
        many("network", "NETWORK").alias("net").help("Network: bridge, none, host, container:NAME, one of your own, or name=NETWORK,alias=NAME,ip=ADDRESS,..."),
        many("network-alias", "NAME").alias("net-alias").help("Name on its network"),
        many("publish", "[[ADDRESS:]PORT:]PORT").short('p').help("Publish a port on the host"),
        switch("publish-all").short('P').help("Publish all exposed ports"),
    ]
}

fn files() -> Vec<Arg> {
    vec![
        many("mount", "OPTIONS").help("Mount, such as type=bind,src=/a,dst=/b,readonly"),
        switch("use-api-socket").help("Bind the daemon's socket to /var/run/docker.sock"),
        switch("read-only").help("Make the root read-only"),
        many("storage-opt", "NAME=VALUE").help("Storage option"),
        many("tmpfs", "PATH[:OPTIONS]").help("Mount a tmpfs"),
        many("volume", "[SOURCE:]PATH[:OPTIONS]").short('v').help("Bind a directory or file of the host"),
        one("volume-driver", "DRIVER").help("Volume driver"),
        many("volumes-from", "CONTAINER").help("Mount what another container has mounted"),
    ]
}

fn life() -> Vec<Arg> {
    vec![
        one("isolation", "KIND").hide(true).help("Accepted for compatibility"),
        switch("disable-content-trust").hide(true).help("Accepted for compatibility"),
        number("cpu-count", "NUMBER").hide(true).help("Windows only"),
        number("cpu-percent", "PERCENT").hide(true).help("Windows only"),
        bytes("io-maxbandwidth").hide(true).help("Windows only"),
        one("io-maxiops", "NUMBER").value_parser(value_parser!(u64)).hide(true).help("Windows only"),
        bytes("kernel-memory").hide(true).help("Accepted for compatibility"),
        one("log-driver", "DRIVER").help("Log driver"),
        many("log-opt", "NAME=VALUE").help("Option of the log driver"),
        one("restart", "POLICY")
            .default_value("no")
            .help("When to start it again: no, on-failure[:MOST], always, unless-stopped"),
        switch("rm").help("Remove it when it ends"),
        one("runtime", "NAME").help("OCI runtime"),
        one("stop-signal", "SIGNAL").help("Signal that stop sends"),
        number("stop-timeout", "SECONDS").help("Time that stop gives it"),
    ]
}

fn health() -> Vec<Arg> {
    let time = |name| one(name, "DURATION").value_parser(duration::signed_nanoseconds);
    vec![
        one("health-cmd", "COMMAND").help("Command that tells whether it is well"),
        one("health-http", "URL")
            .help("Ask this URL from inside its network: well with a status of 2xx or 3xx"),
        time("health-interval").help("Time between checks"),
        number("health-retries", "NUMBER").help("Failures in a row that make it unhealthy"),
        time("health-start-period").help("Time in which failures do not count"),
        time("health-start-interval").help("Time between checks in the start period"),
        one("health-tcp", "HOST:PORT").help("Connect to this address from inside its network"),
        time("health-timeout").help("Time that a check may take"),
        switch("no-healthcheck").help("Ignore the image's check"),
    ]
}
