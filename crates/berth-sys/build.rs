//! Compiles the programs of `payload/`, which run inside containers, to static executables without any library.
//!
//! The compiler of this build and a C compiler as the linker are all it takes. The target of the host is used where
//! the architecture is the same: its core library is there, whatever the crate is built for.
#![allow(clippy::expect_used)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs, by their file in `payload/`.
const PROGRAMS: [&str; 2] = ["init", "hello"];

fn main() {
    println!("cargo::rerun-if-changed=payload");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(variable("OUT_DIR"));
    for program in PROGRAMS {
        compile(program, &out.join(program));
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compile(program: &str, output: &Path) {
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")).join("payload").join(format!("{program}.rs"));
    let (host, arch) = (variable("HOST"), variable("CARGO_CFG_TARGET_ARCH"));
    let native = host.split('-').next() == Some(arch.as_str());
    let target = if native { host } else { variable("TARGET") };
    let mut command = Command::new(variable("RUSTC"));
    command.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", program]);
    command.args(["--target", &target]).arg("-o").arg(output).arg(source);
    for option in ["panic=abort", "opt-level=s", "strip=symbols", "relocation-model=static", "debuginfo=0"] {
        command.args(["-C", option]);
    }
    // No unwinding tables, no sections that only a debugger or a library would read.
    command.args(["-C", "force-unwind-tables=no", "-C", "default-linker-libraries=no"]);
    let linking =
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--gc-sections", "-Wl,--build-id=none"];
    for argument in linking {
        command.arg("-C").arg(format!("link-arg={argument}"));
    }
    if target.contains("musl") {
        command.args(["-C", "link-self-contained=no"]);
    }
    if let Some(linker) = linker(native) {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    let status = command.status().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// The linker for the architecture: `cc`, or what cargo was configured with for another one.
fn linker(native: bool) -> Option<String> {
    if native { Some("cc".to_owned()) } else { env::var("RUSTC_LINKER").ok() }
}
