//! The net process as a program of its own, for the tests of its client.

fn main() -> std::process::ExitCode {
    berth_network::net::main(std::env::args_os().collect())
}
