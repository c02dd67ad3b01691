//! Holds the table of floors in `ARCHITECTURE.md` against what the crates really import.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Crate names and floors, as the table says.
fn floors() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let floor = cells.next()?.trim().parse().ok()?;
        Some((cells.next()?.trim().trim_matches('`').to_string(), floor))
    });
    rows.collect()
}

fn members() -> Vec<Package> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    metadata.packages
}

/// The workspace's crates that a crate imports outside its tests.
fn imports(package: &Package) -> Vec<String> {
    let used =
        package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development && d.path.is_some());
    used.map(|d| d.name.to_string()).collect()
}

#[test]
fn every_crate_has_its_row_and_every_row_its_crate() {
    let table: Vec<String> = floors().into_keys().collect();
    let mut crates: Vec<String> = members().iter().map(|p| p.name.to_string()).collect();
    crates.sort();
    assert_eq!(table, crates);
}

#[test]
fn imports_point_strictly_downwards() {
    let floors = floors();
    for package in members() {
        for import in imports(&package) {
            let (above, below) = (floors[package.name.as_str()], floors[&import]);
            assert!(above > below, "{} (floor {above}) imports {import} (floor {below})", package.name);
        }
    }
}

#[test]
fn the_command_line_reaches_containers_through_the_api_only() {
    let allowed =
        ["berth-api", "berth-client", "berth-oci", "berth-archive", "berth-registry", "berth-session"];
    let cli = members().into_iter().find(|p| p.name == "berth-cli").unwrap();
    for import in imports(&cli) {
        assert!(allowed.contains(&import.as_str()), "berth-cli imports {import}");
    }
}

#[test]
fn each_crate_lives_in_the_folder_of_its_name() {
    for package in members() {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        assert_eq!(folder, package.name.as_str());
    }
}

#[test]
fn only_berth_sys_may_be_unsafe() {
    for package in members().iter().filter(|p| p.name != "berth-sys") {
        let source = package.targets.iter().find(|t| t.is_lib() || t.is_bin()).unwrap();
        let text = fs::read_to_string(&source.src_path).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} does not forbid unsafe code", source.src_path);
    }
}
