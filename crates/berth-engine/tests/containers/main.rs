//! Engines with real containers, on a busybox image. Needs root; each test has a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adoption;
mod exec;
mod harness;
mod life;
mod network;
mod streams;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some("__spawner") => berth_shim::spawner::main(arguments),
        Some("__net") => berth_network::net::main(arguments),
        _ => {
            let mut tests = Vec::new();
            for module in [life::TESTS, streams::TESTS, exec::TESTS, adoption::TESTS, network::TESTS] {
                tests.extend_from_slice(module);
            }
            harness::run(&tests)
        }
    }
}
