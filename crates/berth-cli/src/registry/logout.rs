//! `logout`.

use clap::{Arg, ArgMatches, Command};

use crate::config::ConfigFile;
use crate::context::Context;
use crate::credentials::{self, HUB};
use crate::failure::Outcome;
use crate::flags;

/// The command.
pub fn command() -> Command {
    Command::new("logout")
        .about("Forgets the account of a registry")
        .defer(|command| command.arg(Arg::new("server").help("The registry; Docker Hub if none is named")))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    // Another command may have changed the file since this one began.
    let mut config = ConfigFile::read(context.config.directory().to_owned());
    let server = flags::text(matches, "server").filter(|server| !server.is_empty());
    let (shown, addresses) = match server {
        None => (HUB, vec![HUB.to_owned()]),
        Some(server) => {
            let host = credentials::host(server);
            // Older clients kept them under these too.
            let mut all = vec![server.to_owned()];
            for other in [host.to_owned(), format!("http://{host}"), format!("https://{host}")] {
                if !all.contains(&other) {
                    all.push(other);
                }
            }
            (host, all)
        }
    };
    outln!("Removing login credentials for {shown}");
    let mut failures = Vec::new();
    for address in &addresses {
        if let Err(failure) = credentials::erase(&mut config, address).await {
            failures.push(format!("{address}: {failure}"));
        }
    }
    if failures.len() == addresses.len() {
        errln!("WARNING: could not erase credentials:\n{}", failures.join("\n"));
    }
    Ok(())
}
