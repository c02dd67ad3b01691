//! `container prune`.

use berth_api::container::PruneResponse;
use berth_client::Query;
use clap::{ArgMatches, Command};

use crate::confirm::{flags, is_wanted, removed};
use crate::context::Context;
use crate::failure::Outcome;
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("prune")
        .about("Removes all containers that do not run")
        .defer(|command| command.args(flags()))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    if !is_wanted(matches, "WARNING! This will remove all stopped containers.")? {
        return Ok(());
    }
    let pairs = filter::with_configured(filter::given(matches), &context.config.settings.prune_filters);
    let path = Query::new().filters(&filter::filters(&pairs)).on("/containers/prune");
    let report: PruneResponse = context.client().await?.post_for_stream(&path).await?.json().await?;
    out!("{}", shown(&report));
    Ok(())
}

fn shown(report: &PruneResponse) -> String {
    let deleted = report.containers_deleted.iter().flatten().cloned();
    removed("Deleted Containers", deleted, report.space_reclaimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_dockers() {
        let mut report = PruneResponse { containers_deleted: None, space_reclaimed: 0 };
        assert_eq!(shown(&report), "Total reclaimed space: 0B\n");
        report.containers_deleted = Some(vec!["abc".into(), "def".into()]);
        report.space_reclaimed = 123_456;
        assert_eq!(shown(&report), "Deleted Containers:\nabc\ndef\n\nTotal reclaimed space: 123.5kB\n");
    }
}
