//! All options of `dockerd`, with what each means here.

use Effect::{Ignored, Works};
use Kind::{Array, List, Map, Number, Object, Size, Switch, Text, Ulimits};

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// Name on the command line, without dashes.
    pub flag: &'static str,
    /// One letter, for some.
    pub short: Option<char>,
    /// Name in the file, where it is another one.
    key: Option<&'static str>,
    /// Form of its values.
    pub kind: Kind,
    /// Whether it does anything here.
    pub effect: Effect,
    /// What the value is called in the help text.
    pub value: &'static str,
    /// The help text.
    pub help: &'static str,
}

/// Form of an option's values in the file; on the command line all are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// true or false.
    Switch,
    /// A whole number.
    Number,
    /// Bytes: a number, or a string with a unit.
    Size,
    /// Strings; the flag may be repeated.
    List,
    /// Names with values, all text; the flag takes NAME=VALUE and may be repeated.
    Map,
    /// Names with objects of `Name`, `Hard` and `Soft`; the flag takes NAME=SOFT:HARD.
    Ulimits,
    /// An object that nothing here looks into.
    Object,
    /// A list that nothing here looks into.
    Array,
}

/// Whether an option does anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does.
    Works,
    /// It is accepted, and the log says once that it has no effect.
    Ignored,
}

impl Opt {
    /// Its name in the file.
    pub fn key(&self) -> &'static str {
        self.key.unwrap_or(self.flag)
    }

    /// Whether it may be given more than once on the command line, all of which count.
    pub fn repeats(&self) -> bool {
        matches!(self.kind, List | Map | Ulimits | Object | Array)
    }

    const fn short(mut self, letter: char) -> Opt {
        self.short = Some(letter);
        self
    }

    const fn key_is(mut self, key: &'static str) -> Opt {
        self.key = Some(key);
        self
    }
}

const fn opt(flag: &'static str, kind: Kind, effect: Effect, value: &'static str, help: &'static str) -> Opt {
    Opt { flag, short: None, key: None, kind, effect, value, help }
}

const fn works(flag: &'static str, kind: Kind, value: &'static str, help: &'static str) -> Opt {
    opt(flag, kind, Works, value, help)
}

const fn ignored(flag: &'static str, kind: Kind, help: &'static str) -> Opt {
    opt(flag, kind, Ignored, "VALUE", help)
}

/// Keys of the file that are no flags.
pub const FILE_ONLY: [(&str, Kind); 5] = [
    ("min-api-version", Text),
    ("builder", Object),
    ("deprecated-key-path", Text),
    ("allow-nondistributable-artifacts", Array),
    // The name before there could be several.
    ("host-gateway-ip", Text),
];

/// Those of them that do something here.
pub const WORKING_KEYS: [&str; 1] = ["min-api-version"];

/// Keys of the file whose values are objects to be kept whole. Any other object only groups keys.
pub const WHOLE: [&str; 8] = [
    "cluster-store-opts",
    "default-network-opts",
    "log-opts",
    "runtimes",
    "default-ulimits",
    "features",
    "builder",
    "nri-opts",
];

/// Every option that may be a flag or a key of the file, in the order of the help text.
pub const OPTIONS: &[Opt] = &[
    works(
        "host",
        List,
        "HOST",
        "Where to listen: unix://PATH, tcp://ADDRESS:PORT, fd:// or fd://N (repeatable)",
    )
    .short('H')
    .key_is("hosts"),
    works("data-root", Text, "DIR", "Where images and containers are kept"),
    works("exec-root", Text, "DIR", "Where the state of what runs is kept"),
    works("pidfile", Text, "FILE", "File for the daemon's process ID").short('p'),
    works("debug", Switch, "BOOL", "Log debugging information").short('D'),
    works("log-level", Text, "LEVEL", "Least important messages to log: debug, info, warn, error, fatal")
        .short('l'),
    works("log-format", Text, "FORMAT", "Form of the daemon's messages: text or json"),
    works("raw-logs", Switch, "BOOL", "Never colour the daemon's messages"),
    works("group", Text, "GROUP", "Group that may use the unix socket").short('G'),
    works("live-restore", Switch, "BOOL", "Keep containers running when the daemon stops"),
    works(
        "shutdown-timeout",
        Number,
        "SECONDS",
        "Seconds that containers get to stop when the daemon stops; 15",
    ),
    works("tls", Switch, "BOOL", "Whether TCP needs TLS; false opens it to anyone who can connect"),
    works(
        "tlsverify",
        Switch,
        "BOOL",
        "Whether TCP clients must show a certificate of the authority; implies --tls",
    ),
    works("tlscacert", Text, "FILE", "Authority of the clients' certificates"),
    works("tlscert", Text, "FILE", "The server's certificate"),
    works("tlskey", Text, "FILE", "Key of the server's certificate"),
    works("metrics-addr", Text, "ADDRESS:PORT", "Where metrics are answered on /metrics, for Prometheus"),
    works("label", List, "KEY=VALUE", "Label of the engine (repeatable)").key_is("labels"),
    works(
        "insecure-registry",
        List,
        "REGISTRY",
        "Registry that may do without TLS: HOST[:PORT] or a network (repeatable)",
    )
    .key_is("insecure-registries"),
    works("http-proxy", Text, "URL", "Proxy on the way to registries without TLS"),
    works("https-proxy", Text, "URL", "Proxy on the way to registries with TLS"),
    works("no-proxy", Text, "HOSTS", "Hosts reached without a proxy, separated by commas"),
    works(
        "registry-mirror",
        List,
        "[REGISTRY=]URL",
        "Asked before Docker Hub, or before the registry that is named (repeatable)",
    )
    .key_is("registry-mirrors"),
    works(
        "max-concurrent-downloads",
        Number,
        "NUMBER",
        "Layers of one image that are fetched at the same time; 3",
    ),
    works("max-concurrent-uploads", Number, "NUMBER", "Layers that are sent at the same time; 5"),
    works("max-download-attempts", Number, "NUMBER", "Attempts to fetch a layer; 5"),
    works(
        "log-driver",
        Text,
        "DRIVER",
        "Log driver of containers that name none: local, json-file, none, syslog, journald, gelf or fluentd",
    ),
    works(
        "log-opt",
        Map,
        "NAME=VALUE",
        "Option of the log driver, such as max-size=20m or max-file=5 (repeatable)",
    )
    .key_is("log-opts"),
    works("keep-free", Text, "SIZE", "Space of the data root's file system that stays free, such as 256m"),
    works(
        "storage-driver",
        Text,
        "DRIVER",
        "How containers' files are kept: overlay2 (default), or vfs, whole copies for where overlays cannot work",
    )
    .short('s'),
    works(
        "storage-opt",
        List,
        "NAME=VALUE",
        "overlay2.size: how much a container may write, such as 10G (repeatable)",
    )
    .key_is("storage-opts"),
    works("cgroup-parent", Text, "PATH", "Parent of the containers' cgroups"),
    works("default-shm-size", Size, "SIZE", "Size of containers' /dev/shm; 64m"),
    works("default-ipc-mode", Text, "MODE", "IPC namespace of containers: private or shareable"),
    works("default-cgroupns-mode", Text, "MODE", "Cgroup namespace of containers: private or host"),
    works("default-ulimit", Ulimits, "NAME=SOFT[:HARD]", "Limit of containers' processes (repeatable)")
        .key_is("default-ulimits"),
    works("default-stop-timeout", Number, "SECONDS", "Seconds that a container gets to stop; 10"),
    works(
        "default-runtime",
        Text,
        "NAME",
        "Runtime of containers that ask for none: berth, runc, which is the same, or one that was added",
    ),
    works(
        "add-runtime",
        List,
        "NAME=PATH",
        "Another name for runc, in whose place Berth works (repeatable)",
    )
    .key_is("runtimes"),
    works(
        "cpu-rt-period",
        Number,
        "MICROSECONDS",
        "Period in which real-time CPU time of all containers is counted (cgroup v1)",
    ),
    works("cpu-rt-runtime", Number, "MICROSECONDS", "Real-time CPU time of all containers in each period (cgroup v1)"),
    works("init", Switch, "BOOL", "Run an init in containers that do not say otherwise"),
    works("no-new-privileges", Switch, "BOOL", "No program of a container gains privileges"),
    works("seccomp-profile", Text, "FILE", "System call filter of containers: a file, builtin or unconfined"),
    works(
        "authorization-plugin",
        List,
        "NAME",
        "Plugin that sees and may refuse every request and answer (repeatable)",
    )
    .key_is("authorization-plugins"),
    works("cdi-spec-dir", List, "DIR", "Directory with files of the Container Device Interface (repeatable)")
        .key_is("cdi-spec-dirs"),
    works("dns", List, "ADDRESS", "Name server of containers that name none (repeatable)"),
    works("dns-opt", List, "OPTION", "Option of containers' resolv.conf (repeatable)").key_is("dns-opts"),
    works("dns-search", List, "DOMAIN", "Search domain of containers that name none (repeatable)"),
    works("host-gateway-ip", List, "ADDRESS", "What host-gateway means in --add-host (repeatable)")
        .key_is("host-gateway-ips"),
    works("exec-opt", List, "NAME=VALUE", "Option of the runtime: native.cgroupdriver, which is always cgroupfs")
        .key_is("exec-opts"),
    works("bridge", Text, "NAME", "Link name of the default network's bridge").short('b'),
    works("bip", Text, "ADDRESS/PREFIX", "Address and prefix of the bridge, such as 172.20.0.1/16"),
    works("bip6", Text, "ADDRESS/PREFIX", "IPv6 address and prefix of the bridge"),
    works("fixed-cidr", Text, "SUBNET", "Part of the bridge's subnet that containers get addresses of"),
    works("fixed-cidr-v6", Text, "SUBNET", "The same of IPv6"),
    works(
        "default-gateway",
        Text,
        "ADDRESS",
        "Next hop of containers on the default network, if not the bridge",
    ),
    works("default-gateway-v6", Text, "ADDRESS", "The same of IPv6"),
    works("ipv6", Switch, "BOOL", "Give containers on the default network IPv6 addresses"),
    works("icc", Switch, "BOOL", "Let containers on the default network reach each other"),
    works(
        "default-address-pool",
        Array,
        "base=SUBNET,size=LENGTH",
        "Addresses of networks that name no subnet, and how large their subnets are (repeatable)",
    )
    .key_is("default-address-pools"),
    works(
        "default-network-opt",
        Object,
        "DRIVER=NAME=VALUE",
        "Option of networks of a driver that do not give it themselves (repeatable)",
    )
    .key_is("default-network-opts"),
    works("ip-forward", Switch, "BOOL", "Let the host forward packets, which containers need"),
    works(
        "ip-forward-no-drop",
        Switch,
        "BOOL",
        "When forwarding is turned on, forward what is no container's too",
    ),
    works(
        "allow-direct-routing",
        Switch,
        "BOOL",
        "Let other hosts reach published ports at containers' own addresses",
    ),
    works("mtu", Number, "BYTES", "Largest packet of the default network, in bytes"),
    works("ip-masq", Switch, "BOOL", "Give packets that leave the host the host's address"),
    works("ip", Text, "ADDRESS", "Address where ports published without one listen"),
    works("firewall-backend", Text, "NAME", "Firewall: nftables or iptables"),
    works("iptables", Switch, "BOOL", "Make firewall rules for IPv4"),
    works("ip6tables", Switch, "BOOL", "Make firewall rules for IPv6"),
    works("bridge-accept-fwmark", Text, "MARK", "Let packets with this firewall mark, or MARK/MASK, reach containers"),
    // What follows has no counterpart here.
    ignored("containerd", Text, "Address of containerd"),
    ignored("containerd-namespace", Text, "Namespace in containerd"),
    ignored("containerd-plugins-namespace", Text, "Namespace of plugins in containerd")
        .key_is("containerd-plugin-namespace"),
    ignored("cri-containerd", Switch, "Start containerd with CRI"),
    ignored("default-init", Text, "Init program of containers"),
    ignored("experimental", Switch, "Enable experimental features"),
    ignored("feature", Object, "Enable a feature").key_is("features"),
    ignored("init-path", Text, "Init program of containers"),
    ignored("network-control-plane-mtu", Number, "Largest packet of Swarm's control plane"),
    ignored("network-diagnostic-port", Number, "Port of the network diagnostic server"),
    ignored("node-generic-resource", List, "Resource announced to Swarm").key_is("node-generic-resources"),
    ignored("nri-opts", Object, "Node Resource Interface"),
    ignored("resolv-conf", Text, "The host's resolver configuration"),
    ignored("restart", Switch, "Replaced by restart policies").short('r'),
    ignored("rootless", Switch, "Rootless mode"),
    ignored("selinux-enabled", Switch, "SELinux"),
    ignored("swarm-default-advertise-addr", Text, "Swarm's address"),
    ignored("swarm-raft-election-tick", Number, "Swarm's election timing"),
    ignored("swarm-raft-heartbeat-tick", Number, "Swarm's heartbeat timing"),
    ignored("userland-proxy", Switch, "Proxy for published ports"),
    ignored("userland-proxy-path", Text, "Program of that proxy"),
    works(
        "userns-remap",
        Text,
        "USER[:GROUP]",
        "Containers' users are those of USER in /etc/subuid and /etc/subgid; \"default\" for dockremap, which is made",
    ),
];

/// Finds an option by its name in the file.
pub fn by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key() == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let flags: BTreeSet<_> = OPTIONS.iter().map(|option| option.flag).collect();
        let keys: BTreeSet<_> = OPTIONS.iter().map(Opt::key).collect();
        let letters: Vec<_> = OPTIONS.iter().filter_map(|option| option.short).collect();
        assert_eq!((flags.len(), keys.len()), (OPTIONS.len(), OPTIONS.len()));
        assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len());
    }
}
