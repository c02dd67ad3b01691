//! What goes over the wire, byte for byte where clients look closely.
#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use berth_api::container::{
    Config, CreateRequest, CreateResponse, HostConfig, Inspect, State, Status, Summary, WaitResponse,
};
use berth_api::progress::JsonMessage;
use berth_api::{event, exec, image, json, network, system};
use serde::Serialize;
use serde_json::{Value, json};

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_default_configuration_has_dockers_nulls() {
    assert_eq!(
        serde_json::to_value(Config::default()).unwrap(),
        json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "Labels": null
        })
    );
}

#[test]
fn a_default_host_configuration_has_dockers_names_and_nulls() {
    assert_eq!(
        serde_json::to_value(HostConfig::default()).unwrap(),
        json!({
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": null}, "NetworkMode": "",
            "PortBindings": null, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0}, "AutoRemove": false,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
            "CgroupnsMode": "", "Dns": null, "DnsOptions": null, "DnsSearch": null, "ExtraHosts": null,
            "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "",
            "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null,
            "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0,
            "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": null,
            "BlkioDeviceReadBps": null, "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null,
            "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
            "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": null, "DeviceCgroupRules": null,
            "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null,
            "OomKillDisable": null, "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0,
            "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null
        })
    );
}

#[test]
fn states_are_complete_and_times_are_zero_not_missing() {
    assert_eq!(
        text(&State { status: Status::Running, running: true, pid: 7, ..State::default() }),
        r#"{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":7,"ExitCode":0,"Error":"","StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}"#
    );
}

#[test]
fn small_answers_are_exact() {
    assert_eq!(text(&CreateResponse { id: "x".into(), warnings: vec![] }), r#"{"Id":"x","Warnings":[]}"#);
    assert_eq!(text(&WaitResponse::default()), r#"{"StatusCode":0}"#);
    assert_eq!(text(&exec::CreateResponse { id: "x".into() }), r#"{"Id":"x"}"#);
    assert_eq!(text(&image::DeleteItem::Untagged("a:b".into())), r#"{"Untagged":"a:b"}"#);
    assert_eq!(text(&image::DeleteItem::Deleted("sha256:0".into())), r#"{"Deleted":"sha256:0"}"#);
    assert_eq!(
        text(&JsonMessage::status("abc", "Pulling fs layer")),
        r#"{"status":"Pulling fs layer","id":"abc"}"#
    );
    assert_eq!(text(&JsonMessage::error("no")), r#"{"errorDetail":{"message":"no"},"error":"no"}"#);
    assert_eq!(
        text(&network::PortSummary { private_port: 80, protocol: "tcp".into(), ..Default::default() }),
        r#"{"PrivatePort":80,"Type":"tcp"}"#
    );
    assert_eq!(
        text(&event::Message { kind: "container".into(), action: "start".into(), ..Default::default() }),
        r#"{"Type":"container","Action":"start","Actor":{"ID":"","Attributes":{}}}"#
    );
}

#[test]
fn names_with_acronyms_are_gos() {
    let inspected = serde_json::to_value(Inspect::default()).unwrap();
    for name in ["ExecIDs", "AppArmorProfile", "ResolvConfPath", "HostsPath", "GraphDriver"] {
        assert_eq!(keys(&inspected).contains(&name), name != "GraphDriver", "{name}");
    }
    assert_eq!(inspected["ExecIDs"], Value::Null);
    assert_eq!(
        inspected["NetworkSettings"],
        json!({"SandboxID": "", "SandboxKey": "", "Ports": {}, "Networks": {}})
    );
    let info = serde_json::to_value(system::Info::default()).unwrap();
    for name in [
        "ID",
        "NCPU",
        "NFd",
        "NGoroutines",
        "NEventsListener",
        "OSType",
        "CPUShares",
        "CPUSet",
        "IPv4Forwarding",
        "MemTotal",
        "CpuCfsQuota",
        "CDISpecDirs",
        "RuncCommit",
        "HttpProxy",
    ] {
        assert!(keys(&info).contains(&name), "{name}");
    }
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    let version = serde_json::to_value(system::Version::default()).unwrap();
    assert!(version.get("MinAPIVersion").is_some() && version.get("ApiVersion").is_some());
    let endpoint = serde_json::to_value(network::EndpointSettings::default()).unwrap();
    assert_eq!(
        keys(&endpoint),
        [
            "Aliases",
            "DNSNames",
            "DriverOpts",
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "GwPriority",
            "IPAMConfig",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "Links",
            "MacAddress",
            "NetworkID"
        ]
    );
}

#[test]
fn what_is_written_is_read_again() {
    fn round_trip<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + Default>() {
        let value = T::default();
        assert_eq!(json::from_slice::<T>(text(&value).as_bytes()).unwrap(), value);
    }
    round_trip::<CreateRequest>();
    round_trip::<Inspect>();
    round_trip::<Summary>();
    round_trip::<image::Summary>();
    round_trip::<image::Inspect>();
    round_trip::<system::Info>();
    round_trip::<system::Version>();
    round_trip::<network::Network>();
    round_trip::<exec::Inspect>();
    round_trip::<event::Message>();
    round_trip::<JsonMessage>();
}

#[test]
fn a_create_request_puts_the_configuration_beside_its_parts() {
    let request = CreateRequest {
        config: Config { image: "busybox".into(), cmd: Some(vec!["true".into()]), ..Config::default() },
        host_config: Some(HostConfig { auto_remove: true, ..HostConfig::default() }),
        networking_config: None,
    };
    let value = serde_json::to_value(&request).unwrap();
    assert_eq!((&value["Image"], &value["HostConfig"]["AutoRemove"]), (&json!("busybox"), &json!(true)));
    assert_eq!(json::from_value::<CreateRequest>(value).unwrap(), request);
}

#[test]
fn request_of_the_stock_client_is_understood() {
    let body = br#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,
        "Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["echo","hi"],"Image":"busybox","Volumes":{},
        "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,"ContainerIDFile":"",
        "LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},
        "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":true,"ConsoleSize":[24,80],"Memory":0,
        "MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"Dns":[],"MaskedPaths":null},
        "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"MacAddress":""}}}}"#;
    let request: CreateRequest = json::from_slice(body).unwrap();
    let host = request.host_config.unwrap();
    assert_eq!(host.port_bindings.unwrap()["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
    assert_eq!((host.console_size, host.memory_swappiness), ([24, 80], Some(-1)));
    assert_eq!(request.config.volumes.unwrap().len(), 0);
}
