//! `network prune`.

use berth_api::network::NetworksPruned;
use berth_client::Query;
use clap::{ArgMatches, Command};

use crate::confirm::{flags, is_wanted};
use crate::context::Context;
use crate::failure::Outcome;
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("prune")
        .about("Removes networks that no container uses")
        .defer(|command| command.args(flags()))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !is_wanted(matches, warning)? {
        return Ok(());
    }
    let pairs = filter::with_configured(filter::given(matches), &context.config.settings.prune_filters);
    let path = Query::new().filters(&filter::filters(&pairs)).on("/networks/prune");
    let report: NetworksPruned = context.client().await?.post_for_stream(&path).await?.json().await?;
    if let Some(deleted) = report.networks_deleted.filter(|deleted| !deleted.is_empty()) {
        outln!("Deleted Networks:\n{}\n", deleted.join("\n"));
    }
    Ok(())
}
