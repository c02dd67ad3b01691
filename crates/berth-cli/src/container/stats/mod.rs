//! `stats`.

mod live;
mod row;

pub use row::Figures;

use berth_api::container::{Stats, Summary};
use berth_client::{Client, Query, segment};
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, on, one, switch};
use crate::format::template;

/// The command.
pub fn command() -> Command {
    Command::new("stats").about("Shows what containers use, as it changes").defer(|command| {
        command
            .arg(switch("all").short('a').help("Also containers that do not run"))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("no-stream").help("Show the figures once"))
            .arg(switch("no-trunc").help("Show IDs in full"))
            .arg(
                Arg::new("container")
                    .value_name("CONTAINER")
                    .num_args(0..)
                    .help("Containers; without any, all that run"),
            )
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let view = View {
        format: match flags::format(matches, &context.config.settings.stats_format) {
            None | Some("table") => row::DEFAULT.to_owned(),
            Some(format) => format.to_owned(),
        },
        whole: on(matches, "no-trunc"),
    };
    // A template that makes no sense is told before anything is asked.
    view.show(&[])?;
    let client = context.client().await?;
    let names = flags::list(matches, "container");
    let all = on(matches, "all");
    if on(matches, "no-stream") {
        once(&client, names, all, &view).await
    } else {
        live::run(client, names, all, &view).await
    }
}

/// How samples are shown.
pub struct View {
    format: String,
    whole: bool,
}

impl View {
    /// The text for containers with their last samples.
    fn show(&self, samples: &[(&str, Option<&Stats>)]) -> Outcome<String> {
        let rows = samples.iter().map(|(container, sample)| row::row(container, *sample, self.whole));
        template::rows(&self.format, &row::COLUMNS, rows)
    }
}

/// Shows one sample of each.
async fn once(client: &Client, names: Vec<String>, all: bool, view: &View) -> Outcome {
    let chosen = names.is_empty();
    let names = if chosen { list(client, all).await? } else { names };
    let samples = futures_util::future::join_all(names.iter().map(|name| sample(client, name))).await;
    let mut failures = Failures::default();
    let mut shown = Vec::new();
    for (name, outcome) in names.iter().zip(&samples) {
        match outcome {
            Ok(sample) => shown.push((name.as_str(), sample.as_ref())),
            // It was removed since it was listed.
            Err(_) if chosen => {}
            Err(error) => failures.push(Failure::new(error.to_string())),
        }
    }
    failures.finish()?;
    out!("{}", view.show(&shown)?);
    Ok(())
}

/// One sample with the one before it; none if the container is removed meanwhile.
async fn sample(client: &Client, name: &str) -> Result<Option<Stats>, berth_client::Error> {
    let path = Query::new().set("stream", "0").on(&format!("/containers/{}/stats", segment(name)));
    let bytes = client.get_bytes(&path).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| berth_client::Error::Decode { operation: format!("GET {path}"), source })
}

/// IDs of the containers that run, or of all.
async fn list(client: &Client, all: bool) -> Outcome<Vec<String>> {
    let found: Vec<Summary> = client.get(&Query::new().flag("all", all).on("/containers/json")).await?;
    Ok(found.into_iter().map(|container| container.id).collect())
}
