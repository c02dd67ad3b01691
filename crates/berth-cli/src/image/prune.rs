//! `image prune`.

use berth_api::image::{DeleteItem, PruneResponse};
use berth_client::Query;
use clap::{ArgMatches, Command};

use crate::confirm::{flags, is_wanted, removed};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{on, one, switch};
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("prune").about("Removes images that nothing uses").defer(|command| {
        command
            .arg(switch("all").short('a').help("All that no container uses, not only those without a name"))
            .args(flags())
            .arg(
                one("keep-storage", "SIZE")
                    .value_parser(crate::values::size::bytes)
                    .help("Only until the rest takes no more, those first that were not used for longest"),
            )
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let all = on(matches, "all");
    let keep = matches.get_one::<i64>("keep-storage").copied();
    let warning = if keep.is_some() {
        "WARNING! This will remove images that no container uses, those first that were not used for longest."
    } else if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !is_wanted(matches, warning)? {
        return Ok(());
    }
    let mut pairs = filter::with_configured(filter::given(matches), &context.config.settings.prune_filters);
    pairs.push(("dangling".to_owned(), (!all && keep.is_none()).to_string()));
    pairs.extend(keep.map(|bytes| ("keep-storage".to_owned(), bytes.to_string())));
    let path = Query::new().filters(&filter::filters(&pairs)).on("/images/prune");
    let answer = context.client().await?.post_for_stream(&path).await.map_err(|error| {
        let foreign = keep.is_some() && error.to_string().contains("invalid filter 'keep-storage'");
        let why = "the daemon does not know --keep-storage: it is not Berth's, or an older one";
        if foreign { Failure::new(why) } else { error.into() }
    });
    let report: PruneResponse = answer?.json().await?;
    out!("{}", shown(&report));
    Ok(())
}

fn shown(report: &PruneResponse) -> String {
    let deleted = report.images_deleted.iter().flatten().map(|item| match item {
        DeleteItem::Untagged(name) => format!("untagged: {name}"),
        DeleteItem::Deleted(id) => format!("deleted: {id}"),
    });
    removed("Deleted Images", deleted, report.space_reclaimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_dockers() {
        let mut report = PruneResponse::default();
        assert_eq!(shown(&report), "Total reclaimed space: 0B\n");
        report.images_deleted =
            Some(vec![DeleteItem::Untagged("a:b".into()), DeleteItem::Deleted("sha256:cd".into())]);
        report.space_reclaimed = 123_456;
        let expected =
            "Deleted Images:\nuntagged: a:b\ndeleted: sha256:cd\n\nTotal reclaimed space: 123.5kB\n";
        assert_eq!(shown(&report), expected);
    }
}
