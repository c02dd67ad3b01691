//! Makes messages and services of the protocol's definitions, without other programs.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let names = ["wire.proto", "filesync.proto", "secrets.proto", "ssh.proto", "health.proto"];
    let definitions = protox::compile(names, ["proto"])?;
    tonic_prost_build::configure().bytes(".fsutil.types.Packet.data").compile_fds(definitions)?;
    Ok(())
}
