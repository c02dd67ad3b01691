//! Drives the built binary, and the stock `docker` client, on the real kernel.
//!
//! Each test has a daemon of its own, with its own roots and in its own network namespace, so that tests run in
//! parallel and leave nothing behind. They need root. `BERTH_BINARY` names another build to be tested.
#![allow(clippy::unwrap_used, clippy::expect_used)]

/// Makes one test for each of the two command lines.
macro_rules! with_both_clients {
    ($(fn $name:ident($daemon:ident: &Daemon, $client:ident: Client) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn check($daemon: &Daemon, $client: Client) $body
            #[test]
            fn berth() { check(&Daemon::start(), Client::Berth); }
            #[test]
            fn docker() { check(&Daemon::start(), Client::Docker); }
        }
    )*};
}

/// The same, and over Docker's chains.
macro_rules! with_both_clients_and_backends {
    ($(fn $name:ident($daemon:ident: &Daemon, $client:ident: Client) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn check($daemon: &Daemon, $client: Client) $body
            #[test]
            fn berth() { check(&Daemon::start(), Client::Berth); }
            #[test]
            fn docker() { check(&Daemon::start(), Client::Docker); }
            #[test]
            fn iptables() { check(&Daemon::over("iptables"), Client::Berth); }
        }
    )*};
}

/// Makes one test for each of the firewall's backends.
macro_rules! with_both_backends {
    ($(fn $name:ident($daemon:ident: &mut Daemon) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn check($daemon: &mut Daemon) $body
            #[test]
            fn nftables() { check(&mut Daemon::over("nftables")); }
            #[test]
            fn iptables() { check(&mut Daemon::over("iptables")); }
        }
    )*};
}

mod agents;
mod api;
mod attach;
mod attestations;
mod authorization;
mod awkward;
mod beside_docker;
mod binds;
mod build;
mod build_cache;
mod build_check;
mod build_cli;
mod build_contexts;
mod build_copy;
mod build_failures;
mod build_hostile;
mod build_mounts;
mod build_output;
mod build_recorder;
mod build_safety;
mod build_shared;
mod build_stages;
mod building;
mod commit;
mod completion;
mod compose;
mod compose_builds;
mod compose_crowds;
mod compose_features;
mod compose_versions;
mod content;
mod contexts;
mod copy;
mod copy_programs;
mod copy_races;
mod daemon;
mod daemon_config;
mod daemon_process;
mod daemon_registries;
mod daemon_sockets;
mod daemon_tls;
mod deep;
mod details;
mod disk;
mod drivers;
mod engines;
mod errors;
mod events;
mod exec;
mod faults;
mod faulty;
mod fidelity;
mod figures;
mod files;
mod filesystems;
mod firewall;
mod firewalld;
mod flags;
mod flags_devices;
mod flags_limits;
mod flags_security;
mod fuzz_api;
mod fuzz_routes;
mod health;
mod image_copy;
mod image_crashes;
mod image_memory;
mod image_parents;
mod image_prune;
mod images;
mod import;
mod inside;
mod layer_cache;
mod life;
mod links_ports;
mod load;
mod log_drivers;
mod log_modes;
mod log_remote;
mod log_splunk;
mod log_tls;
mod login;
mod logs;
mod manifests;
mod model;
mod monitor;
mod names;
mod names_links;
mod nested;
mod network;
mod network_drivers;
mod network_plugins;
mod network_settings;
mod network_suites;
mod network_ways;
mod networks;
mod networks_faults;
mod networks_found;
mod output;
mod packaging;
mod parity;
mod platforms;
mod plugin_server;
mod plugins;
mod policies;
mod ports;
mod ports_moved;
mod projects;
mod prune;
mod pull_lies;
mod pulls;
mod push;
mod push_faults;
mod rate_limits;
mod raw;
mod registry;
mod registry_connections;
mod registry_hosts;
mod registry_proxies;
mod run;
mod runtime;
mod runtimes;
mod save;
mod scale;
mod search;
mod security;
mod session;
mod session_hostile;
mod session_keys;
mod slow;
mod ssh;
mod states;
mod suites;
mod terminal;
mod tls_front;
mod transfers;
mod update;
mod usage;
mod userns;
mod versions;
mod vm;
mod vm_apparmor;
mod vm_cgroups;
mod vm_nested;
mod vm_nfs;
mod vm_package;
mod vm_power;
mod vm_quota;
mod vm_systemd;
mod vm_userns;
mod volume_faults;
mod volume_mounts;
mod volume_owners;
mod volume_plugins;
mod volume_snapshots;
mod volumes;
mod way_out;
mod websocket;

use std::path::Path;

#[test]
fn every_test_file_is_registered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let registered = include_str!("main.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(
            module == "main" || registered.contains(&format!("mod {module};")),
            "{name} is not registered"
        );
    }
}
