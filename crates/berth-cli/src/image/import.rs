//! `import`.

use std::fs::File;
use std::io::{self, Read};

use berth_client::Query;
use clap::{Arg, ArgMatches, Command};

use super::load::parts;
use super::progress::{self, To};
use crate::container::new_image_name;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, one};

/// The command.
pub fn command() -> Command {
    Command::new("import").about("Makes an image of one layer of an archive of files").defer(|command| {
        command
            .arg(
                many("change", "INSTRUCTION")
                    .short('c')
                    .help("Configure the image by a Dockerfile's instruction"),
            )
            .arg(one("message", "TEXT").short('m').help("A comment for its history"))
            .arg(one("platform", "OS/ARCH").help("What the files are made for (this machine)"))
            .arg(flags::operand("source").help("A file, an address (http, https), or - for standard input"))
            .arg(Arg::new("name").help("The image's name, with or without a tag"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let source = flags::text(matches, "source").unwrap_or_default();
    let (repository, tag) = new_image_name(flags::text(matches, "name"))?;
    let is_address = source.starts_with("http://") || source.starts_with("https://");
    let mut query = Query::new()
        .set("fromSrc", if is_address { source } else { "-" })
        .set("repo", &repository)
        .set("tag", &tag)
        .set("message", &flags::or_empty(matches, "message"))
        .set("platform", &flags::platform(matches).unwrap_or_default());
    for change in flags::list(matches, "change") {
        query = query.set("changes", &change);
    }
    let path = query.on("/images/create");
    if is_address {
        let body = context.client().await?.post_for_stream(&path).await?;
        return progress::show(body, To::Stdout).await;
    }
    let input: Box<dyn Read + Send> = match source {
        "-" => Box::new(io::stdin()),
        file => Box::new(File::open(file).map_err(|error| Failure::io(format!("open {file}"), &error))?),
    };
    let body = context.client().await?.post_stream(&path, "application/x-tar", parts(input)).await?;
    progress::show(body, To::Stdout).await
}
