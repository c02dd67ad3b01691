use std::net::SocketAddr;

use super::*;

fn resolve(args: &[&str]) -> Result<Resolved, OptionError> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    Options::parse_from_args(&args)?.resolve()
}

#[test]
fn defaults_follow_the_program_name() {
    let berth = resolve(&["berth", "daemon"]).unwrap();
    assert_eq!(berth.settings.data_root, Path::new("/var/lib/berth"));
    assert_eq!(berth.hosts, [Host::Unix("/run/berth.sock".into())]);
    assert_eq!(berth.pidfile, Path::new("/run/berth/daemon.pid"));
    assert!(berth.settings.live_restore);
    assert_eq!(berth.settings.registry.product, Product::Berth);

    let docker = resolve(&["/usr/bin/dockerd"]).unwrap();
    assert_eq!(docker.settings.data_root, Path::new("/var/lib/docker"));
    assert_eq!(docker.settings.exec_root, Path::new("/var/run/docker"));
    assert_eq!(docker.hosts, [Host::Unix("/var/run/docker.sock".into())]);
    assert_eq!(docker.settings.bridge.name, "docker0");
    assert_eq!(docker.settings.registry.product, Product::Docker);
    assert!(!docker.settings.live_restore);
}

#[test]
fn flags_are_read_as_dockerd_reads_them() {
    let options = resolve(&[
        "berth",
        "daemon",
        "-H",
        "unix:///tmp/a.sock",
        "-H=unix:///tmp/b.sock",
        "--data-root=/d",
        "--exec-root",
        "/e",
        "-D",
        "--live-restore=false",
        "--bip",
        "10.9.0.1/24",
        "--mtu=1400",
        "--ip-masq=false",
        "--insecure-registry",
        "r:5000",
        "--insecure-registry=10.0.0.0/8",
    ])
    .unwrap();
    assert_eq!(options.hosts.len(), 2);
    assert_eq!(options.log_level, LogLevel::Debug);
    assert!(options.settings.debug && !options.settings.live_restore && !options.settings.bridge.masquerade);
    assert_eq!(options.settings.bridge.v4.address.unwrap().to_string(), "10.9.0.1/24");
    assert_eq!(options.settings.registry.insecure, ["r:5000", "10.0.0.0/8"]);
}

#[test]
fn the_limit_of_writable_layers_is_the_one_option_of_storage() {
    let limit = |options: &[&str]| {
        resolve(&[&["berth", "daemon"], options].concat()).map(|r| r.settings.storage_limit)
    };
    assert_eq!(limit(&[]).unwrap(), None);
    assert_eq!(limit(&["--storage-opt", "overlay2.size=10G"]).unwrap(), Some(10 << 30));
    let error = limit(&["--storage-opt", "dm.basesize=1G"]).unwrap_err().to_string();
    assert_eq!(error, "overlay2: unknown option dm.basesize");
    assert!(
        limit(&["--storage-opt", "size"]).is_err() && limit(&["--storage-opt", "overlay2.size=x"]).is_err()
    );
}

#[test]
fn r23_tcp_without_tls_needs_insistence() {
    for host in ["tcp://0.0.0.0:2375", "tcp://[::]:2375", "tcp://192.0.2.1:2375", "tcp://:2375"] {
        let error = resolve(&["berth", "daemon", "-H", host]).unwrap_err();
        assert!(matches!(error, OptionError::InsecureTcp(_)), "{host}: {error}");
    }
    let tolerated = resolve(&["dockerd", "-H", "tcp://0.0.0.0:2375"]).unwrap();
    assert_eq!((tolerated.open_tcp, tolerated.insecure_tcp), (OpenTcp::Tolerated, false));
    assert!(tolerated.settings.warnings[0].contains("http://0.0.0.0:2375"));
    for host in ["tcp://127.0.0.1:2375", "tcp://[::1]:2375", "tcp://"] {
        let options = resolve(&["berth", "daemon", "-H", host]).unwrap();
        assert!(!options.insecure_tcp && matches!(options.hosts[0], Host::Tcp(_)), "{host}");
    }
    let options = resolve(&["berth", "daemon", "-H", "tcp://[::1]:2375", "--tls=false"]).unwrap();
    assert!(options.insecure_tcp);
    assert_eq!(options.hosts, [Host::Tcp(vec![SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 2375))])]);
    for tls in ["--tls", "--tlsverify", "--tlsverify=false"] {
        let options = resolve(&["berth", "daemon", "-H", "tcp://0.0.0.0:2376", tls]).unwrap();
        assert!(!options.insecure_tcp, "{tls}");
        assert_eq!(options.tls.unwrap().authority.is_some(), tls != "--tlsverify=false", "{tls}");
    }
    let options = resolve(&["berth", "daemon", "--tls", "--tlscert=/c"]).unwrap();
    assert!(
        matches!(&options.hosts[0], Host::Tcp(list) if list.iter().all(|address| address.port() == 2376))
    );
    assert_eq!(options.tls.unwrap().certificate, Path::new("/c"));
}

#[test]
fn logs_and_the_free_space_are_bounded() {
    let options = resolve(&[
        "berth",
        "daemon",
        "--log-opt",
        "max-size=2m",
        "--log-opt=max-file=3",
        "--keep-free",
        "1g",
        "--log-driver=local",
    ])
    .unwrap();
    let log = &options.settings.log;
    assert_eq!(
        (log.driver.as_str(), log.options["max-size"].as_str(), log.options.len()),
        ("local", "2m", 2)
    );
    assert_eq!(resolve(&["dockerd"]).unwrap().settings.log.driver, "json-file");
    assert_eq!(options.settings.keep_free_bytes, Some(1 << 30));
    for bad in [
        "max-size",
        "max-size=0",
        "max-size=x",
        "max-file=0",
        "max-file=-1",
        "colour=red",
        "max-size=99999999p",
    ] {
        let error = resolve(&["berth", "daemon", "--log-opt", bad]).unwrap_err();
        assert!(matches!(error, OptionError::Logging(_)), "{bad}");
    }
    assert!(matches!(
        resolve(&["berth", "daemon", "--log-driver", "carrier-pigeon"]),
        Err(OptionError::Logging(_))
    ));
    assert!(matches!(
        resolve(&["berth", "daemon", "--keep-free", "-1"]),
        Err(OptionError::Size(_)) | Err(OptionError::Usage(_))
    ));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [
        &["berth", "daemon", "--no-such-flag"][..],
        &["berth", "daemon", "positional"],
        &["berth", "daemon", "-H", "carrier-pigeon://x"],
        &["berth", "daemon", "--label", "novalue"],
        &["berth", "daemon", "--bip", "300.1.1.1/8"],
        &["berth", "daemon", "--log-level", "loud"],
        &["berth", "daemon", "--mtu", "-5"],
    ] {
        assert!(resolve(args).is_err(), "{args:?}");
    }
}

fn resolve_file(json: &str, args: &[&str]) -> Result<Resolved, OptionError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.json");
    std::fs::write(&path, json).unwrap();
    resolve(&[&["berth", "daemon", "--config-file", path.to_str().unwrap()], args].concat())
}

#[test]
fn the_file_says_what_flags_say() {
    let json = r#"{
        "hosts": ["unix:///tmp/a.sock", "unix:///tmp/a.sock"], "data-root": "/d", "debug": true, "mtu": 1400,
        "labels": ["a=b", "a=b"], "live-restore": false, "shutdown-timeout": 3, "tlsverify": true,
        "tlscacert": "/ca", "insecure-registries": ["r:5000"], "registry-mirrors": ["https://m.example", "r.example:5000=http://m.example/p"],
        "max-concurrent-downloads": 7, "default-shm-size": "1g", "default-ipc-mode": "shareable",
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 5, "Hard": 6}}, "log-format": "json",
        "dns": ["9.9.9.9"], "exec-opts": ["native.cgroupdriver=cgroupfs"], "ip-masq": false, "icc": true
    }"#;
    let options = resolve_file(json, &["--default-stop-timeout=4", "--containerd=/x"]).unwrap();
    let settings = &options.settings;
    assert_eq!(options.hosts, [Host::Unix("/tmp/a.sock".into())], "once");
    assert_eq!(options.tls.unwrap().authority.as_deref(), Some(Path::new("/ca")));
    assert_eq!((settings.data_root.as_path(), settings.bridge.mtu), (Path::new("/d"), 1400));
    assert!(settings.debug && !settings.live_restore && !settings.bridge.masquerade);
    assert_eq!(settings.labels, ["a=b"]);
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(3));
    let mirror = |of: &str, url: &str| berth_engine::Mirror { of: of.into(), url: url.into() };
    let mirrors =
        [mirror("docker.io", "https://m.example/"), mirror("r.example:5000", "http://m.example/p/")];
    assert_eq!(settings.registry.mirrors, mirrors);
    assert_eq!((settings.registry.concurrent_downloads, settings.registry.download_attempts), (7, 5));
    assert_eq!((settings.defaults.shm_size, settings.defaults.ipc_mode.as_str()), (1 << 30, "shareable"));
    assert_eq!((settings.defaults.ulimits[0].soft, settings.defaults.ulimits[0].hard), (5, 6));
    assert_eq!(settings.defaults.stop_timeout, Duration::from_secs(4));
    assert_eq!(options.log_format, LogFormat::Json);
    assert_eq!(options.without_effect, ["containerd"]);
    assert!(settings.bridge.icc);
}

#[test]
fn cgroups_of_systemd_are_no_reason_not_to_start() {
    let options = resolve_file(r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#, &[]).unwrap();
    assert_eq!(options.without_effect, ["native.cgroupdriver=systemd"]);
    for bad in ["native.cgroupdriver=x", "native.cgroupdriver=", "isolation=hyperv", "x=y", "x"] {
        let refused = resolve(&["berth", "daemon", "--exec-opt", bad]).unwrap_err().to_string();
        assert!(refused.starts_with("invalid exec-opt"), "{refused}");
    }
}

#[test]
fn the_oldest_version_of_the_api_is_chosen_in_the_file() {
    let oldest = |json: &str| resolve_file(json, &[]).map(|options| options.settings.oldest_api.to_string());
    assert_eq!(oldest("{}").unwrap(), "1.24");
    assert_eq!(oldest(r#"{"min-api-version": "1.44"}"#).unwrap(), "1.44");
    for (bad, why) in [
        ("1.23", "minimum supported API version is 1.24: 1.23"),
        ("1.99", "maximum supported API version is 1.55: 1.99"),
        ("v1.44", "API version must be provided without \"v\" prefix"),
        ("new", "invalid API version"),
    ] {
        let refused = oldest(&format!(r#"{{"min-api-version": "{bad}"}}"#)).unwrap_err().to_string();
        assert!(refused.starts_with("invalid min-api-version: ") && refused.contains(why), "{refused}");
    }
}

#[test]
fn the_file_is_read_again_at_each_resolution() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon.json");
    std::fs::write(&path, r#"{"labels": ["a=1"]}"#).unwrap();
    let args: Vec<OsString> =
        ["berth", "daemon", "--config-file", path.to_str().unwrap()].map(Into::into).into();
    let options = Options::parse_from_args(&args).unwrap();
    assert_eq!(options.resolve().unwrap().settings.labels, ["a=1"]);
    std::fs::write(&path, "{}").unwrap();
    assert!(options.resolve().unwrap().settings.labels.is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(options.resolve(), Err(OptionError::Config(_))));
}

#[test]
fn values_that_make_no_sense_have_dockers_words() {
    for (json, text) in [
        (r#"{"labels": ["a=1", "a=2"]}"#, "conflict labels for a=2 and a=1"),
        (r#"{"labels": ["a"]}"#, "bad attribute format: a"),
        (r#"{"max-concurrent-downloads": -1}"#, "invalid max concurrent downloads: -1"),
        (r#"{"default-stop-timeout": -1}"#, "invalid default stop timeout: -1"),
        (r#"{"mtu": -1}"#, "invalid default MTU: -1"),
        (r#"{"log-level": "loud"}"#, "invalid logging level: loud"),
        (r#"{"log-format": "xml"}"#, "invalid log format: xml"),
        (r#"{"default-ipc-mode": "host"}"#, r#"IPC mode "host" is not supported as default value"#),
        (r#"{"default-ipc-mode": "x"}"#, "default IPC mode setting (x) is invalid"),
        (r#"{"exec-opts": ["x"]}"#, "invalid exec-opt (x): must be formatted 'opt=value'"),
        (r#"{"exec-opts": ["x=y"]}"#, "unknown option: 'x'"),
        (r#"{"default-runtime": "gvisor"}"#, "specified default runtime 'gvisor' does not exist"),
        (r#"{"registry-mirrors": ["m.example"]}"#, "invalid mirror"),
        (r#"{"registry-mirrors": ["nohost=https://m.example"]}"#, "nohost is no registry"),
        (r#"{"registry-mirrors": ["=https://m.example"]}"#, "is no registry"),
        (r#"{"registry-mirrors": ["https://u:p@m.example"]}"#, "username/password not allowed"),
        (r#"{"dns": ["x"]}"#, "IP address is not correctly formatted: x"),
        (r#"{"dns-search": ["a b"]}"#, "a b is not a valid domain"),
        (r#"{"host-gateway-ips": ["1.2.3.4", "1.2.3.5"]}"#, "only one IPv4"),
        (r#"{"default-shm-size": "much"}"#, "invalid size"),
        (r#"{"seccomp-profile": "/nonexistent"}"#, "opening seccomp profile (/nonexistent) failed"),
    ] {
        let error = resolve_file(json, &[]).unwrap_err().to_string();
        assert!(error.contains(text), "{json}: {error}");
    }
}

#[test]
fn every_flag_of_dockerd_is_known() {
    const FLAGS: &str = include_str!("dockerd-flags.txt");
    let command = config::command();
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let missing: Vec<&str> = FLAGS.lines().filter(|flag| !known.contains(flag)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn directories_of_devices_can_be_none() {
    let of = |json: &str, args: &[&str]| resolve_file(json, args).unwrap().settings.cdi_dirs;
    assert_eq!(of("{}", &[]).len(), 2);
    assert_eq!(of("{}", &["--cdi-spec-dir=/a", "--cdi-spec-dir=/b"]), [Path::new("/a"), Path::new("/b")]);
    for (json, args) in [
        ("{}", &["--cdi-spec-dir="][..]),
        (r#"{"cdi-spec-dirs": []}"#, &[]),
        (r#"{"features": {"cdi": false}}"#, &["--cdi-spec-dir=/a"]),
        ("{}", &["--feature", "cdi=false"]),
    ] {
        assert!(of(json, args).is_empty(), "{json} {args:?}");
    }
    assert_eq!(of(r#"{"features": {"cdi": true}}"#, &[]).len(), 2);
}

#[test]
fn the_firewalls_backend_follows_the_name_and_the_flag() {
    use berth_engine::FirewallBackend::{Iptables, Nftables};
    let firewall = |args: &[&str]| resolve(args).unwrap().settings.firewall;
    assert_eq!(firewall(&["berth"]).backend, Nftables);
    assert_eq!(firewall(&["/usr/bin/dockerd"]).backend, Iptables);
    assert_eq!(firewall(&["dockerd", "--firewall-backend", "nftables"]).backend, Nftables);
    let four = firewall(&["berth", "--firewall-backend=iptables", "--ip6tables=false"]);
    assert!(four.backend == Iptables && four.ipv4 && !four.ipv6 && !four.hairpin);
    assert!(firewall(&["dockerd", "--userland-proxy=false"]).hairpin);
    assert_eq!(firewall(&["berth", "--bridge-accept-fwmark", "2/3"]).mark.unwrap().to_string(), "0x2/0x3");
    let error = resolve(&["berth", "--bridge-accept-fwmark", "x"]).err().unwrap();
    assert_eq!(error.to_string(), "invalid bridge-accept-fwmark: invalid firewall mark \"x\"");
    let error = resolve(&["berth", "--firewall-backend", "pf"]).err().unwrap();
    assert_eq!(error.to_string(), "invalid firewall-backend \"pf\"");
}
