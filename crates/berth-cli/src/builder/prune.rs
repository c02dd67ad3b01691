//! `builder prune`.

use berth_api::version::ApiVersion;
use berth_client::Query;
use clap::{Arg, ArgMatches, Command};
use serde::Deserialize;

use crate::confirm::{is_wanted, removed};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{many, on, one, switch};
use crate::values::{filter, size};

/// The first version of the API that keeps space by more than one rule.
const RULES: ApiVersion = ApiVersion::new(1, 48);

/// The command.
pub fn command() -> Command {
    Command::new("prune").about("Removes build cache").defer(|command| {
        let size = |name: &'static str| -> Arg { one(name, "BYTES").value_parser(size::bytes) };
        let filters = "Only some: until=TIME, id=ID, parent=ID, type=TYPE, description=TEXT";
        command
            .arg(switch("all").short('a').help("All that no build uses, not only what is dangling"))
            .arg(many("filter", "NAME=VALUE").value_parser(filter::filter).help(filters))
            .arg(switch("force").short('f').help("Do not ask"))
            .arg(size("keep-storage").alias("reserved-space").help("Only until the rest takes no more"))
            .arg(size("max-used-space").help("The most that may be kept"))
            .arg(size("min-free-space").help("Only until so much of the disk is free"))
    })
}

/// What was removed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Report {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let all = on(matches, "all");
    let warning = if all {
        "WARNING! This will remove all build cache."
    } else {
        "WARNING! This will remove all dangling build cache."
    };
    if !is_wanted(matches, warning)? {
        return Ok(());
    }
    let given = filter::with_configured(filter::given(matches), &context.config.settings.prune_filters);
    let client = context.client().await?;
    client.ping().await?;
    let path = query(matches, client.version())?.filters(&filter::filters(&given)).on("/build/prune");
    let report: Report = client.post_for_stream(&path).await?.json().await?;
    out!("{}", shown(&report));
    Ok(())
}

fn query(matches: &ArgMatches, version: ApiVersion) -> Outcome<Query> {
    let mut query = Query::new().flag("all", on(matches, "all"));
    for (flag, name) in [
        ("keep-storage", if version < RULES { "keep-storage" } else { "reserved-space" }),
        ("max-used-space", "max-used-space"),
        ("min-free-space", "min-free-space"),
    ] {
        let Some(bytes) = matches.get_one::<i64>(flag) else { continue };
        if flag != "keep-storage" && version < RULES {
            return Err(Failure::new(format!(
                "\"--{flag}\" requires API version {RULES}, but the Docker daemon API version is {version}"
            )));
        }
        query = query.set(name, &bytes.to_string());
    }
    Ok(query)
}

fn shown(report: &Report) -> String {
    let deleted = report.caches_deleted.iter().flatten().cloned();
    removed("Deleted build cache objects", deleted, report.space_reclaimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, minor: u16) -> Outcome<String> {
        let mut command = command();
        command.build();
        let matches = command.try_get_matches_from(line.split(' ')).unwrap();
        query(&matches, ApiVersion::new(1, minor)).map(|query| query.on(""))
    }

    #[test]
    fn what_is_kept_is_named_as_the_daemon_knows_it() {
        assert_eq!(asked("prune", 48).unwrap(), "");
        assert_eq!(asked("prune -af --keep-storage 1k", 47).unwrap(), "?all=1&keep-storage=1024");
        assert_eq!(asked("prune --reserved-space 1k", 48).unwrap(), "?reserved-space=1024");
        let all = asked("prune --max-used-space 2k --min-free-space 3k", 48).unwrap();
        assert_eq!(all, "?max-used-space=2048&min-free-space=3072");
        assert!(
            asked("prune --min-free-space 3k", 47).unwrap_err().message.contains("requires API version 1.48")
        );
    }

    #[test]
    fn reports_read_as_dockers() {
        assert_eq!(shown(&Report::default()), "Total reclaimed space: 0B\n");
        let report =
            Report { caches_deleted: Some(vec!["a".into(), "b".into()]), space_reclaimed: 1_234_567 };
        let expected = "Deleted build cache objects:\na\nb\n\nTotal reclaimed space: 1.235MB\n";
        assert_eq!(shown(&report), expected);
    }
}
