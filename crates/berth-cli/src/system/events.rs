//! `events`.

use berth_api::event::Message;
use berth_client::Query;
use clap::{ArgMatches, Command};
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, one};
use crate::format::template;
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("events").about("Shows what happens, as it happens").defer(|command| {
        command
            .arg(many("filter", "NAME=VALUE").short('f').value_parser(filter::filter).help("Only some"))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, or json"))
            .arg(one("since", "TIME").help("Begin with what happened then"))
            .arg(one("until", "TIME").help("End then"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let path = Query::new()
        .set_some("since", flags::moment(matches, "since")?.as_deref())
        .set_some("until", flags::moment(matches, "until")?.as_deref())
        .filters(&filter::filters(&filter::given(matches)))
        .on("/events");
    let mut lines = context.client().await?.get_stream(&path).await?.lines();
    let format = flags::text(matches, "format");
    while let Some(line) = lines.next().await? {
        outln!("{}", shown(&line, format)?);
    }
    Ok(())
}

fn shown(line: &[u8], format: Option<&str>) -> Outcome<String> {
    let wrong = |error: serde_json::Error| Failure::new(format!("Error reading an event: {error}"));
    if let Some(format) = format {
        return template::object(format, &serde_json::from_slice(line).map_err(wrong)?);
    }
    let event: Message = serde_json::from_slice(line).map_err(wrong)?;
    let nanoseconds = event.time_nano;
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or_else(|_| nanoseconds.to_string(), |time| time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string());
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(format!("{time} {} {} {} ({})", event.kind, event.action, event.actor.id, attributes.join(", ")))
}
