//! `create`, and what `run` shares with it.

use std::io::Write as _;
use std::path::Path;

use berth_api::container::{CreateRequest, CreateResponse};
use berth_client::{Client, Query};
use clap::{ArgMatches, Command};

use super::{mount, options, proxies, request};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;
use crate::image::pull;

/// The command.
pub fn command() -> Command {
    Command::new("create")
        .about("Creates a container without starting it")
        .defer(|command| command.args(options::all()).arg(flags::operand("image")).arg(flags::command(false)))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let attached = request::attached(matches, true).map_err(|failure| complain(context, failure))?;
    let mut request = request::read(matches, attached).map_err(|failure| complain(context, failure))?;
    let client = context.client().await?;
    proxies::add(&context.config.settings, client.host(), &flags::list(matches, "env"), &mut request);
    let id = create(context, &client, matches, &request).await?;
    outln!("{id}");
    Ok(())
}

/// A failure before there is a container: Docker's form and exit code.
pub fn complain(context: &Context, failure: Failure) -> Failure {
    let program = context.program;
    Failure::with_code(
        125,
        format!("{program}: {failure}\n\nRun '{program} run --help' for more information"),
    )
}

/// Creates a container, after pulling its image if it has to be; gives its ID.
pub async fn create(
    context: &Context,
    client: &Client,
    matches: &ArgMatches,
    request: &CreateRequest,
) -> Outcome<String> {
    let pull = flags::text(matches, "pull").unwrap_or("missing");
    if !matches!(pull, "always" | "missing" | "never") {
        return Err(Failure::new(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    let cidfile = flags::text(matches, "cidfile");
    if let Some(path) = cidfile.filter(|path| Path::new(path).exists()) {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        )));
    }
    let platform = flags::platform(matches);
    let platform = platform.as_deref();
    let quiet = flags::on(matches, "quiet");
    let mut request = request.clone();
    if flags::on(matches, "use-api-socket") {
        let host = request.host_config.get_or_insert_default();
        host.mounts.get_or_insert_default().push(mount::api_socket(client.host()));
    }
    let request = &request;
    let image = &request.config.image;
    if pull == "always" {
        pull::pull(context, client, image, platform, quiet, true).await?;
    }
    let path = Query::new()
        .set_some("name", flags::text(matches, "name"))
        .set_some("platform", platform)
        .on("/containers/create");
    let outcome: Result<CreateResponse, _> = client.post(&path, request).await;
    let made = match outcome {
        Err(error) if pull == "missing" && error.is_not_found() && is_about_image(&error) => {
            if !quiet {
                // A closed stderr does not matter.
                let _ = writeln!(std::io::stderr(), "Unable to find image '{}' locally", familiar(image));
            }
            pull::pull(context, client, image, platform, quiet, true).await?;
            client.post::<CreateResponse>(&path, request).await?
        }
        outcome => outcome?,
    };
    for warning in &made.warnings {
        let _ = writeln!(std::io::stderr(), "WARNING: {warning}");
    }
    if let Some(path) = cidfile {
        std::fs::write(path, &made.id).map_err(|error| Failure::io(format!("write {path}"), &error))?;
    }
    Ok(made.id)
}

fn is_about_image(error: &berth_client::Error) -> bool {
    let text = error.to_string();
    text.contains("No such image") || text.contains("does not provide the specified platform")
}

/// The name with its tag.
fn familiar(image: &str) -> String {
    image
        .parse::<berth_oci::Reference>()
        .map_or_else(|_| image.to_owned(), |reference| reference.with_default_tag().familiar())
}
