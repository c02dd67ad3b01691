//! `volume import`. Beyond Docker.

use std::fs::File;
use std::io::{self, Read};

use berth_client::segment;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::image::parts;

/// The command.
pub fn command() -> Command {
    Command::new("import").about("Unpacks a tar archive, compressed or not, into a volume").defer(|command| {
        command
            .arg(flags::operand("volume"))
            .arg(Arg::new("file").help("The archive; - or nothing for standard input"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let input: Box<dyn Read + Send> = match flags::text(matches, "file") {
        None | Some("-") => Box::new(io::stdin()),
        Some(file) => {
            Box::new(File::open(file).map_err(|error| Failure::io(format!("open {file}"), &error))?)
        }
    };
    let name = flags::or_empty(matches, "volume");
    let path = format!("/volumes/{}/archive", segment(&name));
    context.client().await?.put_stream(&path, "application/x-tar", parts(input)).await?;
    Ok(())
}
