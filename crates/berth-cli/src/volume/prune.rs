//! `volume prune`.

use berth_api::volume::PruneResponse;
use berth_client::Query;
use clap::{ArgMatches, Command};

use crate::confirm::{is_wanted, removed};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{many, on, switch};
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("prune").about("Removes volumes that no container has").defer(|command| {
        command
            .arg(switch("all").short('a').help("All, not only those without a name"))
            .arg(
                many("filter", "NAME=VALUE")
                    .value_parser(filter::filter)
                    .help("Only some: label=NAME[=VALUE], label!=NAME[=VALUE]"),
            )
            .arg(switch("force").short('f').help("Do not ask"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let all = on(matches, "all");
    let mut pairs = filter::with_configured(filter::given(matches), &context.config.settings.prune_filters);
    if all {
        if pairs.iter().any(|(name, _)| name == "all") {
            return Err(Failure::new("conflicting options: cannot specify both --all and --filter all=1"));
        }
        pairs.push(("all".to_owned(), "true".to_owned()));
    }
    let which = if all { "all" } else { "anonymous" };
    let warning =
        format!("WARNING! This will remove {which} local volumes not used by at least one container.");
    if !is_wanted(matches, &warning)? {
        return Ok(());
    }
    let path = Query::new().filters(&filter::filters(&pairs)).on("/volumes/prune");
    let report: PruneResponse = context.client().await?.post_for_stream(&path).await?.json().await?;
    out!("{}", shown(&report));
    Ok(())
}

fn shown(report: &PruneResponse) -> String {
    removed("Deleted Volumes", report.volumes_deleted.iter().cloned(), report.space_reclaimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_dockers() {
        let mut report = PruneResponse::default();
        assert_eq!(shown(&report), "Total reclaimed space: 0B\n");
        report.volumes_deleted = vec!["a".into(), "b".into()];
        report.space_reclaimed = 2000;
        assert_eq!(shown(&report), "Deleted Volumes:\na\nb\n\nTotal reclaimed space: 2kB\n");
    }
}
